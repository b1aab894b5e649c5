// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// maxMAC is MAX_ADDR_LEN of include/linux/netdevice.h.
const maxMAC = 32

// permanentMAC asks the driver by ETHTOOL_GPERMADDR (include/uapi/linux/ethtool.h).
func permanentMAC(nic string) (net.HardwareAddr, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("permanent address of %s: socket: %w", nic, err)
	}
	defer unix.Close(fd)

	address := struct { // struct ethtool_perm_addr
		command, size uint32
		data          [maxMAC]byte
	}{command: unix.ETHTOOL_GPERMADDR, size: maxMAC}
	request := struct { // struct ifreq
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&address)}
	if len(nic) >= len(request.name) {
		return nil, fmt.Errorf("permanent address of %s: %w", nic, unix.ENAMETOOLONG)
	}
	copy(request.name[:], nic)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	runtime.KeepAlive(&address)
	if errno != 0 {
		return nil, fmt.Errorf("permanent address of %s: %w", nic, errno)
	}
	return address.data[:min(address.size, maxMAC)], nil
}

// addresses asks the kernel for all addresses at once.
func addresses() (map[int][]netip.Prefix, error) {
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	byIndex := make(map[int][]netip.Prefix)
	for _, a := range list {
		address, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		bits, _ := a.Mask.Size()
		byIndex[a.LinkIndex] = append(byIndex[a.LinkIndex], netip.PrefixFrom(address.Unmap(), bits))
	}
	return byIndex, nil
}
