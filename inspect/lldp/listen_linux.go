// SPDX-License-Identifier: Apache-2.0

package lldp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Receive waits for the next frame on an interface until ctx ends. It is the only thing that it does there: it sends nothing. The interface
// takes all multicast frames meanwhile, because switches send to several addresses.
func Receive(ctx context.Context, nic string) ([]byte, error) {
	i, err := net.InterfaceByName(nic)
	if err != nil {
		return nil, err
	}
	protocol := binary.NativeEndian.Uint16([]byte{EtherType >> 8, EtherType & 0xff})
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	defer unix.Close(fd)
	for _, how := range []uint16{unix.PACKET_MR_PROMISC, unix.PACKET_MR_ALLMULTI} {
		if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(i.Index), Type: how}); err != nil {
			return nil, fmt.Errorf("take all frames of %s: %w", nic, err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: i.Index}); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", nic, err)
	}
	buffer := make([]byte, MaxFrame+1)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int((100 * time.Millisecond).Milliseconds()))
		if errors.Is(err, unix.EINTR) || err == nil && n == 0 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("wait for a frame on %s: %w", nic, err)
		}
		n, from, err := unix.Recvfrom(fd, buffer, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.ENETDOWN) { // an interface that goes down may come up again
			if err := pause(ctx); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read frame on %s: %w", nic, err)
		}
		if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype == unix.PACKET_OUTGOING {
			continue // this machine's own
		}
		return buffer[:n:n], nil
	}
}

func pause(ctx context.Context) error {
	select {
	case <-time.After(100 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
