// SPDX-License-Identifier: Apache-2.0

package initramfs_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/agent/conductor"
	"github.com/ironhand/ironhand/initramfs/vmtest"
	"github.com/ironhand/ironhand/stream/looptest"
	"github.com/ironhand/ironhand/stream/streamtest"
	"github.com/klauspost/compress/zstd"
)

// Times are limits only: an emulated machine with neighbours is slow.
const (
	bootTime   = 3 * time.Minute
	deployTime = 6 * time.Minute
)

// A machine is deployed over each kind of medium, NIC, disk and image, jumps into the image's kernel, and is left with a disk that
// other programs find sound.
func TestVMDeploy(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*lab)
		adjust func(*vmtest.Machine)
	}{
		{"floppy, gzip", func(l *lab) { l.image = gzipped(t, l.image) }, nil},
		{"USB disk, zstd, 512 MiB", func(l *lab) { l.medium, l.image = "usb", zstded(t, l.image) }, nil},
		{"CD, e1000e, NVMe", func(l *lab) { l.medium = "iso" }, func(m *vmtest.Machine) {
			m.NICs[0].Model = "e1000e"
			m.Disks[1].Bus = "nvme"
		}},
		{"second CD, SCSI, igb beside", func(l *lab) { l.medium = "iso" }, func(m *vmtest.Machine) {
			m.CD = append([]string{vmtest.Artefact(t, "ironhand.iso")}, m.CD...)
			m.Disks[1].Bus = "scsi"
			m.NICs = append([]vmtest.NIC{{MAC: "52:54:00:99:99:99"}}, m.NICs...)
		}},
		{"sectors of 4096 bytes, systemd-boot", func(l *lab) { l.image = bootSystem.make(t) }, func(m *vmtest.Machine) {
			m.Disks[1].Bus, m.Disks[1].SectorSize = "nvme", 4096
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			if test.change != nil {
				test.change(l)
			}
			l.start()
			m := l.machine()
			if test.adjust != nil {
				test.adjust(&m)
			}
			vm := vmtest.Start(t, m)
			vm.Expect(t, `heartbeat: first one accepted`, bootTime)
			vm.Expect(t, `writing .* serial ROOT`, deployTime)
			vm.Expect(t, `hand-off: start the loaded kernel`, deployTime)
			vm.Expect(t, `IMAGE RUNS: .*marker=from-(grub|bls)`, bootTime)
			if err := l.result(time.Minute); err != nil {
				t.Errorf("conductor: %v\n%s", err, l.timeline())
			}
			vm.Wait(t, time.Minute)
			checkDisk(t, vm.Disks[1], m.Disks[1].SectorSize)
			wantEmpty(t, vm.Disks[0])
			wantNoSecrets(t, l, vm)
		})
	}
}

// checkDisk has sgdisk, e2fsck and blkid look at a deployed disk.
func checkDisk(t *testing.T, disk string, sector int) {
	t.Helper()
	if sector == 0 {
		sector = 512
	}
	disk = looptest.Attach(t, disk, sector)
	if out := run(t, "sgdisk", "-v", disk); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk -v:\n%s", out)
	}
	var table struct {
		PartitionTable struct {
			Partitions []struct {
				Start, Size int64 // sectors
			}
		}
	}
	if err := json.Unmarshal([]byte(run(t, "sfdisk", "--json", disk)), &table); err != nil {
		t.Fatal(err)
	}
	parts := table.PartitionTable.Partitions
	if len(parts) != 2 {
		t.Fatalf("%d partitions, want 2: %+v", len(parts), parts)
	}
	for i, want := range []string{`TYPE="(ext4|vfat)"`, `(?i)LABEL="config-2"`} {
		fs := filepath.Join(t.TempDir(), fmt.Sprint(i))
		run(t, "dd", "if="+disk, "of="+fs, "bs="+fmt.Sprint(sector), fmt.Sprint("skip=", parts[i].Start), fmt.Sprint("count=", parts[i].Size), "status=none")
		out := run(t, "blkid", "-p", fs)
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("blkid of partition %d: %s, want %s", i+1, out, want)
		}
		switch {
		case strings.Contains(out, `"ext4"`):
			run(t, "e2fsck", "-fn", fs)
		case strings.Contains(out, `"vfat"`):
			run(t, "fsck.fat", "-n", fs)
		}
	}
}

// wantNoSecrets greps everything that a run has printed for the token.
func wantNoSecrets(t *testing.T, l *lab, vm *vmtest.VM) {
	t.Helper()
	token, err := os.ReadFile(l.path("token"))
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.TrimSpace(string(token))
	for name, text := range map[string]string{"console": vm.Console(), "conductor": l.timeline()} {
		if strings.Contains(text, secret) {
			t.Errorf("the token is in what the %s printed", name)
		}
	}
}

func gzipped(t *testing.T, b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstded(t *testing.T, b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

// With HANDOFF=reboot the machine goes through its firmware, which starts the disk's boot code.
func TestVMDeployAndReboot(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.handoff = "reboot"
	l.start()
	m := l.machine()
	vm := vmtest.Start(t, m)
	vm.Expect(t, `hand-off: reboot`, deployTime+bootTime)
	if why := vm.Wait(t, time.Minute); why != "guest-reset" {
		t.Errorf("the machine ended by %s, want guest-reset", why)
	}
	disk := vmtest.Start(t, vmtest.Machine{Firmware: "bios", Kernel: "none", Disks: []vmtest.Disk{{Path: vm.Disks[1]}}})
	disk.Expect(t, `BOOT CODE RUNS`, bootTime)
}

// What is wrong with the configuration is on the console, with what to check.
func TestVMBadConfiguration(t *testing.T) {
	for _, test := range []struct {
		name    string
		change  func(*lab)
		console []string
	}{
		{"no medium", func(l *lab) { l.medium = "none" }, []string{
			`media: FAILED: .*no configuration medium`, `media: check: .*BMC`,
		}},
		{"broken JSON", func(l *lab) { l.broken = `{"links": [}` }, []string{
			`network: FAILED: .*network_data.json.*line 1`, `network: check: `,
		}},
		{"NIC that is not there", func(l *lab) { l.network4 = l.networkData("52:54:00:aa:aa:aa") }, []string{
			`network: FAILED: .*52:54:00:aa:aa:aa.*`, `network: check: .*NICs`,
		}},
		{"no API URL", func(l *lab) { l.apiURL = "ftp://x" }, []string{
			`settings: FAILED: .*ipa-api-url`, `settings: check: `,
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			test.change(l)
			l.start()
			vm := vmtest.Start(t, l.machine())
			for _, want := range test.console {
				vm.Expect(t, want, bootTime)
			}
			// It does not give up: what is mended is found by the next start.
			vm.Expect(t, `agent.*again|restart`, bootTime)
		})
	}
}

// A conductor whose certificate comes from another authority is not talked to.
func TestVMWrongCA(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	if err := conductor.WriteCertificates(l.path("other"), []string{"192.0.2.1"}); err != nil {
		t.Fatal(err)
	}
	l.ca = l.path("other/ca.crt")
	l.start()
	vm := vmtest.Start(t, l.machine())
	vm.Expect(t, `conductor: .*unknown authority`, bootTime)
	vm.Expect(t, `network: .*(CA|authority)`, bootTime)
	if strings.Contains(l.timeline(), "lookup:") {
		t.Errorf("the agent looked up its node all the same:\n%s", l.timeline())
	}
}

// A clock that is ten years off is measured, told, and does not stop a deployment.
func TestVMClockTenYearsOff(t *testing.T) {
	for _, test := range []struct{ name, rtc, want string }{
		{"behind", time.Now().AddDate(-10, 0, 0).UTC().Format("2006-01-02T15:04:05"), `clock: this machine's is 365\d days behind`},
		{"ahead", time.Now().AddDate(10, 0, 0).UTC().Format("2006-01-02T15:04:05"), `clock: this machine's is 365\d days ahead`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.start()
			m := l.machine()
			m.Extra = []string{"-rtc", "base=" + test.rtc}
			vm := vmtest.Start(t, m)
			vm.Expect(t, test.want, bootTime)
			vm.Expect(t, `IMAGE RUNS`, deployTime+bootTime)
			if err := l.result(time.Minute); err != nil {
				t.Errorf("conductor: %v\n%s", err, l.timeline())
			}
		})
	}
}

// A token that is not the conductor's is refused, and the console says so.
func TestVMWrongToken(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	if err := conductor.WriteToken(l.path("other")); err != nil {
		t.Fatal(err)
	}
	l.token = l.path("other")
	l.start()
	vm := vmtest.Start(t, l.machine())
	vm.Expect(t, `heartbeat: .*token`, bootTime)
	vm.Expect(t, `heartbeat: check `, bootTime)
	if !strings.Contains(l.timeline(), "token") {
		t.Errorf("the conductor does not say why it refused:\n%s", l.timeline())
	}
}

// A conductor that is away for a minute, at each stage, only delays.
func TestVMConductorAway(t *testing.T) {
	const away = time.Minute
	for _, test := range []struct{ name, at string }{
		{"at the start", ``},
		{"after the lookup", `lookup: node `},
		{"after the first heartbeat", `heartbeat: first one accepted`},
		{"while the image is written", `writing .* serial ROOT`},
		{"before the hand-off", `step: loaded`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.start()
			if test.at == "" {
				l.conductor.Pause()
			}
			vm := vmtest.Start(t, l.machine())
			if test.at == "" {
				vm.Expect(t, `conductor: .*refused`, bootTime)
			} else {
				vm.Expect(t, test.at, deployTime)
				l.conductor.Pause()
			}
			time.Sleep(away)
			if err := l.conductor.Resume(); err != nil {
				t.Fatal(err)
			}
			vm.Expect(t, `IMAGE RUNS`, deployTime+bootTime)
			if err := l.result(time.Minute); err != nil {
				t.Errorf("conductor: %v\n%s", err, l.timeline())
			}
		})
	}
}

// What goes wrong with an image fails the step, or is overcome, and in no case does half an image boot.
func TestVMImageTrouble(t *testing.T) {
	quick := []string{
		"ipa-image-download-connection-timeout=5", "ipa-image-download-connection-retries=1", "ipa-image-download-connection-retry-interval=1",
		"ipa-disk-wait-attempts=1",
	}
	for _, test := range []struct {
		name   string
		change func(*lab)
		fails  string // "" if it ends well all the same
	}{
		{"404", func(l *lab) { l.server = &streamtest.Server{Always: streamtest.Fault{Status: 404}} }, "404"},
		{"hangs before the first byte", func(l *lab) { l.server = &streamtest.Server{Always: streamtest.Fault{Hang: -1}} }, "no byte"},
		{"hangs again and again", func(l *lab) {
			l.server = &streamtest.Server{Content: l.image, ETag: `"1"`, Always: streamtest.Fault{Hang: 3 << 20}}
		}, ""},
		{"cut five times", func(l *lab) {
			f := streamtest.Fault{Cut: 500 << 10} // the first part that is asked for has 1 MiB
			l.server = &streamtest.Server{Content: l.image, ETag: `"1"`, Faults: []streamtest.Fault{f, f, f, f, f}}
		}, ""},
		{"shorter than promised", func(l *lab) {
			l.server = &streamtest.Server{Content: l.image, ETag: `"1"`, Always: streamtest.Fault{Content: l.image[:30<<20], NoRange: true,
				Header: map[string]string{"Content-Length": fmt.Sprint(len(l.image))}, End: 30 << 20}}
		}, "disk.img"},
		{"wrong digest", func(l *lab) { l.digest = strings.Repeat("0f", 64) }, "digest"},
		{"larger than the disk", func(l *lab) {
			l.hint = "{serial: SMALL}"
		}, "larger than the disk"},
		{"no disk fits", func(l *lab) { l.hint = `{serial: NOBODY}` }, "NOBODY"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.params = quick
			test.change(l)
			l.start()
			m := l.machine()
			m.Disks = append(m.Disks, vmtest.Disk{Size: 32 << 20, Serial: "SMALL"})
			vm := vmtest.Start(t, m)
			if test.fails == "" {
				vm.Expect(t, `IMAGE RUNS`, deployTime+bootTime)
				if err := l.result(time.Minute); err != nil {
					t.Errorf("conductor: %v\n%s", err, l.timeline())
				}
				return
			}
			l.wantFailure(vm, test.fails, deployTime+2*time.Minute)
			vm.Expect(t, `step: write_image FAILED`, time.Minute)
			vm.Stop()
			for _, disk := range vm.Disks {
				wantEmpty(t, disk)
			}
			// The firmware is asked, not only programs that look for signatures.
			disk := vmtest.Start(t, vmtest.Machine{Firmware: "bios", Kernel: "none", Disks: []vmtest.Disk{{Path: vm.Disks[1]}},
				Extra: []string{"-chardev", "file,id=bioslog,path=" + l.path("bios.log"), "-device", "isa-debugcon,iobase=0x402,chardev=bioslog"}})
			deadline := time.Now().Add(bootTime)
			for !strings.Contains(read(t, l.path("bios.log")), "No bootable device") {
				if time.Now().After(deadline) {
					t.Fatalf("the BIOS has not said that it cannot boot:\n%s", read(t, l.path("bios.log")))
				}
				time.Sleep(200 * time.Millisecond)
			}
			if strings.Contains(disk.Console(), "BOOT CODE RUNS") {
				t.Error("the disk boots")
			}
		})
	}
}

func read(t *testing.T, name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Of two disks that fit, the first in the kernel's order is taken, as Ironic specifies, and both are named.
func TestVMTwoDisksFit(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.hint = `{size: ">= 5"}`
	l.start()
	vm := vmtest.Start(t, l.machine())
	taken := vm.Expect(t, `writing .*/dev/vda .*serial (OTHER|ROOT)\b.* the hints fit /dev/vdb too`, deployTime)[1] // the kernel may give the first name to the second disk
	vm.Expect(t, `IMAGE RUNS`, deployTime+bootTime)
	if err := l.result(time.Minute); err != nil {
		t.Errorf("conductor: %v\n%s", err, l.timeline())
	}
	first, second := vm.Disks[0], vm.Disks[1]
	if taken == "ROOT" {
		first, second = second, first
	}
	checkDisk(t, first, 512)
	wantEmpty(t, second)
}

// The medium vanishes after it was read, and then the agent is killed while it writes: it is started again, needs
// no medium, keeps token and certificate, and the conductor begins the step anew.
func TestVMAgentKilled(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.medium = "usb"
	slow := l.image
	l.server = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Slow enough to be killed in the middle.
		for begin := 0; begin < len(slow); begin += 1 << 20 {
			if begin == 0 {
				w.Header().Set("Content-Length", fmt.Sprint(len(slow)))
			}
			if _, err := w.Write(slow[begin:min(begin+1<<20, len(slow))]); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	l.start()
	m := l.machine()
	m.Cmdline += " ironhand.shell=1"
	vm := vmtest.Start(t, m)
	vm.Expect(t, `media: usb`, bootTime)
	vm.Monitor(t, "device_del", map[string]any{"id": "usb0"})
	vm.Expect(t, `write: .*read`, deployTime)
	vm.Send(t, "\nkill -9 $(pidof ironhand)\n")
	vm.Expect(t, `agent.*(killed|signal)`, time.Minute)
	vm.Expect(t, `media: kept from the start of this boot`, bootTime)
	vm.Expect(t, `heartbeat: first one accepted`, bootTime)
	vm.Expect(t, `IMAGE RUNS`, deployTime+bootTime)
	if err := l.result(time.Minute); err != nil {
		t.Errorf("conductor: %v\n%s", err, l.timeline())
	}
	if !strings.Contains(l.timeline(), "write_image is sent again") {
		t.Errorf("the step was not begun anew:\n%s", l.timeline())
	}
}
