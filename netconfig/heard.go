// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ironhand/ironhand/inspect/lldp"
)

// Heard is what has arrived at a NIC while somebody listened there.
type Heard struct {
	For       time.Duration   // in all
	VLANs     []int           // of frames with a tag (IEEE 802.1Q), ascending
	Neighbour *lldp.Neighbour // what the other end last said of itself; nil if it has said nothing
}

// frame takes in what has arrived, with the VLAN whose tag the kernel has taken off; 0 if there was none.
func (h *Heard) frame(b []byte, vlan int) {
	if len(b) >= 16 && slices.Contains([]uint16{0x8100, 0x88a8}, binary.BigEndian.Uint16(b[12:])) {
		vlan = int(binary.BigEndian.Uint16(b[14:])) & 0xfff
	}
	if at, known := slices.BinarySearch(h.VLANs, vlan); vlan != 0 && !known { // 0 is a priority alone
		h.VLANs = slices.Insert(slices.Clone(h.VLANs), at, vlan)
	}
	if tlvs, _ := lldp.ParseFrame(b); len(tlvs) > 0 { // what comes before what is broken counts
		n := lldp.Describe(tlvs)
		h.Neighbour = &n
	}
}

// announced are the VLANs of the port, by LLDP; untagged is the one without tag.
func announced(n *lldp.Neighbour) (tagged []int, untagged int) {
	if n == nil {
		return nil, 0
	}
	for _, v := range n.VLANs {
		if v.ID != n.UntaggedVLAN {
			tagged = append(tagged, v.ID)
		}
	}
	return tagged, n.UntaggedVLAN
}

// vlanCause says why the VLAN of a device is the wrong one, as far as what was heard on the wires below it tells; else nothing.
func (r Report) vlanCause(device string) string {
	vlan, ports := r.below(device)
	var seen, tagged []int
	untagged := 0
	for _, n := range ports {
		seen = append(seen, n.VLANs...)
		more, one := announced(n.Neighbour)
		tagged = append(tagged, more...)
		if one != 0 {
			untagged = one
		}
	}
	switch {
	case vlan == 0 && len(seen) > 0:
		return fmt.Sprintf("frames with the tag of VLAN %s arrive there, and the description has no VLAN there", numbers(seen))
	case vlan != 0 && untagged == vlan:
		return fmt.Sprintf("the switch says (LLDP) that VLAN %d comes without a tag there", vlan)
	case vlan != 0 && len(seen) > 0 && !slices.Contains(seen, vlan):
		return fmt.Sprintf("frames with the tag of VLAN %s arrive there, and none of VLAN %d", numbers(seen), vlan)
	case vlan != 0 && len(tagged) > 0 && !slices.Contains(tagged, vlan):
		return fmt.Sprintf("the switch names VLAN %s there (LLDP), and not VLAN %d", numbers(tagged), vlan)
	}
	return ""
}

// below returns the outer tag that a device has, 0 for none, and the NICs that it stands on.
func (r Report) below(device string) (vlan int, ports []NICReport) {
	names := []string{device}
	for range nestMost + 1 {
		for _, d := range r.Stacked {
			if d.Name == names[0] && d.Parent != "" {
				vlan, names = d.VLAN, []string{d.Parent}
				break
			} else if d.Name == names[0] && len(d.Members) > 0 {
				names = nil
				for _, m := range d.Members {
					names = append(names, m.NIC)
				}
				break
			}
		}
	}
	for _, n := range r.NICs {
		if slices.Contains(names, n.Name) {
			ports = append(ports, n)
		}
	}
	return vlan, ports
}

// wireText says where the wires below a device lead, by LLDP; else nothing.
func (r Report) wireText(device string) string {
	_, ports := r.below(device)
	var texts []string
	for _, n := range ports {
		if n.Neighbour != nil {
			texts = append(texts, n.Name+" is on "+n.Neighbour.String())
		}
	}
	if len(texts) == 0 {
		return ""
	}
	return " (" + clean(strings.Join(texts, ", ")) + ")"
}

// numbers returns them in order, each once.
func numbers(all []int) string {
	all = slices.Compact(slices.Sorted(slices.Values(all)))
	const most = 20
	text := strings.Trim(strings.ReplaceAll(fmt.Sprint(all[:min(len(all), most)]), " ", ", "), "[]")
	if len(all) > most {
		text += ", ..."
	}
	return text
}
