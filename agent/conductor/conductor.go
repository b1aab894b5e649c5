// SPDX-License-Identifier: Apache-2.0

// Package conductor is the other end of the wire, in small: what an Ironic API and conductor do with an agent that
// deploys an image, for labs, demos, tests and sites without Ironic.
//
// It answers lookups and heartbeats over HTTPS with Ironic's rules and texts, drives each node through the steps of
// the direct deploy interface, publishes image files, and waits for the deployed system to report. It talks to an
// agent only over TLS, and trusts only the certificate that the agent's heartbeat brought.
//
// It does not know power or boot devices: somebody else starts the machine. It knows whole disk images only, cleans
// nothing, and keeps all state in memory: after a restart a node with a pregenerated token begins again, one whose
// token was made at its lookup must be started anew.
//
// The contract is that of Ironic 21.4 to 38 (ironic/api/controllers/v1/ramdisk.py, ironic/drivers/modules/agent*.py).
package conductor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// A Conductor serves agents and deploys its nodes. Make one with [New], then call Listen and Run.
type Conductor struct {
	config Config
	nodes  []*node
	byUUID map[string]*node
	files  *os.Root // nil: nothing is published
	tls    *tls.Config
	swarms swarms

	eventMu sync.Mutex
	onEvent func(Event)
	wrap    func(http.Handler) http.Handler

	mu     sync.Mutex
	addrs  []string     // as listened on, with real ports
	server *http.Server // nil while paused, and before Listen
	ended  chan error   // a listener broke
}

// Options are what a program adds to a configuration.
type Options struct {
	Event func(Event)                     // called for each event, one at a time; may be nil
	Wrap  func(http.Handler) http.Handler // put around the handler, for tests; may be nil
}

// ErrFailed is wrapped by the error of Run when a deployment failed.
var ErrFailed = errors.New("deployment failed")

// New makes a conductor from a checked configuration: it reads the certificate (and makes it, with tls: auto), the
// tokens, and the files of the config drives' nodes. It does not listen yet.
func New(cfg Config, o Options) (*Conductor, error) {
	c := &Conductor{
		config: cfg, onEvent: o.Event, wrap: o.Wrap, byUUID: make(map[string]*node), ended: make(chan error, 1),
	}
	if cfg.TLS.Auto {
		dir := filepath.Dir(cfg.TLS.Cert)
		if _, err := os.Stat(cfg.TLS.Cert); errors.Is(err, os.ErrNotExist) {
			if err := WriteCertificates(dir, cfg.hosts()); err != nil {
				return nil, fmt.Errorf("tls: %w", err)
			}
		}
	}
	pair, err := tls.LoadX509KeyPair(cfg.TLS.Cert, cfg.TLS.Key)
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	c.tls = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}

	for _, nc := range cfg.Nodes {
		n := newNode(nc)
		if nc.TokenFile != "" {
			if n.token, err = readToken(nc.TokenFile); err != nil {
				return nil, fmt.Errorf("node %s: token_file: %w", nc.Name, err)
			}
			n.pregenerated = true
		}
		c.nodes = append(c.nodes, n)
		c.byUUID[nc.UUID] = n
	}
	if cfg.Files != "" {
		if c.files, err = os.OpenRoot(cfg.Files); err != nil {
			return nil, fmt.Errorf("files: %w", err)
		}
	}
	return c, nil
}

// Listen opens the listeners. Addrs says where, for a configuration with port 0.
func (c *Conductor) Listen() error {
	c.mu.Lock()
	addrs := c.addrs
	if addrs == nil {
		addrs = c.config.Listen
	}
	c.mu.Unlock()

	var listeners []net.Listener
	for _, a := range addrs {
		l, err := net.Listen("tcp", a)
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
			return err
		}
		listeners = append(listeners, l)
	}
	handler := c.Handler()
	if c.wrap != nil {
		handler = c.wrap(handler)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true) // as Ironic; and one connection per stream is what image downloads want
	s := &http.Server{
		Handler:           handler,
		TLSConfig:         c.tls,
		Protocols:         protocols,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          log.New(logWriter{c}, "", 0),
	}
	c.mu.Lock()
	c.addrs = nil
	for _, l := range listeners {
		c.addrs = append(c.addrs, l.Addr().String())
	}
	c.server = s
	c.mu.Unlock()
	for _, l := range listeners {
		go func() {
			if err := s.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
				select {
				case c.ended <- fmt.Errorf("serve on %s: %w", l.Addr(), err):
				default:
				}
			}
		}()
		c.event("", EventServer, "listening on %s as %s", l.Addr(), c.publicURL())
	}
	return nil
}

// Addrs returns the addresses listened on.
func (c *Conductor) Addrs() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.addrs...)
}

// publicURL is the URL under which nodes reach this conductor, without a slash at its end.
func (c *Conductor) publicURL() string {
	if c.config.PublicURL != "" {
		return c.config.PublicURL
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.addrs) > 0 {
		return "https://" + c.addrs[0]
	}
	return "https://" + c.config.Listen[0]
}

// Run deploys the nodes, after Listen. It returns when ctx ends, when the configured timeout has passed, or, with exit:
// done, when every node is active or has failed. It returns nil if all are active, an [ErrFailed] if one has failed, else
// why it ended. The listeners are closed.
func (c *Conductor) Run(ctx context.Context) error {
	defer c.swarms.close(c)
	defer c.shutDown()
	if limit := time.Duration(c.config.Timeout); limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done within %s", limit))
		defer cancel()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	for _, name := range c.config.Torrent.Share {
		if err := c.swarms.publish(ctx, c, name, c.fileURL(name)); err != nil {
			return fmt.Errorf("torrent: share: %s: %w", name, err)
		}
	}
	var nodes sync.WaitGroup
	for _, n := range c.nodes {
		nodes.Go(func() { c.deploy(ctx, n) })
	}
	all := make(chan struct{})
	go func() { nodes.Wait(); close(all) }()

	select {
	case err := <-c.ended:
		cancel(err)
		<-all
		return err
	case <-ctx.Done():
	case <-all:
		if c.config.Exit != "done" {
			select {
			case err := <-c.ended:
				return err
			case <-ctx.Done():
			}
		}
	}
	<-all
	var failed []string
	active := true
	for _, n := range c.nodes {
		s := n.status()
		active = active && s.State == StateActive
		if s.State == StateFailed {
			failed = append(failed, fmt.Sprintf("%s: %s", s.Name, s.LastError))
		}
	}
	switch {
	case len(failed) > 0:
		return fmt.Errorf("%w: %s", ErrFailed, strings.Join(failed, "; "))
	case active:
		return nil
	}
	return context.Cause(ctx)
}

// deploy takes one node to its end and says how that was. An interruption is no end.
func (c *Conductor) deploy(ctx context.Context, n *node) {
	err := c.prepare(ctx, n)
	if err == nil {
		err = (&deployment{c: c, n: n}).run(ctx)
	}
	n.mu.Lock()
	if n.agent != nil {
		n.agent.http.CloseIdleConnections()
	}
	state := n.state
	switch {
	case err == nil:
		n.state = StateActive
	case !errors.Is(ctx.Err(), context.Canceled):
		n.state, n.lastError = StateFailed, printable(err.Error())
	}
	n.mu.Unlock()
	switch {
	case err == nil:
		c.event(n.config.Name, EventActive, "deployed")
	case errors.Is(ctx.Err(), context.Canceled):
		c.event(n.config.Name, EventWarning, "stopped while %s: the conductor ends", state)
	default:
		c.event(n.config.Name, EventFailed, "%v (while %s)", err, state)
	}
}

// prepare makes what the node will be sent. Until then the node is locked.
func (c *Conductor) prepare(ctx context.Context, n *node) error {
	if err := c.makeConfigDrive(n); err != nil {
		return fmt.Errorf("config drive: %w", err)
	}
	image, err := c.prepareImage(ctx, n.config.Image)
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.image = image
	n.mu.Unlock()
	return nil
}

// Nodes returns how the nodes are, in the order of the configuration.
func (c *Conductor) Nodes() []NodeStatus {
	var all []NodeStatus
	for _, n := range c.nodes {
		all = append(all, n.status())
	}
	return all
}

// PowerCycled says that somebody switched the machine off and on, of which Ironic would know since it did it: the next
// agent may come from another address with another certificate, and gets a new token if it was not pregenerated. A
// deployment under way sends its current command again. An unknown UUID is ignored.
func (c *Conductor) PowerCycled(uuid string) {
	if n := c.byUUID[strings.ToLower(uuid)]; n != nil {
		n.forgetAgent()
		c.event(n.config.Name, EventServer, "machine was started anew: waiting for its agent")
	}
}

// Pause makes the conductor vanish: connections are cut, new ones refused, agents are not asked, nothing is seeded. For tests of outages.
func (c *Conductor) Pause() {
	if s := c.takeServer(); s != nil {
		s.Close() // also ends transfers under way
	}
	c.swarms.pause(c)
	c.event("", EventServer, "paused")
}

// Resume ends a pause. Time spent away is not counted as silence of an agent.
func (c *Conductor) Resume() error {
	if err := c.swarms.resume(context.Background(), c); err != nil {
		return err
	}
	if err := c.Listen(); err != nil {
		return err
	}
	for _, n := range c.nodes {
		n.mu.Lock()
		if !n.lastHeartbeat.IsZero() {
			n.lastHeartbeat = time.Now()
		}
		n.mu.Unlock()
		n.poke("resumed")
	}
	return nil
}

func (c *Conductor) isPaused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.server == nil
}

// takeServer leaves the conductor without a server.
func (c *Conductor) takeServer() *http.Server {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.server
	c.server = nil
	return s
}

// shutDown ends the server, but lets it finish the answers that it is writing.
func (c *Conductor) shutDown() {
	if s := c.takeServer(); s != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if s.Shutdown(ctx) != nil {
			s.Close()
		}
	}
}

// event tells what happened. The text is made safe for terminals here.
func (c *Conductor) event(node string, kind Kind, format string, args ...any) {
	if c.onEvent == nil {
		return
	}
	c.eventMu.Lock()
	defer c.eventMu.Unlock()
	c.onEvent(Event{Time: time.Now(), Node: node, Kind: kind, Text: printable(fmt.Sprintf(format, args...))})
}

// logWriter makes events of what net/http has to say: TLS handshakes that failed, for the most part.
type logWriter struct{ c *Conductor }

func (w logWriter) Write(b []byte) (int, error) {
	w.c.event("", EventRefused, "%s", b)
	return len(b), nil
}
