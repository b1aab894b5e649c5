// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// askOwner sends an ARP probe (RFC 5227, section 2.1.1) and waits for whoever says that
// the address is his.
func (k *linux) askOwner(ctx context.Context, l netlink.Link, a netip.Addr) error {
	if len(l.Attrs().HardwareAddr) != 6 {
		return errors.New("not Ethernet")
	}
	own := map[MAC]bool{} // several of our NICs may be on one link, and each answers for all
	links, err := dump(func() ([]netlink.Link, error) { return k.netlink.LinkList() })
	if err != nil {
		return err
	}
	for _, other := range links {
		own[MAC(other.Attrs().HardwareAddr.String())] = true
	}
	const arp = unix.ETH_P_ARP<<8&0xff00 | unix.ETH_P_ARP>>8 // in the order of the network
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, arp)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	at := unix.SockaddrLinklayer{Protocol: arp, Ifindex: l.Attrs().Index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	if err := unix.Bind(s, &at); err != nil {
		return err
	}
	if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}); err != nil {
		return err
	}
	taken, b := false, make([]byte, 128)
	for start, sent := time.Now(), 0; ctx.Err() == nil && !taken && time.Since(start) < ownerWait; {
		if time.Since(start) >= time.Duration(sent)*ownerWait/3 {
			sent++
			if err := unix.Sendto(s, arpProbe(l.Attrs().HardwareAddr, a), 0, &at); err != nil {
				return err
			}
		}
		n, _, err := unix.Recvfrom(s, b, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		mac, sender, ok := parseARP(b[:n])
		taken = ok && sender == a && !own[mac]
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.others == nil {
		k.others = map[owned]bool{}
	}
	k.others[owned{l.Attrs().Name, a}] = taken
	return nil
}
