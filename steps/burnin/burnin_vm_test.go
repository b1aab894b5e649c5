// SPDX-License-Identifier: Apache-2.0

//go:build linux

package burnin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/initramfs/vmtest"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/erase"
	"github.com/ironhand/ironhand/steps/guesttest"
	"github.com/ironhand/ironhand/stream"
)

var guest = flag.Bool("guest", false, "run the tests for a virtual machine with disks")

// The programs of the ramdisk for burn-in run on a machine with a good disk, one that has sectors which cannot be read, and one that returns other data than
// was written: somebody else writes to its file.
func TestVMBurnIn(t *testing.T) {
	vmtest.Require(t)
	const size = 24 << 20
	changing := filepath.Join(t.TempDir(), "changing")
	if err := os.WriteFile(changing, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // until the machine has ended
		defer close(done)
		f, err := os.OpenFile(changing, os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		for ctx.Err() == nil {
			if _, err := fmt.Fprint(f, rand.Uint64()); err != nil {
				t.Error(err)
			}
			if at, err := f.Seek(4096, 1); err != nil || at > size-8192 {
				f.Seek(4096, 0)
			}
			time.Sleep(time.Millisecond)
		}
	}()
	defer func() { cancel(); <-done }()
	files := vmtest.Programs(t, "dmsetup", "smartctl")
	flakey, err := filepath.Glob(vmtest.Artefact(t, "kernel") + "/lib/modules/*/kernel/drivers/md/dm-flakey.ko")
	if err != nil || len(flakey) != 1 {
		t.Fatalf("dm-flakey: %q, %v", flakey, err)
	}
	files["test/dm-flakey.ko"] = flakey[0]
	vmtest.RunInGuest(t, ".", vmtest.Guest{
		Files: files,
		Machine: vmtest.Machine{MemoryMiB: 1024, Initrds: []string{vmtest.Artefact(t, "initramfs-virtual.cpio"), vmtest.BurnIn(t)}, Disks: []vmtest.Disk{
			{Size: size, Serial: "GOOD"}, {Size: size, Serial: "UNREADABLE", Unreadable: 20000}, {Path: changing, Serial: "CHANGING"},
			{Size: 8 << 20, Serial: "SATA", Bus: "sata"}, {Size: 8 << 20, Serial: "SCSI", Bus: "scsi"}, {Size: 8 << 20, Serial: "NVME", Bus: "nvme"},
		}},
		Args: "-guest -test.run=TestGuest", Timeout: 10 * time.Minute,
	})
}

func guestHost(t *testing.T) steps.Host {
	if !*guest {
		t.Skip("runs in the machine of TestVMBurnIn")
	}
	return steps.Host{
		Machine: inspect.Local(), Tools: tool.Exec{}, Log: slog.New(slog.DiscardHandler), Say: t.Logf,
		Open: func(path string) (steps.Disk, error) { return stream.OpenDevice(path) },
	}
}

func node(options map[string]any, skip string) steps.Node {
	return steps.Node{Record: map[string]any{"driver_info": options}, Properties: map[string]json.RawMessage{"skip_block_devices": json.RawMessage(skip)}}
}

func TestGuestStress(t *testing.T) {
	h := guestHost(t)
	n := node(map[string]any{"agent_burnin_cpu_timeout": "5", "agent_burnin_cpu_outputfile": "/tmp/cpu", "agent_burnin_vm_timeout": "12", "agent_burnin_vm_vm-bytes": "16M", "agent_burnin_vm_vm": "1"}, "")
	for part, step := range map[string]func(context.Context, steps.Host, steps.Job) (any, error){"processors": CPU, "memory": Memory} {
		result, err := step(t.Context(), h, steps.Job{Node: n})
		if err != nil {
			t.Errorf("%s: %v", part, err)
			continue
		}
		// Of QEMU's disks something is told besides: they refuse questions about their health.
		r := result.(Report)
		if !strings.Contains(lines(r.Parts), "PASS|"+part+"|\n") || r.Ended.Sub(r.Started) < 3*time.Second {
			t.Errorf("%s: %+v", part, r)
		}
		if rate := r.Rates[map[string]string{"processors": "processors cpu", "memory": "memory vm"}[part]]; rate.Value <= 0 || rate.Unit != "bogo-ops/s" {
			t.Errorf("%s: rates %v", part, r.Rates)
		}
	}
	if b, err := os.ReadFile("/tmp/cpu"); err != nil || !strings.Contains(string(b), "successful run") {
		t.Errorf("the program's own report: %s, %v", b, err)
	}
	// It is stopped at once.
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	n.Record["driver_info"] = map[string]any{}
	if _, err := CPU(ctx, h, steps.Job{Node: n}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stopped: %v", err)
	}
}

// A disk with an earlier burn-in's blocks that drops what is written.
func TestGuestDroppedWrites(t *testing.T) {
	h := guestHost(t)
	if err := boot.LoadModules(t.Context(), "dm_mod"); err != nil {
		t.Fatal(err)
	}
	module, err := os.Open("dm-flakey.ko")
	if err != nil {
		t.Fatal(err)
	}
	defer module.Close()
	if err := unix.FinitModule(int(module.Fd()), "", 0); err != nil {
		t.Fatal(err)
	}
	const sectors, disk = 8 << 20 / 512, "/dev/dm-0"
	good := guesttest.DiskOf(t, "GOOD")
	dmsetup := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("dmsetup", args...).CombinedOutput(); err != nil {
			t.Fatalf("dmsetup %q: %v\n%s", args, err, out)
		}
	}
	dmsetup("create", "flakey", "--noudevsync", "--table", fmt.Sprintf("0 %d linear /dev/%s 0", sectors, good))
	defer dmsetup("remove", "--noudevsync", "flakey")
	fio := func(interval int, lasts time.Duration) error {
		args := append(diskArgs(disk, sectors*512, 1, lasts), "--verify_interval", strconv.Itoa(interval))
		_, err := h.Tools.Run(t.Context(), tool.Fio, args...)
		return err
	}
	interval := func() int {
		d, err := h.Open(disk)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		return headerInterval(d)
	}
	before := interval()
	if err := fio(before, 0); err != nil {
		t.Fatal(err)
	}
	dmsetup("suspend", "--noudevsync", "flakey")
	dmsetup("reload", "flakey", "--table", fmt.Sprintf("0 %d flakey /dev/%s 0 0 3600 1 drop_writes", sectors, good))
	dmsetup("resume", "--noudevsync", "flakey")
	if err := fio(before, 2*time.Second); err != nil {
		t.Errorf("it is found out with the same headers, too: %v", err) // then there is no need for others
	}
	for _, lasts := range []time.Duration{0, 2 * time.Second} {
		if err := fio(interval(), lasts); err == nil || !strings.Contains(err.Error(), "bad header length") {
			t.Errorf("for %v: %v, want its headers to be found out", lasts, err)
		}
	}
}

func TestGuestDisks(t *testing.T) {
	h := guestHost(t)
	options := map[string]any{"agent_burnin_fio_disk_loops": "1", "agent_burnin_fio_disk_outputfile": "/tmp/fio"}
	result, err := Disk(t.Context(), h, steps.Job{Node: node(options, `[{"serial": "UNREADABLE"}, {"serial": "CHANGING"}, {"serial": "SATA"}, {"serial": "SCSI"}, {"serial": "NVME"}]`)})
	if err != nil {
		t.Fatal(err)
	}
	good, unreadable, changing := guesttest.DiskOf(t, "GOOD"), guesttest.DiskOf(t, "UNREADABLE"), guesttest.DiskOf(t, "CHANGING")
	want := fmt.Sprintf("PASS|/dev/%s serial GOOD|24.0 MiB written, 24.0 MiB read back, of 24.0 MiB\nSKIPPED|/dev/%s serial CHANGING|it is on the skip list\nSKIPPED|/dev/%s serial UNREADABLE|it is on the skip list\n", good, changing, unreadable)
	if rate := result.(Report).Rates["/dev/"+good+" write"]; rate.Value <= 0 || rate.Unit != "MB/s" {
		t.Errorf("rates %v", result.(Report).Rates)
	}
	parts := slices.DeleteFunc(result.(Report).Parts, func(p Part) bool { return !strings.HasPrefix(p.Name, "/dev/vd") })
	serial := func(p Part) string { return p.Name[strings.LastIndex(p.Name, " ")+1:] }
	slices.SortFunc(parts, func(a, b Part) int {
		return cmp.Or(cmp.Compare(a.Verdict, b.Verdict), cmp.Compare(serial(a), serial(b)))
	}) // they are in the order of their names
	if got := lines(parts); got != want {
		t.Errorf("parts:\n%swant:\n%s", got, want)
	}
	if b, err := os.ReadFile("/tmp/fio." + good); err != nil || !json.Valid(b) {
		t.Errorf("fio's report: %s, %v", b, err)
	}
	_, err = Disk(t.Context(), h, steps.Job{Node: node(options, "")})
	if !errors.Is(err, steps.ErrBurnIn) {
		t.Fatalf("with broken disks: %v", err)
	}
	for _, want := range []string{"/dev/" + unreadable + " serial UNREADABLE: fio", "Input/output error", "/dev/" + changing + " serial CHANGING: fio", "verify", "kernel messages of broken hardware, the first: I/O error, dev " + unreadable} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\ndoes not have %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "GOOD") {
		t.Errorf("%v: the good disk is among the broken ones", err)
	}
}

// QEMU's SATA disk has self-tests, which end at once; smartctl says what the disk keeps of them. Its other disks have none.
func TestGuestSelfTest(t *testing.T) {
	h := guestHost(t)
	disks, err := h.Machine.Disks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"SATA": "PASS", "SCSI": "SKIPPED", "NVME": "SKIPPED", "GOOD": "SKIPPED",
	}
	for _, d := range disks {
		verdict := want[string(d.Serial)]
		if verdict == "" {
			continue
		}
		delete(want, string(d.Serial))
		for _, long := range []bool{false, true} {
			parts, err := selfTest(t.Context(), erase.OpenDrive, d, long, func(int) {})
			t.Logf("%v: %v, %v", d, parts, err)
			if err != nil || len(parts) != 1 || string(parts[0].Verdict) != verdict {
				t.Errorf("%v: %v, %v, want %s", d, parts, err, verdict)
			}
		}
		if verdict != "PASS" {
			continue
		}
		out, err := exec.Command("smartctl", "-d", "sat", "-l", "selftest", d.Name).CombinedOutput()
		if err != nil || strings.Count(string(out), "Completed without error") != 2 || !strings.Contains(string(out), "Short offline") || !strings.Contains(string(out), "Extended offline") {
			t.Errorf("smartctl: %v\n%s", err, out)
		}
	}
	if len(want) > 0 {
		t.Errorf("no disks with the serial numbers %v", want)
	}
}
