// SPDX-License-Identifier: Apache-2.0

// Package ipmi asks the machine's own BMC, over the kernel's device, where it is in the network, what is in its log, and what it measures. It changes nothing. Answers are taken as hostile
// bytes: each is checked for its length, and how much is asked is bounded whatever the BMC says.
package ipmi

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// LAN is where the BMC is.
type LAN struct {
	IPv4 netip.Addr       // of the first channel that has one; zero if none
	IPv6 netip.Addr       // likewise: the first dynamic address, else the first static one
	MAC  net.HardwareAddr // of the first channel that has an address in the network; nil if none
}

// A Request is sent to the BMC: network function, command, data. The answer is the completion code and data.
type Request []byte

func (r Request) String() string { return hex.EncodeToString(r) }

// A CompletionError is an answer that is none: the BMC refuses (IPMI 2.0, table 5-2).
type CompletionError byte

func (e CompletionError) Error() string {
	switch e {
	case 0xc0:
		return "BMC says busy"
	case 0xc1:
		return "BMC does not know the command"
	case 0xc3:
		return "BMC says timeout"
	case 0xcc:
		return "BMC says invalid data"
	case 0x80:
		return "BMC does not support the parameter"
	}
	return fmt.Sprintf("BMC answers completion code %#02x", byte(e))
}

// Numbers of IPMI 2.0: network functions, commands, LAN parameters (table 23-4, and its IPv6 addendum).
const (
	netFnApp       = 0x06
	cmdChannelInfo = 0x42
	netFnTransport = 0x0c
	cmdLANConfig   = 0x02

	paramIPv4         = 3
	paramMAC          = 5
	paramIPv6Enables  = 51
	paramIPv6Status   = 55
	paramIPv6Static   = 56
	paramIPv6Dynamic  = 59
	lastChannel       = 11 // as ironic-python-agent, which tries 1 to 11
	mostIPv6Addresses = 16 // of each kind, whatever the BMC says
)

// Find asks the BMC for its addresses. If no answer comes at all, the error is the first one; what one channel refuses is no error.
func Find(ctx context.Context, send func(context.Context, Request) ([]byte, error)) (LAN, error) {
	var lan LAN
	var failed error
	answered := false
	// call sends one request; nil is no answer, or one that refuses.
	call := func(least int, r ...byte) []byte {
		b, err := send(ctx, r)
		if err == nil {
			answered = true
			b, err = Payload(b, least)
		}
		var refused CompletionError
		if err != nil && !errors.As(err, &refused) && failed == nil {
			failed = fmt.Errorf("request %v: %w", Request(r), err)
		}
		return b
	}
	for channel := byte(1); channel <= lastChannel && ctx.Err() == nil; channel++ {
		info := call(2, netFnApp, cmdChannelInfo, channel)
		if failed != nil && !answered {
			return lan, failed // a BMC that does not answer the first is not asked thirty times more
		}
		if len(info) < 2 || info[1]&0x7f != 4 { // 802.3 LAN (table 6-3)
			continue
		}
		parameter := func(number, set byte, least int) []byte {
			b := call(1+least, netFnTransport, cmdLANConfig, channel, number, set, 0)
			if b == nil {
				return nil
			}
			return b[1:] // after the parameter's revision
		}
		var here LAN
		if b := parameter(paramIPv4, 0, 4); b != nil {
			if a := netip.AddrFrom4([4]byte(b)); !a.IsUnspecified() {
				here.IPv4 = a
			}
		}
		if b := parameter(paramIPv6Enables, 0, 1); b != nil && (b[0] == 1 || b[0] == 2) { // IPv6 only, both
			here.IPv6 = ipv6(parameter)
		}
		if b := parameter(paramMAC, 0, 6); b != nil && strings.Trim(net.HardwareAddr(b[:6]).String(), "0:") != "" {
			here.MAC = net.HardwareAddr(b[:6])
		}
		if !lan.IPv4.IsValid() {
			lan.IPv4 = here.IPv4
		}
		if !lan.IPv6.IsValid() {
			lan.IPv6 = here.IPv6
		}
		if lan.MAC == nil && (here.IPv4.IsValid() || here.IPv6.IsValid() && !here.IPv6.IsLinkLocalUnicast()) {
			lan.MAC = here.MAC
		}
	}
	return lan, errors.Join(failed, ctx.Err())
}

// ipv6 returns the first dynamic address that is active, else the first static one that is switched on.
func ipv6(parameter func(number, set byte, least int) []byte) netip.Addr {
	statics, dynamics := 1, 1
	if b := parameter(paramIPv6Status, 0, 2); b != nil {
		statics, dynamics = min(int(b[0]), mostIPv6Addresses), min(int(b[1]), mostIPv6Addresses)
	}
	for i := range dynamics {
		// set selector, source (1 SLAAC, 2 DHCPv6), address, prefix length, status (0 active)
		b := parameter(paramIPv6Dynamic, byte(i), 20)
		if b == nil {
			break
		}
		if a := netip.AddrFrom16([16]byte(b[2:])); (b[1]&0x0f == 1 || b[1]&0x0f == 2) && b[19] == 0 && !a.IsUnspecified() {
			return a
		}
	}
	for i := range statics {
		// set selector, bit 7: switched on, address, prefix length, status
		b := parameter(paramIPv6Static, byte(i), 20)
		if b == nil {
			break
		}
		if a := netip.AddrFrom16([16]byte(b[2:])); b[1]&0x80 != 0 && !a.IsUnspecified() {
			return a
		}
	}
	return netip.Addr{}
}

// Payload checks an answer and returns what follows the completion code, at least so many bytes.
func Payload(answer []byte, least int) ([]byte, error) {
	switch {
	case len(answer) == 0:
		return nil, errors.New("answer is empty")
	case answer[0] != 0:
		return nil, CompletionError(answer[0])
	case len(answer) < 1+least:
		return nil, fmt.Errorf("answer has %d bytes, want %d", len(answer)-1, least)
	}
	return answer[1:], nil
}

// Devices are the names of the kernel's devices for the BMC, in the order in which they are tried.
func Devices() []string { return []string{"/dev/ipmi0", "/dev/ipmi/0", "/dev/ipmidev/0"} }
