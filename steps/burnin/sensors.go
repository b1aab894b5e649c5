// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"bytes"
	"cmp"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// mostOpen bounds how many files are kept open to be read again and again. The others are opened each time, which costs five times as much.
const mostOpen = 1500

// gauges read small files of the kernel again and again. Where they can be, they are kept open: sysfs makes the text anew when it is read from its start.
type gauges struct {
	root fs.FS
	open map[string]*os.File
	buf  [4096]byte // of sysfs, a page
}

func newGauges(root fs.FS) *gauges { return &gauges{root: root, open: map[string]*os.File{}} }

// read returns a file without white space around it, nil if it cannot be read. It is valid until the next call.
func (f *gauges) read(name string) []byte {
	kept, known := f.open[name]
	if !known && len(f.open) < mostOpen {
		opened, err := f.root.Open(name)
		if err != nil {
			return nil
		}
		file, really := opened.(*os.File)
		if !really {
			opened.Close() // of a recording, or a test
		}
		f.open[name], kept = file, file
	}
	if kept != nil {
		n, err := kept.ReadAt(f.buf[:], 0)
		if err != nil && err != io.EOF {
			return nil
		}
		return bytes.TrimSpace(f.buf[:n])
	}
	return []byte(text(f.root, name))
}

// number reads a number in any base that C knows.
func (f *gauges) number(name string) (int64, bool) {
	n, err := strconv.ParseInt(string(f.read(name)), 0, 64)
	return n, err == nil
}

func (f *gauges) close() {
	for _, file := range f.open {
		if file != nil {
			file.Close() // only read
		}
	}
	clear(f.open)
}

// The kinds of series.
const (
	temperature = "temperature"
	frequency   = "frequency"
	fan         = "fan"
	power       = "power"
	voltage     = "voltage"
	throughput  = "throughput"
	grownErrors = "errors"
)

// sensor is a quantity that is measured.
type sensor struct {
	kind, name, unit string
	files            []string                     // several are values of the same, such as of the cores of a socket
	value            func(b []byte) (int64, bool) // nil: a number
	scale            float64
	rate             bool  // what is counted, and is wanted by the second
	slow             bool  // asks a device, which costs it something
	critical         int64 // in the unit of the file; 0 if there is none

	before int64 // of rate
	at     float64
	known  bool
}

// sensors finds what there is to measure. Source: Linux Documentation/hwmon/sysfs-interface.rst, Documentation/power/powercap/powercap.rst,
// Documentation/admin-guide/pm/cpufreq.rst, Documentation/block/stat.rst.
func sensors(root fs.FS, p places) []*sensor {
	var list []*sensor
	list = append(list, frequencies(root, p)...)
	for _, dir := range glob(root, "sys/class/hwmon/hwmon*") {
		list = append(list, monitors(root, dir)...)
	}
	for _, dir := range glob(root, "sys/class/powercap/*:*") { // intel-rapl:0 and, of it, intel-rapl:0:1
		name := text(root, dir+"/name")
		if of := text(root, dir[:strings.LastIndex(dir, ":")]+"/name"); of != "" {
			name += " of " + of
		}
		list = append(list, &sensor{kind: power, name: cmp.Or(name, path.Base(dir)), unit: "W", files: []string{dir + "/energy_uj"}, scale: 1e-6, rate: true})
	}
	for _, dir := range glob(root, "sys/block/*/device") {
		dir = path.Dir(dir)
		list = append(list, &sensor{kind: throughput, name: diskName(dir), unit: "MiB/s", files: []string{dir + "/stat"}, value: sectors, scale: 512.0 / (1 << 20), rate: true})
	}
	for _, dir := range glob(root, "sys/class/net/*/device") {
		dir = path.Dir(dir)
		for file, way := range map[string]string{"rx_bytes": " receives", "tx_bytes": " sends"} {
			list = append(list, &sensor{kind: throughput, name: nicPart(root, dir, p) + way, unit: "MiB/s", files: []string{dir + "/statistics/" + file}, scale: 1.0 / (1 << 20), rate: true})
		}
	}
	slices.SortStableFunc(list, func(a, b *sensor) int { return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.name, b.name)) })
	return list
}

// sectors reads of a disk's stat how many sectors of 512 bytes were read and written: fields 3 and 7.
func sectors(b []byte) (int64, bool) {
	fields := bytes.Fields(b)
	if len(fields) < 7 {
		return 0, false
	}
	read, err1 := strconv.ParseInt(string(fields[2]), 10, 64)
	wrote, err2 := strconv.ParseInt(string(fields[6]), 10, 64)
	return read + wrote, err1 == nil && err2 == nil
}

// frequencies are those of the cores that run, by socket.
func frequencies(root fs.FS, p places) (list []*sensor) {
	bySocket := map[string][]string{}
	for _, file := range glob(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq") {
		part := p.processor(text(root, path.Dir(path.Dir(file))+"/topology/physical_package_id"))
		bySocket[part] = append(bySocket[part], file)
	}
	for _, part := range slices.Sorted(maps.Keys(bySocket)) {
		list = append(list, &sensor{kind: frequency, name: part, unit: "MHz", files: bySocket[part], scale: 1e-3})
	}
	return list
}

// monitors are the sensors of a chip.
func monitors(root fs.FS, dir string) (list []*sensor) {
	chip := text(root, dir+"/name")
	of := monitored(root, dir)
	// A disk is asked for its temperature each time that the file is read.
	slow := chip == "drivetemp" || chip == "nvme"
	for _, k := range []struct {
		pattern, suffix string
		kind, unit      string
		scale           float64
	}{
		{"temp*_input", "_input", temperature, "°C", 1e-3}, {"fan*_input", "_input", fan, "RPM", 1}, {"in*_input", "_input", voltage, "V", 1e-3},
		{"power*_input", "_input", power, "W", 1e-6}, {"power*_average", "_average", power, "W", 1e-6},
	} {
		for _, file := range glob(root, dir+"/"+k.pattern) {
			which := strings.TrimSuffix(path.Base(file), k.suffix)
			s := &sensor{kind: k.kind, unit: k.unit, files: []string{file}, scale: k.scale, slow: slow,
				name: path.Base(dir) + " " + chip + " " + cmp.Or(text(root, dir+"/"+which+"_label"), which) + of}
			if k.kind == temperature {
				s.critical, _ = strconv.ParseInt(text(root, dir+"/"+which+"_crit"), 10, 64)
			}
			list = append(list, s)
		}
	}
	return list
}

// monitored names the disk that a chip is in.
func monitored(root fs.FS, dir string) string {
	for _, pattern := range []string{dir + "/device/block/*", dir + "/device/nvme[0-9]*n[0-9]*"} {
		if names := glob(root, pattern); len(names) > 0 {
			return " of " + path.Base(names[0])
		}
	}
	return ""
}

// measure reads a sensor, at a time in seconds. ok is false without a value, as the first time where a rate is wanted.
func (s *sensor) measure(f *gauges, second float64) (low, mean, high float64, hot, ok bool) {
	var sum float64
	n := 0
	for _, name := range s.files {
		value, got := f.value(s, name)
		if !got || value < 0 && s.kind != temperature && s.kind != voltage {
			continue
		}
		hot = hot || s.critical > 0 && value >= s.critical
		v := float64(value) * s.scale
		if s.rate {
			before, at, known := s.before, s.at, s.known
			s.before, s.at, s.known = value, second, true
			if !known || value < before || second <= at { // begins, or has begun anew
				continue
			}
			v = float64(value-before) * s.scale / (second - at)
		}
		if n == 0 {
			low, high = v, v
		}
		low, high, sum = min(low, v), max(high, v), sum+v
		n++
	}
	if n == 0 {
		return 0, 0, 0, hot, false
	}
	return low, sum / float64(n), high, hot, true
}

func (f *gauges) value(s *sensor, name string) (int64, bool) {
	if s.value == nil {
		return f.number(name)
	}
	return s.value(f.read(name))
}
