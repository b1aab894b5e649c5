// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"crypto/tls"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ironhand/ironhand/agent/ironic"
	"github.com/ironhand/ironhand/netconfig"
	"github.com/ironhand/ironhand/steps"
)

// commands is the list of all commands that the conductor can call; docs/commands.md is made from it.
func (a *agent) commands() []Command {
	return slices.Concat(
		a.stepCommands(steps.Clean), a.stepCommands(steps.Deploy), a.stepCommands(steps.Service),
		a.standbyCommands(), a.imageCommands(),
	)
}

// certificate is what the API shows: made in this boot, for the one address that the conductor calls.
func (a *agent) certificate(address string) (*tls.Config, string, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, "", err
	}
	c, err := OpenCertificate(a.state.certificateDir(), CertificateOptions{
		Address: address, Host: host, Curve: a.config.Curve, Now: time.Now(), Skew: a.config.CertificateSkew,
	})
	if err != nil {
		return nil, "", err
	}
	config := &tls.Config{Certificates: []tls.Certificate{c.TLS}}
	ignored, err := LimitTLS(config, cmp.Or(a.settings.TLSMinVersion, a.config.TLSMinVersion), a.settings.TLSCipherSuites)
	if err != nil {
		return nil, "", err
	}
	if len(ignored) > 0 {
		a.log.Warn("cipher suites that the conductor named are not known", "names", strings.Join(ignored, " "))
	}
	return config, c.PEM, nil
}

// runAPI serves commands and sends heartbeats until ctx ends.
func (a *agent) runAPI(ctx context.Context, l net.Listener, t *tls.Config, b ironic.Beat) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var beats *Heartbeats
	commands, err := NewCommands(a.commands(), a.log, func(Result) { beats.Force() })
	if err != nil {
		return err
	}
	beats = NewHeartbeats(HeartbeatOptions{
		Send:    func(ctx context.Context) error { return a.client.Heartbeat(ctx, a.uuid, b) },
		Timeout: a.settings.HeartbeatTimeout,
		Log:     a.log,
		OnBeat:  a.tellBeats(ctx),
	})
	api := NewAPI(commands, a.version, time.Now(), a.log)
	api.SetToken(a.token)
	var wait sync.WaitGroup
	wait.Go(func() { beats.Run(ctx) })
	err = api.Serve(ctx, l, t)
	stop()
	commands.Stop()
	wait.Wait()
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if werr := commands.Wait(late); err == nil {
		err = werr
	}
	return err
}

// tellBeats returns what shows heartbeats on the console: the first, and changes for the worse or better.
func (a *agent) tellBeats(ctx context.Context) func(err error, failures int) {
	first, lost := true, false
	return func(err error, failures int) {
		switch {
		case err == nil && first:
			a.console.Stage("heartbeat", "first one accepted: the conductor may begin")
			first, lost = false, false
		case err == nil && lost:
			a.console.Stage("heartbeat", "accepted again")
			lost = false
		case err != nil && !lost:
			a.console.Stage("heartbeat", "%v; trying again", err)
			if check := ironic.Hint(err); check != "" {
				a.console.Stage("heartbeat", "%s", check)
			}
			lost = true
		case err != nil && failures == 4:
			a.explainNetwork(ctx)
		}
	}
}

// checkTarget is the conductor as the network's check sees it.
func (a *agent) checkTarget() netconfig.Target {
	t, err := netconfig.ParseTarget(a.config.APIURLs[0], a.trust.config())
	if err != nil {
		a.log.Error("API URL", "err", err) // the settings let none pass that is not one
	}
	return t
}
