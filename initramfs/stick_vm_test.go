// SPDX-License-Identifier: Apache-2.0

package initramfs_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/initramfs"
	"github.com/ironhand/ironhand/initramfs/vmtest"
)

// burnInStick makes a stick with words on the kernel's command line, and a profile of seconds in its partition for reports; so long it tests processors.
func burnInStick(t *testing.T, processors, more string) string {
	t.Helper()
	dir := t.TempDir()
	stick := filepath.Join(dir, "stick")
	f, err := os.Create(stick)
	if err != nil {
		t.Fatal(err)
	}
	_, err = initramfs.ISO{
		Kernel: vmtest.Artefact(t, "kernel/vmlinuz"), Initramfs: vmtest.Artefact(t, "initramfs-burnin.cpio.zst"),
		Cmdline: strings.TrimSpace(initramfs.BurnInCmdline + " " + more), Loaders: initramfs.DebianLoaders("/"), Stick: true,
	}.Write(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	profile := filepath.Join(dir, "seconds.yaml")
	if err := os.WriteFile(profile, []byte("name: seconds\nloads:\n- processors: {time: "+processors+"}\n- memory: {time: 12s, workers: 1, amount: 16M}\n- disks: {time: 12s}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mtool(t, stick, "mcopy", profile, "::seconds.yaml")
	return stick
}

// mtool runs a program of mtools on the first partition of a stick.
func mtool(t *testing.T, stick, name string, args ...string) string {
	t.Helper()
	table, err := exec.Command("sfdisk", "--json", stick).Output()
	if err != nil {
		t.Fatalf("sfdisk: %v", err)
	}
	var found struct {
		PartitionTable struct{ Partitions []struct{ Start int64 } }
	}
	if err := json.Unmarshal(table, &found); err != nil || len(found.PartitionTable.Partitions) != 2 {
		t.Fatalf("sfdisk: %s, %v", table, err)
	}
	args = append([]string{"-i", fmt.Sprintf("%s@@%d", stick, found.PartitionTable.Partitions[0].Start*512)}, args...)
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// stickReport fetches results.json of the only run from a stick, and returns the verdict and the parts.
func stickReport(t *testing.T, stick string) (verdict, parts string) {
	t.Helper()
	list := strings.Fields(mtool(t, stick, "mdir", "-b", "::reports"))
	if len(list) != 1 {
		t.Fatalf("reports on the stick: %q, want one", list)
	}
	out := filepath.Join(t.TempDir(), "results.json")
	mtool(t, stick, "mcopy", "-n", list[0]+"results.json", out)
	b, err := os.ReadFile(out)
	var r struct {
		Verdict string
		Loads   []struct {
			Parts []struct{ Name, Verdict string }
		}
	}
	if err != nil || json.Unmarshal(b, &r) != nil {
		t.Fatalf("results.json: %s, %v", b, err)
	}
	var all []string
	for _, l := range r.Loads {
		for _, p := range l.Parts {
			all = append(all, p.Verdict+" "+p.Name)
		}
	}
	return r.Verdict, strings.Join(all, ", ")
}

// From a stick, with UEFI and no network, a person runs a profile by the menu's keys. What holds data is not written to.
func TestVMStick(t *testing.T) {
	vmtest.Require(t)
	if info, err := os.Stat(vmtest.Artefact(t, "initramfs-burnin.cpio.zst")); err != nil || info.Size() > 80<<20 {
		t.Errorf("the ramdisk for burn-in: %v, %v; at most 80 MiB are allowed", info.Size(), err)
	}
	data := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(data, make([]byte, 24<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mke2fs", "-q", "-t", "ext4", "-L", "keep", data).CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
	before, err := os.ReadFile(data)
	if err != nil {
		t.Fatal(err)
	}
	stick := burnInStick(t, "3s", "")
	vm := vmtest.Start(t, vmtest.Machine{
		Firmware: "uefi", Kernel: "none", USB: stick, MemoryMiB: 1024,
		Disks: []vmtest.Disk{{Size: 24 << 20, Serial: "GOOD"}, {Path: data, Serial: "DATA"}},
	})
	vm.Expect(t, `4 +own: seconds`, 5*time.Minute)
	vm.Expect(t, `the report goes to /dev/sd\w+, 6\d\.\d MiB free`, time.Minute)
	vm.Send(t, "d")
	// The kernel may give the first name to the second disk.
	names := map[string]string{}
	for range 2 {
		m := vm.Expect(t, `/dev/(vd[ab]) serial (GOOD, 24.0 MiB: empty|DATA, 24.0 MiB: it holds data: a file system ext4 keep)`, time.Minute)
		names[m[2][:4]] = m[1]
	}
	good, other := names["GOOD"], names["DATA"]
	if len(names) != 2 || good == other {
		t.Fatalf("the disks are %v", names)
	}
	key := map[string]string{"vda": "b", "vdb": "c"}
	vm.Send(t, "a") // the stick itself
	vm.Expect(t, `/dev/sda is not written to: it is removable`, time.Minute)
	vm.Send(t, key[other])
	vm.Expect(t, other+`.*holds data`, time.Minute)
	vm.Send(t, key[good]+"\n")
	vm.Expect(t, `/dev/`+good+` serial GOOD, 24.0 MiB`, time.Minute)
	vm.Send(t, "4s")
	vm.Expect(t, `overwrite all of /dev/`+good+` serial GOOD, 24.0 MiB`, time.Minute)
	vm.Send(t, "yes\n")
	vm.Expect(t, `VERDICT: PASS`, 5*time.Minute)
	vm.Expect(t, `the stick may be pulled out`, time.Minute)
	vm.Send(t, "\n")
	vm.Expect(t, `shell on this console`, time.Minute)
	vm.Send(t, "h")
	vm.Expect(t, `exit leads back to the menu`, time.Minute)
	vm.Send(t, "echo on VGA $(grep -c 'look for a stick' /dev/vcs1); exit\n")
	vm.Expect(t, `on VGA 1\s`, time.Minute) // the same menu
	vm.Expect(t, `shell on this console`, time.Minute)
	// On the keyboard, which is that of the VGA console.
	vm.Monitor(t, "send-key", map[string]any{"keys": []any{map[string]any{"type": "qcode", "data": "i"}}})
	vm.Expect(t, `SYSTEM +QEMU`, 2*time.Minute)
	vm.Expect(t, `lines 1-`, time.Minute)
	vm.Send(t, "\n")
	vm.Expect(t, `shell on this console`, time.Minute)
	vm.Send(t, "o")
	vm.Expect(t, `Power off\?`, time.Minute)
	vm.Send(t, "y")
	if why := vm.Wait(t, 2*time.Minute); why != "guest-shutdown" {
		t.Errorf("the machine ended by %s", why)
	}
	verdict, parts := stickReport(t, stick)
	disks := []string{"PASS /dev/" + good + " serial GOOD", "SKIPPED /dev/" + other + " serial DATA"}
	if verdict != "PASS" || !strings.HasPrefix(parts, "PASS processors, PASS memory, ") || !strings.HasSuffix(parts, strings.Join(disks, ", ")) && !strings.HasSuffix(parts, disks[1]+", "+disks[0]) {
		t.Errorf("results.json says %s: %s", verdict, parts)
	}
	if after, err := os.ReadFile(data); err != nil || string(after) != string(before) {
		t.Errorf("the disk that holds data has changed, %v", err)
	}
}

// The same image as a CD, with UEFI and Secure Boot: there is nowhere to keep a report, which the menu says, and the verdict is on the screen. It takes minutes; `make test-long` runs it.
func TestVMBurnInCD(t *testing.T) {
	vmtest.Require(t)
	if os.Getenv("LONG") == "" {
		t.Skip("LONG is not set")
	}
	vm := vmtest.Start(t, vmtest.Machine{
		Firmware: "secureboot", Kernel: "none", CD: []string{burnInStick(t, "3s", "")}, MemoryMiB: 1024, Disks: []vmtest.Disk{{Size: 24 << 20, Serial: "GOOD"}},
	})
	vm.Expect(t, `no report is kept`, 5*time.Minute)
	vm.Expect(t, `there is no FAT partition with the label IRONHAND`, time.Minute)
	vm.Send(t, "h")
	vm.Expect(t, `exit leads back to the menu`, time.Minute)
	// The variable of the firmware is its attributes, four bytes, and its value.
	vm.Send(t, "mount -t efivarfs none /sys/firmware/efi/efivars 2>/dev/null; echo secure boot is $(od -An -tu1 /sys/firmware/efi/efivars/SecureBoot-*); exit\n")
	vm.Expect(t, `secure boot is 6 0 0 0 1\s`, time.Minute)
	vm.Expect(t, `shell on this console`, time.Minute)
	vm.Send(t, "1s")
	vm.Expect(t, `Type yes and Enter`, time.Minute)
	vm.Send(t, "y\n")
	vm.Expect(t, `processors +runs`, time.Minute)
	vm.Send(t, "q")
	vm.Expect(t, `Stop all of the burn-in\?`, time.Minute)
	vm.Send(t, "y")
	vm.Expect(t, `VERDICT: NOT TESTED`, 2*time.Minute)
	vm.Expect(t, `The report is nowhere: there is no FAT partition`, time.Minute)
	vm.Send(t, "\n")
	vm.Expect(t, `shell on this console`, time.Minute)
	vm.Send(t, "o")
	vm.Expect(t, `Power off\?`, time.Minute)
	vm.Send(t, "y")
	if why := vm.Wait(t, 2*time.Minute); why != "guest-shutdown" {
		t.Errorf("the machine ended by %s", why)
	}
}

// The quick profile as it is, to its verdict, on a machine without a network. It takes a quarter of an hour; `make test-long` runs it.
func TestVMStickQuick(t *testing.T) {
	vmtest.Require(t)
	if os.Getenv("LONG") == "" {
		t.Skip("LONG is not set")
	}
	stick := burnInStick(t, "3s", "ironhand-burnin=quick ironhand-burnin-disks=GOOD")
	vm := vmtest.Start(t, vmtest.Machine{Firmware: "uefi", Kernel: "none", USB: stick, MemoryMiB: 1024, Disks: []vmtest.Disk{{Size: 256 << 20, Serial: "GOOD"}}})
	vm.Expect(t, `VERDICT: (PASS|FAIL|SKIPPED)`, 40*time.Minute)
	vm.Expect(t, `the stick may be pulled out`, time.Minute)
	vm.Send(t, "\n")
	vm.Expect(t, `shell on this console`, time.Minute)
	vm.Send(t, "o")
	vm.Expect(t, `Power off\?`, time.Minute)
	vm.Send(t, "y")
	vm.Wait(t, 2*time.Minute)
	verdict, parts := stickReport(t, stick)
	for _, part := range []string{"PASS processors", "PASS memory", "PASS /dev/vda serial GOOD"} {
		if verdict == "FAIL" || !strings.Contains(parts, part) {
			t.Errorf("results.json says %s: %s; want %s", verdict, parts, part)
		}
	}
}

// From a stick, with a BIOS and nobody at the console, a machine with a disk that cannot be read fails; it was reset in the middle besides, went on by itself, and says so.
func TestVMStickBadDisk(t *testing.T) {
	vmtest.Require(t)
	stick := burnInStick(t, "20s", "ironhand-burnin=seconds ironhand-burnin-disks=GOOD,UNREADABLE")
	vm := vmtest.Start(t, vmtest.Machine{
		Firmware: "bios", Kernel: "none", USB: stick, MemoryMiB: 1024, Reboots: true,
		Extra: []string{"-set", "device.usb0.bootindex=0", "-device", "i6300esb"}, // SeaBIOS tries but one disk
		Disks: []vmtest.Disk{{Size: 24 << 20, Serial: "GOOD"}, {Size: 24 << 20, Serial: "UNREADABLE", Unreadable: 20000}},
	})
	vm.Expect(t, `processors +runs`, 5*time.Minute)
	vm.Monitor(t, "system_reset", nil)
	vm.Expect(t, `VERDICT: FAIL`, 8*time.Minute)
	vm.Expect(t, `the stick may be pulled out`, time.Minute)
	vm.Send(t, "\n")
	vm.Expect(t, `shell on this console`, time.Minute)
	vm.Send(t, "o")
	vm.Expect(t, `Power off\?`, time.Minute)
	vm.Send(t, "y")
	vm.Wait(t, 2*time.Minute)
	verdict, parts := stickReport(t, stick)
	if verdict != "FAIL" || !strings.Contains(parts, "PASS processors") || !regexp.MustCompile(`PASS /dev/vd[ab] serial GOOD`).MatchString(parts) || !regexp.MustCompile(`FAIL /dev/vd[ab] serial UNREADABLE`).MatchString(parts) || !strings.Contains(parts, "FAIL machine") {
		t.Errorf("results.json says %s: %s", verdict, parts)
	}
}
