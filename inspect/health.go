// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Health is what a disk says about itself. Numbers that it does not say are nil.
type Health struct {
	Disk         string   `json:"disk"`    // /dev/sda
	Failing      bool     `json:"failing"` // the disk, or its own limits, say that it fails or is worn out
	Reasons      []string `json:"reasons"` // why it is failing, or what else is wrong; never null
	TemperatureC *int64   `json:"temperature_c"`
	PowerOnHours *int64   `json:"power_on_hours"`
	UsedPercent  *int64   `json:"used_percent"`  // of the writes that it was made for; may be over 100
	SparePercent *int64   `json:"spare_percent"` // left
	MediaErrors  *int64   `json:"media_errors"`  // data that was lost, or sectors that cannot be read
	Reallocated  *int64   `json:"reallocated"`   // sectors
}

// Pages of health that are asked for.
const (
	pageNVMeHealth    = "nvme-health"    // log page 02h, 512 bytes
	pageNVMeIdentify  = "nvme-identify"  // Identify Controller, 4096 bytes
	pageATAData       = "ata-smart"      // SMART READ DATA, 512 bytes
	pageATAThresholds = "ata-thresholds" // SMART READ THRESHOLDS, 512 bytes
	pageATAStatus     = "ata-status"     // SMART RETURN STATUS: registers LBA mid and high
	pageSCSILog       = "scsi-log-"      // and the page's number in hex: LOG SENSE, all of the page
)

// healthLimit is how long one disk may take for all its pages: reading them may wait behind other commands.
const healthLimit = 10 * time.Second

// Health asks all disks how they are, beside each other, in the order of their names. Disks that cannot say, such as virtual ones, are not in the list. The error
// names those that did not answer.
func (m Machine) Health(ctx context.Context) ([]Health, error) {
	r := m.reader(ctx)
	var list []Health
	all := each(r, "health of disk", healthLimit, r.dir("sys/block"), func(r *reader, name string) *Health {
		return readHealth(r, name)
	}, func(string) *Health { return nil })
	for _, h := range all {
		if h != nil {
			list = append(list, *h)
		}
	}
	slices.SortStableFunc(list, func(a, b Health) int { return compareDisks(Disk{Name: a.Disk}, Disk{Name: b.Disk}) })
	if err := errors.Join(r.problems()...); err != nil {
		return list, fmt.Errorf("health of disks: %w", err)
	}
	return list, ctx.Err()
}

// readHealth asks a disk in the way of its bus; nil if it cannot say.
func readHealth(r *reader, name string) *Health {
	if r.flag("sys/block/" + name + "/hidden") { // a path to a disk that is listed itself
		return nil
	}
	h := &Health{Disk: deviceName(name), Reasons: []string{}}
	device := r.real(r.real("sys/block/"+name) + "/device")
	var known bool
	switch {
	case strings.HasPrefix(name, "nvme"):
		known = h.nvme(r, name)
	case !strings.HasPrefix(name, "sd"), strings.Contains(device, "/usb"): // adapters for USB hang at what they do not know
		return nil
	case r.text(device+"/vendor") == "ATA":
		known = h.ata(r, name)
	default:
		known = h.scsi(r, name)
	}
	if !known {
		return nil
	}
	return h
}

// page asks for one page; nil if the disk has none.
func (h *Health) page(r *reader, name, page string, least int) []byte {
	b, err := r.ask(fmt.Sprintf(askHealth, name, page))
	if err != nil {
		if !notThere(err) && !errors.Is(err, errRefused) {
			r.problem(err)
		}
		return nil
	}
	if len(b) < least {
		r.problem(fmt.Errorf("disk %s: %s has %d bytes, want %d", name, page, len(b), least))
		return nil
	}
	return b
}

// errRefused is the error of a command that the disk does not know.
var errRefused = errors.New("the disk refuses the command")

func (h *Health) fail(format string, args ...any) {
	h.Failing = true
	h.Reasons = append(h.Reasons, fmt.Sprintf(format, args...))
}

func number(n int64) *int64 { return &n }

func (h *Health) nvme(r *reader, name string) bool {
	b := h.page(r, name, pageNVMeHealth, 512)
	if b == nil {
		return false
	}
	var limits nvmeIdentify
	if id := h.page(r, name, pageNVMeIdentify, 4096); id != nil {
		limits = parseNVMeIdentify(id)
	}
	h.parseNVMe(b, limits)
	return true
}

// nvmeIdentify is what is used of Identify Controller (NVM Express Base 2.0, figure 275); who the disk is is in sysfs.
type nvmeIdentify struct {
	warningK, criticalK int64 // temperatures in Kelvin; 0 if the controller says none
}

func parseNVMeIdentify(b []byte) (id nvmeIdentify) {
	if len(b) < 270 {
		return id
	}
	return nvmeIdentify{warningK: int64(binary.LittleEndian.Uint16(b[266:])), criticalK: int64(binary.LittleEndian.Uint16(b[268:]))}
}

// parseNVMe reads log page 02h, of 512 bytes (NVM Express Base 2.0, figure 207).
func (h *Health) parseNVMe(b []byte, limits nvmeIdentify) {
	for bit, reason := range []string{
		"spare capacity is below its limit", "temperature is beyond its limits", "reliability is degraded by media errors",
		"the disk is read-only", "backup of the volatile memory has failed", "the persistent memory region is read-only",
	} {
		switch {
		case b[0]>>bit&1 == 0:
		case bit == 1: // it passes
			h.Reasons = append(h.Reasons, reason)
		default:
			h.fail("%s", reason)
		}
	}
	kelvin := int64(binary.LittleEndian.Uint16(b[1:]))
	if kelvin > 0 {
		h.TemperatureC = number(kelvin - 273)
	}
	if limits.criticalK > 0 && kelvin >= limits.criticalK {
		h.Reasons = append(h.Reasons, fmt.Sprintf("%d °C is critical", kelvin-273))
	} else if limits.warningK > 0 && kelvin >= limits.warningK {
		h.Reasons = append(h.Reasons, fmt.Sprintf("%d °C is too warm", kelvin-273))
	}
	h.SparePercent, h.UsedPercent = number(int64(b[3])), number(int64(b[5]))
	if b[5] >= 100 {
		h.Reasons = append(h.Reasons, fmt.Sprintf("%d %% of its writes are used up", b[5]))
	}
	h.PowerOnHours, h.MediaErrors = counter(b[128:144]), counter(b[160:176])
	if n := *h.MediaErrors; n > 0 {
		h.Reasons = append(h.Reasons, fmt.Sprintf("%d media errors", n))
	}
}

// counter reads a little-endian number of 16 bytes, as far as it fits.
func counter(b []byte) *int64 {
	n := binary.LittleEndian.Uint64(b)
	if binary.LittleEndian.Uint64(b[8:]) != 0 || n > 1<<62 {
		n = 1 << 62
	}
	return number(int64(n))
}

func (h *Health) ata(r *reader, name string) bool {
	data := h.page(r, name, pageATAData, 512)
	if data == nil {
		return false
	}
	if err := h.parseATA(data, h.page(r, name, pageATAThresholds, 512)); err != nil {
		r.problem(fmt.Errorf("disk %s: %w", name, err))
		return false
	}
	if status := h.page(r, name, pageATAStatus, 2); status != nil && status[0] == 0xf4 && status[1] == 0x2c { // ACS-4, 7.46.8
		h.fail("the disk says that it will fail soon")
	}
	return true
}

// parseATA reads SMART data and thresholds, of 512 bytes; the latter may be nil. Their form was in SFF-8035 and is in all disks; attributes are the vendors', and
// those below are the same with all.
func (h *Health) parseATA(data, thresholds []byte) error {
	var sum byte
	for _, b := range data[:512] {
		sum += b
	}
	if sum != 0 {
		return errors.New("SMART data has a wrong checksum")
	}
	limit := make(map[byte]byte)
	for i := 2; thresholds != nil && i+12 <= 362; i += 12 {
		limit[thresholds[i]] = thresholds[i+1]
	}
	var pending, lost int64
	for i := 2; i+12 <= 362; i += 12 {
		a := data[i : i+12]
		id, value := a[0], a[3]
		raw := int64(a[5]) | int64(a[6])<<8 | int64(a[7])<<16 | int64(a[8])<<24
		if id == 0 {
			continue
		}
		if t := limit[id]; t > 0 && t < 0xfe && value > 0 && value < 0xfe && value <= t {
			if a[1]&1 == 1 { // about failure, not age
				h.fail("attribute %d is %d, its limit %d", id, value, t)
			} else {
				h.Reasons = append(h.Reasons, fmt.Sprintf("attribute %d is %d, its limit %d", id, value, t))
			}
		}
		switch id {
		case 5:
			h.Reallocated = number(raw)
		case 9:
			h.PowerOnHours = number(raw)
		case 190, 194:
			if c := raw & 0xff; h.TemperatureC == nil || id == 194 {
				h.TemperatureC = number(c)
			}
		case 197:
			pending = raw
			h.MediaErrors = number(max(pending, lost))
		case 198:
			lost = raw
			h.MediaErrors = number(max(pending, lost))
		}
	}
	if pending > 0 || lost > 0 {
		h.Reasons = append(h.Reasons, fmt.Sprintf("%d sectors cannot be read", *h.MediaErrors))
	}
	if n := h.Reallocated; n != nil && *n > 0 {
		h.Reasons = append(h.Reasons, fmt.Sprintf("%d sectors were reallocated", *n))
	}
	return nil
}

func (h *Health) scsi(r *reader, name string) bool {
	known := false
	for _, page := range []byte{0x02, 0x03, 0x0d, 0x11, 0x15, 0x2f} {
		if b := h.page(r, name, fmt.Sprintf("%s%02x", pageSCSILog, page), 4); b != nil {
			known = true
			if err := h.parseSCSI(page, b); err != nil {
				r.problem(fmt.Errorf("disk %s: log page %02xh: %w", name, page, err))
			}
		}
	}
	if n := h.MediaErrors; n != nil && *n > 0 {
		h.Reasons = append(h.Reasons, fmt.Sprintf("%d errors were not corrected", *n))
	}
	return known
}

// parseSCSI reads a log page (SPC-5, 7.3; SBC-4, 6.4). Those that are not known are left out.
func (h *Health) parseSCSI(page byte, b []byte) error {
	if len(b) < 4 || b[0]&0x3f != page {
		return errors.New("it is another page")
	}
	length := int(binary.BigEndian.Uint16(b[2:]))
	cut := length > len(b)-4
	b = b[4:min(len(b), 4+length)]
	for len(b) >= 4 && len(b) >= 4+int(b[3]) {
		code, value := binary.BigEndian.Uint16(b), b[4:4+int(b[3])]
		b = b[4+int(b[3]):]
		switch {
		case (page == 0x02 || page == 0x03) && code == 6 && len(value) <= 8: // total uncorrected errors, of writing and reading
			var n int64
			for _, c := range value {
				n = n<<8 | int64(c)
			}
			if n >= 0 {
				if h.MediaErrors != nil {
					n += *h.MediaErrors
				}
				h.MediaErrors = number(max(n, 0))
			}
		case page == 0x0d && code == 0 && len(value) >= 2 && value[1] != 0xff:
			h.TemperatureC = number(int64(value[1]))
		case page == 0x11 && code == 1 && len(value) >= 4:
			h.UsedPercent = number(int64(value[3]))
			if value[3] >= 100 {
				h.Reasons = append(h.Reasons, fmt.Sprintf("%d %% of its writes are used up", value[3]))
			}
		case page == 0x15 && code == 0 && len(value) >= 4:
			h.PowerOnHours = number(int64(binary.BigEndian.Uint32(value)) / 60)
		case page == 0x2f && code == 0 && len(value) >= 2:
			switch value[0] {
			case 0x5d: // failure prediction threshold exceeded
				h.fail("the disk says that it will fail soon (5Dh/%02Xh)", value[1])
			case 0x0b:
				h.Reasons = append(h.Reasons, fmt.Sprintf("the disk warns (0Bh/%02Xh)", value[1]))
			}
			if len(value) >= 3 && value[2] != 0xff && value[2] != 0 && h.TemperatureC == nil {
				h.TemperatureC = number(int64(value[2]))
			}
		}
	}
	if cut || len(b) > 0 {
		return errors.New("it is cut off")
	}
	return nil
}
