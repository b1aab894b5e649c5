// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/netip"
	"runtime"
	"strings"
	"unsafe"

	"github.com/ironhand/ironhand/inspect/ipmi"
	"github.com/ironhand/ironhand/inspect/lldp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ask answers the questions of [Machine.Ask] for this machine.
func ask(ctx context.Context, question string) ([]byte, error) {
	kind, rest, _ := strings.Cut(question, "/")
	device, what, _ := strings.Cut(rest, "/")
	switch {
	case question == askAddresses:
		return askKernelAddresses()
	case kind == "nic" && what == "permanent-mac":
		return ethtoolPermanentMAC(device)
	case kind == "nic" && what == "driver":
		return ethtoolDriver(device)
	case kind == "nic" && what == "modes":
		modes, _, err := ethtoolLink(device)
		return modes, err
	case kind == "nic" && what == "speed":
		_, speed, err := ethtoolLink(device)
		return speed, err
	case kind == "nic" && what == "lldp":
		return lldp.Receive(ctx, device)
	case kind == "ipmi":
		request, err := hex.DecodeString(rest)
		if err != nil {
			return nil, err
		}
		return ipmi.Send(ctx, request)
	case kind == "disk":
		return askDisk(device, what)
	}
	return nil, fs.ErrNotExist
}

// askKernelAddresses asks the kernel for all addresses at once.
func askKernelAddresses() ([]byte, error) {
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	var lines []byte
	for _, a := range list {
		address, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		bits, _ := a.Mask.Size()
		lines = fmt.Appendf(lines, "%d %v\n", a.LinkIndex, netip.PrefixFrom(address.Unmap(), bits))
	}
	return lines, nil
}

// ethtool calls SIOCETHTOOL (include/uapi/linux/ethtool.h) with what value points to, which begins with the command.
func ethtool(nic string, value unsafe.Pointer) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	request := struct { // struct ifreq
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: value}
	if len(nic) >= len(request.name) {
		return unix.ENAMETOOLONG
	}
	copy(request.name[:], nic)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	runtime.KeepAlive(value)
	if errno != 0 {
		return errno
	}
	return nil
}

func ethtoolPermanentMAC(nic string) ([]byte, error) {
	address := struct { // struct ethtool_perm_addr
		command, size uint32
		data          [maxMAC]byte
	}{command: unix.ETHTOOL_GPERMADDR, size: maxMAC}
	if err := ethtool(nic, unsafe.Pointer(&address)); err != nil {
		return nil, err
	}
	return address.data[:min(address.size, maxMAC)], nil
}

func ethtoolDriver(nic string) ([]byte, error) {
	info := unix.EthtoolDrvinfo{Cmd: unix.ETHTOOL_GDRVINFO}
	if err := ethtool(nic, unsafe.Pointer(&info)); err != nil {
		return nil, err
	}
	return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&info)), unsafe.Sizeof(info))...), nil
}

// ethtoolLink asks for the link settings: once for how long they are, then for themselves.
func ethtoolLink(nic string) (modes, speed []byte, err error) {
	const most = 127     // words of a mask, as their number is a signed byte
	settings := struct { // struct ethtool_link_settings
		command, speed uint32
		_              [7]byte // duplex, port, phy_address, autoneg, mdio_support, eth_tp_mdix, eth_tp_mdix_ctrl
		words          int8
		_              [8]uint32 // transceiver, master_slave, rate_matching, reserved
		masks          [3 * most]uint32
	}{command: unix.ETHTOOL_GLINKSETTINGS}
	if err := ethtool(nic, unsafe.Pointer(&settings)); err != nil {
		return nil, nil, err
	}
	words := -int(settings.words)
	if words <= 0 {
		return nil, nil, unix.EOPNOTSUPP
	}
	settings.words = int8(words)
	if err := ethtool(nic, unsafe.Pointer(&settings)); err != nil {
		return nil, nil, err
	}
	return linkModes(settings.masks[:words]), linkModes([]uint32{settings.speed}), nil
}
