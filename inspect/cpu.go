// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// CPU is the "cpu" object of the inventory; its values are those of lscpu. Missing texts are empty, missing numbers 0.
type CPU struct {
	ModelName    string   `json:"model_name"`   // empty on ARM, where the kernel does not say it
	Frequency    string   `json:"frequency"`    // MHz, the highest that the processor can do if the kernel says it
	Count        int      `json:"count"`        // logical processors that are present
	Architecture string   `json:"architecture"` // as uname -m: x86_64, aarch64
	Flags        []string `json:"flags"`
	SocketCount  int      `json:"socket_count"`
}

func readCPU(r *reader) CPU {
	info, err := r.open("proc/cpuinfo", largeFile)
	if err != nil {
		r.problem(err)
	}
	// Processors are separated by an empty line; the first speaks for all.
	first, _, _ := bytes.Cut(info, []byte("\n\n"))
	v := values(first, ":")
	flags := v["flags"]
	if flags == "" {
		flags = v["Features"] // ARM
	}
	cpu := CPU{
		ModelName:    clean([]byte(v["model name"])),
		Frequency:    clean([]byte(v["cpu MHz"])),
		Architecture: r.text("proc/sys/kernel/arch"), // since Linux 6.1
		Flags:        strings.Fields(printable([]byte(flags), smallFile)),
	}

	present := r.need("sys/devices/system/cpu/present")
	list, err := parseCPUList(present)
	if err != nil {
		r.problem(fmt.Errorf("read sys/devices/system/cpu/present: %w", err))
	}
	sockets := make(map[string]bool)
	var highest int64 // kHz
	for _, n := range list {
		dir := "sys/devices/system/cpu/cpu" + strconv.Itoa(n)
		if id := r.text(dir + "/topology/physical_package_id"); id != "" { // not there while a processor is offline
			sockets[id] = true
		}
		if khz, ok := r.number(dir + "/cpufreq/cpuinfo_max_freq"); ok {
			highest = max(highest, khz)
		}
	}
	cpu.Count, cpu.SocketCount = len(list), len(sockets)
	if highest > 0 {
		cpu.Frequency = strconv.FormatFloat(float64(highest)/1000, 'f', 4, 64)
	}

	if cpu.Architecture == "" {
		cpu.Architecture = architecture(v)
	}
	if cpu.Architecture == "" && len(info) > 0 {
		r.problem(fmt.Errorf("read proc/cpuinfo: architecture is not known"))
	}
	return cpu
}

// architecture tells the architecture from an entry of /proc/cpuinfo, for kernels before 6.1: a 64-bit kernel is meant
// where the processor can run one, as no other is supported.
func architecture(v map[string]string) string {
	switch {
	case strings.Contains(" "+v["flags"]+" ", " lm "): // long mode, Intel SDM volume 2, CPUID 80000001H
		return "x86_64"
	case v["CPU architecture"] == "8":
		return "aarch64"
	}
	return ""
}

// maxCPUs is the most that a kernel can be built for (NR_CPUS in arch/x86/Kconfig).
const maxCPUs = 8192

// parseCPUList parses the kernel's list format, "0-3,8" (Documentation/core-api/printk-formats.rst, bitmaps).
func parseCPUList(s string) ([]int, error) {
	var list []int
	for part := range strings.SplitSeq(s, ",") {
		if part == "" {
			continue
		}
		low, high, found := strings.Cut(part, "-")
		if !found {
			high = low
		}
		from, err1 := strconv.Atoi(low)
		to, err2 := strconv.Atoi(high)
		if err1 != nil || err2 != nil || from < 0 || to < from || to >= maxCPUs {
			return nil, fmt.Errorf("list of processors %q: %q is no range below %d", s, part, maxCPUs)
		}
		for n := from; n <= to && len(list) < maxCPUs; n++ {
			list = append(list, n)
		}
	}
	return list, nil
}
