// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// identity is who a disk is. Serial numbers and WWNs are those that lsblk and udev would show, lsblk's first.
type identity struct {
	model                          string
	serials, wwns                  []string
	wwnWithExtension, wwnExtension string
}

// identify reads what the disk says about itself; the kernel asked it when it found the disk. So without udev the values
// are those that udev's rules give (systemd, rules.d/60-persistent-storage.rules, and its ata_id, scsi_id and usb_id).
//
// dir is the disk's directory, device that of the hardware behind it.
func identify(r *reader, dir, device, name string, d Disk) identity {
	switch {
	case d.HCTL != "":
		return identifySCSI(r, device, d)
	case strings.HasPrefix(name, "nvme"):
		return identifyNVMe(r, dir, device)
	case strings.HasPrefix(name, "vd"):
		return identity{serials: distinct(r.text(dir + "/serial"))}
	case d.Type == "mpath":
		_, wwid, _ := strings.Cut(r.text(dir+"/dm/uuid"), "-")
		id := identity{serials: distinct(wwid)}
		if naa, found := strings.CutPrefix(wwid, "3"); found { // scsi_id's digit for an NAA name
			id.setNAA(naa)
		}
		return id
	}
	return identity{model: r.text(device + "/model"), serials: distinct(r.text(device + "/serial"))} // MMC, xvd, ...
}

// identifyNVMe reads a namespace; its identifier has a prefix for its kind: eui., nvme., uuid.
func identifyNVMe(r *reader, dir, device string) identity {
	model, serial := r.text(device+"/model"), r.text(device+"/serial")
	id := identity{model: model, wwns: distinct(r.text(dir + "/wwid"))}
	if serial != "" {
		long := underscored(model) + "_" + underscored(serial)
		id.serials = distinct(serial, long, long+"_"+r.text(dir+"/nsid"))
	}
	return id
}

func identifySCSI(r *reader, device string, d Disk) identity {
	id := identity{model: r.text(device + "/model")}

	var unitSerial string
	if page := r.bytes(device+"/vpd_pg80", smallFile); page != nil {
		var err error
		if unitSerial, err = parseVPD80(page); err != nil {
			r.problem(fmt.Errorf("read %s/vpd_pg80: %w", device, err))
		}
	}
	var names vpd83
	if page := r.bytes(device+"/vpd_pg83", smallFile); page != nil {
		var err error
		if names, err = parseVPD83(page); err != nil {
			r.problem(fmt.Errorf("read %s/vpd_pg83: %w", device, err))
		}
	}
	if naa, found := strings.CutPrefix(r.ifSet(device+"/wwid"), "naa."); found && names.naa == "" {
		names.naa = naa // the kernel's own reading of page 83h
	}
	id.setNAA(names.naa)

	switch {
	case d.Vendor == "ATA":
		// A disk behind a SCSI to ATA translation, in libata or in a SAS controller. INQUIRY cuts its model to 16
		// characters, page 83h has it whole (SAT-5, 10.4.3: "ATA     ", 40 bytes of model, 20 of serial number).
		if model, found := strings.CutPrefix(names.t10, "ATA     "); found {
			id.model = clean([]byte(model[:min(len(model), 40)]))
			if unitSerial == "" && len(model) > 40 {
				unitSerial = clean([]byte(model[40:]))
			}
		}
		if unitSerial != "" {
			id.serials = distinct(unitSerial, underscored(unitSerial), underscored(id.model)+"_"+underscored(unitSerial))
		}
	case d.Tran == "usb":
		// The adapter's serial number, not that of the disk in it (usb_id).
		serial := usbSerial(r, device)
		if serial == "" {
			serial = unitSerial
		}
		if serial != "" {
			_, targetLUN, _ := strings.Cut(string(d.HCTL), ":")
			_, targetLUN, _ = strings.Cut(targetLUN, ":")
			long := underscored(string(d.Vendor)) + "_" + underscored(id.model) + "_" + underscored(serial)
			id.serials = distinct(serial, underscored(serial), long, long+"-"+targetLUN)
		}
	default:
		id.serials = distinct(unitSerial, underscored(unitSerial))
		if names.naa != "" {
			id.serials = distinct(append(id.serials, names.naa, "3"+names.naa)...)
		} else {
			long, short := names.scsiID(string(d.Vendor), id.model, unitSerial)
			id.serials = distinct(append(id.serials, short, long)...)
		}
	}
	return id
}

// scsiID returns the serial numbers that udev's scsi_id makes of a disk without an NAA name (systemd, src/udev/scsi_id/scsi_serial.c): the kind of the
// designator, with vendor and model where it has none of its own, and the designator; or else S and the unit serial number.
func (v vpd83) scsiID(vendor, model, unitSerial string) (long, short string) {
	kind, short := v.otherKind, v.other
	if short == "" {
		kind, short = "S", unitSerial
	}
	if short == "" {
		return "", ""
	}
	long = kind + short
	if kind == "S" || kind == "0" {
		long = fmt.Sprintf("%s%-8s%-16s%s", kind, vendor, model, short)
	}
	return underscored(long), underscored(short)
}

// setNAA takes over a name of 16 or 32 hex digits. lsblk shows the longest form.
func (id *identity) setNAA(naa string) {
	switch len(naa) {
	case 16:
		id.wwnWithExtension = "0x" + naa
		id.wwns = []string{"0x" + naa}
	case 32: // NAA 6: the last 8 bytes are the vendor's
		id.wwnWithExtension = "0x" + naa
		id.wwnExtension = "0x" + naa[16:]
		id.wwns = []string{"0x" + naa, "0x" + naa[:16]}
	}
}

// usbSerial returns the serial number of the USB device that a SCSI device belongs to.
func usbSerial(r *reader, device string) string {
	for dir := device; dir != ""; dir = parent(dir) {
		if r.exists(dir + "/idVendor") {
			return r.text(dir + "/serial")
		}
	}
	return ""
}

// underscored writes a value as udev does in names: an underscore for each run of blanks.
func underscored(s string) string { return strings.Join(strings.Fields(s), "_") }

// distinct drops empty values and repetitions.
func distinct(list ...string) (out []string) {
	for _, s := range list {
		if s != "" && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// vpdPayload checks the header of a vital product data page (SPC-5, 7.7.1) and returns what follows it.
func vpdPayload(page []byte, code byte) ([]byte, error) {
	if len(page) < 4 {
		return nil, fmt.Errorf("page of %d bytes has no header", len(page))
	}
	if page[1] != code {
		return nil, fmt.Errorf("page code is %#02x, want %#02x", page[1], code)
	}
	length := int(binary.BigEndian.Uint16(page[2:]))
	if length > len(page)-4 {
		return nil, fmt.Errorf("page says %d bytes and has %d", length, len(page)-4)
	}
	return page[4 : 4+length], nil
}

// parseVPD80 returns the unit serial number (SPC-5, 7.7.20). Drives pad it with blanks on either side.
func parseVPD80(page []byte) (string, error) {
	b, err := vpdPayload(page, 0x80)
	return clean(b), err
}

// vpd83 is what device identification (SPC-5, 7.7.6) says about the logical unit itself.
type vpd83 struct {
	naa string // 16 or 32 lower-case hex digits
	t10 string // vendor in 8 characters, then the vendor's own identification

	other, otherKind string // what scsi_id takes where there is no NAA name, and the digit of its kind: 2 EUI-64, 1 T10, 0 the vendor's own
}

// parseVPD83 returns the best designators: the longest NAA name, since an extended one is the more exact, and the first
// T10 one. On error it has those before the broken one.
func parseVPD83(page []byte) (vpd83, error) {
	var names vpd83
	b, err := vpdPayload(page, 0x83)
	if err != nil {
		return names, err
	}
	for len(b) > 0 {
		if len(b) < 4 || len(b) < 4+int(b[3]) {
			return names, errors.New("designator is cut off")
		}
		codeSet, association, kind := b[0]&0x0f, b[1]>>4&3, b[1]&0x0f
		value := b[4 : 4+int(b[3])]
		b = b[4+int(b[3]):]
		if association != 0 { // of the port or the target
			continue
		}
		switch {
		case kind == 3 && codeSet == 1 && (len(value) == 8 || len(value) == 16):
			if naa := hex.EncodeToString(value); len(naa) > len(names.naa) {
				names.naa = naa
			}
		case kind == 1 && names.t10 == "":
			names.t10 = string(value)
		}
		if digit := strconv.Itoa(int(kind)); kind <= 2 && len(value) > 0 && digit > names.otherKind {
			names.otherKind, names.other = digit, clean(value)
			if codeSet == 1 { // binary
				names.other = hex.EncodeToString(value)
			}
		}
	}
	return names, nil
}
