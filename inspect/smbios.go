// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// smbiosFile has the tables as the firmware left them (Documentation/ABI/testing/sysfs-firmware-dmi-tables).
const smbiosFile = "sys/firmware/dmi/tables/DMI"

// SMBIOS tables are some kilobytes; a server with all slots filled has about 64.
const maxSMBIOS = 1 << 20

// parseSMBIOS splits the tables. With an error come the structures before the broken one.
func parseSMBIOS(tables []byte) ([]structure, error) {
	var list []structure
	for rest := tables; len(rest) > 0; {
		s, after, err := nextStructure(rest)
		if err != nil {
			return list, fmt.Errorf("structure at byte %d: %w", len(tables)-len(rest), err)
		}
		list = append(list, s)
		if rest = after; s.kind() == 127 { // end of table; what follows is padding
			break
		}
	}
	return list, nil
}

// parseInstalledMemory is installedMemory of whole tables.
func parseInstalledMemory(tables []byte) (int64, error) {
	list, err := parseSMBIOS(tables)
	if err != nil {
		return 0, err
	}
	return installedMemory(list)
}

// installedMemory adds up the sizes, in bytes, of the memory devices (SMBIOS 3.7, type 17), but not of those that an
// array (type 16) uses for video, flash, settings or a cache (uses 4 to 7). An unknown size is an error, for a sum without
// it would be wrong.
func installedMemory(list []structure) (int64, error) {
	var sum int64
	otherUse := otherArrays(list)
	for _, s := range list {
		if s.kind() != 17 {
			continue
		}
		if array, ok := s.field(0x04, 2); ok && otherUse[uint16(array)] {
			continue
		}
		size, err := moduleSize(s)
		if err != nil {
			return 0, fmt.Errorf("memory device %#04x: %w", s.handle(), err)
		}
		sum += size
	}
	return sum, nil
}

// otherArrays are the handles of memory arrays that are not for programs.
func otherArrays(list []structure) map[uint16]bool {
	other := make(map[uint16]bool)
	for _, s := range list {
		if use, ok := s.field(0x05, 1); ok && s.kind() == 16 {
			other[s.handle()] = 4 <= use && use <= 7
		}
	}
	return other
}

// memoryModules lists the slots for memory that programs use.
func memoryModules(list []structure) (modules []MemoryModule) {
	otherUse := otherArrays(list)
	for _, s := range list {
		if array, ok := s.field(0x04, 2); s.kind() != 17 || ok && otherUse[uint16(array)] {
			continue
		}
		m := MemoryModule{Slot: s.text(0x10), Bank: s.text(0x11)}
		size, err := moduleSize(s)
		if m.Size, m.Unknown = size, err != nil; size > 0 || m.Unknown {
			kind, _ := s.field(0x12, 1)
			m.Kind = memoryKind(kind)
			m.SpeedMTs, m.RunsMTs = s.speed(0x15, 0x54), s.speed(0x20, 0x58)
			m.Manufacturer, m.Serial, m.Part = known(s.text(0x17)), known(s.text(0x18)), known(s.text(0x1a))
		}
		modules = append(modules, m)
	}
	return modules
}

// speed returns a speed in MT/s from a field of two bytes, or of four where that is not enough (SMBIOS 3.7, 7.18.4); 0 if it is not known.
func (s structure) speed(at, extended int) int {
	n, _ := s.field(at, 2)
	if n == 0xffff {
		n, _ = s.field(extended, 4)
		n &= 0x7fffffff
	}
	return int(n)
}

// memoryKind is the type of a memory device (SMBIOS 3.7, table 78), of this century.
func memoryKind(n uint32) string {
	switch n {
	case 0x0f:
		return "SDRAM"
	case 0x12:
		return "DDR"
	case 0x13:
		return "DDR2"
	case 0x14:
		return "DDR2 FB-DIMM"
	case 0x18:
		return "DDR3"
	case 0x1a:
		return "DDR4"
	case 0x1b:
		return "LPDDR"
	case 0x1c:
		return "LPDDR2"
	case 0x1d:
		return "LPDDR3"
	case 0x1e:
		return "LPDDR4"
	case 0x1f:
		return "Logical non-volatile device"
	case 0x20:
		return "HBM"
	case 0x21:
		return "HBM2"
	case 0x22:
		return "DDR5"
	case 0x23:
		return "LPDDR5"
	case 0x24:
		return "HBM3"
	}
	return ""
}

// known drops what firmware writes where it knows nothing.
func known(s string) string {
	for _, none := range []string{"not specified", "unknown", "none", "no dimm", "not available", "to be filled by o.e.m.", "n/a", "0x00000000", "00000000"} {
		if strings.EqualFold(s, none) {
			return ""
		}
	}
	return s
}

// moduleSize returns the size of a memory device in bytes, 0 for an empty slot (SMBIOS 3.7, 7.18.5).
func moduleSize(s structure) (int64, error) {
	size, ok := s.field(0x0c, 2)
	switch {
	case !ok:
		return 0, errors.New("it is too short for a size")
	case size == 0xffff:
		return 0, errors.New("its size is unknown")
	case size == 0x7fff:
		mb, ok := s.field(0x1c, 4)
		if !ok {
			return 0, errors.New("it is too short for its extended size")
		}
		return int64(mb&0x7fffffff) << 20, nil
	case size&0x8000 != 0:
		return int64(size&0x7fff) << 10, nil
	}
	return int64(size) << 20, nil
}

// A structure is one SMBIOS structure with its strings: type, length, handle, fields (SMBIOS 3.7, 6.1.2). It has at least those four bytes, and as
// many as its length says.
type structure []byte

func (s structure) kind() byte     { return s[0] }
func (s structure) handle() uint16 { return binary.LittleEndian.Uint16(s[2:]) }

// formatted is the area of the fields.
func (s structure) formatted() []byte { return s[:s[1]] }

// field returns the little-endian number of 1 to 4 bytes at offset. ok is false if the structure ends before it, as those
// of an older version do.
func (s structure) field(offset, size int) (n uint32, ok bool) {
	b := s.formatted()
	if offset+size > len(b) {
		return 0, false
	}
	for i := size - 1; i >= 0; i-- {
		n = n<<8 | uint32(b[offset+i])
	}
	return n, true
}

// text returns the string whose number is at offset; empty if there is none.
func (s structure) text(offset int) string {
	n, ok := s.field(offset, 1)
	if !ok || n == 0 {
		return ""
	}
	for i, text := range bytes.Split(s[s[1]:], []byte{0}) {
		if i+1 == int(n) {
			return clean(text)
		}
	}
	return ""
}

// nextStructure splits the first structure off. After its formatted area come its strings, each ended by a NUL, and one
// NUL more; without strings two NULs (SMBIOS 3.7, 6.1.3).
func nextStructure(tables []byte) (s structure, rest []byte, err error) {
	if len(tables) < 4 {
		return nil, nil, fmt.Errorf("%d bytes are too few", len(tables))
	}
	length := int(tables[1])
	if length < 4 || length > len(tables) {
		return nil, nil, fmt.Errorf("length of %d bytes is wrong", length)
	}
	end := bytes.Index(tables[length:], []byte{0, 0})
	if end < 0 {
		return nil, nil, errors.New("its strings have no end")
	}
	return tables[:length+end], tables[length+end+2:], nil
}

// HostInterface is the way from the system to the Redfish service of its BMC (SMBIOS 3.7, type 42; DMTF DSP0270).
type HostInterface struct {
	Device     string // USB, PCI, or USB v2 and PCI v2 as DSP0270 has them
	Host       string // prefix of the system's side; empty if it is to be found by DHCP or the like
	Service    string // address of the BMC's side; empty likewise
	Port       int
	Name       string // host name of the service, as the BMC gives it
	UUID       string // of the service; empty if it has none
	USBVendor  string // 0x0b1f, of a USB device
	USBProduct string
}

// readHostInterfaces takes what can be read of the tables; that they are broken is said with the memory.
func readHostInterfaces(r *reader) []HostInterface {
	tables, err := r.open(smbiosFile, maxSMBIOS)
	if err != nil {
		return nil
	}
	list, _ := parseSMBIOS(tables)
	return hostInterfaces(list)
}

// hostInterfaces lists the network host interfaces with Redfish over IP. A record that is cut off is left out.
func hostInterfaces(list []structure) (found []HostInterface) {
	for _, s := range list {
		b := s.formatted()
		if s.kind() != 42 || len(b) < 6 || b[4] != 0x40 { // network host interface
			continue
		}
		data, rest, ok := cutLength(b[5:])
		if !ok || len(data) < 1 || len(rest) < 1 {
			continue
		}
		h := HostInterface{Device: hostDevice(data[0])}
		usb := data[1:]
		if data[0] == 4 && len(usb) > 0 { // the second version has its own length first
			usb = usb[1:]
		}
		if h.Device == "USB" && len(usb) >= 4 {
			h.USBVendor = fmt.Sprintf("0x%04x", binary.LittleEndian.Uint16(usb))
			h.USBProduct = fmt.Sprintf("0x%04x", binary.LittleEndian.Uint16(usb[2:]))
		}
		protocols := int(rest[0])
		rest = rest[1:]
		for range protocols {
			if len(rest) < 2 {
				break
			}
			kind := rest[0]
			data, after, ok := cutLength(rest[1:])
			if !ok {
				break
			}
			rest = after
			if kind == 4 && h.redfish(data) { // Redfish over IP
				found = append(found, h)
				break
			}
		}
	}
	return found
}

// redfish reads the protocol record (DSP0270 1.3, table 3).
func (h *HostInterface) redfish(b []byte) bool {
	if len(b) < 91 {
		return false
	}
	if h.UUID = smbiosUUID(b[:16]); strings.Trim(h.UUID, "0-") == "" || strings.Trim(h.UUID, "f-") == "" { // not set
		h.UUID = ""
	}
	address := func(format byte, b []byte) netip.Addr {
		switch format {
		case 1:
			return netip.AddrFrom4([4]byte(b))
		case 2:
			return netip.AddrFrom16([16]byte(b))
		}
		return netip.Addr{}
	}
	if host := address(b[17], b[18:34]); host.IsValid() && !host.IsUnspecified() {
		h.Host = host.String()
		if bits, ok := maskBits(address(b[17], b[34:50])); ok {
			h.Host += fmt.Sprintf("/%d", bits)
		}
	}
	if service := address(b[51], b[52:68]); service.IsValid() && !service.IsUnspecified() {
		h.Service = service.String()
	}
	h.Port = int(binary.LittleEndian.Uint16(b[84:]))
	if n := int(b[90]); n <= len(b)-91 {
		h.Name = clean(b[91 : 91+n])
	}
	return true
}

// maskBits counts the ones of a mask that has no gaps.
func maskBits(mask netip.Addr) (int, bool) {
	bits, end := 0, false
	for _, b := range mask.AsSlice() {
		for i := 7; i >= 0; i-- {
			switch one := b>>i&1 == 1; {
			case one && end:
				return 0, false
			case one:
				bits++
			default:
				end = true
			}
		}
	}
	return bits, mask.IsValid()
}

// cutLength splits off what a leading byte of length announces.
func cutLength(b []byte) (data, rest []byte, ok bool) {
	if len(b) < 1 || len(b) < 1+int(b[0]) {
		return nil, nil, false
	}
	return b[1 : 1+int(b[0])], b[1+int(b[0]):], true
}

func hostDevice(n byte) string {
	names := []string{2: "USB", 3: "PCI", 4: "USB", 5: "PCI"}
	if int(n) < len(names) && names[n] != "" {
		return names[n]
	}
	return "OEM"
}

// smbiosUUID writes 16 bytes, of which the first three fields are little-endian.
func smbiosUUID(b []byte) string {
	b = slices.Clone(b)
	slices.Reverse(b[0:4])
	slices.Reverse(b[4:6])
	slices.Reverse(b[6:8])
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
