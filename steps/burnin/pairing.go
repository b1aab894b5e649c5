// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ironhand/ironhand/steps"
)

// meeting is where nodes find partners: a group in ZooKeeper, laid out as by tooz's driver "zookeeper" (tooz/drivers/zookeeper.py), which ironic-python-agent uses, so that one of its nodes can be the
// partner.
type meeting struct {
	hosts    []string // host:port
	user     string
	password string
	root     string // path of all groups: /tooz
	group    string
	session  time.Duration // after which ZooKeeper takes a silent client for dead
	limit    time.Duration // a partner is waited for so long
}

// Values of tooz.
const (
	zooPort    = "2181"
	zooSession = 10 * time.Second
)

// groups are names of groups, which become part of a path.
var groups = regexp.MustCompile(`^[0-9A-Za-z_-][0-9A-Za-z._-]{0,99}$`)

// parseMeeting reads the URL of a coordination service. Errors do not have it: it may have a password.
func parseMeeting(backend, group string, limit time.Duration) (meeting, error) {
	m := meeting{root: "/tooz", group: group, session: zooSession, limit: limit}
	scheme, rest, found := strings.Cut(backend, "://")
	if !found || scheme != "zookeeper" && scheme != "kazoo" {
		return m, fmt.Errorf("its scheme is %.20q: nodes find each other by ZooKeeper alone, zookeeper://HOST:PORT", scheme)
	}
	rest, query, _ := strings.Cut(rest, "?")
	authority, _, _ := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		m.user, m.password, _ = strings.Cut(authority[:at], ":") // as they are: tooz does not decode them
		if m.user == "" || m.password == "" {
			return m, errors.New("user and password are not in the form USER:PASSWORD@")
		}
		authority = authority[at+1:]
	}
	options, err := url.ParseQuery(query)
	if err != nil {
		return m, errors.New("its options are not in the form NAME=VALUE")
	}
	names := []string{authority}
	for name, values := range options {
		value := values[len(values)-1]
		switch name {
		case "hosts":
			names = append(names, values...)
		case "timeout":
			seconds, err := strconv.ParseFloat(value, 64)
			if err != nil || !(seconds >= 1 && seconds <= 600) {
				return m, errors.New("its timeout is no number of seconds from 1 to 600")
			}
			m.session = time.Duration(seconds * float64(time.Second))
		case "namespace":
			if !groups.MatchString(value) {
				return m, errors.New("its namespace is no name")
			}
			m.root = "/" + value
		case "randomize_hosts", "connection_retry", "command_retry", "handler": // how kazoo goes about it
		default:
			return m, fmt.Errorf("its option %.40q is not supported", name)
		}
	}
	for host := range strings.SplitSeq(strings.Join(names, ","), ",") {
		if host == "" {
			continue
		}
		name, port, err := net.SplitHostPort(host)
		if err != nil {
			name, port = strings.Trim(host, "[]"), zooPort
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || !hosts.MatchString(strings.TrimPrefix(name, "::")) {
			return m, errors.New("a host in it is not in the form HOST or HOST:PORT")
		}
		m.hosts = append(m.hosts, net.JoinHostPort(name, port))
	}
	if len(m.hosts) == 0 {
		m.hosts = []string{net.JoinHostPort("localhost", zooPort)}
	}
	if !groups.MatchString(group) {
		return m, errors.New("the group is no name")
	}
	return m, nil
}

const (
	meetingPoll = time.Second
	// A member of the group is waited for a little longer than its own limit.
	meetingSpare = time.Minute
)

// findPartner meets another node in the group and returns its role and the partner, as in ironic-python-agent's burnin.py (_find_network_burnin_partner_and_role): a lock lets the nodes in one after the
// other. The first in the group is the writer; it opens the lock, waits for a second one, and leaves. The second is the reader; it waits until the first has left, leaves, and opens the lock for the next pair.
//
// A node is known by its address, where ironic-python-agent takes its host name: fio takes either, and no name service has to know it.
func (m meeting) findPartner(ctx context.Context, h steps.Host) (p pairing, err error) {
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			err = fmt.Errorf("find a partner in the group %s: %w", m.group, err)
		}
	}()
	z, err := dialZoo(ctx, m)
	if err != nil {
		return pairing{}, err
	}
	defer z.close() // takes the node out of the group, whatever happens
	me := z.address()
	lock, group := m.root+"/locks/group_lock", m.root+"/"+m.group
	for _, path := range []string{m.root, m.root + "/locks", lock, group} {
		if err := z.ensure(path); err != nil {
			return pairing{}, err
		}
	}

	// 1. The lock, which is kazoo's (kazoo/recipe/lock.py): who has the lowest number holds it.
	mine, err := z.create(fmt.Sprintf("%s/%s__lock__", lock, hex.EncodeToString(binaryID())), nil, zooEphemeral|zooSequence)
	if err != nil {
		return pairing{}, err
	}
	h.Say("burn-in: a partner is looked for in the group %s, as %s", m.group, me)
	lastAhead, since := -1, time.Now()
	for {
		ahead, err := z.ahead(lock, mine)
		if err != nil {
			return pairing{}, err
		}
		if ahead == 0 {
			break
		}
		if ahead != lastAhead { // the queue moves
			lastAhead, since = ahead, time.Now()
		}
		if limit := m.limit + meetingSpare; time.Since(since) > limit {
			return pairing{}, fmt.Errorf("%d nodes are ahead, and none was done within %v", ahead, limit)
		}
		if err := pause(ctx); err != nil {
			return pairing{}, err
		}
	}

	// 2. In.
	present, err := z.children(group)
	if err != nil {
		return pairing{}, err
	}
	if len(present) > 1 {
		return pairing{}, fmt.Errorf("there are %d nodes in it already", len(present))
	}
	if _, err := z.create(group+"/"+me, []byte{0xc0}, zooEphemeral); err != nil { // null in MessagePack, as tooz has it
		return pairing{}, err
	}
	began := time.Now()
	if len(present) == 0 {
		if err := z.remove(mine); err != nil {
			return pairing{}, err
		}
	}

	// 3. The other one.
	for {
		now, err := z.children(group)
		if err != nil {
			return pairing{}, err
		}
		others := slices.DeleteFunc(now, func(name string) bool { return name == me })
		switch {
		case len(others) > 1:
			return pairing{}, fmt.Errorf("there are %d nodes in it", len(others)+1)
		case len(present) == 0 && len(others) == 1:
			p = pairing{Role: "writer", Partner: others[0]}
		case len(present) == 1 && len(others) == 0:
			p = pairing{Role: "reader", Partner: present[0]}
		}
		if p.Role != "" {
			break
		}
		if time.Since(began) > m.limit {
			return pairing{}, fmt.Errorf("no other node came within %v", m.limit)
		}
		if err := pause(ctx); err != nil {
			return pairing{}, err
		}
	}
	if !hosts.MatchString(p.Partner) {
		return pairing{}, fmt.Errorf("the other node calls itself %.60q, which is no name or address", p.Partner)
	}
	if err := z.remove(group + "/" + me); err != nil {
		return pairing{}, err
	}
	if p.Role == "reader" {
		err = z.remove(mine)
	}
	return p, err
}

// binaryID is one of 16 bytes that nobody else has. It guards nothing.
func binaryID() (b []byte) {
	for range 2 {
		n := rand.Uint64()
		for i := range 8 {
			b = append(b, byte(n>>(8*i)))
		}
	}
	return b
}

func pause(ctx context.Context) error {
	select {
	case <-time.After(meetingPoll):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// lockNumber finds the number of a contender for the lock.
var lockNumber = regexp.MustCompile(`__lock__(-?[0-9]{10})$`)

// ahead counts the contenders for a lock before mine, a path.
func (z *zoo) ahead(lock, mine string) (n int, err error) {
	names, err := z.children(lock)
	if err != nil {
		return 0, err
	}
	number := func(name string) string {
		if found := lockNumber.FindStringSubmatch(name); found != nil {
			return found[1]
		}
		return ""
	}
	mine = strings.TrimPrefix(mine, lock+"/")
	if !slices.Contains(names, mine) {
		return 0, errors.New("this node's place in the queue is gone: ZooKeeper took it for dead")
	}
	for _, name := range names {
		if other := number(name); other != "" && cmp.Less(other, number(mine)) {
			n++
		}
	}
	return n, nil
}
