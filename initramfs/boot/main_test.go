// SPDX-License-Identifier: Apache-2.0

//go:build linux

package boot_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ironhand/ironhand/initramfs/boot"
)

// TestMain makes this test binary three programs: the tests; when it is process 1 of a machine that a test has started, the process 1 to be
// tested; and, as that one's child, an agent which does what the kernel parameter "play" says.
func TestMain(m *testing.M) {
	switch {
	case os.Getpid() == 1:
		boot.Init(boot.Options{Agent: []string{"ironhand", "agent"}})
	case len(os.Args) > 1 && os.Args[1] == "agent":
		play()
	default:
		os.Exit(m.Run())
	}
}

// play is the agent of the tests.
func play() {
	ctx := context.Background()
	console := boot.NewTimeline(os.Stdout)
	say := func(format string, args ...any) { console.Stage("test", format, args...) }
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		say("%v", err)
	}
	script := ""
	for word := range strings.FieldsSeq(string(cmdline)) {
		if v, ok := strings.CutPrefix(word, "play="); ok {
			script = v
		}
	}
	say("agent %d started, parent %d, play %s", os.Getpid(), os.Getppid(), script)
	for step := range strings.SplitSeq(script, ",") {
		if err := steps[step](ctx, say); err != nil {
			say("%s: %v", step, err)
		} else {
			say("%s: done", step)
		}
	}
	idle()
}

func idle() {
	for {
		time.Sleep(time.Hour)
	}
}

const kernelFile, initrdFile = "/next/vmlinuz", "/next/initrd"

// steps are the things that the agent of the tests can do.
var steps = map[string]func(ctx context.Context, say func(string, ...any)) error{
	"devices": func(_ context.Context, say func(string, ...any)) error {
		for _, class := range []string{"block", "net"} {
			dir, err := os.ReadDir(filepath.Join("/sys/class", class))
			if err != nil {
				return err
			}
			var names []string
			for _, d := range dir {
				if !strings.HasPrefix(d.Name(), "loop") {
					names = append(names, d.Name())
				}
			}
			slices.Sort(names)
			say("%s: %s.", class, strings.Join(names, " "))
		}
		return nil
	},
	"efi": func(_ context.Context, say func(string, ...any)) error {
		dir, err := os.ReadDir("/sys/firmware/efi/efivars")
		if len(dir) > 0 {
			say("the firmware has variables")
		}
		return err
	},
	"live": func(_ context.Context, say func(string, ...any)) error {
		for {
			say("agent lives")
			time.Sleep(2 * time.Second)
		}
	},
	"watch": func(_ context.Context, say func(string, ...any)) error { // devices that come later
		for range 600 {
			if _, err := os.Stat("/sys/block/sda"); err == nil {
				say("sda has come")
				return nil
			}
			time.Sleep(50 * time.Millisecond)
		}
		return errors.New("no sda")
	},
	"mount": func(ctx context.Context, _ func(string, ...any)) error {
		if err := boot.LoadModules(ctx, "ext4", "vfat", "isofs"); err != nil {
			return err
		}
		if err := os.MkdirAll("/mnt", 0o755); err != nil {
			return err
		}
		return unix.Mount("/dev/vda", "/mnt", "ext4", 0, "")
	},
	"write": func(context.Context, func(string, ...any)) error {
		return os.WriteFile("/mnt/kept", []byte("kept"), 0o600)
	},
	"nomodule": func(ctx context.Context, _ func(string, ...any)) error {
		return boot.LoadModules(ctx, "no-such-module")
	},
	"settle": func(ctx context.Context, _ func(string, ...any)) error {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		return boot.Settle(ctx, 100*time.Millisecond)
	},
	"fail": func(_ context.Context, say func(string, ...any)) error { // twice; what is in RunDir outlives it
		f, err := os.OpenFile(boot.RunDir+"/starts", os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		if _, err := f.WriteString("x"); err != nil {
			return err
		}
		b, err := os.ReadFile(f.Name())
		switch {
		case err != nil:
			return err
		case len(b) == 1:
			fmt.Println("a line without a time")
			os.Exit(3)
		case len(b) == 2:
			return unix.Kill(os.Getpid(), unix.SIGKILL)
		}
		return nil
	},
	"log": func(_ context.Context, say func(string, ...any)) error {
		var b []byte
		var err error
		for range 100 { // process 1 writes what it reads, a moment later
			if b, err = os.ReadFile(boot.LogFile); err != nil || bytes.Count(b, []byte("test: agent ")) == 3 {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		say("log has %d times the first line of process 1, and %d starts", bytes.Count(b, []byte("ironhand is process 1")), bytes.Count(b, []byte("test: agent ")))
		return err
	},
	"orphan": func(_ context.Context, _ func(string, ...any)) error { // a grandchild that only process 1 can reap
		pid, err := syscall.ForkExec("/bin/busybox", []string{"sh", "-c", "sleep 0.2 & echo $! >/orphan"}, nil)
		if err != nil {
			return err
		}
		var status unix.WaitStatus
		if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
			return err
		}
		b, err := os.ReadFile("/orphan")
		if err != nil {
			return err
		}
		var stat []byte
		for range 300 {
			if stat, err = os.ReadFile("/proc/" + strings.TrimSpace(string(b)) + "/stat"); errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			time.Sleep(100 * time.Millisecond)
		}
		return fmt.Errorf("it is still there: %s, %v", stat, err)
	},
	"cankexec": func(context.Context, func(string, ...any)) error { return boot.CanKexec() },
	"disable": func(context.Context, func(string, ...any)) error {
		return os.WriteFile("/proc/sys/kernel/kexec_load_disabled", []byte("1"), 0)
	},
	"load": func(context.Context, func(string, ...any)) error { return load(false, "play=poweroff panic=-1") },
	"loadhang": func(context.Context, func(string, ...any)) error {
		return load(false, "play=hang panic=0 modprobe.blacklist=i6300esb")
	},
	"loadbroken": func(context.Context, func(string, ...any)) error {
		return boot.LoadKernel(boot.Kernel{Image: strings.NewReader("this is no kernel")})
	},
	"loadunsigned": func(context.Context, func(string, ...any)) error { return load(true, "") },
	"hang":         func(context.Context, func(string, ...any)) error { idle(); return nil },
	"arm": func(_ context.Context, say func(string, ...any)) error {
		w, err := boot.ArmWatchdog(60 * time.Second)
		if err == nil {
			say("watchdog %s, %v", w.Name, w.Time)
		}
		return err
	},
	"guard": func(_ context.Context, say func(string, ...any)) error {
		w, err := boot.OpenWatchdog(20 * time.Second)
		if err == nil {
			say("watchdog %s, %v", w.Name, w.Time)
		}
		return err
	},
	"disarm": func(context.Context, func(string, ...any)) error {
		w, err := boot.ArmWatchdog(20 * time.Second)
		if err != nil {
			return err
		}
		return w.Disarm()
	},
	"poweroff": func(ctx context.Context, _ func(string, ...any)) error { return boot.Power(ctx, boot.PowerOff) },
	"reboot":   func(ctx context.Context, _ func(string, ...any)) error { return boot.Power(ctx, boot.Reboot) },
	"kexec":    func(ctx context.Context, _ func(string, ...any)) error { return boot.Power(ctx, boot.Kexec) },
}

// load loads the next kernel; unsigned, without what follows the image that its header describes.
func load(unsigned bool, cmdline string) error {
	image, err := os.ReadFile(kernelFile)
	if err != nil {
		return err
	}
	initrd, err := os.Open(initrdFile)
	if err != nil {
		return err
	}
	defer initrd.Close()
	if unsigned {
		image[len(image)/2] ^= 1
	}
	return boot.LoadKernel(boot.Kernel{
		Image:   bytes.NewReader(image),
		Initrds: []io.Reader{strings.NewReader(""), initrd},
		Cmdline: "console=ttyS0 " + cmdline,
	})
}
