// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/steps"
)

func TestParseMeeting(t *testing.T) {
	for _, test := range []struct{ name, url, group, want string }{
		{"as in Ironic's documentation", "zookeeper://zookeeper-host-01:2181", "ironic.network-burnin", "[zookeeper-host-01:2181]   /tooz 10s"},
		{"kazoo", "kazoo://a", "g", "[a:2181]   /tooz 10s"},
		{"all", "zookeeper://u:p%40ss:x@a:1,b,[::1]:3/x?hosts=c,d:4&timeout=2.5&namespace=n&randomize_hosts=True", "g", "[a:1 b:2181 [::1]:3 c:2181 d:4] u p%40ss:x /n 2.5s"},
		{"an address of IPv6 without a port", "zookeeper://[2001:db8::1]", "g", "[[2001:db8::1]:2181]   /tooz 10s"},
		{"nobody", "zookeeper://", "g", "[localhost:2181]   /tooz 10s"},
		{"etcd", "etcd3+https://u:secret@h", "g", `its scheme is "etcd3+https": nodes find each other by ZooKeeper alone`},
		{"mysql", "mysql://u:secret@h/db", "g", `its scheme is "mysql"`},
		{"no URL", "secret", "g", "its scheme is"},
		{"TLS", "zookeeper://u:secret@h?use_ssl=True", "g", `its option "use_ssl" is not supported`},
		{"no password", "zookeeper://secret@h", "g", "user and password are not in the form"},
		{"no port", "zookeeper://u:secret@h:0", "g", "a host in it is not in the form"},
		{"a hostile host", "zookeeper://u:secret@h\nx", "g", "a host in it is not in the form"},
		{"no time", "zookeeper://u:secret@h?timeout=nan", "g", "its timeout is no number"},
		{"options that are none", "zookeeper://u:secret@h?a=%zz", "g", "its options are not in the form"},
		{"a namespace that leads away", "zookeeper://h?namespace=../x", "g", "its namespace is no name"},
		{"a group that leads away", "zookeeper://h", "..", "the group is no name"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, err := parseMeeting(test.url, test.group, time.Minute)
			got := fmt.Sprintf("%s %s %s %s %v", m.hosts, m.user, m.password, m.root, m.session)
			if err != nil {
				got = err.Error()
			}
			if !strings.HasPrefix(got, test.want) || err != nil && strings.Contains(got, "secret") && test.name != "no URL" {
				t.Errorf("parseMeeting() = %s, want %s", got, test.want)
			}
		})
	}
}

func FuzzParseMeeting(f *testing.F) {
	f.Add("zookeeper://u:p@a:1,b?hosts=c&timeout=3")
	f.Fuzz(func(t *testing.T, url string) {
		m, err := parseMeeting(url, "g", time.Minute)
		if err == nil && (len(m.hosts) == 0 || m.session < time.Second) {
			t.Errorf("%+v", m)
		}
	})
}

func FuzzZooList(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02\x00\x00\x00\x01a\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if names, err := parseZooList(b); err == nil && 4*len(names) > len(b) {
			t.Errorf("%d names of %d bytes", len(names), len(b))
		}
	})
}

// A service that does not do what it should: TestRootPairing has a real one.
func TestMeetingFails(t *testing.T) {
	connected := binary.BigEndian.AppendUint32(nil, 0)
	connected = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(connected, 1000), 1)
	connected = zooBuffer(nil, zooBuffer(connected, make([]byte, 16)))
	for _, test := range []struct {
		name   string
		answer []byte // to the first message; nothing more comes
		hangUp bool
		want   string
	}{
		{"it says nothing", nil, false, "i/o timeout"},
		{"it hangs up", nil, true, "EOF"},
		{"it says too much", []byte{0xff, 0xff, 0xff, 0xff}, false, "sends 4294967295 bytes at once"},
		{"it is not ZooKeeper", []byte("\x00\x00\x00\x03HTT"), false, "gives no session"},
		{"no session", zooBuffer(nil, make([]byte, 37)), false, "gives no session"},
		{"it falls silent", connected, false, "make /tooz: read tcp"},
		{"it goes away", connected, true, "make /tooz"},
		{"it answers another question", append(connected, zooBuffer(nil, make([]byte, 16))...), false, "answers another question (0, not 1)"},
		{"an answer that is cut off", append(connected, 0, 0, 0, 2, 0, 0), false, "is cut off"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				c.Read(make([]byte, 1000))
				c.Write(test.answer)
				if !test.hangUp {
					io.Copy(io.Discard, c)
				}
			}()
			m, err := parseMeeting("zookeeper://"+l.Addr().String()+"?timeout=1", "g", time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			_, err = m.findPartner(t.Context(), steps.Host{Say: t.Logf})
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "find a partner in the group g: ") {
				t.Errorf("error %v, want %s", err, test.want)
			}
		})
	}
	t.Run("nobody is there", func(t *testing.T) {
		m := meeting{hosts: []string{"127.0.0.1:1", "127.0.0.1:2"}, group: "g", session: time.Second}
		if _, err := m.findPartner(t.Context(), steps.Host{}); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") || !strings.Contains(err.Error(), "127.0.0.1:2") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("nobody wants it any more", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := (meeting{hosts: []string{"127.0.0.1:1"}, group: "g", session: time.Second}).findPartner(ctx, steps.Host{}); err == nil || !strings.Contains(err.Error(), "context canceled") {
			t.Errorf("error %v", err)
		}
	})
}
