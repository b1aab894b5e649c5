// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/initramfs/vmtest"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps/burnin"
	"github.com/ironhand/ironhand/steps/guesttest"
)

// A machine's kernel crashes in the middle of a load, and a disk does not come back. The watchdog resets the machine, and the run goes on from the state on its stick. Then
// a disk vanishes, the link of an interface flaps, one of two others gets frames with errors, and the kernel tells of broken hardware.
func TestVMBurnInResumes(t *testing.T) {
	vmtest.Require(t)
	dir := t.TempDir()
	stick, dumps := filepath.Join(dir, "stick"), filepath.Join(dir, "erst")
	for name, size := range map[string]int64{stick: 64 << 20, dumps: 64 << 10} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(name, size); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("mkfs.vfat", "-n", "IRONHAND", stick).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.vfat: %v\n%s", err, out)
	}
	const size = 24 << 20
	bad, badCable := cable(t, "bad", 7, badMAC)
	sound, soundCable := cable(t, "sound", 8, soundMAC)
	vmtest.RunInGuest(t, ".", vmtest.Guest{
		Machine: vmtest.Machine{
			MemoryMiB: 1024, Initrds: []string{vmtest.Artefact(t, "initramfs-virtual.cpio"), vmtest.BurnIn(t)}, Reboots: true, Cmdline: "panic=0", NICs: []vmtest.NIC{{MAC: flapMAC}},
			Disks: []vmtest.Disk{{Size: size, Serial: "GOOD"}, {Path: stick, Serial: "STICK"}, {Size: size, Serial: "VANISHES", Bus: "scsi"}, {Size: size, Serial: "LOST", Bus: "scsi"}},
			Extra: slices.Concat([]string{"-device", "i6300esb", "-action", "watchdog=reset",
				"-object", "memory-backend-file,id=erst,size=64K,share=on,mem-path=" + dumps, "-device", "acpi-erst,memdev=erst",
				"-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"}, // so that slots have the numbers of their ports
				badCable, soundCable),
		},
		Args: "-guest -test.run=TestGuestResumes$", Timeout: 8 * time.Minute,
		During: func(vm *vmtest.VM) {
			vm.Expect(t, `Kernel panic - not syncing: sysrq`, 3*time.Minute)
			vm.Monitor(t, "device_del", map[string]any{"id": "disk3"})
			vm.Expect(t, `\nmarker: disks are written`, 4*time.Minute)
			time.Sleep(3 * time.Second) // until the counters were read
			for _, up := range []bool{false, true} {
				vm.Monitor(t, "set_link", map[string]any{"name": "nic0", "up": up})
				for range 20 {
					bad(2000) // longer than the interface takes: QEMU's e1000e counts it as the hardware does (ROC), and drops it
					sound(1000)
				}
				time.Sleep(2 * time.Second)
			}
		},
	})
}

// The addresses of the interfaces: one whose link flaps, and those in the slots 7 and 8.
const flapMAC, badMAC, soundMAC = "52:54:00:00:00:06", "52:54:00:00:00:07", "52:54:00:00:00:08"

// cable is an interface in a slot of its own, for QEMU's arguments, and what sends it a frame of so many bytes.
func cable(t *testing.T, name string, slot int, mac string) (send func(size int), args []string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "nic") // the path of a socket has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	there := net.UnixAddr{Name: filepath.Join(dir, "there"), Net: "unixgram"}
	here, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "here"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.Close() })
	to, err := net.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	send = func(size int) {
		frame := slices.Concat(to, net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}, []byte{0x88, 0xb5}) // IEEE 802: local experimental
		if err := here.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := here.WriteToUnix(append(frame, make([]byte, size-len(frame))...), &there); err != nil {
			t.Errorf("send a frame to the %s interface: %v", name, err)
		}
	}
	return send, []string{
		"-device", fmt.Sprintf("pcie-root-port,id=port%d,chassis=%[1]d,slot=%[1]d", slot),
		"-netdev", fmt.Sprintf("dgram,id=%s-net,local.type=unix,local.path=%s,remote.type=unix,remote.path=%s", name, there.Name, here.LocalAddr()),
		"-device", fmt.Sprintf("e1000e,id=%s,bus=port%d,netdev=%s-net,romfile=,mac=%s", name, slot, name, mac),
	}
}

// nicOf is the name of the interface with an address, set up and with a link.
func nicOf(t *testing.T, mac string) string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(n net.Interface) bool { return n.HardwareAddr.String() == mac })
	if i < 0 {
		t.Fatalf("no interface with the address %s: %v", mac, all)
	}
	setUp(t, all[i].Name)
	for began := time.Now(); statistic(t, all[i].Name, "carrier") != "1"; time.Sleep(100 * time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("%s has no link", all[i].Name)
		}
	}
	return all[i].Name
}

// statistic is a file of an interface.
func statistic(t *testing.T, name, file string) string {
	t.Helper()
	b, err := os.ReadFile("/sys/class/net/" + name + "/" + file)
	if err != nil {
		t.Error(err)
	}
	return strings.TrimSpace(string(b))
}

func TestGuestResumes(t *testing.T) {
	if !*guest {
		t.Skip("runs in the machine of TestVMBurnInResumes")
	}
	const stick, report = "/tmp/stick", "/tmp/stick/report"
	if err := os.Mkdir(stick, 0o700); err != nil {
		t.Fatal(err)
	}
	resets := 0
	if err := boot.LoadModules(t.Context(), "e1000e", "sd_mod", "vfat", "nls_cp437", "nls_ascii", "nls_iso8859_1", "nls_utf8"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("/dev/"+guesttest.DiskOf(t, "STICK"), stick, "vfat", 0, "errors=continue"); err != nil {
		t.Fatal(err)
	}
	if _, err := burnin.Unfinished(report); err == nil {
		resets = 1 // by which a disk was lost
	}
	disks, err := inspect.Local().Disks(t.Context())
	for began := time.Now(); (err != nil || len(disks) < 4-resets) && time.Since(began) < 20*time.Second; time.Sleep(100 * time.Millisecond) {
		disks, err = inspect.Local().Disks(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0); err != nil {
			t.Error(err)
		}
	}
	// when does something in the middle of a load.
	when := func(part string, do func()) {
		go func() {
			for ; ; time.Sleep(200 * time.Millisecond) {
				if s, err := burnin.Unfinished(report); err == nil && s.Running != nil && s.Running.Part == part {
					break
				}
			}
			fmt.Printf("\nmarker: %s are written\n", part)
			time.Sleep(3 * time.Second)
			do()
		}()
	}
	if resets == 0 {
		profile := filepath.Join(t.TempDir(), "profile.yaml")
		if err := os.WriteFile(profile, []byte("name: seconds\nloads:\n- processors: {time: 5s}\n- memory: {time: 12s, workers: 1, amount: 16M}\n- disks: {time: 12s}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		when("memory", func() {
			write("/proc/sys/kernel/sysrq", "1")
			write("/proc/sysrq-trigger", "c")
		})
		code, stdout, stderr := run(t, "", "burnin", "--profile", profile, "--disks", "GOOD,VANISHES,LOST", "--report", report, "--watchdog", "30s", "--yes")
		t.Fatalf("the machine was not reset: exit %d:\n%s%s", code, stdout, stderr)
	}

	flaps, bad, sound := nicOf(t, flapMAC), nicOf(t, badMAC), nicOf(t, soundMAC)
	when("disks", func() {
		write("/dev/kmsg", "mce: [Hardware Error]: CPU 1: Machine Check: 0 Bank 3: bc5eb2c000100135")
		write("/dev/kmsg", "pcieport 0000:00:1c.0: AER: Uncorrectable (Fatal) error message received from 0000:01:00.0")
		for _, d := range disks {
			if d.Serial == "VANISHES" {
				for range 600 { // until it is written to: a disk that is gone before fio has opened it is none that fio has found a fault of
					stat, err := os.ReadFile("/sys/block/" + filepath.Base(d.Name) + "/stat")
					if f := strings.Fields(string(stat)); err == nil && len(f) > 6 && f[6] != "0" { // Documentation/block/stat.rst: sectors written
						break
					}
					time.Sleep(100 * time.Millisecond)
				}
				write("/sys/block/"+filepath.Base(d.Name)+"/device/delete", "1")
			}
		}
	})
	code, stdout, stderr := run(t, "", "burnin", "--report", report, "--resume", "--watchdog", "30s", "--yes")
	if code != exitFailed {
		t.Errorf("exit %d:\n%s%s", code, stdout, stderr)
	}
	b, err := os.ReadFile(filepath.Join(report, "results.json"))
	var r burnin.Result
	if err != nil || json.Unmarshal(b, &r) != nil {
		t.Fatalf("results.json: %s, %v\n%s", b, err, stderr)
	}
	var found strings.Builder
	for _, l := range r.Loads {
		for _, p := range l.Parts {
			fmt.Fprintf(&found, "%s|%s|%s\n", p.Verdict, p.Name, strings.Join(p.Reasons, "; "))
		}
	}
	if r.Verdict != burnin.Fail {
		t.Errorf("verdict %s", r.Verdict)
	}
	for _, want := range []string{
		"PASS|processors|\n", "PASS|memory|\n", "PASS|/dev/" + guesttest.DiskOf(t, "GOOD") + " serial GOOD|",
		"FAIL|machine|the machine was reset in the middle of memory for 12s: ",
		"the watchdog i6300ESB timer says why: the machine hung",
		"the kernel that ran has left the dump dmesg-erst-", ": Kernel panic - not syncing: sysrq triggered crash",
		"|lost since the burn-in began: QEMU QEMU HARDDISK 24.0 MiB serial LOST",
		" serial VANISHES|", "1 devices that vanished",
		"FAIL|" + flaps + "|2 changes of the link\n",
		"FAIL|processors|1 kernel messages of broken hardware, the first: mce: [Hardware Error]: CPU 1: Machine Check: 0 Bank 3: bc5eb2c000100135",
		"FAIL|PCIe devices|1 kernel messages of broken hardware, the first: pcieport 0000:00:1c.0: AER: Uncorrectable (Fatal) error message received",
	} {
		if !strings.Contains(found.String(), want) {
			t.Errorf("not found: %q", want)
		}
	}
	// By the slot that somebody pulls the card out of, with what the driver itself has counted.
	if got := statistic(t, bad, "statistics/rx_length_errors"); got != "40" {
		t.Errorf("%s has counted %s frames that are too long, want 40", bad, got)
	}
	if want := regexp.MustCompile(`(?m)^FAIL\|` + bad + ` \(0000:[0-9a-f]+:00\.0, slot 7\)\|40 frames with errors$`); !want.MatchString(found.String()) {
		t.Errorf("not found: %v", want)
	}
	if got := statistic(t, sound, "statistics/rx_packets"); got != "40" {
		t.Errorf("%s has got %s frames, want 40", sound, got)
	}
	if strings.Contains(found.String(), "slot 8") || strings.Contains(found.String(), "FAIL|"+sound) {
		t.Errorf("%s is sound, and something is told of it", sound)
	}
	if t.Failed() {
		t.Logf("found:\n%s", found.String())
	}
	if kept, err := filepath.Glob(report + "/logs/dmesg-erst-*"); err != nil || len(kept) == 0 {
		t.Errorf("dumps that are kept: %q, %v", kept, err)
	}
	if _, err := burnin.Unfinished(report); err == nil {
		t.Error("there is something to go on with")
	}
	if code, _, stderr := run(t, "", "burnin", "--report", report, "--resume", "--yes"); code != exitOther || !strings.Contains(stderr, "the run came to its end") {
		t.Errorf("once more: exit %d: %s", code, stderr)
	}
	// The watchdog was stopped.
	if b, err := os.ReadFile("/sys/class/watchdog/watchdog0/state"); err != nil || strings.TrimSpace(string(b)) != "inactive" {
		t.Errorf("the watchdog is %s, %v", b, err)
	}
}

// setUp brings an interface up, so that its link is watched.
func setUp(t *testing.T, name string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	request.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		t.Fatal(err)
	}
}
