// SPDX-License-Identifier: Apache-2.0

package ipmi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

// bmc answers requests of a table, in hex; all others with "does not know".
type bmc map[string]string

func (b bmc) send(_ context.Context, r Request) ([]byte, error) {
	if answer, found := b[r.String()]; found {
		return []byte(answer), nil
	}
	return []byte{0xc1}, nil
}

const (
	lanChannel   = "\x00\x01\x04\x01\x80\xf2\x1b\x00\x00\x00"
	otherChannel = "\x00\x01\x05\x01\x80\xf2\x1b\x00\x00\x00"
)

// v6 makes the answer for one address.
func v6(set, source byte, address string, status byte) string {
	return "\x00\x11" + string([]byte{set, source}) + address + "\x40" + string([]byte{status})
}

const (
	documentation = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07"
	linkLocal     = "\xfe\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07"
	none          = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
)

func TestFind(t *testing.T) {
	const mac = "\x00\x11\xaa\xbb\xcc\xdd\xee\xff"
	v4 := bmc{"064201": lanChannel, "0c0201030000": "\x00\x11\xc6\x33\x64\x07", "0c0201050000": mac}
	dual := func(more bmc) bmc {
		b := bmc{"064201": lanChannel, "0c0201030000": "\x00\x11\x00\x00\x00\x00", "0c0201330000": "\x00\x11\x02", "0c0201370000": "\x00\x11\x02\x02\x00", "0c0201050000": mac}
		for k, v := range more {
			b[k] = v
		}
		return b
	}
	for _, tt := range []struct {
		name string
		bmc  bmc
		want string
	}{
		{"IPv4", v4, "198.51.100.7 invalid IP aa:bb:cc:dd:ee:ff"},
		{"not on the first channel", bmc{"064201": otherChannel, "064208": lanChannel, "0c0208030000": "\x00\x11\xc6\x33\x64\x08", "0c0208050000": mac}, "198.51.100.8 invalid IP aa:bb:cc:dd:ee:ff"},
		{"no channel", bmc{"064201": otherChannel}, "invalid IP invalid IP "},
		{"no address, no MAC then", bmc{"064201": lanChannel, "0c0201030000": "\x00\x11\x00\x00\x00\x00", "0c0201050000": mac}, "invalid IP invalid IP "},
		{"MAC of zeros", bmc{"064201": lanChannel, "0c0201030000": "\x00\x11\xc6\x33\x64\x07", "0c0201050000": "\x00\x11" + strings.Repeat("\x00", 6)}, "198.51.100.7 invalid IP "},
		{"DHCPv6", dual(bmc{"0c02013b0000": v6(0, 2, documentation, 0), "0c0201380000": v6(0, 0x80, linkLocal, 0)}), "invalid IP 2001:db8::7 aa:bb:cc:dd:ee:ff"},
		{"second dynamic", dual(bmc{"0c02013b0000": v6(0, 1, linkLocal, 1), "0c02013b0100": v6(1, 1, documentation, 0)}), "invalid IP 2001:db8::7 aa:bb:cc:dd:ee:ff"},
		{"static", dual(bmc{"0c02013b0000": v6(0, 1, none, 0), "0c0201380000": v6(0, 0x80, documentation, 0)}), "invalid IP 2001:db8::7 aa:bb:cc:dd:ee:ff"},
		{"static that is off", dual(bmc{"0c0201380000": v6(0, 0, documentation, 0)}), "invalid IP invalid IP "},
		{"link-local is no reason for a MAC", dual(bmc{"0c02013b0000": v6(0, 1, linkLocal, 0)}), "invalid IP fe80::7 "},
		{"IPv6 is off", dual(bmc{"0c0201330000": "\x00\x11\x00", "0c02013b0000": v6(0, 1, documentation, 0)}), "invalid IP invalid IP "},
		{"answers cut off", bmc{"064201": lanChannel, "0c0201030000": "\x00\x11\xc6", "0c0201050000": "\x00", "0c0201330000": ""}, "invalid IP invalid IP "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lan, err := Find(t.Context(), tt.bmc.send)
			if got := fmt.Sprint(lan.IPv4, " ", lan.IPv6, " ", lan.MAC); got != tt.want {
				t.Errorf("Find = %s, want %s", got, tt.want)
			}
			if cut := tt.name == "answers cut off"; (err != nil) != cut {
				t.Errorf("Find: %v", err)
			}
		})
	}
}

// A BMC that does not answer is asked once.
func TestFindWithoutAnswer(t *testing.T) {
	asked := 0
	_, err := Find(t.Context(), func(context.Context, Request) ([]byte, error) { asked++; return nil, fs.ErrNotExist })
	if !errors.Is(err, fs.ErrNotExist) || asked != 1 {
		t.Errorf("Find = %v after %d requests, want %v after 1", err, asked, fs.ErrNotExist)
	}
}

// FuzzFind gives each request in turn a part of the bytes as answer. However they are, little is asked.
func FuzzFind(f *testing.F) {
	f.Add([]byte(lanChannel+mac6), byte(10))
	f.Add([]byte("\x00\x01\x04\x00\x11\xc6\x33\x64\x07\x00\x11\x02\x00\x11\xff\xff"), byte(3))
	f.Fuzz(func(t *testing.T, b []byte, length byte) {
		asked := 0
		_, err := Find(t.Context(), func(context.Context, Request) ([]byte, error) {
			asked++
			n := min(int(length), len(b))
			answer := b[:n]
			if b = b[n:]; len(b) == 0 {
				b = answer
			}
			return answer, nil
		})
		if most := lastChannel * (5 + 2*mostIPv6Addresses); asked > most {
			t.Errorf("%d requests, want %d at most (%v)", asked, most, err)
		}
	})
}

const mac6 = "\x00\x11\xaa\xbb\xcc\xdd\xee\xff"
