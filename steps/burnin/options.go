// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/ironhand/ironhand/steps"
)

// longest is more than any burn-in takes.
const longest = 366 * 24 * time.Hour

// reader reads what the conductor says of burn-in, in the node's driver_info. People set these by hand, so numbers may be texts.
type reader struct {
	info map[string]any
	err  error
}

func newReader(n steps.Node) *reader {
	info, _ := n.Record["driver_info"].(map[string]any) // without one all have their defaults
	return &reader{info: info}
}

func (r *reader) fail(name string, v any, want string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: driver_info: %s is %.60q, want %s", steps.ErrArgs, name, fmt.Sprint(v), want)
	}
}

// number is a whole number, not below zero.
func (r *reader) number(name string, standard int64) int64 {
	v, given := r.info[name]
	if !given || v == nil {
		return standard
	}
	n, err := strconv.ParseInt(fmt.Sprint(v), 10, 64)
	if err != nil || n < 0 {
		r.fail(name, v, "a whole number")
	}
	return n
}

// seconds is a time.
func (r *reader) seconds(name string, standard time.Duration) time.Duration {
	n := r.number(name, int64(standard/time.Second))
	if n > int64(longest/time.Second) {
		r.fail(name, n, "a number of seconds within a year")
		return 0
	}
	return time.Duration(n) * time.Second
}

func (r *reader) flag(name string) bool {
	v, given := r.info[name]
	if !given || v == nil {
		return false
	}
	on, err := strconv.ParseBool(strings.ToLower(fmt.Sprint(v)))
	if err != nil {
		r.fail(name, v, "true or false")
	}
	return on
}

// text is one that an expression matches whole.
func (r *reader) text(name, standard string, expr *regexp.Regexp, want string) string {
	v, given := r.info[name]
	if !given || v == nil || v == "" {
		return standard
	}
	s, ok := v.(string)
	if !ok {
		s = fmt.Sprint(v)
	}
	if !expr.MatchString(s) {
		r.fail(name, v, want)
	}
	return s
}

var (
	amounts = regexp.MustCompile(`^[0-9]{1,15}[%bBkKmMgGtT]?$`)
	files   = regexp.MustCompile(`^/[^\x00-\x1f]{1,255}$`)
	hosts   = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.:_-]{0,253}$`)
)

// file is where a program's report goes; "" for nowhere.
func (r *reader) file(name string) string {
	return r.text(name, "", files, "the path of a file, from the root")
}

// network is how a node comes to its partner: either is told, or the place to meet.
func (r *reader) network() (pairing, *meeting) {
	const backend = "agent_burnin_fio_network_pairing_backend_url"
	where, given := r.info[backend].(string)
	if r.info["agent_burnin_fio_network_config"] != nil || !given || where == "" {
		return r.pairing(), nil
	}
	limit := r.seconds("agent_burnin_fio_network_pairing_timeout", 15*time.Minute)
	group := r.text("agent_burnin_fio_network_pairing_group_name", "ironic.network-burnin", groups, "a name")
	m, err := parseMeeting(where, group, limit)
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("%w: driver_info: %s: %w", steps.ErrArgs, backend, err) // without the URL, which may have a password
	}
	return pairing{}, &m
}

// pairing is what a node is told about its partner.
type pairing struct {
	Role    string `json:"role"`
	Partner string `json:"partner"`
}

func (r *reader) pairing() pairing {
	const name = "agent_burnin_fio_network_config"
	v, given := r.info[name]
	if !given || v == nil {
		r.fail(name, "not given", `{"role": "writer" or "reader", "partner": host}, or agent_burnin_fio_network_pairing_backend_url`)
		return pairing{}
	}
	raw, isText := v.(string)
	if !isText {
		b, err := json.Marshal(v)
		if err != nil {
			r.fail(name, v, "JSON")
		}
		raw = string(b)
	}
	var p pairing
	if err := json.Unmarshal([]byte(raw), &p); err != nil || p.Role != "writer" && p.Role != "reader" || !hosts.MatchString(p.Partner) {
		r.fail(name, raw, `{"role": "writer" or "reader", "partner": host}`)
	}
	return p
}
