// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"
)

// Rate is how fast something went.
type Rate struct {
	Value float64 `json:"value"`
	Unit  string  `json:"unit"` // MB/s (a million bytes), or bogo-ops/s, which compare only within one version of stress-ng
}

const megabyte = 1e6

// parseStress reads how fast stress-ng's stressors were, from what it writes with --yaml, by stressor. Real time counts: it is what a processor that is throttled takes more of.
func parseStress(yaml []byte) map[string]Rate {
	rates := map[string]Rate{}
	stressor := ""
	for line := range strings.Lines(string(yaml)) {
		name, value, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "- "), ": ")
		switch name {
		case "stressor":
			stressor = value
		case "bogo-ops-per-second-real-time":
			if n, err := strconv.ParseFloat(value, 64); err == nil && n > 0 && stressor != "" {
				rates[stressor] = Rate{n, "bogo-ops/s"}
			}
		}
	}
	return rates
}

// withPart puts a part's name before the names of its rates.
func withPart(part string, rates map[string]Rate) map[string]Rate {
	m := map[string]Rate{}
	for name, r := range rates {
		m[part+" "+name] = r
	}
	return m
}

// meter tells from the kernel's own counters what disks and interfaces move while a load runs: no program has to be asked for it.
type meter struct {
	root        fs.FS
	first, last map[string]int64 // bytes, by disk and direction: "/dev/sda write"
	at          time.Time
}

func newMeter(root fs.FS) *meter {
	now := moved(root)
	return &meter{root: root, first: now, last: now, at: time.Now()}
}

// rates are those since the last call, of what moves at all; total is what was moved since the beginning, in bytes.
func (m *meter) rates() (rates map[string]Rate, total map[string]int64) {
	now, at := moved(m.root), time.Now()
	rates, total = map[string]Rate{}, map[string]int64{}
	for name, n := range now {
		if past, known := m.last[name]; known && n > past && at.After(m.at) {
			rates[name] = Rate{float64(n-past) / megabyte / at.Sub(m.at).Seconds(), "MB/s"}
		}
		if first, known := m.first[name]; known {
			total[name] = n - first
		}
	}
	m.last, m.at = now, at
	return rates, total
}

// moved are the bytes that disks and interfaces have moved since the machine was started. Source: Linux Documentation/ABI/stable/sysfs-block, stat, in sectors of 512 bytes;
// Documentation/ABI/testing/sysfs-class-net-statistics.
func moved(root fs.FS) map[string]int64 {
	m := map[string]int64{}
	for _, file := range glob(root, "sys/block/*/stat") {
		fields := strings.Fields(text(root, file))
		if len(fields) < 7 {
			continue
		}
		for name, field := range map[string]string{"read": fields[2], "write": fields[6]} {
			if n, err := strconv.ParseInt(field, 10, 64); err == nil {
				m["/dev/"+strings.ReplaceAll(path.Base(path.Dir(file)), "!", "/")+" "+name] = n * 512
			}
		}
	}
	for direction, name := range map[string]string{"rx_bytes": "receive", "tx_bytes": "send"} {
		for _, file := range glob(root, "sys/class/net/*/statistics/"+direction) {
			if n, err := strconv.ParseInt(text(root, file), 10, 64); err == nil {
				m[path.Base(path.Dir(path.Dir(file)))+" "+name] = n
			}
		}
	}
	return m
}

// percent is how far a load is, -1 if that is not known: as its disks say, by its time, or by what the disk has moved that has the longest way to go.
func (l load) percent(past time.Duration, total map[string]int64) int {
	if l.far != nil {
		return l.far.least()
	}
	if l.lasts > 0 {
		return int(min(past*100/l.lasts, 100))
	}
	least := -1
	for disk, want := range l.bytes {
		if want <= 0 {
			continue
		}
		done := int(min((total[disk+" read"]+total[disk+" write"])/max(want/100, 1), 100))
		if least < 0 || done < least {
			least = done
		}
	}
	return least
}
