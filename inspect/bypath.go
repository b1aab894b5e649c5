// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"fmt"
	"path"
	"strconv"
	"strings"
)

// byPaths returns the names in /dev/disk/by-path that udev would make for the disk with this directory in sysfs
// (systemd, src/udev/udev-builtin-path_id.c). The first is the one that Ironic's users know: of an ATA disk that without
// the number of the device on the cable. None if the hardware's place has no stable name.
//
// Like udev's, the name is built from the disk up to the controller, and what is above puts itself in front.
func byPaths(r *reader, dir string) []string {
	w := pathWalk{r: r, disk: dir}
	for at := dir; at != ""; at = parent(at) {
		at = w.step(at)
	}
	if !w.placed || !w.connected {
		return nil
	}
	return distinct(w.compatible, w.path)
}

// A pathWalk is the state of the walk upwards.
type pathWalk struct {
	r                *reader
	disk             string
	path, compatible string // the second only where udev makes two names
	placed           bool   // seen a bus on which places have names
	connected        bool   // seen how the disk is attached to it
}

// prepend puts a part in front of the name, and other in front of the compatible name, which begins to exist with the
// first part that differs.
func (w *pathWalk) prepend(part, other string) {
	if w.compatible != "" || other != part {
		w.compatible = strings.TrimSuffix(other+"-"+w.compatible, "-")
	}
	w.path = strings.TrimSuffix(part+"-"+w.path, "-")
}

// step looks at one device and returns the highest one that it has dealt with; empty ends the walk.
func (w *pathWalk) step(at string) string {
	name, bus := path.Base(at), w.r.target(at+"/subsystem")
	switch bus {
	case "scsi":
		w.connected = true
		return w.scsi(at, name)
	case "usb":
		if _, port, found := strings.Cut(name, "-"); found {
			w.connected = true
			w.prepend("usb-0:"+port, "usb-0:"+port)
			return w.skip(at, bus)
		}
	case "nvme":
		if nsid := w.r.text(w.disk + "/nsid"); nsid != "" {
			w.placed, w.connected = true, true
			w.prepend("nvme-"+nsid, "nvme-"+nsid)
		}
	case "nvme-subsystem":
		// A multipath namespace hangs on a virtual device; the controller of the same number has a place.
		controller := w.r.follow("sys/class/nvme/" + nvmeController(path.Base(w.disk)))
		if controller == "" || strings.Contains(controller, "/virtual/") { // of NVMe over fabrics
			return ""
		}
		if w.r.target(controller+"/subsystem") == bus { // in a recording that somebody has changed
			return ""
		}
		return w.step(controller)
	case "virtio":
		w.connected = true
		return w.skip(at, bus)
	case "pci":
		w.placed = true
		w.prepend("pci-"+name, "pci-"+name)
		return w.skip(at, bus)
	case "acpi", "xen":
		w.placed = true
		w.prepend(bus+"-"+name, bus+"-"+name)
		return w.skip(at, bus)
	case "platform":
		w.placed, w.connected = true, true
		w.prepend("platform-"+name, "platform-"+name)
		return w.skip(at, bus)
	}
	return at
}

// skip returns the highest ancestor in an unbroken line of the same bus.
func (w *pathWalk) skip(at, bus string) string {
	for {
		up := parent(at)
		if up == "" || w.r.target(up+"/subsystem") != bus {
			return at
		}
		at = up
	}
}

// scsi deals with a SCSI device, whose name is its address; targets and hosts on the way up are passed over.
func (w *pathWalk) scsi(at, name string) string {
	address := strings.Split(name, ":")
	if len(address) != 4 {
		return at
	}
	lun := "lun-" + address[3]
	if n, err := strconv.ParseUint(address[3], 10, 32); err != nil {
		return ""
	} else if n > 255 {
		lun = fmt.Sprintf("lun-0x%04x%04x00000000", n&0xffff, n>>16)
	}
	target := parent(at)
	host := target
	for host != "" && !strings.HasPrefix(path.Base(host), "host") {
		host = parent(host)
	}
	if host == "" {
		return ""
	}

	switch {
	case strings.Contains(at, "/rport-"):
		w.placed = true
		port := w.r.text("sys/class/fc_transport/" + path.Base(target) + "/port_name")
		if port == "" {
			return ""
		}
		w.prepend("fc-"+port+"-"+lun, "fc-"+port+"-"+lun)
	case strings.Contains(at, "/end_device-"):
		w.placed = true
		place := w.sas(parent(target))
		if place == "" {
			return ""
		}
		w.prepend("sas-"+place+"-"+lun, "sas-"+place+"-"+lun)
	case strings.Contains(at, "/session"):
		w.placed = true
		place := w.iscsi(target)
		if place == "" {
			return ""
		}
		w.prepend(place+"-"+lun, place+"-"+lun)
	case strings.Contains(at, "/ata"):
		port := w.r.text("sys/class/ata_port/" + path.Base(parent(host)) + "/port_no")
		if port == "" {
			return ""
		}
		device := address[2]
		if address[1] != "0" { // behind a port multiplier
			device = address[1] + ".0"
		}
		w.prepend("ata-"+port+"."+device, "ata-"+port)
	default:
		number, ok := w.hostNumber(host)
		if !ok {
			return ""
		}
		place := "scsi-" + strconv.Itoa(number) + ":" + strings.Join(address[1:], ":")
		w.prepend(place, place)
		return host
	}
	return at
}

// sas names the place of an end device: its connector on the controller or expander, or its address on a wide port.
func (w *pathWalk) sas(endDevice string) string {
	port := parent(endDevice)
	device := "sys/class/sas_device/" + path.Base(endDevice)
	if w.r.text("sys/class/sas_port/"+path.Base(port)+"/num_phys") != "1" {
		return w.r.text(device + "/sas_address")
	}
	phy := w.r.text(device + "/phy_identifier")
	if phy == "" {
		return ""
	}
	if expander := w.r.text("sys/class/sas_device/" + path.Base(parent(port)) + "/sas_address"); expander != "" {
		return "exp" + expander + "-phy" + phy
	}
	return "phy" + phy
}

// iscsi names the portal and target of the session that a SCSI target belongs to.
func (w *pathWalk) iscsi(target string) string {
	session := target
	for session != "" && !strings.HasPrefix(path.Base(session), "session") {
		session = parent(session)
	}
	number := strings.TrimPrefix(path.Base(session), "session")
	name := w.r.text("sys/class/iscsi_session/session" + number + "/targetname")
	connection := "sys/class/iscsi_connection/connection" + number + ":0"
	address, port := w.r.text(connection+"/persistent_address"), w.r.text(connection+"/persistent_port")
	if name == "" || address == "" || port == "" {
		return ""
	}
	return "ip-" + address + ":" + port + "-iscsi-" + name
}

// hostNumber counts a SCSI host among those of the same controller, from 0.
func (w *pathWalk) hostNumber(host string) (int, bool) {
	own, err := strconv.Atoi(strings.TrimPrefix(path.Base(host), "host"))
	if err != nil {
		return 0, false
	}
	lowest := own
	for _, sibling := range w.r.dir(parent(host)) {
		if n, err := strconv.Atoi(strings.TrimPrefix(sibling, "host")); err == nil && strings.HasPrefix(sibling, "host") {
			lowest = min(lowest, n)
		}
	}
	return own - lowest, true
}

// nvmeController returns nvme0 for nvme0n1.
func nvmeController(disk string) string {
	number := strings.TrimPrefix(disk, "nvme")
	return "nvme" + number[:len(number)-len(strings.TrimLeft(number, "0123456789"))]
}

// parent returns the directory of the device above; empty at the top of sys/devices.
func parent(dir string) string {
	up := path.Dir(dir)
	if up == "." || up == "/" || up == "sys/devices" || dir == "" {
		return ""
	}
	return up
}
