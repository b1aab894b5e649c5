// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Disk is one disk in the inventory: a whole block device that an operating system can be written to.
type Disk struct {
	Name               string `json:"name"`  // /dev/sda
	Model              Text   `json:"model"` // with single blanks, as lsblk shows it
	Size               int64  `json:"size"`  // bytes
	Rotational         bool   `json:"rotational"`
	WWN                Text   `json:"wwn"` // as lsblk: 0x and 16 or 32 digits, or the NVMe namespace's identifier
	Serial             Text   `json:"serial"`
	Vendor             Text   `json:"vendor"` // "ATA" for all SATA disks; 0x1af4 for virtio
	WWNWithExtension   Text   `json:"wwn_with_extension"`
	WWNVendorExtension Text   `json:"wwn_vendor_extension"`
	HCTL               Text   `json:"hctl"`             // SCSI address: 0:0:1:0
	ByPath             Text   `json:"by_path"`          // as udev names it: /dev/disk/by-path/pci-0000:00:17.0-ata-1
	LogicalSectors     Number `json:"logical_sectors"`  // bytes
	PhysicalSectors    Number `json:"physical_sectors"` // bytes
	Tran               Text   `json:"tran"`             // sata, sas, nvme, usb, virtio, ...

	Type      string `json:"-"` // disk, a level of software RAID such as raid1, or mpath
	State     string `json:"-"` // why the kernel does not use it: "offline", of a SCSI device or an NVMe controller; empty if it does
	ReadOnly  bool   `json:"-"`
	Removable bool   `json:"-"`
	Firmware  string `json:"-"` // revision, as the disk says it
	Bay       string `json:"-"` // slot of the enclosure that the disk is in; empty if no enclosure says it

	// All values under which udev and lsblk know the disk, the one above first. Hints are compared with each.
	Serials []string `json:"-"`
	WWNs    []string `json:"-"`
	ByPaths []string `json:"-"`

	// Paths are the same disk as it is reached by other ways, which are not listed as disks. They are those that say so by a name that is unique
	// in the world; one that lies is told from this disk only by what is written to one and read from the other.
	Paths []Disk `json:"-"`

	// Unread are the attributes, by the names of their hints and by those of [Disk.ReadOnly] and the like, that could not be read, although they are
	// there or may be. Their values above mean nothing.
	Unread []string `json:"-"`
}

// String describes the disk for people: /dev/sda ATA SAMSUNG MZ7 447.1 GiB serial S2HT.
func (d Disk) String() string {
	words := []string{d.Name}
	if d.Vendor != "" && !strings.HasPrefix(string(d.Vendor), "0x") {
		words = append(words, string(d.Vendor))
	}
	size := humanSize(d.Size)
	if d.Size == 0 {
		size = "of unknown size"
	}
	words = append(words, string(cmp.Or(d.Model, d.Tran)), size)
	if d.Serial != "" {
		words = append(words, "serial "+string(d.Serial))
	} else {
		words = append(words, "without serial")
	}
	if d.ReadOnly {
		words = append(words, "read-only")
	}
	for _, p := range d.Paths {
		words = append(words, "also "+p.Name)
	}
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " ")
}

// Names are the disk's name and those of its other paths.
func (d Disk) Names() []string {
	names := []string{d.Name}
	for _, p := range d.Paths {
		names = append(names, p.Name)
	}
	return names
}

// Size writes bytes for people: 447.1 GiB.
func Size(n int64) string { return humanSize(n) }

// humanSize writes bytes with one digit after the point and the largest fitting binary unit.
func humanSize(n int64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"}
	if n < 1<<10 {
		return fmt.Sprintf("%d bytes", n)
	}
	size, unit := float64(n), 0
	for size >= 1<<10 && unit < len(units)-1 {
		size, unit = size/(1<<10), unit+1
	}
	return fmt.Sprintf("%.1f %s", size, units[unit])
}

// maxSectors is the size of 8 EiB, the most that the kernel's byte offsets can hold.
const maxSectors = 1<<54 - 1

// readDisks lists the disks as ironic-python-agent does (ironic_python_agent/hardware.py, list_all_block_devices), in the
// order sda, sdb, ..., sdaa, vda, nvme0n1. A disk that hangs is listed with nothing known of it.
func readDisks(r *reader) []Disk {
	all := each(r, "disk", deviceLimit, r.dir("sys/block"), findDisk, func(name string) foundDisk {
		if !isDisk(name, "disk") || strings.HasPrefix(name, "loop") {
			return foundDisk{}
		}
		return foundDisk{disk: &Disk{Name: deviceName(name), Unread: slices.Concat(hintNames(), []string{"type", "read-only", "removable"})}}
	})
	member := make(map[string]bool)
	for _, f := range all {
		for _, m := range f.members {
			member[deviceName(m)] = true
		}
	}
	all = slices.DeleteFunc(all, func(f foundDisk) bool { return f.disk == nil || member[f.disk.Name] })
	slices.SortStableFunc(all, func(a, b foundDisk) int { return compareDisks(*a.disk, *b.disk) })
	return joinPaths(all)
}

// foundDisk is a disk and what tells whether it is another path to one.
type foundDisk struct {
	disk    *Disk    // nil for what is none
	members []string // of a multipath device, which stands for them
	unit    string   // its name that is unique in the world; "" if it has none that can be relied on
	port    string   // by which it is reached; "" for a multipath device
}

// joinPaths lists each disk once, by its best path: a multipath device, else one that works and can be written to, else the first.
func joinPaths(all []foundDisk) []Disk {
	groups := [][]foundDisk{}
	for _, f := range all {
		i := slices.IndexFunc(groups, func(g []foundDisk) bool { return !slices.ContainsFunc(g, func(o foundDisk) bool { return !f.same(o) }) })
		if i < 0 {
			groups = append(groups, []foundDisk{f})
			continue
		}
		groups[i] = append(groups[i], f)
	}
	disks := []Disk{}
	for _, g := range groups {
		rank := func(f foundDisk) (n int) {
			for i, bad := range []bool{f.disk.ReadOnly, f.disk.State != "", f.port != ""} {
				if bad {
					n += 1 << i
				}
			}
			return n
		}
		slices.SortStableFunc(g, func(a, b foundDisk) int { return cmp.Compare(rank(a), rank(b)) })
		d := *g[0].disk
		for _, other := range g[1:] {
			d.Paths = append(d.Paths, *other.disk)
		}
		disks = append(disks, d)
	}
	slices.SortStableFunc(disks, compareDisks)
	return disks
}

// same tells whether two are one disk. A serial number alone is not enough: cheap disks and adapters share them. Two units of one port are never one disk.
func (f foundDisk) same(o foundDisk) bool {
	a, b := f.disk, o.disk
	if f.unit == "" || f.unit != o.unit || f.port == o.port || a.Size != b.Size || a.LogicalSectors != b.LogicalSectors || len(a.Unread)+len(b.Unread) > 0 {
		return false
	}
	return f.port == "" || o.port == "" || a.Serial == b.Serial && a.Model == b.Model && a.Vendor == b.Vendor
}

// identifyPath reads by which name a disk is known on all its paths, and which of them this is.
func (f *foundDisk) identifyPath(r *reader, dir string) {
	device := r.real(dir + "/device")
	d := f.disk
	if state := r.attempt(device + "/state"); state != "running" && state != "live" {
		d.State = state
	}
	switch {
	case d.Type == "mpath": // scsi_id's digit for the kind of name
		f.unit = strings.Replace(strings.Replace(r.text(dir+"/dm/uuid"), "mpath-3", "naa.", 1), "mpath-2", "eui.", 1)
	case d.Tran == "nvme": // where the kernel does not join the paths itself: nvme_core.multipath=N
		nqn, wwid := r.attempt(device+"/subsysnqn"), r.text(dir+"/wwid")
		if _, named := cutKind(wwid); nqn != "" && named {
			f.unit, f.port = nqn+" "+wwid, device
		}
	case d.HCTL != "" && d.Tran != "usb":
		f.unit = r.ifSet(device + "/wwid")
		f.port = string(d.HCTL[:strings.LastIndex(string(d.HCTL), ":")+1])
	}
	name, named := cutKind(f.unit)
	if d.Tran != "nvme" && (!named || strings.HasPrefix(f.unit, "naa.") && !strings.Contains("256", name[:1])) { // NAA 3 is unique in one place only
		f.unit = ""
	}
}

// cutKind takes the kind off a name that is unique in the world; named tells whether it is one.
func cutKind(name string) (value string, named bool) {
	for _, kind := range []string{"naa.", "eui.", "uuid."} {
		if value, named = strings.CutPrefix(name, kind); named {
			return value, strings.Trim(value, "0f-") != ""
		}
	}
	return "", false
}

// deviceName is the name in /dev of a block device: sysfs writes cciss!c0d0.
func deviceName(name string) string { return "/dev/" + strings.ReplaceAll(name, "!", "/") }

// findDisk reads one block device with a reader of its own. One that goes meanwhile is none, as if it had gone before.
func findDisk(r *reader, name string) (f foundDisk) {
	defer func() {
		if r.count() > 0 && !r.exists("sys/block/"+name) { // the kernel takes this link away first, and the files, which then give ENODEV, after it
			*r, f = reader{ctx: r.ctx, fsys: r.fsys, asker: r.asker}, foundDisk{}
		}
	}()
	dir := r.real("sys/block/" + name)
	if strings.HasPrefix(name, "md") && r.text(dir+"/size") == "0" {
		return f // an array that was stopped: its other files are busy until the kernel has taken it away
	}
	var unread []string
	before := r.count()
	kind := deviceType(r, dir, name)
	if !isDisk(name, kind) || r.flag(dir+"/hidden") { // hidden: a single path of a multipath NVMe namespace
		return f
	}
	if kind == "mpath" {
		f.members = r.dir(dir + "/slaves")
	}
	if r.count() > before {
		unread = append(unread, "type")
	}
	before = r.count()
	sectors, ok := r.number(dir + "/size") // of 512 bytes, always (Documentation/ABI/stable/sysfs-block)
	if sectors < 0 || sectors > maxSectors {
		r.problem(fmt.Errorf("disk %s: %d sectors are no size", name, sectors))
		ok = false
	}
	switch {
	case r.count() > before:
		sectors, unread = 0, append(unread, "size")
	case !ok || sectors == 0: // a drive without a medium
		return f
	}
	d := readDisk(r, dir, name, kind, sectors*512)
	d.Unread = append(d.Unread, unread...)
	f.disk = &d
	f.identifyPath(r, dir)
	return f
}

// deviceType returns what lsblk calls TYPE (util-linux, misc-utils/lsblk.c, get_type).
func deviceType(r *reader, dir, name string) string {
	switch {
	case strings.HasPrefix(name, "dm-"):
		prefix, _, _ := strings.Cut(r.text(dir+"/dm/uuid"), "-")
		return strings.ToLower(cmp.Or(prefix, "dm"))
	case strings.HasPrefix(name, "loop"):
		return "loop"
	case strings.HasPrefix(name, "md"):
		return strings.ToLower(cmp.Or(r.text(dir+"/md/level"), "md"))
	}
	// SCSI peripheral device types (SPC-5, table 139); other buses have no such file.
	switch kind := r.text(dir + "/device/type"); kind {
	case "", "0":
		return "disk"
	case "5":
		return "rom"
	default:
		return "scsi type " + kind
	}
}

// isDisk tells whether a block device of this name and type is listed.
func isDisk(name, kind string) bool {
	for _, prefix := range []string{"fd", "ram", "zram"} {
		if strings.HasPrefix(name, prefix) {
			return false
		}
	}
	return kind == "disk" || kind == "mpath" || strings.Contains(kind, "raid")
}

// readDisk reads one disk. dir is its directory in sysfs, name the kernel's, size in bytes.
func readDisk(r *reader, dir, name, kind string, size int64) Disk {
	device := r.real(dir + "/device")
	d := Disk{Name: deviceName(name), Size: size, Type: kind}
	// read does a part of the work, and notes what cannot be relied on if it was a problem.
	read := func(work func(), attributes ...string) (ok bool) {
		before := r.count()
		work()
		if ok = r.count() == before; !ok {
			d.Unread = append(d.Unread, attributes...)
		}
		return ok
	}
	read(func() {
		logical, _ := r.number(dir + "/queue/logical_block_size")
		physical, _ := r.number(dir + "/queue/physical_block_size")
		d.LogicalSectors, d.PhysicalSectors = Number(logical), Number(physical)
	}, "sectors")
	identity := []string{"vendor", "model", "serial", "wwn", "wwn_with_extension", "wwn_vendor_extension"}
	read(func() { d.Rotational = r.flag(dir + "/queue/rotational") }, "rotational")
	read(func() { d.ReadOnly = r.flag(dir + "/ro") }, "read-only")
	read(func() { d.Removable = r.flag(dir + "/removable") }, "removable")
	attached := read(func() {
		if address := r.dir(device + "/scsi_device"); len(address) > 0 {
			d.HCTL = Text(address[0])
		}
		d.Tran = Text(transport(r, name, device, string(d.HCTL)))
	}, "hctl", "tran")
	known := read(func() {
		d.Vendor = Text(r.text(device + "/vendor"))
		id := identify(r, dir, device, name, d)
		d.Model = Text(strings.Join(strings.Fields(id.model), " "))
		d.Serials, d.WWNs = id.serials, id.wwns
		d.Serial, d.WWN = first(id.serials), first(id.wwns)
		d.WWNWithExtension, d.WWNVendorExtension = Text(id.wwnWithExtension), Text(id.wwnExtension)
	}, identity...)
	if known && !attached { // who it is was looked up by how it is attached
		d.Unread = append(d.Unread, identity...)
	}
	read(func() {
		for _, p := range byPaths(r, dir) {
			d.ByPaths = append(d.ByPaths, "/dev/disk/by-path/"+p)
			if strings.HasPrefix(name, "vd") && strings.HasPrefix(p, "pci-") { // an older name, which udev's rules still give too
				d.ByPaths = append(d.ByPaths, "/dev/disk/by-path/virtio-"+p)
			}
		}
		d.ByPath = first(d.ByPaths)
	}, "by_path")
	d.Firmware = r.text(device + "/rev")
	if d.Firmware == "" {
		d.Firmware = r.text(device + "/firmware_rev")
	}
	d.Bay = bay(r, device)
	return d
}

// bay returns the slot that a disk is in, as its enclosure or the board names it (drivers/misc/enclosure.c, drivers/pci/slot.c).
func bay(r *reader, device string) string {
	for _, name := range r.dir(device) {
		if slot, found := strings.CutPrefix(name, "enclosure_device:"); found {
			return clean([]byte(slot))
		}
	}
	if function, found := strings.CutPrefix(r.target(device+"/device"), "0000:"); found { // an NVMe controller's
		for _, slot := range r.dir("sys/bus/pci/slots") {
			if at := r.text("sys/bus/pci/slots/" + slot + "/address"); at != "" && strings.HasPrefix("0000:"+function, at+".") {
				return slot
			}
		}
	}
	return ""
}

func first(list []string) Text {
	if len(list) == 0 {
		return ""
	}
	return Text(list[0])
}

// transport returns what lsblk calls TRAN (util-linux, misc-utils/lsblk.c, get_transport); empty if it has no name.
func transport(r *reader, name, device, hctl string) string {
	number, _, _ := strings.Cut(hctl, ":")
	if number == "" {
		for prefix, tran := range map[string]string{"nvme": "nvme", "vd": "virtio", "mmcblk": "mmc"} {
			if strings.HasPrefix(name, prefix) {
				return tran
			}
		}
		return ""
	}
	host := "host" + number
	is := func(class string) bool { return r.exists("sys/class/" + class + "_host/" + host) }
	switch driver := r.text("sys/class/scsi_host/" + host + "/proc_name"); {
	case is("spi"):
		return "spi"
	case is("fc"):
		if strings.Contains(r.text("sys/class/fc_host/"+host+"/symbolic_name"), " over ") {
			return "fcoe"
		}
		return "fc"
	case is("sas"), r.exists(device + "/sas_device"):
		return "sas"
	case r.exists(device + "/ieee1394_id"):
		return "sbp"
	case is("iscsi"):
		return "iscsi"
	case strings.Contains(device, "/usb"):
		return "usb"
	case strings.HasPrefix(driver, "ahci"), strings.HasPrefix(driver, "sata"):
		return "sata"
	case strings.Contains(driver, "ata"):
		return "ata"
	}
	return ""
}

// compareDisks orders by kind of device as the kernel numbers them, then by name.
func compareDisks(a, b Disk) int {
	return cmp.Or(cmp.Compare(rank(a.Name), rank(b.Name)), compareDiskNames(path.Base(a.Name), path.Base(b.Name)))
}

// rank is the place of a kind of disk in the order of major numbers, where lsblk has it; arrays come after their members.
func rank(device string) int {
	order := []string{"/dev/sd", "/dev/mmcblk", "/dev/vd", "/dev/xvd", "/dev/nvme", "", "/dev/md", "/dev/dm-"}
	for i, prefix := range order {
		if prefix != "" && strings.HasPrefix(device, prefix) {
			return i
		}
	}
	return slices.Index(order, "")
}

// compareDiskNames is compareNames for names that count with letters where numbers have no place: sdz before sdaa.
func compareDiskNames(a, b string) int {
	if strings.ContainsAny(a+b, "0123456789") {
		return compareNames(a, b)
	}
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}
