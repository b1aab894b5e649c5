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
	ModelName    string   `json:"model_name"`   // on ARM that of the core, of those that servers have
	Frequency    string   `json:"frequency"`    // MHz, the highest that the processor can do if the kernel says it
	Count        int      `json:"count"`        // logical processors that are present
	Architecture string   `json:"architecture"` // as uname -m: x86_64, aarch64
	Flags        []string `json:"flags"`
	SocketCount  int      `json:"socket_count"`

	Cores     int    `json:"-"` // of all sockets; 0 if the kernel does not say
	Microcode string `json:"-"` // revision of the first processor: 0xb000040
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
		Microcode:    clean([]byte(v["microcode"])),
	}
	if cpu.ModelName == "" {
		cpu.ModelName = armModel(v["CPU implementer"], v["CPU part"])
	}

	present := r.need("sys/devices/system/cpu/present")
	list, err := parseCPUList(present)
	if err != nil {
		r.problem(fmt.Errorf("read sys/devices/system/cpu/present: %w", err))
	}
	sockets, cores := make(map[string]bool), make(map[string]bool)
	var highest int64 // kHz
	for _, n := range list {
		dir := "sys/devices/system/cpu/cpu" + strconv.Itoa(n)
		if id := r.text(dir + "/topology/physical_package_id"); id != "" { // not there while a processor is offline
			sockets[id] = true
			if core := r.text(dir + "/topology/core_id"); core != "" {
				cores[id+" "+r.attempt(dir+"/topology/die_id")+" "+core] = true
			}
		}
		if khz, ok := r.number(dir + "/cpufreq/cpuinfo_max_freq"); ok {
			highest = max(highest, khz)
		}
	}
	cpu.Count, cpu.SocketCount, cpu.Cores = len(list), len(sockets), len(cores)
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

// armModel names a core as lscpu does (util-linux, sys-utils/lscpu-arm.c), of those in servers; empty for others.
func armModel(implementer, part string) string {
	names := map[string]string{
		"0x41 0xd03": "Cortex-A53", "0x41 0xd07": "Cortex-A57", "0x41 0xd08": "Cortex-A72", "0x41 0xd0b": "Cortex-A76",
		"0x41 0xd0c": "Neoverse-N1", "0x41 0xd40": "Neoverse-V1", "0x41 0xd49": "Neoverse-N2", "0x41 0xd4a": "Neoverse-E1",
		"0x41 0xd4f": "Neoverse-V2", "0x41 0xd83": "Neoverse-V3AE", "0x41 0xd84": "Neoverse-V3", "0x41 0xd8e": "Neoverse-N3",
		"0x43 0x0a1": "ThunderX-88XX", "0x43 0x0af": "ThunderX2-99xx", "0x46 0x001": "A64FX", "0x48 0xd01": "TaiShan-v110",
		"0xc0 0xac3": "Ampere-1", "0xc0 0xac4": "Ampere-1a",
	}
	return names[implementer+" "+part]
}
