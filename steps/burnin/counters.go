// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"bufio"
	"bytes"
	"context"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/ironhand/ironhand/inspect"
)

// kind is what a counter counts, and decides by which rule it is judged.
type kind string

// The kinds of counters. A rule is found by these texts, and people see them.
const (
	corrected     kind = "corrected memory errors"
	uncorrected   kind = "uncorrected memory errors"
	machineCheck  kind = "machine checks"
	throttled     kind = "times throttled for heat"
	busCorrected  kind = "corrected PCIe errors"
	busNonfatal   kind = "PCIe errors that were not corrected"
	busFatal      kind = "fatal PCIe errors"
	nicErrors     kind = "frames with errors"
	linkChanges   kind = "changes of the link"
	diskErrors    kind = "commands of the disk that failed"
	mediaErrors   kind = "media errors"
	reallocated   kind = "reallocated sectors"
	diskFailing   kind = "disk's own verdict: failing"
	kernelMessage kind = "kernel messages of broken hardware"
	kernelRemark  kind = "kernel messages of hardware"
	bmcFault      kind = "events of broken hardware in the BMC's log"
	bmcEvent      kind = "events in the BMC's log"
	tooHot        kind = "samples at the sensor's critical temperature"
	gone          kind = "devices that vanished"
	silent        kind = "health logs that could be read before the load, and not after it"
)

// A key is one counter of one part.
type key struct {
	part string // as people find it: "DIMM_A1", "/dev/sda ST1000 serial S1", "eth0 (0000:01:00.0)"
	kind kind
}

// sample is what the machine has counted since it was started, of all parts.
type sample struct {
	counts map[key]int64
	parts  map[string]bool // disks and interfaces that are there, and stay
	told   map[string]bool // disks that said how they are
}

// source is a file that counts.
type source struct {
	file string
	key  key
	line string // of several, the one that begins with this word
	slow bool   // there are many, or it costs the kernel something: not read with each sample
}

// interrupts has a line of counts of machine checks, and of all interrupts a number for each processor.
const interrupts = "proc/interrupts"

// sources are the files of a machine that count. Files that are not there count nothing: few machines have all of them.
func sources(root fs.FS, p places) []source {
	return slices.Concat(memorySources(root, p), []source{{file: interrupts, key: key{"processors", machineCheck}, slow: true}}, throttlingSources(root, p), pcieSources(root, p), interfaceSources(root, p),
		diskSources(root))
}

// counters reads all that a machine counts now.
func counters(root fs.FS, p places) sample {
	f := newGauges(root)
	defer f.close()
	s := count(f, sources(root, p), true)
	s.present(root, p)
	return s
}

// count reads files that count; those that are slow only if that is wanted.
func count(f *gauges, list []source, slow bool) sample {
	s := sample{counts: map[key]int64{}, parts: map[string]bool{}}
	for _, c := range list {
		switch {
		case c.slow && !slow:
		case c.file == interrupts:
			s.machineChecks(f.root)
		case c.line != "":
			for line := range strings.Lines(text(f.root, c.file)) {
				name, number, _ := strings.Cut(strings.TrimSpace(line), " ")
				if n, err := strconv.ParseInt(number, 10, 64); err == nil && name == c.line {
					s.counts[c.key] += n
				}
			}
		default:
			if n, ok := f.number(c.file); ok {
				s.counts[c.key] += n
			}
		}
	}
	return s
}

// present notes which disks and interfaces there are.
func (s *sample) present(root fs.FS, p places) {
	for _, device := range glob(root, "sys/class/net/*/device") {
		s.parts[nicPart(root, path.Dir(device), p)] = true
	}
	for _, device := range glob(root, "sys/block/*/device") { // without is no hardware: loop, md, dm, ram
		if dir := path.Dir(device); !pulled(root, dir) {
			s.parts[diskName(dir)] = true
		}
	}
}

// pulled says whether a disk, by its directory of sys/block, is there to be pulled out: a stick, or a medium that a BMC plays, which ends with its session.
func pulled(root fs.FS, dir string) bool {
	if text(root, dir+"/removable") == "1" {
		return true
	}
	to, err := fs.ReadLink(root, dir)
	return err == nil && strings.Contains(to, "/usb")
}

// text is a small file without white space around it, "" if it cannot be read.
func text(root fs.FS, name string) string {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return ""
	}
	return strings.ToValidUTF8(strings.TrimSpace(string(b)), "?")
}

// glob lists files in order; the patterns here are right.
func glob(root fs.FS, pattern string) []string {
	names, _ := fs.Glob(root, pattern) // its only error is of a wrong pattern
	return names
}

// memorySources are EDAC's. Source: Linux Documentation/admin-guide/RAS/main.rst: dimmX in newer kernels, rankX where the memory controller knows no more.
func memorySources(root fs.FS, p places) (list []source) {
	for _, pattern := range []string{"sys/devices/system/edac/mc/mc[0-9]*/dimm[0-9]*", "sys/devices/system/edac/mc/mc[0-9]*/rank[0-9]*"} {
		for _, dir := range glob(root, pattern) {
			prefix := "dimm"
			if strings.HasPrefix(path.Base(dir), "rank") {
				prefix = "rank"
			}
			part := p.dimm(text(root, dir+"/"+prefix+"_label"), path.Base(path.Dir(dir))+" "+path.Base(dir))
			list = append(list, source{file: dir + "/" + prefix + "_ce_count", key: key{part, corrected}}, source{file: dir + "/" + prefix + "_ue_count", key: key{part, uncorrected}})
		}
	}
	for _, dir := range glob(root, "sys/devices/system/edac/mc/mc[0-9]*") {
		part := "memory at " + path.Base(dir)
		list = append(list, source{file: dir + "/ce_noinfo_count", key: key{part, corrected}}, source{file: dir + "/ue_noinfo_count", key: key{part, uncorrected}})
	}
	return list
}

// machineChecks reads how many machine check exceptions there were. Source: Linux arch/x86/kernel/irq.c, arch_show_interrupts.
func (s *sample) machineChecks(root fs.FS) {
	f, err := root.Open(interrupts)
	if err != nil {
		return
	}
	defer f.Close() // only read
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20) // a number for each processor
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || fields[0] != "MCE:" {
			continue
		}
		for _, f := range fields[1:] {
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				break // the text behind the numbers
			}
			s.counts[key{"processors", machineCheck}] += n
		}
	}
}

// throttlingSources tell how often cores were slowed down for heat. A package's count is the same at each of its cores.
// Source: Linux Documentation/ABI/testing/sysfs-devices-system-cpu, thermal_throttle.
func throttlingSources(root fs.FS, p places) (list []source) {
	seen := map[string]bool{}
	for _, dir := range glob(root, "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle") {
		dir = path.Dir(dir)
		socket := text(root, dir+"/topology/physical_package_id")
		k := key{p.processor(socket), throttled}
		list = append(list, source{file: dir + "/thermal_throttle/core_throttle_count", key: k})
		if !seen[socket] {
			seen[socket] = true
			list = append(list, source{file: dir + "/thermal_throttle/package_throttle_count", key: k})
		}
	}
	return list
}

// pcieSources are what advanced error reporting counts. Source: Linux Documentation/ABI/testing/sysfs-bus-pci-devices-aer.
func pcieSources(root fs.FS, p places) (list []source) {
	for _, c := range []struct {
		file, total string
		kind        kind
	}{
		{"aer_dev_correctable", "TOTAL_ERR_COR", busCorrected},
		{"aer_dev_nonfatal", "TOTAL_ERR_NONFATAL", busNonfatal},
		{"aer_dev_fatal", "TOTAL_ERR_FATAL", busFatal},
	} {
		for _, file := range glob(root, "sys/bus/pci/devices/*/"+c.file) {
			list = append(list, source{file: file, key: key{"PCIe device " + p.slot(path.Base(path.Dir(file))), c.kind}, line: c.total, slow: true})
		}
	}
	return list
}

// interfaceSources tell of errors of frames and changes of the link. Source: Linux Documentation/networking/statistics.rst.
func interfaceSources(root fs.FS, p places) (list []source) {
	for _, device := range glob(root, "sys/class/net/*/device") { // without is no hardware
		dir := path.Dir(device)
		part := nicPart(root, dir, p)
		for _, file := range []string{"rx_errors", "tx_errors"} { // of which the others are parts
			list = append(list, source{file: dir + "/statistics/" + file, key: key{part, nicErrors}})
		}
		list = append(list, source{file: dir + "/carrier_changes", key: key{part, linkChanges}})
	}
	return list
}

func nicPart(root fs.FS, dir string, p places) string {
	part := path.Base(dir)
	for line := range strings.Lines(text(root, dir+"/device/uevent")) {
		if address, found := strings.CutPrefix(strings.TrimSpace(line), "PCI_SLOT_NAME="); found {
			part += " (" + p.slot(address) + ")"
		}
	}
	return part
}

// diskSources tell of the commands that failed. Source: Linux drivers/scsi/scsi_sysfs.c, ioerr_cnt.
func diskSources(root fs.FS) (list []source) {
	for _, dir := range glob(root, "sys/block/*/device") {
		dir = path.Dir(dir)
		list = append(list, source{file: dir + "/device/ioerr_cnt", key: key{diskName(dir), diskErrors}})
	}
	return list
}

// diskName is the name in /dev of a directory of sys/block.
func diskName(dir string) string { return "/dev/" + strings.ReplaceAll(path.Base(dir), "!", "/") }

// places name parts as people find them.
type places struct{ inspect.Places }

// dimm names a module by the label that EDAC has for its place. It is joined with the firmware's name for the slot, with the serial number, only if the label is that name: drivers that
// make up labels of channels (CPU_SrcID#0_MC#1_Chan#0_DIMM#0) know nothing of the board, and to guess would send somebody to the wrong slot.
// Source: Linux drivers/edac/ghes_edac.c, dimm_setup_label: bank, blank, slot.
func (p places) dimm(label, place string) string {
	if label == "" {
		return place
	}
	var is []inspect.MemoryModule
	for _, m := range p.Modules {
		if l := letters(label); l != "" && (l == letters(m.Slot) || l == letters(m.Bank+m.Slot)) {
			is = append(is, m)
		}
	}
	if len(is) == 1 && is[0].Serial != "" {
		return label + " serial " + is[0].Serial + " (" + place + ")"
	}
	return label + " (" + place + ")"
}

// letters are the letters and digits of a name, by which names are compared that differ in blanks, underscores and case.
func letters(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, s)
}

// processor names the processor of a physical package, with the name of its socket. Where there are several, the firmware lists them in an order that is the kernel's on the boards
// that are known, but nothing says so: the name says where it comes from.
func (p places) processor(socket string) string {
	if socket == "" {
		return "processors"
	}
	part := "processor in socket " + socket
	n, err := strconv.Atoi(socket)
	switch {
	case err != nil || n < 0 || n >= len(p.Sockets) || p.Sockets[n] == "":
	case len(p.Sockets) == 1:
		part += " (" + p.Sockets[n] + ")"
	default:
		part += " (" + p.Sockets[n] + " in the firmware's order)"
	}
	return part
}

// slot adds the slot of a PCI address.
func (p places) slot(address string) string {
	device, _, _ := strings.Cut(address, ".")
	if slot := p.Slots[device]; slot != "" {
		return address + ", slot " + slot
	}
	return address
}

// health adds what disks say of themselves, and hands on how warm they are. It asks them, which takes a moment.
func (s *sample) health(ctx context.Context, m inspect.Machine, warm func(disk string, celsius float64)) error {
	list, err := m.Health(ctx)
	s.told = map[string]bool{}
	for _, h := range list {
		s.told[h.Disk] = true
		if h.TemperatureC != nil && warm != nil {
			warm(h.Disk, float64(*h.TemperatureC))
		}
		if h.Failing {
			s.counts[key{h.Disk, diskFailing}] = 1
		}
		for k, n := range map[kind]*int64{mediaErrors: h.MediaErrors, reallocated: h.Reallocated} {
			if n != nil {
				s.counts[key{h.Disk, k}] = *n
			}
		}
	}
	return err
}

// A message is a line of the kernel's log that tells of hardware.
type message struct {
	key  key
	text string
}

// message reads one record of /dev/kmsg: "6,339,5140900,-;text", with further lines that begin with a space.
// Source: Linux Documentation/ABI/testing/dev-kmsg.
func (r rules) message(record []byte) (m message, found bool) {
	_, rest, ok := bytes.Cut(record, []byte(";"))
	if !ok {
		return m, false
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	said := strings.ToValidUTF8(string(line[:min(len(line), longestMessage)]), "?")
	for _, b := range r.Messages {
		match := b.expr.FindStringSubmatch(said)
		if match == nil {
			continue
		}
		m := message{key{b.Part, kernelRemark}, said}
		if b.Fail {
			m.key.kind = kernelMessage
		}
		if i := b.expr.SubexpIndex("dev"); i > 0 && match[i] != "" {
			m.key.part = "/dev/" + strings.ReplaceAll(match[i], "!", "/")
		}
		if i := b.expr.SubexpIndex("pci"); i > 0 && match[i] != "" {
			m.key.part = "PCIe device " + match[i]
		}
		return m, true
	}
	return m, false
}

const longestMessage = 300 // bytes
