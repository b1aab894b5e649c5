// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Limits of a description. Ironic's own are far below.
const (
	networkDataMost = 1 << 20 // bytes
	itemsMost       = 1000    // elements of one array
	routesMost      = 4000    // of all networks together
	errorsMost      = 100     // told one by one
	nestMost        = 7       // VLANs on each other: MAX_NEST_DEV in linux/netdevice.h, less the device below
	idMost          = 240     // bytes of a link's id; with the mark it fits into an alias (IFALIASZ in linux/if.h)
)

// firstMetric is the metric of the second route to one destination, the third
// gets one more, and so on; above both defaults of the kernel (0 and 1024).
const firstMetric = 1025

// ParseNetworkData reads network_data.json as Nova, Ironic and Metal3 write it
// (ironic/api/controllers/v1/network-data-schema.json of Ironic).
//
// Everything that is wrong is returned at once, as joined errors that begin with
// the place in the document (networks[1].routes[0].gateway). What an error is
// about is left out of the plan; the plan holds all that is sound, and it is for
// the caller to say whether that will do. If the document is not JSON, or larger
// than 1 MiB, the plan is empty.
//
// What the schema leaves open is read like this:
//
//   - All link types but bond and vlan mean a NIC, and so does null, which old clouds write; a link without networks is
//     switched on and gets no address.
//   - A NIC without ethernet_mac_address is found by the kernel's name, which is the link's name, or its id (as Metal3 has it). Where
//     an id is wanted, the name of a link will do.
//   - Keys of a bond that begin with bond_ are the kernel's options of bonds;
//     bond_primary is the id of a link. Without miimon and arp_interval the
//     members' links are looked at ten times a second.
//   - The MAC of a bond and of a VLAN may be missing. A bond's members have its
//     MTU; what carries a VLAN and has no MTU of its own has the VLAN's.
//   - Masks may be dotted, in IPv6 notation, a prefix length (number or string),
//     or part of the address.
//   - A gateway outside the networks of its link is taken to be on the link (as
//     hosters with /32 addresses have it).
//   - Of several routes to one destination, each after the first gets a larger
//     metric: Ironic writes one default route per subnet. A "metric" of a route
//     itself is left as it is.
//   - Networks whose addresses are asked for may have routes too.
//   - A "gateway" of a network itself, which the schema does not have but the
//     OpenStack documentation does, is a default route if "routes" has none.
func ParseNetworkData(b []byte) (Plan, error) {
	if len(b) > networkDataMost {
		return Plan{}, fmt.Errorf("%d bytes, want %d at most", len(b), networkDataMost)
	}
	b = bytes.TrimPrefix(b, []byte("\ufeff"))
	var top object
	if err := json.Unmarshal(b, &top); err != nil || top == nil {
		return Plan{}, notObject(b, err)
	}
	p := parser{links: map[string]*link{}}
	for i, raw := range p.array("links", top["links"], required) {
		p.link(fmt.Sprintf("links[%d]", i), raw)
	}
	p.stack()
	for i, raw := range p.array("networks", top["networks"], required) {
		p.network(fmt.Sprintf("networks[%d]", i), raw)
	}
	p.services("services", top["services"])
	p.dns = append(p.dns, p.networkDNS...)
	p.checkMTU()
	return p.plan(), p.err()
}

// notObject says why the whole document is not a JSON object.
func notObject(b []byte, err error) error {
	var syntax *json.SyntaxError
	switch {
	case len(bytes.TrimSpace(b)) == 0:
		return errors.New("empty, want a JSON object")
	case errors.As(err, &syntax):
		before := b[:min(max(syntax.Offset-1, 0), int64(len(b)))]
		line := bytes.Count(before, []byte("\n")) + 1
		column := len(before) - (bytes.LastIndexByte(before, '\n') + 1) + 1
		return fmt.Errorf("line %d, column %d: %w", line, column, err)
	}
	return errors.New("not a JSON object")
}

// parser collects the parts of a plan, and what is wrong.
type parser struct {
	order      []*link // as in the document
	links      map[string]*link
	routes     int // of all links
	dns        []netip.Addr
	networkDNS []netip.Addr // of single networks, asked after the global ones
	errs       []error
	untold     int // errors beyond errorsMost
}

// link is a link of the document.
type link struct {
	Link
	path       string
	name       string   // another name for the id, if it is not empty
	out        string   // why it is left out; empty if it is not
	bond       *link    // that it is a member of
	from       []string // of the addresses: path of the network
	routesFrom []string // of the routes
	mtuGiven   bool

	members []string // of a bond: ids as given
	carrier string   // of a VLAN: id as given
}

type object map[string]json.RawMessage

// fail notes what is wrong at a place in the document.
func (p *parser) fail(path, format string, args ...any) {
	if len(p.errs) == errorsMost {
		p.untold++
		return
	}
	p.errs = append(p.errs, fmt.Errorf("%s: %w", path, fmt.Errorf(format, args...)))
}

func (p *parser) err() error {
	if p.untold > 0 {
		return errors.Join(append(p.errs, fmt.Errorf("and %d errors more", p.untold))...)
	}
	return errors.Join(p.errs...)
}

// plan returns what was sound.
func (p *parser) plan() Plan {
	plan := Plan{Links: []Link{}, DNS: []netip.Addr{}}
	// Metrics that were given come first, then the others get what is left.
	type place struct {
		destination netip.Prefix
		metric      int
	}
	taken := map[place]string{} // -> link
	for _, given := range []bool{true, false} {
		for _, l := range p.order {
			if l.out != "" {
				continue
			}
			routes, from := l.Routes, l.routesFrom
			l.Routes, l.routesFrom = nil, nil
			for i, r := range routes {
				if given == (r.Metric != 0) {
					for n := firstMetric; !given && taken[place{r.Destination, r.metric()}] != ""; n++ {
						r.Metric = n
					}
					if first := taken[place{r.Destination, r.metric()}]; first != "" {
						p.fail(from[i], "%s: %s has a route with this metric already", r, first)
						continue
					}
					taken[place{r.Destination, r.metric()}] = from[i]
				}
				l.Routes, l.routesFrom = append(l.Routes, r), append(l.routesFrom, from[i])
			}
		}
	}
	for _, l := range p.order {
		if l.out != "" {
			continue
		}
		for i := range l.Routes {
			r := &l.Routes[i]
			r.OnLink = !r.Gateway.IsLinkLocalUnicast() && !covers(l.Addresses, r.Gateway)
		}
		plan.Links = append(plan.Links, l.Link)
	}
	for _, a := range p.dns {
		if !slices.Contains(plan.DNS, a) {
			plan.DNS = append(plan.DNS, a)
		}
	}
	return plan
}

func covers(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Whether an array may be absent.
const (
	required = true
	optional = false
)

func absent(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

func (p *parser) array(path string, raw json.RawMessage, needed bool) []json.RawMessage {
	if absent(raw) {
		if needed {
			p.fail(path, "missing")
		}
		return nil
	}
	var a []json.RawMessage
	if err := json.Unmarshal(raw, &a); err != nil {
		p.fail(path, "not an array")
		return nil
	}
	if len(a) > itemsMost {
		p.fail(path, "%d elements, want %d at most", len(a), itemsMost)
		a = a[:itemsMost]
	}
	return a
}

func (p *parser) object(path string, raw json.RawMessage) (object, bool) {
	var o object
	if err := json.Unmarshal(raw, &o); err != nil || o == nil {
		p.fail(path, "not an object")
		return nil, false
	}
	return o, true
}

// text reads a string that must be there.
func (p *parser) text(path string, raw json.RawMessage) (string, bool) {
	if absent(raw) {
		p.fail(path, "missing")
		return "", false
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		p.fail(path, "not a string")
		return "", false
	}
	return s, true
}

// scalar reads a text, a number or a truth value that must be there, as text.
func (p *parser) scalar(path string, raw json.RawMessage) (string, bool) {
	switch {
	case absent(raw):
		p.fail(path, "missing")
		return "", false
	case string(raw) == "true":
		return "1", true
	case string(raw) == "false":
		return "0", true
	case raw[0] == '"':
		return p.text(path, raw)
	case raw[0] == '[' || raw[0] == '{':
		p.fail(path, "neither a text nor a number")
		return "", false
	}
	return string(raw), true
}
