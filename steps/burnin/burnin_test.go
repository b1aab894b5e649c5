// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/initramfs/tool/tooltest"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
)

// tree is a machine of which "path" has "content", and a path that ends with a slash is a directory.
func tree(list ...string) fstest.MapFS {
	m := fstest.MapFS{}
	for i := 0; i < len(list); i += 2 {
		if strings.HasSuffix(list[i], "/") {
			m[strings.TrimSuffix(list[i], "/")] = &fstest.MapFile{Mode: fs.ModeDir}
			continue
		}
		m[list[i]] = &fstest.MapFile{Data: []byte(list[i+1])}
	}
	return m
}

// counted is a machine with one counter of each kind, all at n.
func counted(n int) fstest.MapFS {
	s := fmt.Sprint(n)
	return tree(
		"sys/devices/system/edac/mc/mc0/dimm3/dimm_label", "CPU_SrcID#0_Ha#0_Chan#1_DIMM#0\n",
		"sys/devices/system/edac/mc/mc0/dimm3/dimm_ce_count", s+"\n",
		"sys/devices/system/edac/mc/mc0/dimm3/dimm_ue_count", s+"\n",
		"sys/devices/system/edac/mc/mc1/rank0/rank_ce_count", s+"\n",
		"sys/devices/system/edac/mc/mc1/ce_noinfo_count", s+"\n",
		"proc/interrupts", "           CPU0       CPU1\n  8:          1          0   IO-APIC\nMCE:        "+s+"         0   Machine check exceptions\nMCP:          7          7   Machine check polls\n",
		"sys/devices/system/cpu/cpu0/topology/physical_package_id", "1\n",
		"sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", s+"\n",
		"sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count", s+"\n",
		"sys/devices/system/cpu/cpu1/topology/physical_package_id", "1\n",
		"sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count", s+"\n",
		"sys/devices/system/cpu/cpu1/thermal_throttle/package_throttle_count", s+"\n",
		"sys/bus/pci/devices/0000:01:00.0/aer_dev_correctable", "RxErr 0\nBadTLP "+s+"\nTOTAL_ERR_COR "+s+"\n",
		"sys/bus/pci/devices/0000:01:00.0/aer_dev_nonfatal", "Undefined 0\nTOTAL_ERR_NONFATAL "+s+"\n",
		"sys/bus/pci/devices/0000:01:00.0/aer_dev_fatal", "TOTAL_ERR_FATAL "+s+"\n",
		"sys/class/net/eth0/device/uevent", "DRIVER=e1000e\nPCI_SLOT_NAME=0000:02:00.0\n",
		"sys/class/net/eth0/statistics/rx_errors", s+"\n",
		"sys/class/net/eth0/statistics/tx_errors", "0\n",
		"sys/class/net/eth0/statistics/rx_crc_errors", s+"\n",
		"sys/class/net/eth0/carrier_changes", s+"\n",
		"sys/class/net/lo/statistics/rx_errors", s+"\n",
		"sys/block/sda/device/ioerr_cnt", fmt.Sprintf("0x%x\n", n),
		"sys/block/loop0/size", "0\n",
		"sys/class/hwmon/hwmon0/name", "coretemp\n",
		"sys/class/hwmon/hwmon0/temp1_input", "61500\n",
		"sys/class/hwmon/hwmon0/temp1_label", "Package id 0\n",
	)
}

func lines(parts []Part) string {
	var b strings.Builder
	for _, p := range parts {
		fmt.Fprintf(&b, "%s|%s|%s\n", p.Verdict, p.Name, strings.Join(p.Reasons, "; "))
	}
	return b.String()
}

func TestJudge(t *testing.T) {
	judges, err := readRules()
	if err != nil {
		t.Fatal(err)
	}
	without := func(m fstest.MapFS, prefix string) fstest.MapFS {
		for name := range m {
			if strings.HasPrefix(name, prefix) {
				delete(m, name)
			}
		}
		return m
	}
	for _, test := range []struct {
		name          string
		before, after fstest.MapFS
		messages      map[key][]string
		want          string
	}{
		{name: "nothing grew", before: counted(500), after: counted(500)},
		{name: "an empty machine", before: fstest.MapFS{}, after: fstest.MapFS{}},
		{name: "one of each", before: counted(7), after: counted(8), want: `
|/dev/sda|1 commands of the disk that failed
FAIL|CPU_SrcID#0_Ha#0_Chan#1_DIMM#0 (mc0 dimm3)|1 corrected memory errors; 1 uncorrected memory errors
FAIL|PCIe device 0000:01:00.0|1 PCIe errors that were not corrected; 1 corrected PCIe errors; 1 fatal PCIe errors
|eth0 (0000:02:00.0)|1 changes of the link; 1 frames with errors
|mc1 rank0|1 corrected memory errors
|memory at mc1|1 corrected memory errors
|processor in socket 1|3 times throttled for heat
FAIL|processors|1 machine checks`},
		{name: "ten of those that may be", before: without(counted(0), "sys/bus"), after: without(counted(10), "sys/bus"), want: `
|/dev/sda|10 commands of the disk that failed
FAIL|CPU_SrcID#0_Ha#0_Chan#1_DIMM#0 (mc0 dimm3)|10 corrected memory errors; 10 uncorrected memory errors
FAIL|eth0 (0000:02:00.0)|10 changes of the link; 10 frames with errors
FAIL|mc1 rank0|10 corrected memory errors
FAIL|memory at mc1|10 corrected memory errors
|processor in socket 1|30 times throttled for heat
FAIL|processors|10 machine checks`},
		{name: "vanished", before: counted(0), after: without(without(counted(0), "sys/block"), "sys/class/net"), want: `
FAIL|/dev/sda|1 devices that vanished
FAIL|eth0 (0000:02:00.0)|1 devices that vanished`},
		{name: "garbage", before: counted(0), after: tree("sys/block/sda/device/ioerr_cnt", "\xff\xfe", "sys/class/net/eth0/device/uevent", "PCI_SLOT_NAME=0000:02:00.0", "sys/bus/pci/devices/0000:01:00.0/aer_dev_fatal", "TOTAL_ERR_FATAL x\n\n \nTOTAL",
			"proc/interrupts", "MCE:\n\nMCE: x 1\n", "sys/class/hwmon/hwmon0/temp1_input", "-")},
		{name: "kernel's messages", before: counted(0), after: counted(0), messages: map[key][]string{{"disks", kernelMessage}: {"I/O error, dev sda", "again"}, {"memory", kernelRemark}: {"EDAC"}}, want: `
FAIL|disks|2 kernel messages of broken hardware, the first: I/O error, dev sda
|memory|1 kernel messages of hardware, the first: EDAC`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := "\n" + lines(judges.judge(grown(counters(test.before, places{}), counters(test.after, places{}), test.messages), test.messages)); got != test.want+"\n" {
				t.Errorf("judge() =%s\nwant%s", got, test.want)
			}
		})
	}
	already := counters(fstest.MapFS{}, places{})
	already.counts[key{"/dev/sdb", diskFailing}] = 1
	if got := lines(judges.judge(grown(already, already, nil), nil)); got != "FAIL|/dev/sdb|1 disk's own verdict: failing\n" {
		t.Errorf("a disk that was failing before: %s", got)
	}
}

func TestMessages(t *testing.T) {
	judges, err := readRules()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, record, part string }{
		{"EDAC", "4,1,1,-;EDAC MC0: 1 CE memory read error on CPU_SrcID#0_Ha#0_Chan#1_DIMM#0 (channel:1 slot:0)\n SUBSYSTEM=edac\n", "memory"},
		{"EDAC, not corrected", "0,1,1,-;EDAC MC0: 1 UE memory read error on DIMM_A1", "FAIL memory"},
		{"EDAC that begins", "6,1,1,-;EDAC MC0: Giving out device to module skx_edac", ""},
		{"MCE", "0,1,1,-;mce: [Hardware Error]: Machine check events logged", "processors"},
		{"a machine check", "0,1,1,-;mce: [Hardware Error]: CPU 2: Machine Check: 0 Bank 3: cc5eb2c000100135", "FAIL processors"},
		{"CPER", "0,1,1,-;{1}[Hardware Error]: event severity: fatal", "FAIL machine"},
		{"CPER of what was corrected", "0,1,1,-;{1}[Hardware Error]: event severity: corrected", "machine"},
		{"AER", "3,1,1,-;pcieport 0000:00:1c.0: AER: Corrected error received: 0000:01:00.0", "PCIe devices"},
		{"AER, not corrected", "3,1,1,-;pcieport 0000:00:1c.0: AER: Multiple Uncorrectable (Non-Fatal) error message received from 0000:73:00.1", "FAIL PCIe devices"},
		{"AER of a device", "3,1,1,-;igb 0000:09:00.0: AER: PCIe Bus Error: severity=Uncorrected (Non-Fatal), type=Transaction Layer, (Requester ID)", "FAIL PCIe device 0000:09:00.0"},
		{"AER of a device, corrected", "3,1,1,-;pcieport 0000:00:1c.0: PCIe Bus Error: severity=Corrected, type=Physical Layer, (Receiver ID)", "PCIe device 0000:00:1c.0"},
		{"DPC", "3,1,1,-;pcieport 0000:00:01.4: DPC: containment event, status:0x1f01 source:0x0000", "FAIL PCIe device 0000:00:01.4"},
		{"a slot", "3,1,1,-;pcieport 0000:00:01.4: pciehp: Slot(7): Link Down", "FAIL PCIe devices"},
		{"AER that begins", "6,1,1,-;pcieport 0000:00:1c.0: AER: enabled with IRQ 122", ""},
		{"disk", "3,1,1,-;critical medium error, dev sda, sector 2048 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2", "FAIL /dev/sda"},
		{"SCSI", "3,1,1,-;sd 0:0:0:0: [sdb] tag#5 Sense Key : Medium Error [current]", "FAIL /dev/sdb"},
		{"disk's I/O", "3,1,1,-;I/O error, dev vdb, sector 20000 op 0x0:(READ)", "FAIL /dev/vdb"},
		{"NVMe", "4,1,1,-;nvme nvme0: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0x10", "FAIL disks"},
		{"libata", "3,1,1,-;ata1.00: failed command: READ FPDMA QUEUED", "FAIL disks"},
		{"only in the second line", "6,1,1,-;fine\n SUBSYSTEM=EDAC MC0: 1 CE x\n", ""},
		{"no record", "EDAC MC0: 1 CE memory", ""},
		{"empty", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, found := judges.message([]byte(test.record))
			got := m.key.part
			if m.key.kind == kernelMessage {
				got = "FAIL " + got
			}
			if got != test.part || found != (test.part != "") {
				t.Errorf("message() = %v, %v, want %q", m, found, test.part)
			}
		})
	}
	if m, _ := judges.message([]byte("3,1,1,-;I/O error, dev sda " + strings.Repeat("\xff", 5000))); len(m.text) > 3*longestMessage {
		t.Errorf("a message of %d bytes is kept", len(m.text))
	}
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte("4,1,1,-;EDAC MC0: 1 CE memory read error\n SUBSYSTEM=edac\n"))
	judges, err := readRules()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		if m, found := judges.message(record); found && (m.key.part == "" || m.text == "" || len(m.text) > 3*longestMessage) {
			t.Errorf("message() = %v", m)
		}
	})
}

// machine has disks of the kind that a listing of them needs.
func machine(names ...string) fstest.MapFS {
	m := tree("sys/class/net/lo/operstate", "up")
	for _, n := range names {
		for file, content := range map[string]string{
			"size": "2048", "ro": "0", "removable": "0", "queue/rotational": "0", "queue/logical_block_size": "512", "queue/physical_block_size": "512", "serial": "S-" + n, "dev": "8:0",
		} {
			m["sys/block/"+n+"/"+file] = &fstest.MapFile{Data: []byte(content + "\n")}
		}
	}
	return m
}

type opened struct{ steps.Disk }

func (opened) Close() error                      { return nil }
func (opened) Size() int64                       { return 1 << 20 }
func (opened) SectorSize() int                   { return 512 }
func (opened) ReadAt([]byte, int64) (int, error) { return 0, errors.New("input/output error") }

func TestSteps(t *testing.T) {
	type options map[string]any
	for _, test := range []struct {
		name    string
		run     func(context.Context, steps.Host, steps.Job) (any, error)
		disks   []string
		options options
		skip    string
		busy    string // a disk that is in use
		media   string
		asked   error // what the person says
		script  string
		want    string // parts, or the error
	}{
		{name: "processors, by default", run: CPU, script: "$ stress-ng --version\n$ stress-ng --cpu 0 --verify --metrics-brief --timeout 86400 --yaml /proc/self/fd/1\n" + worked, want: "PASS|processors|\n"},
		{name: "processors", run: CPU, options: options{"agent_burnin_cpu_cpu": json.Number("4"), "agent_burnin_cpu_timeout": "60", "agent_burnin_cpu_outputfile": "TMP/cpu"},
			script: "$ stress-ng --version\n$ stress-ng --cpu 4 --verify --metrics-brief --timeout 60 --log-file TMP/cpu --yaml /proc/self/fd/1\n" + worked, want: "PASS|processors|\n"},
		{name: "processors that err", run: CPU, script: "$ stress-ng --version\n$ stress-ng --cpu 0 --verify --metrics-brief --timeout 86400 --yaml /proc/self/fd/1\n2> stress-ng: fail: cpu: matrix product is wrong\n? 2\n",
			want: "burn-in found broken parts: processors: stress-ng --cpu 0 --verify --metrics-brief --timeout 86400 --yaml /proc/self/fd/1: exit status 2: stress-ng: fail: cpu: matrix product is wrong"},
		{name: "a program that could not start is no verdict", run: CPU, script: "$ stress-ng --version\n$ stress-ng --cpu 0 --verify --metrics-brief --timeout 86400 --yaml /proc/self/fd/1\n? 3\n", want: "exit status 3"},
		{name: "no program", run: Memory, script: "$ stress-ng --version\n? 127\n", want: "stress-ng --version: exit status 127"},
		{name: "memory, by default", run: Memory, script: "$ stress-ng --version\n$ stress-ng --vm 0 --vm-bytes 98% --verify --metrics-brief --timeout 86400 --yaml /proc/self/fd/1\n" + worked, want: "PASS|memory|\n"},
		{name: "memory that cannot be had", run: Memory, script: "$ stress-ng --version\n$ stress-ng --vm 0 --vm-bytes 98% --verify --metrics-brief --timeout 86400 --yaml /proc/self/fd/1\n" + strings.ReplaceAll(worked, "1.5", "0.0"), want: "memory: stress-ng got nothing done in the time"},
		{name: "no number", run: Memory, options: options{"agent_burnin_vm_timeout": "soon"}, want: `agent_burnin_vm_timeout is "soon", want a whole number`},
		{name: "for ever", run: Memory, options: options{"agent_burnin_vm_timeout": json.Number("0")}, want: "without end"},
		{name: "a hostile amount", run: Memory, options: options{"agent_burnin_vm_vm-bytes": "1 --exec rm"}, want: "want an amount"},
		{name: "a file that is a device", run: CPU, options: options{"agent_burnin_cpu_outputfile": "/dev/null"}, script: "$ stress-ng --version\n", want: "the report cannot go to /dev/null: /dev is the kernel's"},
		{name: "a file that is a command to the kernel", run: CPU, options: options{"agent_burnin_cpu_outputfile": "TMP/link/profiling"}, script: "$ stress-ng --version\n", want: "profiling: /sys is the kernel's"},
		{name: "a file nowhere", run: Memory, options: options{"agent_burnin_vm_outputfile": "TMP/none/vm"}, script: "$ stress-ng --version\n", want: "none: no such file or directory"},
		{name: "a disk's file that is a directory", run: Disk, disks: []string{"vda"}, options: options{"agent_burnin_fio_disk_outputfile": "TMP/dir"}, script: "$ fio --version\n", want: "dir.vda: it is there and is no regular file"},
		{name: "a network's file nowhere", run: Network, options: options{"agent_burnin_fio_network_outputfile": "TMP/none/net", "agent_burnin_fio_network_config": `{"role": "writer", "partner": "b"}`}, script: "$ fio --version\n", want: "none: no such file or directory"},
		{name: "a hostile file", run: CPU, options: options{"agent_burnin_cpu_outputfile": "--log"}, want: "want the path of a file"},

		{name: "disks, by default", run: Disk, disks: []string{"vda"}, script: "$ fio --version\n" +
			"$ fio --thread --verify_state_save 0 --name /dev/vda --filename /dev/vda --rw write --bs 4k --direct 1 --ioengine libaio --iodepth 32 --verify crc32c --verify_fatal 1 --loops 4 --output-format json --verify_interval 4096\n{\"jobs\": [{\"read\": {\"io_bytes\": 4194304}, \"write\": {\"io_bytes\": 4194304}}]}\n", want: "PASS|/dev/vda serial S-vda|4.0 MiB written, 4.0 MiB read back, of 1.0 MiB\n"},
		{name: "disks", run: Disk, disks: []string{"vda", "vdb", "vdc"}, skip: `[{"serial": "S-vdb"}]`, media: "/dev/vdc1",
			options: options{"agent_burnin_fio_disk_loops": json.Number("1"), "agent_burnin_fio_disk_runtime": json.Number("5")}, script: "$ fio --version\n" +
				"$ fio --thread --verify_state_save 0 --name /dev/vda --filename /dev/vda --rw write --bs 4k --direct 1 --ioengine libaio --iodepth 32 --verify crc32c --verify_fatal 1 --loops 1 --runtime 5 --time_based --verify_backlog 64 --output-format json --verify_interval 4096\n{\"jobs\": [{\"read\": {\"io_bytes\": 4096}, \"write\": {\"io_bytes\": 8192}}]}\n",
			want: "PASS|/dev/vda serial S-vda|8.0 KiB written, 4.0 KiB read back, of 1.0 MiB\nSKIPPED|/dev/vdb serial S-vdb|it is on the skip list\nSKIPPED|/dev/vdc serial S-vdc|this machine's settings were read from it\n"},
		{name: "nothing read back", run: Disk, disks: []string{"vda"}, script: "$ fio --version\n" +
			"$ fio --thread --verify_state_save 0 --name /dev/vda --filename /dev/vda --rw write --bs 4k --direct 1 --ioengine libaio --iodepth 32 --verify crc32c --verify_fatal 1 --loops 4 --output-format json --verify_interval 4096\n{\"jobs\": [{\"write\": {\"io_bytes\": 8192}}]}\n",
			want: "nothing was read back"},
		{name: "a disk that errs", run: Disk, disks: []string{"vda"}, script: "$ fio --version\n" +
			"$ fio --thread --verify_state_save 0 --name /dev/vda --filename /dev/vda --rw write --bs 4k --direct 1 --ioengine libaio --iodepth 32 --verify crc32c --verify_fatal 1 --loops 4 --output-format json --verify_interval 4096\n{\"jobs\": [{\"error\": 84}]}\n2> crc32c: verify failed at file /dev/vda offset 4096\n? 1\n",
			want: "burn-in found broken parts: /dev/vda serial S-vda: fio"},
		{name: "fio has too little memory", run: Disk, disks: []string{"vda"}, script: "$ fio --version\n" +
			"$ fio --thread --verify_state_save 0 --name /dev/vda --filename /dev/vda --rw write --bs 4k --direct 1 --ioengine libaio --iodepth 32 --verify crc32c --verify_fatal 1 --loops 4 --output-format json --verify_interval 4096\n{\"jobs\": [{\"error\": 12}]}\n2> fio: x\n? 1\n", want: "/dev/vda serial S-vda: fio has found no fault, and ended with an error of its own: cannot allocate memory: fio"},
		{name: "fio has no room of its own", run: Disk, disks: []string{"vda"}, script: "$ fio --version\n" +
			"$ fio --thread --verify_state_save 0 --name /dev/vda --filename /dev/vda --rw write --bs 4k --direct 1 --ioengine libaio --iodepth 32 --verify crc32c --verify_fatal 1 --loops 4 --output-format json --verify_interval 4096\n{\"jobs\": [{\"error\": 28}]}\n2> fio: x\n? 1\n", want: "/dev/vda serial S-vda: fio has found no fault, and ended with an error of its own: no space left on device: fio"},
		{name: "fio has too many open files", run: Disk, disks: []string{"vda"}, script: "$ fio --version\n" +
			"$ fio --thread --verify_state_save 0 --name /dev/vda --filename /dev/vda --rw write --bs 4k --direct 1 --ioengine libaio --iodepth 32 --verify crc32c --verify_fatal 1 --loops 4 --output-format json --verify_interval 4096\n{\"jobs\": [{\"error\": 24}]}\n2> fio: x\n? 1\n", want: "/dev/vda serial S-vda: fio has found no fault, and ended with an error of its own: too many open files: fio"},
		{name: "fio finds a node of the disk that is not there", run: Disk, disks: []string{"vda"}, script: "$ fio --version\n" +
			"$ fio --thread --verify_state_save 0 --name /dev/vda --filename /dev/vda --rw write --bs 4k --direct 1 --ioengine libaio --iodepth 32 --verify crc32c --verify_fatal 1 --loops 4 --output-format json --verify_interval 4096\n{\"jobs\": [{\"error\": 2}]}\n2> fio: x\n? 1\n", want: "/dev/vda serial S-vda: fio has found no fault, and ended with an error of its own: no such file or directory: fio"},
		{name: "fio ends with an error and says nothing", run: Disk, disks: []string{"vda"}, script: "$ fio --version\n" +
			"$ fio --thread --verify_state_save 0 --name /dev/vda --filename /dev/vda --rw write --bs 4k --direct 1 --ioengine libaio --iodepth 32 --verify crc32c --verify_fatal 1 --loops 4 --output-format json --verify_interval 4096\n2> fio: failed to setup shm segment\n? 1\n", want: "/dev/vda serial S-vda: fio --thread"},
		{name: "fio ends with 0 and an error", run: Disk, disks: []string{"vda"}, script: "$ fio --version\n" +
			"$ fio --thread --verify_state_save 0 --name /dev/vda --filename /dev/vda --rw write --bs 4k --direct 1 --ioengine libaio --iodepth 32 --verify crc32c --verify_fatal 1 --loops 4 --output-format json --verify_interval 4096\n{\"jobs\": [{\"error\": 5, \"read\": {\"io_bytes\": 4194304}, \"write\": {\"io_bytes\": 4194304}}]}\n", want: "/dev/vda serial S-vda: fio ended with 0, and reports: input/output error"},
		{name: "fio ends in the middle", run: Disk, disks: []string{"vda"}, script: "$ fio --version\n" +
			"$ fio --thread --verify_state_save 0 --name /dev/vda --filename /dev/vda --rw write --bs 4k --direct 1 --ioengine libaio --iodepth 32 --verify crc32c --verify_fatal 1 --loops 4 --output-format json --verify_interval 4096\n{\"jobs\": [{\"read\": {\"io_bytes\": 1048576}, \"write\": {\"io_bytes\": 4194304}}]}\n", want: "/dev/vda serial S-vda: fio ended early: 4.0 MiB were to be written and read back, 4.0 MiB were written and 1.0 MiB read back"},
		{name: "a disk that vanishes", run: Disk, disks: []string{"vda"}, script: "$ fio --version\n" +
			"$ fio --thread --verify_state_save 0 --name /dev/vda --filename /dev/vda --rw write --bs 4k --direct 1 --ioengine libaio --iodepth 32 --verify crc32c --verify_fatal 1 --loops 4 --output-format json --verify_interval 4096\n{\"jobs\": [{\"error\": 19}]}\n? 1\n", want: "burn-in found broken parts: /dev/vda serial S-vda: fio"},
		{name: "a disk that does not answer", run: Disk, disks: []string{"vda"}, script: "$ fio --version\n" +
			"$ fio --thread --verify_state_save 0 --name /dev/vda --filename /dev/vda --rw write --bs 4k --direct 1 --ioengine libaio --iodepth 32 --verify crc32c --verify_fatal 1 --loops 4 --output-format json --verify_interval 4096\n{\"jobs\": [{\"error\": 110}]}\n? 1\n", want: "burn-in found broken parts: /dev/vda serial S-vda: fio"},
		{name: "a disk whose medium is broken", run: Disk, disks: []string{"vda"}, script: "$ fio --version\n" +
			"$ fio --thread --verify_state_save 0 --name /dev/vda --filename /dev/vda --rw write --bs 4k --direct 1 --ioengine libaio --iodepth 32 --verify crc32c --verify_fatal 1 --loops 4 --output-format json --verify_interval 4096\n{\"jobs\": [{\"error\": 61}]}\n? 1\n", want: "burn-in found broken parts: /dev/vda serial S-vda: fio"},
		{name: "a disk in use", run: Disk, disks: []string{"vda", "vdb"}, busy: "/dev/vdb", script: "$ fio --version\n", want: "nothing was written: /dev/vdb serial S-vdb: device or resource busy"},
		{name: "nobody wants it", run: Disk, disks: []string{"vda"}, asked: errors.New("no"), script: "$ fio --version\n", want: "no"},
		{name: "no disk", run: Disk, script: "$ fio --version\n", want: "to burn in"},
		{name: "a skip list that is none", run: Disk, disks: []string{"vda"}, skip: `{"a": `, script: "$ fio --version\n", want: "skip_block_devices"},

		{name: "network", run: Network, options: options{"agent_burnin_fio_network_runtime": json.Number("5"), "agent_burnin_fio_network_config": map[string]any{"role": "reader", "partner": "10.0.0.2"}}, script: "$ fio --version\n" +
			"$ fio --thread --ioengine net --port 9000 --fill_device 1 --group_reporting --gtod_reduce 1 --numjobs 16 --name reader --rw read --hostname 10.0.0.2 --output-format json\n? 16\n" +
			"$ fio --thread --ioengine net --port 9000 --fill_device 1 --group_reporting --gtod_reduce 1 --numjobs 16 --name reader --rw read --hostname 10.0.0.2 --output-format json\n{\"jobs\": [{\"read\": {\"io_bytes\": 4096, \"runtime\": 5002}}]}\n" +
			"$ fio --thread --ioengine net --port 9000 --fill_device 1 --group_reporting --gtod_reduce 1 --numjobs 16 --name writer --rw write --runtime 5 --time_based --listen --output-format json\n{\"jobs\": [{\"write\": {\"io_bytes\": 4096, \"runtime\": 4999}}]}\n", want: "PASS|network to 10.0.0.2|\n"},
		{name: "network on which nothing was sent", run: Network, options: options{"agent_burnin_fio_network_config": `{"role": "writer", "partner": "b"}`}, script: "$ fio --version\n" +
			"$ fio --thread --ioengine net --port 9000 --fill_device 1 --group_reporting --gtod_reduce 1 --numjobs 16 --name writer --rw write --runtime 21600 --time_based --listen --output-format json\n{\"jobs\": []}\n", want: "network to b: as the writer nothing went over it"},
		{name: "network whose partner ends early", run: Network, options: options{"agent_burnin_fio_network_config": `{"role": "writer", "partner": "b"}`}, script: "$ fio --version\n" +
			"$ fio --thread --ioengine net --port 9000 --fill_device 1 --group_reporting --gtod_reduce 1 --numjobs 16 --name writer --rw write --runtime 21600 --time_based --listen --output-format json\n{\"jobs\": [{\"write\": {\"io_bytes\": 4096, \"runtime\": 3000}}]}\n", want: "network to b: as the writer it ended after 3s of 6h0m0s"},
		{name: "network that breaks", run: Network, options: options{"agent_burnin_fio_network_config": `{"role": "writer", "partner": "b"}`}, script: "$ fio --version\n" +
			"$ fio --thread --ioengine net --port 9000 --fill_device 1 --group_reporting --gtod_reduce 1 --numjobs 16 --name writer --rw write --runtime 21600 --time_based --listen --output-format json\n{\"jobs\": [{\"error\": 104}]}\n? 1\n", want: "burn-in found broken parts: network to b"},
		{name: "a port that somebody else has", run: Network, options: options{"agent_burnin_fio_network_config": `{"role": "writer", "partner": "b"}`}, script: "$ fio --version\n" +
			"$ fio --thread --ioengine net --port 9000 --fill_device 1 --group_reporting --gtod_reduce 1 --numjobs 16 --name writer --rw write --runtime 21600 --time_based --listen --output-format json\n{\"jobs\": [{\"error\": 98}]}\n? 16\n", want: "network to b: fio has found no fault, and ended with an error of its own: address already in use"},
		{name: "a reader without file descriptors does not wait", run: Network, options: options{"agent_burnin_fio_network_config": `{"role": "reader", "partner": "b"}`}, script: "$ fio --version\n" +
			"$ fio --thread --ioengine net --port 9000 --fill_device 1 --group_reporting --gtod_reduce 1 --numjobs 16 --name reader --rw read --hostname b --output-format json\n{\"jobs\": [{\"error\": 24}]}\n? 16\n", want: "network to b: fio has found no fault, and ended with an error of its own: too many open files"},
		{name: "no partner", run: Network, want: "agent_burnin_fio_network_config is \"not given\""},
		{name: "a service that is not spoken", run: Network, options: options{"agent_burnin_fio_network_pairing_backend_url": "etcd3+https://secret@x"}, want: "agent_burnin_fio_network_pairing_backend_url: its scheme is \"etcd3+https\": nodes find each other by ZooKeeper alone"},
		{name: "a group that is no name", run: Network, options: options{"agent_burnin_fio_network_pairing_backend_url": "zookeeper://u:secret@x", "agent_burnin_fio_network_pairing_group_name": "a/b"}, want: "agent_burnin_fio_network_pairing_group_name is \"a/b\", want a name"},
		{name: "a hostile partner", run: Network, options: options{"agent_burnin_fio_network_config": `{"role": "writer", "partner": "--b"}`}, want: "want {"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				root, dir := machine(test.disks...), t.TempDir()
				for name, v := range test.options {
					if s, isText := v.(string); isText {
						test.options[name] = strings.ReplaceAll(s, "TMP", dir)
					}
				}
				if err := errors.Join(os.Mkdir(filepath.Join(dir, "dir.vda"), 0o700), os.Symlink("/sys/kernel", filepath.Join(dir, "link")), os.WriteFile(filepath.Join(dir, "cpu"), []byte("of before"), 0o600)); err != nil {
					t.Fatal(err)
				}
				h := steps.Host{
					Machine: inspect.Machine{FS: root}, Tools: scripted{tooltest.New(t, strings.ReplaceAll(test.script, "TMP", dir))}, Log: slog.New(slog.DiscardHandler), Say: t.Logf, Media: []string{test.media},
					Open: func(path string) (steps.Disk, error) {
						if path == test.busy {
							return nil, errors.New("device or resource busy")
						}
						return opened{}, nil
					},
					Confirm: func(context.Context, string) error { return test.asked },
				}
				n := steps.Node{Record: map[string]any{"driver_info": map[string]any(test.options)}, Properties: map[string]json.RawMessage{"skip_block_devices": json.RawMessage(test.skip)}}
				result, err := test.run(t.Context(), h, steps.Job{Node: n})
				if err != nil {
					if strings.HasPrefix(test.want, "PASS") || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
						t.Fatalf("error %v, want %q", err, test.want)
					}
					return
				}
				if got := lines(result.(Report).Parts); got != test.want {
					t.Errorf("parts:\n%swant:\n%s", got, test.want)
				}
				if strings.Contains(test.script, "TMP/cpu") {
					if b, err := os.ReadFile(filepath.Join(dir, "cpu")); err != nil || len(b) > 0 {
						t.Errorf("the file has %q of before, %v", b, err)
					}
				}
			})
		})
	}
}

// A partner that never comes, or goes away, ends the step.
func TestNetworkEnds(t *testing.T) {
	for _, test := range []struct {
		name, role string
		fio        func(ctx context.Context) error // nil: it does not listen
		want       time.Duration
	}{
		{"a reader whose partner does not listen", "reader", nil, time.Hour + time.Minute},
		{"a reader whose partner sends nothing", "reader", func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }, time.Hour + time.Minute},
		{"a writer to whom nobody comes", "writer", func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }, time.Hour + time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := steps.Host{Machine: inspect.Machine{FS: machine()}, Log: slog.New(slog.DiscardHandler), Say: func(string, ...any) {}, Tools: runner(func(ctx context.Context, line string) (string, error) {
					switch {
					case strings.Contains(line, "--version"):
						return "", nil
					case test.fio == nil:
						return "", exit(16)
					}
					return "", test.fio(ctx)
				})}
				began := time.Now()
				_, err := Network(t.Context(), h, steps.Job{Node: steps.Node{Record: map[string]any{"driver_info": map[string]any{
					"agent_burnin_fio_network_runtime": 60, "agent_burnin_fio_network_config": map[string]any{"role": test.role, "partner": "b"},
				}}}})
				if err == nil || !strings.Contains(err.Error(), "did not come, or went away") || time.Since(began) != test.want {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
			})
		})
	}
}
