// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
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
	all := slices.Concat(
		a.stepCommands(steps.Clean), a.stepCommands(steps.Deploy), a.stepCommands(steps.Service),
		a.standbyCommands(), a.imageCommands(), a.logCommands(), a.pollCommands(), a.systemCommands(), a.rescueCommands(),
	)
	return append(all, a.flowCommands(all)...)
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

// listen opens the port of the API.
func (a *agent) listen(ctx context.Context) (net.Listener, error) {
	host := a.config.ListenHost
	if host == "::" {
		host = "" // all addresses, also where the kernel has no IPv6
	}
	return (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, fmt.Sprint(a.config.ListenPort)))
}

// fingerprint is the SHA-256 of the certificate that the API shows, in hex.
func fingerprint(t *tls.Config) string {
	sum := sha256.Sum256(t.Certificates[0].Certificate[0])
	return hex.EncodeToString(sum[:])
}

// runAPI serves commands until ctx ends or the agent retires, and sends heartbeats b, or none if b is nil.
func (a *agent) runAPI(outer context.Context, l net.Listener, t *tls.Config, b *ironic.Beat) error {
	ctx, stop := context.WithCancel(outer)
	defer stop()
	a.retirement.mu.Lock()
	a.retirement.stop = stop
	a.retirement.mu.Unlock()
	var beats *Heartbeats
	commands, err := NewCommands(a.commands(), a.log, func(Result) {
		if beats != nil {
			beats.Force()
		}
	})
	if err != nil {
		return err
	}
	var wait sync.WaitGroup
	if b != nil {
		beats = NewHeartbeats(HeartbeatOptions{
			Send:    func(ctx context.Context) error { return a.client.Heartbeat(ctx, a.uuid, *b) },
			Timeout: a.settings.HeartbeatTimeout,
			Log:     a.log,
			OnBeat:  a.tellBeats(ctx),
		})
		wait.Go(func() { beats.Run(ctx) })
	}
	api := NewAPI(commands, a.version, time.Now(), a.log)
	api.SetToken(a.token)
	err = api.Serve(ctx, l, t)
	stop()
	commands.Stop()
	wait.Wait()
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if werr := commands.Wait(late); err == nil {
		err = werr
	}
	if err != nil {
		return err
	}
	return a.served(outer)
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
	t, err := netconfig.ParseTarget(a.config.servers()[0], a.trust.config())
	if err != nil {
		a.log.Error("API URL", "err", err) // the settings let none pass that is not one
	}
	return t
}
