// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"
	"testing/fstest"
)

// Anonymous returns a recording in which serial numbers, WWNs, MAC addresses, UUIDs, IP addresses and the host name are others of the same form, so
// that it can be given away. Equal ones stay equal. inv is the inventory of it; key decides which ones come out, and should be random. Of
// SMBIOS, only what an inventory is made of is kept, and nothing of LLDP frames and iSCSI sessions.
func Anonymous(files fstest.MapFS, inv Inventory, key []byte) fstest.MapFS {
	out := fstest.MapFS{}
	for name, f := range files {
		copied := *f
		copied.Data = slices.Clone(f.Data)
		out[name] = &copied
	}
	if f := out[smbiosFile]; f != nil {
		f.Data = keepStructures(f.Data, 0, 4, 16, 17, 42, 127)
		blankTags(f.Data)
	}
	if f := out["proc/sys/kernel/hostname"]; f != nil {
		f.Data = []byte("machine\n")
	}
	anonymousAddresses(out)
	maps.DeleteFunc(out, func(name string, _ *fstest.MapFile) bool {
		isLLDP, _ := path.Match(answersDir+"nic/*/lldp", name) // what the switches say of themselves and of the network
		return isLLDP || strings.Contains(name, "/iscsi_session/") || strings.Contains(name, "/iscsi_connection/")
	})
	for name, f := range out { // that there is one tells what kind a disk is
		if strings.Contains(name, "/iscsi_host/") && f.Mode.IsRegular() {
			f.Data = nil
		}
	}

	r := replacer{key: key, pairs: map[string]string{}}
	for _, d := range inv.Disks {
		r.text(slices.Concat(d.Serials, d.WWNs, []string{string(d.WWNWithExtension), string(d.WWNVendorExtension)})...)
	}
	r.text(inv.SystemVendor.SerialNumber, inv.System.UUID, inv.System.SwappedUUID)
	for _, m := range inv.Memory.Modules {
		r.text(m.Serial)
	}
	for _, h := range inv.Details.HostInterfaces {
		r.text(h.UUID, h.Name)
	}
	for _, n := range inv.Interfaces {
		r.mac(string(n.MACAddress))
	}
	r.mac(string(inv.BMCMAC))
	for name, f := range files { // names of devices that are in no inventory, and addresses that are not the permanent one
		switch path.Base(name) {
		case "sas_address", "port_name", "node_name", "wwid", "serial", "product_serial", "chassis_serial", "board_serial":
			r.text(clean(f.Data))
		case "subsysnqn": // it ends with a UUID, or the drive's names for itself
			nqn := clean(f.Data)
			r.text(nqn[strings.LastIndex(nqn, ":")+1:])
		case "address":
			r.mac(clean(f.Data))
		case "vpd_pg80":
			if serial, err := parseVPD80(f.Data); err == nil {
				r.text(serial)
			}
		case "vpd_pg83":
			if names, err := parseVPD83(f.Data); err == nil {
				switch {
				case names.otherKind != "1":
					r.text(names.other)
				case !strings.HasPrefix(names.t10, "ATA ") && len(names.t10) > 8: // those of ATA disks hold the model, and the serial number of page 80h
					r.text(clean([]byte(names.t10[8:])))
				}
				r.text(names.naa)
			}
		}
	}
	old := slices.SortedFunc(maps.Keys(r.pairs), func(a, b string) int { return len(b) - len(a) }) // what holds another comes first
	given := fstest.MapFS{}
	for name, f := range out {
		for _, o := range old {
			f.Data = replaceWord(f.Data, o, r.pairs[o])
		}
		given[r.name(name, old)] = f
	}
	return given
}

// name is the name of a file without what is replaced.
func (r *replacer) name(name string, old []string) string {
	for _, o := range old {
		name = string(replaceWord([]byte(name), o, r.pairs[o]))
	}
	return name
}

// A replacer knows what is written instead of what.
type replacer struct {
	key   []byte
	pairs map[string]string
}

// shortest is the length below which a text says nothing of who a device is, and may be anywhere.
const shortest = 5

// text notes values, in all the forms in which they may be in files.
func (r *replacer) text(list ...string) {
	for _, s := range list {
		for _, prefix := range []string{"0x", "naa.", "eui.", "nvme.", "uuid.", "t10."} {
			s = strings.TrimPrefix(s, prefix)
		}
		if s = known(s); len(s) < shortest || strings.Trim(s, "0 -fF") == "" {
			continue
		}
		given := r.another(s)
		r.pairs[s] = given
		r.pairs[strings.ToUpper(s)], r.pairs[strings.ToLower(s)] = strings.ToUpper(given), strings.ToLower(given)
		digits := strings.ReplaceAll(s, "-", "")
		if b, err := hex.DecodeString(digits); err == nil && len(b) >= 8 {
			g, err := hex.DecodeString(strings.ReplaceAll(given, "-", ""))
			if err == nil {
				r.pairs[string(b)] = string(g)
			}
			if len(s) == 36 && err == nil && len(b) == 16 { // a UUID in SMBIOS
				r.pairs[string(swapped(b))] = string(swapped(g))
			}
		}
	}
}

// swapped reverses the first three fields of a UUID.
func swapped(b []byte) []byte {
	b = slices.Clone(b)
	slices.Reverse(b[0:4])
	slices.Reverse(b[4:6])
	slices.Reverse(b[6:8])
	return b
}

// mac notes an address: its vendor stays.
func (r *replacer) mac(s string) {
	s = strings.ToLower(s)
	b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
	if err != nil || len(b) < 6 || len(b) > maxMAC || bytes.Count(b, []byte{0}) == len(b) {
		return
	}
	g := slices.Clone(b)
	copy(g[3:], r.sum(s)[:len(b)-3])
	r.pairs[string(b)] = string(g)
	for _, separator := range []string{":", "-", ""} {
		form := func(b []byte) string { return separated(b, separator) }
		r.pairs[form(b)], r.pairs[strings.ToUpper(form(b))] = form(g), strings.ToUpper(form(g))
	}
}

func separated(b []byte, separator string) string {
	var parts []string
	for _, c := range b {
		parts = append(parts, hex.EncodeToString([]byte{c}))
	}
	return strings.Join(parts, separator)
}

func (r *replacer) sum(s string) []byte {
	h := hmac.New(sha256.New, r.key)
	h.Write([]byte(strings.ToLower(s)))
	return h.Sum(nil)
}

// another makes a text of the same form: digits become digits, hex digits hex digits, letters letters. The first hex digit, which tells what kind of name a WWN
// is, stays.
func (r *replacer) another(s string) string {
	sum := r.sum(s)
	isHex := strings.Trim(strings.ToLower(s), "0123456789abcdef-") == "" && len(s) >= 16
	out := []byte(s)
	for i, c := range out {
		n := sum[i%len(sum)] ^ byte(i/len(sum)*37)
		switch {
		case isHex && i == 0:
		case isHex && c != '-' && 'A' <= c && c <= 'F':
			out[i] = "0123456789ABCDEF"[n%16]
		case isHex && c != '-':
			out[i] = "0123456789abcdef"[n%16]
		case digit(c):
			out[i] = '0' + n%10
		case 'A' <= c && c <= 'Z':
			out[i] = 'A' + n%26
		case 'a' <= c && c <= 'z':
			out[i] = 'a' + n%26
		}
	}
	return string(out)
}

// replaceWord replaces each occurrence of old. If it is all digits, those within a longer number are left: they are something else.
func replaceWord(b []byte, old, given string) []byte {
	number := strings.Trim(old, "0123456789") == ""
	for from := 0; ; {
		i := bytes.Index(b[from:], []byte(old))
		if i < 0 {
			return b
		}
		at, end := from+i, from+i+len(old)
		from = end
		if number && (at > 0 && digit(b[at-1]) || end < len(b) && digit(b[end])) {
			continue
		}
		copy(b[at:end], given) // they have the same length
	}
}

// keepStructures returns SMBIOS tables with structures of these types alone. What cannot be split is dropped.
func keepStructures(tables []byte, kinds ...byte) (kept []byte) {
	for len(tables) > 0 {
		s, rest, err := nextStructure(tables)
		if err != nil {
			return kept
		}
		if slices.Contains(kinds, s.kind()) {
			kept = append(kept, tables[:len(tables)-len(rest)]...)
		}
		tables = rest
	}
	return kept
}

// blankTags writes over what SMBIOS structures have that is in no inventory, and tells one machine from another: serial number and asset tag of processors, asset tags of memory
// (SMBIOS 3.7, types 4 and 17).
func blankTags(tables []byte) {
	fields := map[byte][]int{4: {0x20, 0x21}, 17: {0x19}}
	for len(tables) > 0 {
		s, rest, err := nextStructure(tables)
		if err != nil {
			return
		}
		list := bytes.Split(s[len(s.formatted()):], []byte{0})
		for _, at := range fields[s.kind()] {
			if n, ok := s.field(at, 1); ok && n > 0 && int(n) <= len(list) {
				copy(list[n-1], bytes.Repeat([]byte("X"), len(list[n-1]))) // it shares its bytes with the tables
			}
		}
		tables = rest
	}
}

// anonymousAddresses gives all IP addresses others, of those reserved for documentation.
func anonymousAddresses(files fstest.MapFS) {
	if f := files[answersDir+askAddresses]; f != nil {
		var out strings.Builder
		n := 0
		for line := range strings.Lines(string(f.Data)) {
			index, text, _ := strings.Cut(strings.TrimSpace(line), " ")
			prefix, err := netip.ParsePrefix(text)
			if err != nil {
				continue
			}
			n++
			given := "192.0.2." + itoa(n%250+1) + "/24"
			switch a := prefix.Addr(); {
			case a.IsLoopback():
				given = prefix.String()
			case a.Is6() && a.IsLinkLocalUnicast():
				given = "fe80::" + hex.EncodeToString([]byte{byte(n)}) + "/64"
			case a.Is6():
				given = "2001:db8::" + hex.EncodeToString([]byte{byte(n)}) + "/64"
			}
			out.WriteString(index + " " + given + "\n")
		}
		f.Data = []byte(out.String())
	}
	for name, f := range files {
		request, isIPMI := strings.CutPrefix(name, answersDir+"ipmi/0c02")
		if !isIPMI || len(request) < 4 || len(f.Data) < 2 || f.Data[0] != 0 {
			continue
		}
		switch value := f.Data[2:]; request[2:4] { // the number of the parameter
		case "03":
			if len(value) >= 4 && !bytes.Equal(value[:4], make([]byte, 4)) {
				copy(value, []byte{198, 51, 100, 1})
			}
		case "38", "3b":
			if len(value) >= 18 && !bytes.Equal(value[2:18], make([]byte, 16)) {
				address := netip.MustParseAddr("2001:db8::b").As16()
				copy(value[2:], address[:])
			}
		}
	}
}
