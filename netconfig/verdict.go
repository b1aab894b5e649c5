// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"github.com/ironhand/ironhand/inspect/lldp"
)

// How long each part of a check may take. The kernel asks for a neighbour three
// times, 1 s apart, and then gives up (and a connection with it).
const (
	neighborWait = 4 * time.Second
	dnsWait      = 3500 * time.Millisecond // for one question; a second one is asked
	connectWait  = 5 * time.Second
	tlsWait      = 5 * time.Second
	ownerWait    = 900 * time.Millisecond // for another machine that has our address
	listenWait   = 3 * time.Second        // for frames of other VLANs, if the target cannot be reached
	serversMost  = 8                      // name servers, gateways and addresses looked at, each
)

// Target is what cannot be reached.
type Target struct {
	Host string      // name or address, without brackets
	Port int         // TCP
	TLS  *tls.Config // as it is used for real; nil: no TLS
}

// ParseTarget returns the target of an http or https URL, whose port is optional.
// config is for https, and nil means the default.
func ParseTarget(rawURL string, config *tls.Config) (Target, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		// The text of the error has the URL in it, with what may be a password.
		return Target{}, errors.New("parse the target's URL: not a URL")
	}
	t := Target{Host: u.Hostname()}
	switch u.Scheme {
	case "http":
		t.Port = 80
	case "https":
		t.Port = 443
		if t.TLS = config; config == nil {
			t.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		}
	default:
		return Target{}, fmt.Errorf("parse the target's URL: %s is neither http nor https", quote(u.Scheme))
	}
	if t.Host == "" {
		return Target{}, errors.New("parse the target's URL: no host")
	}
	if u.Port() != "" {
		n, err := strconv.ParseUint(u.Port(), 10, 16)
		if err != nil || n == 0 {
			return Target{}, fmt.Errorf("parse the target's URL: %s is not a port", quote(u.Port()))
		}
		t.Port = int(n)
	}
	return t, nil
}

// String returns host:port.
func (t Target) String() string { return net.JoinHostPort(t.Host, strconv.Itoa(t.Port)) }

// Report says how far one gets on the way to a target.
type Report struct {
	Target      string          `json:"target"` // host:port
	NICs        []NICReport     `json:"nics"`
	Stacked     []StackedReport `json:"stacked"` // bonds, bridges and VLANs
	Gateways    []Gateway       `json:"gateways"`
	DNS         []Lookup        `json:"dns"` // empty if the target is an address
	Connections []Connection    `json:"connections"`
	OK          bool            `json:"ok"`    // at least one connection got all the way
	Cause       string          `json:"cause"` // one sentence: the most likely cause, or that all is well
}

// NICReport is the condition of one NIC.
type NICReport struct {
	Name         string          `json:"name"`
	Driver       string          `json:"driver"`
	Firmware     string          `json:"firmware,omitempty"`
	PermanentMAC MAC             `json:"permanent_mac"` // the current one if the NIC has no other
	SpeedMbps    int             `json:"speed_mbps,omitempty"`
	Master       string          `json:"master,omitempty"` // bond or bridge that it belongs to
	Up           bool            `json:"up"`
	Carrier      bool            `json:"carrier"`
	MTU          int             `json:"mtu"` // bytes
	Addresses    []Address       `json:"addresses"`
	Heard        float64         `json:"heard_seconds"`       // how long was listened for the next two
	VLANs        []int           `json:"vlans_seen"`          // of frames with a tag that arrived
	Neighbour    *lldp.Neighbour `json:"neighbour,omitempty"` // what the other end says of itself by LLDP
}

// StackedReport is the condition of a bond, a bridge or a VLAN.
type StackedReport struct {
	Name      string    `json:"name"`
	Carrier   bool      `json:"carrier"`
	MTU       int       `json:"mtu"` // bytes
	Bond      *Bond     `json:"bond,omitempty"`
	Members   []Member  `json:"members,omitempty"` // of a bond or a bridge
	Parent    string    `json:"parent,omitempty"`  // of a VLAN
	VLAN      int       `json:"vlan,omitempty"`
	Addresses []Address `json:"addresses"`
}

// Gateway says whether a router of the routing table answers.
type Gateway struct {
	NIC     string     `json:"nic"`
	Address netip.Addr `json:"address"`
	MAC     MAC        `json:"mac,omitempty"` // what it answered with
	Problem Problem    `json:"problem"`
	Outside bool       `json:"outside"` // no address of the NIC covers it
}

// Lookup says what one name server answers.
type Lookup struct {
	Server    netip.Addr   `json:"server"` // the zero Addr: answered from /etc/hosts, or there is no server
	Path      Path         `json:"path"`
	Addresses []netip.Addr `json:"addresses"`
	Problem   Problem      `json:"problem"`
	Detail    string       `json:"detail,omitempty"` // the error, for people
}

// Connection says how far a connection to one address of the target gets.
type Connection struct {
	Address netip.AddrPort `json:"address"`
	Path    Path           `json:"path"`
	TCP     Problem        `json:"tcp"`
	TLS     Problem        `json:"tls"`
	MTU     int            `json:"path_mtu,omitempty"` // bytes of a packet that get through as far as the kernel knows; of a connection
	Detail  string         `json:"detail,omitempty"`
}

// Path is the first step on the way to an address.
type Path struct {
	NIC     string     `json:"nic"`     // empty: there is no route
	Gateway netip.Addr `json:"gateway"` // the zero Addr: the address is on the link itself
}

func (p Path) String() string {
	switch {
	case p.NIC == "":
		return "no route"
	case !p.Gateway.IsValid():
		return "on " + p.NIC
	}
	return fmt.Sprintf("on %s via %s", p.NIC, p.Gateway)
}

// Problem is what went wrong in one step. OK is empty.
type Problem string

// The problems that a step can have.
const (
	OK          Problem = ""
	NotTried    Problem = "not-tried"     // an earlier step failed
	NotWanted   Problem = "not-wanted"    // the target is without TLS
	NoLink      Problem = "no-link"       // the NIC has no link
	Silent      Problem = "silent"        // no answer in time
	NoRoute     Problem = "no-route"      // the kernel knows no way
	Unreachable Problem = "unreachable"   // the kernel or a router says that nobody is there
	Refused     Problem = "refused"       // the host is there, nothing listens
	NotFound    Problem = "not-found"     // the name server answers that there is no such name
	NoServer    Problem = "no-server"     // no name server is set
	UnknownCA   Problem = "unknown-ca"    // the certificate is not signed by a CA that we know
	NotYetValid Problem = "not-yet-valid" // the certificate's time has not come, by our clock
	Expired     Problem = "expired"       // the certificate's time is over, by our clock
	WrongName   Problem = "wrong-name"    // the certificate is for another host
	NotTLS      Problem = "not-tls"       // the host speaks, but not TLS
	BlackHole   Problem = "mtu"           // only with small packets do both ends hear each other
	Failed      Problem = "failed"        // anything else; the detail says what
)

// Check looks at everything on the way to a target: NICs, gateways, name servers,
// TCP and TLS. It takes 25 s at most, less if ctx ends, and changes nothing but
// the kernel's memory of its gateways (they are asked anew).
func Check(ctx context.Context, k Kernel, t Target) Report {
	r := Report{Target: t.String(), NICs: []NICReport{}, Stacked: []StackedReport{}, Gateways: []Gateway{}, DNS: []Lookup{}, Connections: []Connection{}}
	have, err := k.State(ctx)
	if err != nil {
		r.Cause = fmt.Sprintf("the state of the network cannot be read: %s", err)
		return r
	}

	// The gateways are asked first, for that drops what waits for their answer.
	// While they think, names are looked up and connections made.
	r.Gateways = askGateways(ctx, k, have)
	var asking sync.WaitGroup
	asking.Go(func() { awaitGateways(ctx, k, r.Gateways) })
	for _, n := range have.NICs {
		for _, a := range n.Addresses[:min(len(n.Addresses), serversMost)] {
			if a.Prefix.Addr().Is4() && n.Carrier && !n.Loopback {
				// Whether it could be asked is no matter: what is wrong then shows below.
				asking.Go(func() { _ = k.Do(ctx, AskOwner{n.Name, a.Prefix.Addr()}) })
			}
		}
	}
	listening, enough := context.WithCancel(ctx)
	defer enough()
	var hearing sync.WaitGroup
	start := time.Now()
	for _, n := range candidates(have) {
		if n.Carrier {
			// Not all drivers can take all frames; what is heard is a help, no more.
			hearing.Go(func() { _ = k.Do(listening, Listen{n.Name, time.Minute}) })
		}
	}
	addresses := r.lookUp(ctx, have, t)
	r.Connections = make([]Connection, len(addresses))
	for i, a := range addresses {
		asking.Go(func() { r.Connections[i] = connect(ctx, have, t, netip.AddrPortFrom(a, uint16(t.Port))) })
	}
	asking.Wait()
	r.OK = slices.ContainsFunc(r.Connections, func(c Connection) bool { return c.TCP == OK && (c.TLS == OK || c.TLS == NotWanted) })
	if r.lost() {
		_ = pause(ctx, listenWait-time.Since(start)) // what was heard until then counts
	}
	enough()
	hearing.Wait()

	// Link may have come or gone meanwhile, and detection of duplicates ended.
	if now, err := k.State(ctx); err == nil {
		have = now
	}
	for _, n := range candidates(have) {
		r.NICs = append(r.NICs, NICReport{n.Name, n.Driver, n.Firmware, n.address(), n.SpeedMbps, n.Master, n.Up, n.Carrier, n.MTU, append([]Address{}, n.Addresses...),
			n.Heard.For.Round(100 * time.Millisecond).Seconds(), append([]int{}, n.Heard.VLANs...), n.Heard.Neighbour})
	}
	for _, n := range have.NICs {
		if n.own() || (n.Kind == "bond" || n.Kind == "vlan") && n.Up {
			d := StackedReport{n.Name, n.Carrier, n.MTU, n.Bond, n.Members, n.Parent, n.VLAN, append([]Address{}, n.Addresses...)}
			for _, port := range have.NICs {
				if n.Kind == "bridge" && port.Master == n.Name {
					d.Members = append(d.Members, Member{NIC: port.Name, Up: port.Carrier})
				}
			}
			r.Stacked = append(r.Stacked, d)
		}
	}
	r.Cause = r.cause(t)
	return r
}

// lost reports whether nobody has answered a connection.
func (r Report) lost() bool {
	return !slices.ContainsFunc(r.Connections, func(c Connection) bool { return c.TCP == OK || c.TCP == Refused })
}

// lookUp fills r.DNS and returns the addresses to try.
func (r *Report) lookUp(ctx context.Context, have State, t Target) []netip.Addr {
	if a, err := netip.ParseAddr(t.Host); err == nil {
		return []netip.Addr{a}
	}
	servers := have.DNS
	if len(servers) == 0 {
		servers = []netip.Addr{{}}
	}
	servers = servers[:min(len(servers), serversMost)]
	r.DNS = make([]Lookup, len(servers))
	var asking sync.WaitGroup
	for i, s := range servers {
		asking.Go(func() {
			if r.DNS[i] = ask(ctx, have, s, t.Host); r.DNS[i].Problem == Silent {
				r.DNS[i] = ask(ctx, have, s, t.Host) // the question may have been lost
			}
		})
	}
	asking.Wait()
	var addresses []netip.Addr
	for _, l := range r.DNS {
		for _, a := range l.Addresses {
			if !slices.Contains(addresses, a) && len(addresses) < serversMost {
				addresses = append(addresses, a)
			}
		}
	}
	return addresses
}

// ask looks a name up with one server; the zero server is none.
func ask(ctx context.Context, have State, server netip.Addr, host string) Lookup {
	ctx, cancel := context.WithTimeout(ctx, dnsWait)
	defer cancel()
	var mu sync.Mutex // the resolver asks for both families at once
	asked := false
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		mu.Lock()
		asked = true
		mu.Unlock()
		if !server.IsValid() {
			return nil, errors.New("no name server is set")
		}
		var d net.Dialer
		return d.DialContext(ctx, network, netip.AddrPortFrom(server, 53).String())
	}}
	addresses, err := resolver.LookupNetIP(ctx, "ip", host)
	mu.Lock()
	defer mu.Unlock()
	l := Lookup{Server: server, Addresses: []netip.Addr{}}
	if server.IsValid() {
		l.Path = have.path(server)
	}
	if err == nil {
		for _, a := range addresses {
			l.Addresses = append(l.Addresses, a.Unmap())
		}
		if !asked {
			l.Server, l.Path = netip.Addr{}, Path{}
		}
		return l
	}
	// The text of the error itself names the first server of /etc/resolv.conf.
	l.Detail = clean(err.Error())
	var dns *net.DNSError
	if errors.As(err, &dns) {
		l.Detail = clean(dns.Err)
	}
	switch {
	case !server.IsValid():
		l.Problem = NoServer
	case dns != nil && dns.IsNotFound:
		l.Problem = NotFound
	case dns != nil && dns.IsTimeout:
		l.Problem = Silent
	default:
		// The resolver keeps only the text of what Dial and Read return.
		l.Problem = Failed
		for text, p := range map[string]Problem{
			syscall.ECONNREFUSED.Error(): Refused,
			syscall.ENETUNREACH.Error():  NoRoute,
			syscall.EHOSTUNREACH.Error(): Unreachable,
		} {
			if strings.Contains(l.Detail, text) {
				l.Problem = p
			}
		}
	}
	return l
}

// connect tries one address of the target.
func connect(ctx context.Context, have State, t Target, to netip.AddrPort) Connection {
	c := Connection{Address: to, Path: have.path(to.Addr()), TLS: NotTried}
	d := net.Dialer{Timeout: connectWait}
	conn, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		c.TCP, c.Detail = tcpProblem(err), clean(err.Error())
		return c
	}
	defer conn.Close() // nothing was written that closing could lose
	c.MTU = pathMTU(conn, to.Addr().Is6())
	if t.TLS == nil {
		c.TLS = NotWanted
		return c
	}
	c.TLS = OK
	config := t.TLS.Clone()
	if config.ServerName == "" {
		config.ServerName = t.Host
	}
	if err := handshake(ctx, conn, config); err != nil {
		now := time.Now
		if config.Time != nil {
			now = config.Time
		}
		problem, facts := tlsProblem(err, now())
		c.TLS, c.Detail = problem, clean(facts)
	}
	if c.TLS == Silent {
		if most := passes(ctx, to, config); most > 0 {
			c.TLS = BlackHole
			c.Detail = fmt.Sprintf("with at most %d bytes in a packet it goes through", most+headers(to.Addr()))
		}
	}
	return c
}

func handshake(ctx context.Context, conn net.Conn, config *tls.Config) error {
	ctx, cancel := context.WithTimeout(ctx, tlsWait)
	defer cancel()
	return tls.Client(conn, config).HandshakeContext(ctx)
}

// passes returns the most bytes in a TCP segment with which a server that has been silent
// answers; 0 if it is always silent. How the handshake ends is no matter.
func passes(ctx context.Context, to netip.AddrPort, config *tls.Config) int {
	var mu sync.Mutex
	var trying sync.WaitGroup
	best := 0
	for _, most := range []int{1400, 1300, 1220, 1000, 536} {
		trying.Go(func() {
			d := net.Dialer{Timeout: connectWait, Control: segments(most)}
			conn, err := d.DialContext(ctx, "tcp", to.String())
			if err != nil {
				return
			}
			defer conn.Close() // nothing was written that closing could lose
			if err := handshake(ctx, conn, config); err != nil {
				if problem, _ := tlsProblem(err, time.Now()); problem == Silent || problem == Failed {
					return
				}
			}
			mu.Lock()
			best = max(best, most)
			mu.Unlock()
		})
	}
	trying.Wait()
	return best
}

// headers is how many bytes IP and TCP need in a packet without options.
func headers(a netip.Addr) int {
	if a.Is6() {
		return 60
	}
	return 40
}

func tcpProblem(err error) Problem {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL):
		// The second: there is a route, but no address of that family.
		return NoRoute
	case errors.Is(err, syscall.EHOSTUNREACH):
		return Unreachable
	case errors.As(err, &timeout) && timeout.Timeout():
		return Silent
	}
	return Failed
}

// tlsProblem returns what is wrong with the handshake, and the facts.
func tlsProblem(err error, now time.Time) (Problem, string) {
	var (
		ca      x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
		name    x509.HostnameError
		record  tls.RecordHeaderError
		timeout net.Error
	)
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		facts := fmt.Sprintf("the certificate of %s is valid from %s to %s, this machine's clock says %s", quote(invalid.Cert.Subject.String()),
			stamp(invalid.Cert.NotBefore), stamp(invalid.Cert.NotAfter), stamp(now))
		if now.Before(invalid.Cert.NotBefore) {
			return NotYetValid, facts
		}
		return Expired, facts
	case errors.As(err, &ca):
		if ca.Cert != nil {
			return UnknownCA, fmt.Sprintf("the certificate of %s is signed by %s", quote(ca.Cert.Subject.String()), quote(ca.Cert.Issuer.String()))
		}
		return UnknownCA, err.Error()
	case errors.As(err, &name):
		return WrongName, name.Error()
	case errors.As(err, &record):
		return NotTLS, record.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return Silent, err.Error()
	}
	return Failed, err.Error()
}

// clean makes text that others may have written fit for a console.
func clean(s string) string {
	const most = 400
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// askGateways asks all routers that the routing table names, on NICs with link.
func askGateways(ctx context.Context, k Kernel, have State) []Gateway {
	gateways := []Gateway{}
	for _, r := range have.Routes {
		known := slices.ContainsFunc(gateways, func(g Gateway) bool { return g.NIC == r.NIC && g.Address == r.Gateway })
		if !r.Gateway.IsValid() || known || len(gateways) == serversMost {
			continue
		}
		n := have.nic(r.NIC)
		g := Gateway{NIC: r.NIC, Address: r.Gateway, Problem: Silent}
		g.Outside = !g.Address.IsLinkLocalUnicast() && !slices.ContainsFunc(n.Addresses, func(a Address) bool { return a.Prefix.Contains(g.Address) })
		if !n.Carrier {
			g.Problem = NoLink
		} else if err := k.Do(ctx, AskNeighbor{g.NIC, g.Address}); err != nil {
			g.Problem = Failed
		}
		gateways = append(gateways, g)
	}
	return gateways
}

// awaitGateways fills in who answered.
func awaitGateways(ctx context.Context, k Kernel, gateways []Gateway) {
	for start := time.Now(); slices.ContainsFunc(gateways, func(g Gateway) bool { return g.Problem == Silent }); {
		if pause(ctx, pollEvery) != nil || time.Since(start) > neighborWait {
			break
		}
		now, err := k.State(ctx)
		if err != nil {
			break
		}
		open := false
		for i, g := range gateways {
			if g.Problem != Silent {
				continue
			}
			n, asked := now.neighbor(g.NIC, g.Address)
			if asked && n.MAC != "" && !n.Failed {
				gateways[i].MAC, gateways[i].Problem = n.MAC, OK
			}
			open = open || !asked || !n.Failed && n.MAC == ""
		}
		if !open {
			break // answered or given up, all of them
		}
	}
}

func (s State) nic(name string) NIC {
	for _, n := range s.NICs {
		if n.Name == name {
			return n
		}
	}
	return NIC{Name: name}
}

func (s State) neighbor(nic string, a netip.Addr) (Neighbor, bool) {
	for _, n := range s.Neighbors {
		if n.NIC == nic && n.Address == a {
			return n, true
		}
	}
	return Neighbor{}, false
}

// path returns the first step to an address, as the kernel chooses: the route
// with the longest prefix, then the smallest metric, over NICs with link.
func (s State) path(to netip.Addr) Path {
	for _, n := range s.NICs {
		if slices.ContainsFunc(n.Addresses, func(a Address) bool { return a.Prefix.Addr() == to }) {
			return Path{NIC: "lo"} // its own
		}
	}
	var best NICRoute
	for _, r := range s.Routes {
		if !r.Destination.Contains(to) || !s.nic(r.NIC).Carrier {
			continue
		}
		longer := r.Destination.Bits() - best.Destination.Bits()
		if best.NIC == "" || longer > 0 || longer == 0 && r.metric() < best.metric() {
			best = r
		}
	}
	return Path{best.NIC, best.Gateway}
}
