// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
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

// apiTLS is how the API is encrypted: by a certificate of one's own, or by one that is made in this boot for the one address that the
// conductor calls, and that is returned as PEM for the heartbeat to bring to the conductor. A conductor whose API is too old for that, which
// version says, is served in the clear, with a nil configuration, only if that was asked for.
func (a *agent) apiTLS(address string, version ironic.Version) (config *tls.Config, pem string, err error) {
	switch {
	case a.config.API != nil:
		config, err := a.serverTLS(*a.config.API)
		a.warnOfCertificate(a.config.API.Leaf, address)
		return config, "", err
	case a.config.AutoTLS && version >= ironic.VersionVerifyCA:
		return a.certificate(address)
	case a.config.PlainHTTP:
		a.console.Stage("api", "WARNING: ironhand-plain-http: the API is not encrypted, and whoever listens on the network learns the token")
		return nil, "", nil
	case a.config.AutoTLS:
		return nil, "", hint(fmt.Errorf("the Ironic API %v knows no TLS towards agents", version),
			"the version of the Ironic API: from "+ironic.VersionVerifyCA.String()+" on it does. Or give the API a certificate that the conductor trusts (listen_tls), or allow it in the clear (ironhand-plain-http)")
	}
	return nil, "", hint(errors.New("enable_auto_tls is off, and there is no certificate for the API"),
		"tls_cert_file and tls_key_file, or allow the API in the clear (ironhand-plain-http)")
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
	config, err := a.serverTLS(c.TLS)
	return config, c.PEM, err
}

func (a *agent) serverTLS(c tls.Certificate) (*tls.Config, error) {
	config := &tls.Config{Certificates: []tls.Certificate{c}}
	minVersion, ciphers := a.tlsLimits(a.settings)
	ignored, err := LimitTLS(config, minVersion, ciphers)
	if err != nil {
		return nil, err
	}
	if len(ignored) > 0 {
		a.log.Warn("cipher suites that were named are not known", "names", strings.Join(ignored, " "))
	}
	return config, nil
}

// warnOfCertificate says why the conductor will not take a certificate that somebody else made.
func (a *agent) warnOfCertificate(c *x509.Certificate, address string) {
	if err := c.VerifyHostname(address); err != nil {
		a.console.Stage("api", "WARNING: the conductor will not take the certificate in tls_cert_file: %v", err)
	}
	if now := time.Now(); now.Before(c.NotBefore) || now.After(c.NotAfter) {
		a.console.Stage("api", "WARNING: the certificate in tls_cert_file is valid from %s to %s", c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339))
	}
}

// listen opens the port of the API.
func (a *agent) listen(ctx context.Context) (net.Listener, error) {
	host := a.config.ListenHost
	if host == "::" {
		host = "" // all addresses, also where the kernel has no IPv6
	}
	return (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, fmt.Sprint(a.config.ListenPort)))
}

// fingerprint says what a person can compare the API's certificate with.
func fingerprint(t *tls.Config) string {
	if t == nil {
		return "no certificate"
	}
	sum := sha256.Sum256(t.Certificates[0].Certificate[0])
	return "certificate with SHA-256 " + hex.EncodeToString(sum[:])
}

// runAPI serves commands until ctx ends or the agent retires, and sends heartbeats b, or none if b is nil.
func (a *agent) runAPI(outer context.Context, l net.Listener, t *tls.Config, b *ironic.Beat) error {
	ctx, stop := context.WithCancel(outer)
	defer stop()
	var beats *Heartbeats
	commands, err := NewCommands(a.commands(), a.log, func(r Result) error {
		if r.Status == Failed && ctx.Err() != nil {
			return nil // because the agent ends: for the one after it this command was running
		}
		return a.state.keepCommand(r)
	}, func() {
		if beats != nil {
			beats.Force()
		}
	})
	if err != nil {
		return err
	}
	a.retirement.mu.Lock()
	a.retirement.stop, a.retirement.refuse = stop, commands.Stop
	a.retirement.mu.Unlock()
	if kept, err := a.state.command(); err != nil {
		return err
	} else if kept != nil {
		commands.Resume(*kept)
		if kept.Status == Running {
			a.console.Stage("command", "%s was running when the agent was killed: the conductor will be told that it failed", kept.Name)
		}
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
	if err != nil && !a.retirement.begun() {
		return err
	}
	if err != nil { // no reason not to do what is last
		a.log.Warn("the API has not ended well", "err", err)
	}
	return a.served(outer)
}

// tellBeats returns what shows heartbeats on the console: the first, changes for the worse or better, and at ever longer
// intervals that it is still no better.
func (a *agent) tellBeats(ctx context.Context) func(err error, failures int) {
	first, lost := true, false
	return func(err error, failures int) {
		if err == nil {
			switch {
			case first:
				a.console.Stage("heartbeat", "first one accepted: the conductor may begin")
			case lost:
				a.console.Stage("heartbeat", "accepted again")
			}
			first, lost = false, false
			return
		}
		lost = true
		if failures&(failures-1) != 0 { // not the 1st, 2nd, 4th, 8th: an hour without conductor is no flood
			return
		}
		switch failures {
		case 1:
			a.console.Stage("heartbeat", "%v; trying again", err)
		default:
			a.console.Stage("heartbeat", "%v; failed %d times, trying again", err, failures)
		}
		if check := ironic.Hint(err); check != "" {
			a.console.Stage("heartbeat", "%s", check)
		}
		var answer *ironic.StatusError
		if failures == 4 && !errors.As(err, &answer) { // an answer, whatever it is, came over the network
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
