// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ironhand/ironhand/inspect/lldp"
)

// listen receives frames with a VLAN tag and those of LLDP. The NIC takes all frames meanwhile: its own filter would drop those of VLANs that nobody has asked for.
func (k *linux) listen(ctx context.Context, l netlink.Link, long time.Duration) error {
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	index := l.Attrs().Index
	filter := tagsAndLLDP()
	err = errors.Join(
		unix.SetsockoptSockFprog(s, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}),
		unix.SetsockoptInt(s, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
		unix.SetsockoptPacketMreq(s, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC}),
		unix.Bind(s, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: index}))
	if err != nil {
		return err
	}
	b, control := make([]byte, lldp.MaxFrame), make([]byte, 128)
	for start, before, read := time.Now(), time.Now(), 0; ; {
		now := time.Now()
		k.listened(l.Attrs().Name, before, now)
		before = now
		if ctx.Err() != nil || now.Sub(start) >= long {
			return nil // it has listened, and that is all
		}
		n, size, _, from, err := unix.Recvmsg(s, b, control, 0)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENETDOWN):
			read = 0
			if pause(ctx, pollEvery) != nil {
				return nil
			}
			continue
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("receive: %w", err)
		}
		if at, ok := from.(*unix.SockaddrLinklayer); ok && at.Pkttype == unix.PACKET_OUTGOING {
			continue // this machine's own
		}
		k.hear(l.Attrs().Name, func(h *Heard) { h.frame(b[:n], tagOf(control[:size])) })
		if read++; read%100 == 0 && pause(ctx, pollEvery/10) != nil { // on a busy wire a sample will do
			return nil
		}
	}
}

func (k *linux) hear(nic string, note func(*Heard)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.heard == nil {
		k.heard, k.until = map[string]Heard{}, map[string]time.Time{}
	}
	h := k.heard[nic]
	note(&h)
	k.heard[nic] = h
}

// listened notes that somebody has listened; of several at once, the time counts once.
func (k *linux) listened(nic string, from, until time.Time) {
	k.hear(nic, func(h *Heard) {
		if last := k.until[nic]; last.After(from) {
			from = last
		}
		if until.After(from) {
			h.For += until.Sub(from)
			k.until[nic] = until
		}
	})
}

// tagsAndLLDP is a filter: frames with a VLAN tag, on them or taken off already, and LLDP.
func tagsAndLLDP() []unix.SockFilter {
	const (
		load, half, at      = unix.BPF_LD, unix.BPF_H, unix.BPF_ABS
		vlanTagPresent      = 0xfffff000 + 48 // SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT in linux/filter.h
		equal, answer, take = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K, lldp.MaxFrame
	)
	return []unix.SockFilter{
		{Code: load | unix.BPF_B | at, K: vlanTagPresent},
		{Code: equal, K: 1, Jt: 4},
		{Code: load | half | at, K: 12},
		{Code: equal, K: unix.ETH_P_8021Q, Jt: 2},
		{Code: equal, K: unix.ETH_P_8021AD, Jt: 1},
		{Code: equal, K: lldp.EtherType, Jf: 1},
		{Code: answer, K: take},
		{Code: answer},
	}
}

// tagOf returns the VLAN whose tag the kernel has taken off a frame (struct tpacket_auxdata in linux/if_packet.h); 0 if there was none.
func tagOf(control []byte) int {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 18 &&
			binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_VLAN_VALID != 0 {
			return int(binary.NativeEndian.Uint16(m.Data[16:])) & 0xfff
		}
	}
	return 0
}

// networkOrder returns a number with its bytes as they are on the wire.
func networkOrder(n uint16) uint16 {
	return binary.NativeEndian.Uint16([]byte{byte(n >> 8), byte(n)})
}

// pathMTU returns the size of packets to an address that the kernel takes to get through, in bytes; 0 if it does not say.
func pathMTU(c net.Conn, is6 bool) (size int) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return 0
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return 0
	}
	level, option := unix.IPPROTO_IP, unix.IP_MTU
	if is6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU
	}
	_ = raw.Control(func(fd uintptr) { size, _ = unix.GetsockoptInt(int(fd), level, option) }) // then it does not say
	return max(size, 0)
}
