// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"

	"github.com/ironhand/ironhand/inspect/recording"
)

// Questions of [Machine.Ask]. Those with %s are about one device.
const (
	askAddresses    = "addresses"            // lines of interface index and prefix
	askPermanentMAC = "nic/%s/permanent-mac" // bytes of the address
	askDriver       = "nic/%s/driver"        // struct ethtool_drvinfo
	askModes        = "nic/%s/modes"         // supported link modes, a bit each, least significant byte first
	askSpeed        = "nic/%s/speed"         // Mbit/s as the driver says it, also while the interface is down: 4 bytes, least significant first
	askIPMI         = "ipmi/%s"              // bytes in hex: network function, command, data. Answer: completion code, data
	askHealth       = "disk/%s/%s"           // of a disk by its kernel name, one of the pages of health.go
)

// answersDir is where a recording has the answers to questions.
const answersDir = "answers/"

// maxAnswer bounds one answer in bytes: an NVMe Identify has 4096.
const maxAnswer = 64 << 10

// Recorded is a machine in a recording that [Machine.Record] or a person has made.
func Recorded(files fs.FS) Machine {
	return Machine{FS: files, Ask: func(ctx context.Context, question string) ([]byte, error) {
		r := reader{ctx: ctx, fsys: files}
		return r.open(answersDir+question, maxAnswer)
	}}
}

// Load reads a recording.
func Load(text []byte) (Machine, error) {
	files, err := recording.Read(bytes.NewReader(text))
	if err != nil {
		return Machine{}, err
	}
	return Recorded(files), nil
}

// notThere tells whether an error means that the kernel or the device has no such thing, which is no problem.
func notThere(err error) bool {
	for _, none := range []error{fs.ErrNotExist, errors.ErrUnsupported, syscall.EOPNOTSUPP, syscall.ENOTTY, syscall.EINVAL, syscall.ENODEV, syscall.ENXIO, syscall.EAFNOSUPPORT} {
		if errors.Is(err, none) {
			return true
		}
	}
	return false
}

// askNIC asks about an interface; nil if there is no answer, which is a problem only if it should have been there.
func (r *reader) askNIC(question, nic string) []byte {
	b, err := r.ask(fmt.Sprintf(question, nic))
	if err != nil && !notThere(err) {
		r.problem(err)
	}
	return b
}

// addresses asks for the addresses of all interfaces by interface index, in the kernel's order.
func (r *reader) addresses() map[int][]netip.Prefix {
	b, err := r.ask(askAddresses)
	if err != nil && !notThere(err) {
		r.problem(err)
	}
	byIndex := make(map[int][]netip.Prefix)
	for line := range strings.Lines(string(b)) {
		number, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		index, err1 := strconv.Atoi(number)
		prefix, err2 := netip.ParsePrefix(text)
		if err := errors.Join(err1, err2); err != nil {
			r.problem(fmt.Errorf("list addresses: %w", err))
			continue
		}
		byIndex[index] = append(byIndex[index], prefix)
	}
	return byIndex
}

// permanentMAC returns the address in the hardware of an interface; nil if it has none.
func (r *reader) permanentMAC(nic string) net.HardwareAddr {
	mac := net.HardwareAddr(r.askNIC(askPermanentMAC, nic))
	if len(mac) > maxMAC || strings.Trim(mac.String(), "0:") == "" {
		return nil
	}
	return mac
}

// maxMAC is MAX_ADDR_LEN of include/linux/netdevice.h.
const maxMAC = 32

// nicFirmware returns the version of the firmware of an interface: fw_version of struct ethtool_drvinfo (include/uapi/linux/ethtool.h).
func (r *reader) nicFirmware(nic string) string {
	const at, size = 4 + 32 + 32, 32
	b := r.askNIC(askDriver, nic)
	if len(b) < at+size {
		return ""
	}
	text, _, _ := bytes.Cut(b[at:at+size], []byte{0})
	if s := clean(text); s != "N/A" {
		return s
	}
	return ""
}

// driverSpeed returns the Mbit/s that a driver says; 0 if it knows none.
func (r *reader) driverSpeed(nic string) int64 {
	b := r.askNIC(askSpeed, nic)
	if len(b) != 4 {
		return 0
	}
	if mbps := int32(binary.LittleEndian.Uint32(b)); mbps > 0 { // -1: SPEED_UNKNOWN
		return int64(mbps)
	}
	return 0
}

// highestSpeed returns the Mbit/s of the fastest of the link modes, a bit each; 0 if none has a speed.
func highestSpeed(modes []byte) (mbps int64) {
	for i, b := range modes {
		for ; b != 0; b &= b - 1 {
			mbps = max(mbps, modeSpeed(8*i+bits.TrailingZeros8(b)))
		}
	}
	return mbps
}

// modeSpeed is the Mbit/s of a bit of enum ethtool_link_mode_bit_indices (include/uapi/linux/ethtool.h); 0 for those that are no speeds.
func modeSpeed(bit int) int64 {
	for _, m := range []struct {
		from, to int
		mbps     int64
	}{
		{0, 1, 10}, {2, 3, 100}, {4, 5, 1000}, {12, 12, 10000}, {15, 15, 2500}, {17, 17, 1000}, {18, 20, 10000}, {21, 22, 20000},
		{23, 26, 40000}, {27, 30, 56000}, {31, 33, 25000}, {34, 35, 50000}, {36, 39, 100000}, {40, 40, 50000}, {41, 41, 1000},
		{42, 46, 10000}, {47, 47, 2500}, {48, 48, 5000}, {52, 56, 50000}, {57, 61, 100000}, {62, 66, 200000}, {67, 67, 100}, {68, 68, 1000},
		{69, 73, 400000}, {75, 79, 100000}, {80, 84, 200000}, {85, 89, 400000}, {90, 91, 100}, {92, 92, 10}, {93, 98, 800000},
	} {
		if m.from <= bit && bit <= m.to {
			return m.mbps
		}
	}
	return 0
}

// linkModes makes the bytes of 32-bit words as the kernel gives them.
func linkModes(words []uint32) []byte {
	var b []byte
	for _, w := range words {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}
