// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"bufio"
	"bytes"
	"context"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"

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
	gone          kind = "devices that vanished"
)

// A key is one counter of one part.
type key struct {
	part string // as people find it: "DIMM_A1", "/dev/sda ST1000 serial S1", "eth0 (0000:01:00.0)"
	kind kind
}

// sample is what the machine has counted since it was started, of all parts.
type sample struct {
	counts map[key]int64
	parts  map[string]bool  // disks and interfaces that are there
	hot    map[string]int64 // temperatures by sensor, in thousandths of a degree Celsius
}

// counters reads what the machine counts. Files that are not there count nothing: few machines have all of them.
func counters(root fs.FS) sample {
	s := sample{counts: map[key]int64{}, parts: map[string]bool{}, hot: map[string]int64{}}
	s.memory(root)
	s.machineChecks(root)
	s.throttling(root)
	s.pcie(root)
	s.interfaces(root)
	s.disks(root)
	s.temperatures(root)
	return s
}

// text is a small file without white space around it, "" if it cannot be read.
func text(root fs.FS, name string) string {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return ""
	}
	return strings.ToValidUTF8(strings.TrimSpace(string(b)), "?")
}

// count adds a number that a file holds, in any base that C knows.
func (s *sample) count(root fs.FS, name, part string, k kind) {
	if n, err := strconv.ParseInt(text(root, name), 0, 64); err == nil {
		s.counts[key{part, k}] += n
	}
}

// glob lists files in order; the patterns here are right.
func glob(root fs.FS, pattern string) []string {
	names, _ := fs.Glob(root, pattern) // its only error is of a wrong pattern
	return names
}

// memory reads EDAC. Source: Linux Documentation/admin-guide/RAS/main.rst: dimmX in newer kernels, rankX where the memory controller knows no more.
func (s *sample) memory(root fs.FS) {
	for _, pattern := range []string{"sys/devices/system/edac/mc/mc[0-9]*/dimm[0-9]*", "sys/devices/system/edac/mc/mc[0-9]*/rank[0-9]*"} {
		for _, dir := range glob(root, pattern) {
			prefix := "dimm"
			if strings.HasPrefix(path.Base(dir), "rank") {
				prefix = "rank"
			}
			place := path.Base(path.Dir(dir)) + " " + path.Base(dir)
			part := place
			if label := text(root, dir+"/"+prefix+"_label"); label != "" {
				part = label + " (" + place + ")"
			}
			s.count(root, dir+"/"+prefix+"_ce_count", part, corrected)
			s.count(root, dir+"/"+prefix+"_ue_count", part, uncorrected)
		}
	}
	for _, dir := range glob(root, "sys/devices/system/edac/mc/mc[0-9]*") {
		s.count(root, dir+"/ce_noinfo_count", "memory at "+path.Base(dir), corrected)
		s.count(root, dir+"/ue_noinfo_count", "memory at "+path.Base(dir), uncorrected)
	}
}

// machineChecks reads how many machine check exceptions there were. Source: Linux arch/x86/kernel/irq.c, arch_show_interrupts.
func (s *sample) machineChecks(root fs.FS) {
	f, err := root.Open("proc/interrupts")
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

// throttling reads how often cores were slowed down for heat. A package's count is the same at each of its cores.
// Source: Linux Documentation/ABI/testing/sysfs-devices-system-cpu, thermal_throttle.
func (s *sample) throttling(root fs.FS) {
	seen := map[string]bool{}
	for _, dir := range glob(root, "sys/devices/system/cpu/cpu[0-9]*") {
		socket := text(root, dir+"/topology/physical_package_id")
		part := "processor in socket " + socket
		if socket == "" {
			part = "processors"
		}
		s.count(root, dir+"/thermal_throttle/core_throttle_count", part, throttled)
		if !seen[socket] {
			seen[socket] = true
			s.count(root, dir+"/thermal_throttle/package_throttle_count", part, throttled)
		}
	}
}

// pcie reads what advanced error reporting counts. Source: Linux Documentation/ABI/testing/sysfs-bus-pci-devices-aer.
func (s *sample) pcie(root fs.FS) {
	for _, c := range []struct {
		file, total string
		kind        kind
	}{
		{"aer_dev_correctable", "TOTAL_ERR_COR", busCorrected},
		{"aer_dev_nonfatal", "TOTAL_ERR_NONFATAL", busNonfatal},
		{"aer_dev_fatal", "TOTAL_ERR_FATAL", busFatal},
	} {
		for _, file := range glob(root, "sys/bus/pci/devices/*/"+c.file) {
			for line := range strings.Lines(text(root, file)) {
				name, number, _ := strings.Cut(strings.TrimSpace(line), " ")
				if n, err := strconv.ParseInt(number, 10, 64); err == nil && name == c.total {
					s.counts[key{"PCIe device " + path.Base(path.Dir(file)), c.kind}] += n
				}
			}
		}
	}
}

// interfaces reads errors of frames and changes of the link. Source: Linux Documentation/networking/statistics.rst.
func (s *sample) interfaces(root fs.FS) {
	for _, dir := range glob(root, "sys/class/net/*") {
		if _, err := fs.Stat(root, dir+"/device"); err != nil {
			continue // no hardware
		}
		part := nicPart(root, dir)
		s.parts[part] = true
		for _, file := range []string{"rx_errors", "tx_errors"} { // of which the others are parts
			s.count(root, dir+"/statistics/"+file, part, nicErrors)
		}
		s.count(root, dir+"/carrier_changes", part, linkChanges)
	}
}

func nicPart(root fs.FS, dir string) string {
	part := path.Base(dir)
	for line := range strings.Lines(text(root, dir+"/device/uevent")) {
		if slot, found := strings.CutPrefix(strings.TrimSpace(line), "PCI_SLOT_NAME="); found {
			part += " (" + slot + ")"
		}
	}
	return part
}

// disks reads which there are, and the commands that failed. Source: Linux drivers/scsi/scsi_sysfs.c, ioerr_cnt.
func (s *sample) disks(root fs.FS) {
	for _, dir := range glob(root, "sys/block/*") {
		if _, err := fs.Stat(root, dir+"/device"); err != nil {
			continue // no hardware: loop, md, dm, ram
		}
		name := "/dev/" + strings.ReplaceAll(path.Base(dir), "!", "/")
		s.parts[name] = true
		s.count(root, dir+"/device/ioerr_cnt", name, diskErrors)
	}
}

// temperatures reads all sensors. Source: Linux Documentation/hwmon/sysfs-interface.rst.
func (s *sample) temperatures(root fs.FS) {
	for _, file := range glob(root, "sys/class/hwmon/hwmon*/temp*_input") {
		dir := path.Dir(file)
		sensor := strings.TrimSuffix(path.Base(file), "_input")
		name := text(root, dir+"/name") + " " + text(root, dir+"/"+sensor+"_label")
		if strings.HasSuffix(name, " ") {
			name += sensor
		}
		if n, err := strconv.ParseInt(text(root, file), 10, 64); err == nil {
			s.hot[path.Base(dir)+" "+name] = max(n, s.hot[path.Base(dir)+" "+name])
		}
	}
}

// health adds what disks say of themselves. It asks them, which takes a moment.
func (s *sample) health(ctx context.Context, m inspect.Machine) error {
	list, err := m.Health(ctx)
	for _, h := range list {
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

// broken are kernel messages that tell of hardware which does not work as it should, each with its place in the kernel's source.
var broken = []struct {
	expr   *regexp.Regexp
	part   string
	source string
}{
	{regexp.MustCompile(`mce: \[Hardware Error\]`), "processors", "arch/x86/kernel/cpu/mce/core.c"},
	{regexp.MustCompile(`EDAC MC\d+: \d+ [CU]E `), "memory", "drivers/edac/edac_mc.c"},
	{regexp.MustCompile(`Memory failure: 0x`), "memory", "mm/memory-failure.c"},
	{regexp.MustCompile(`(AER|pcieport).*: .*(error received|PCIe Bus Error)`), "PCIe devices", "drivers/pci/pcie/aer.c"},
	{regexp.MustCompile(`\[Hardware Error\]`), "machine", "drivers/firmware/efi/cper.c"},
	{regexp.MustCompile(`(critical (medium|target|nexus) error|I/O error), dev `), "disks", "block/blk-mq.c, blk_print_req_error"},
	{regexp.MustCompile(`nvme.*: (controller is down; will reset|I/O .* timeout)`), "disks", "drivers/nvme/host/pci.c"},
	{regexp.MustCompile(`ata\d+(\.\d+)?: (failed command|hard resetting link)`), "disks", "drivers/ata/libata-eh.c"},
	{regexp.MustCompile(`NETDEV WATCHDOG`), "interfaces", "net/sched/sch_generic.c"},
	{regexp.MustCompile(`(soft lockup|hard LOCKUP|detected stalls? on CPU)`), "processors", "kernel/watchdog.c, kernel/rcu/tree_stall.h"},
}

// A message is a line of the kernel's log that tells of broken hardware.
type message struct{ part, text string }

// parseMessage reads one record of /dev/kmsg: "6,339,5140900,-;text", with further lines that begin with a space.
// Source: Linux Documentation/ABI/testing/dev-kmsg.
func parseMessage(record []byte) (m message, found bool) {
	_, rest, ok := bytes.Cut(record, []byte(";"))
	if !ok {
		return m, false
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	said := strings.ToValidUTF8(string(line[:min(len(line), longestMessage)]), "?")
	for _, b := range broken {
		if b.expr.MatchString(said) {
			return message{b.part, said}, true
		}
	}
	return m, false
}

const longestMessage = 300 // bytes
