// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/initramfs/tool"
)

// menuTerminals opens the consoles for the menu, or the terminal on which it was typed. One that cannot be opened is told and left out.
func (c *call) menuTerminals(names string) ([]*tty, error) {
	if names == "" {
		path := ownTerminal(c.stdin, c.stderr)
		if path == "" {
			return nil, usagef("there is no terminal here: --console names some")
		}
		t, err := openTTY(path)
		return []*tty{t}, err
	}
	var list []*tty
	var errs []error
	for name := range strings.SplitSeq(names, ",") {
		t, err := openTTY("/dev/" + filepath.Base(name))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list = append(list, t)
	}
	err := errors.Join(errs...)
	if len(list) == 0 {
		return nil, err
	}
	if err != nil {
		fmt.Fprintln(c.stderr, err)
	}
	return list, nil
}

// shell runs a shell on the terminal to its end, and opens the terminal again.
func (t *tty) shell() (terminal, error) {
	path := t.Name()
	t.restore()
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err == nil {
		fmt.Fprint(f, "exit leads back to the menu\r\n")
		cmd := exec.Command(tool.Busybox.Path(), "sh")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = f, f, f
		cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "LC_ALL=C", "TERM=linux"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
		err = cmd.Run()
		f.Close() // hung up by the end of its session
		if errors.As(err, new(*exec.ExitError)) {
			err = nil // of the last command in it
		}
	}
	again, openErr := openTTY(path)
	if openErr != nil {
		return nil, errors.Join(err, openErr)
	}
	if err != nil {
		fmt.Fprintf(again, "%v\r\n", err)
		time.Sleep(3 * time.Second) // to be read
	}
	return again, nil
}

// stickLabel is the label of the partition for reports.
const stickLabel = "IRONHAND"

// stickDir is where it is mounted.
const stickDir = boot.RunDir + "/stick"

// stickTries is how often it is looked for, a second apart: a USB disk needs time to start.
const stickTries = 10

// findStick finds the partition for reports and mounts it. One that is mounted by an earlier menu of this boot stays.
func findStick(ctx context.Context) stick {
	mounted := func(device string) stick {
		free, err := freeSpace(stickDir)
		if err != nil {
			return stick{why: err.Error()}
		}
		return stick{device: device, dir: stickDir, free: free}
	}
	if device := mountedAt(stickDir); device != "" {
		return mounted(device)
	}
	for try := 1; ; try++ {
		device := labelled(stickLabel)
		if device != "" {
			if err := mountStick(ctx, device); err != nil {
				return stick{why: err.Error()}
			}
			return mounted(device)
		}
		if try == stickTries {
			return stick{why: "there is no FAT partition with the label " + stickLabel}
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return stick{why: context.Cause(ctx).Error()}
		}
	}
}

// labelled is the FAT file system of a label, on a partition or a whole disk; one on USB goes before others.
func labelled(label string) (device string) {
	entries, err := os.ReadDir("/sys/class/block")
	if err != nil {
		return ""
	}
	for _, e := range entries {
		target, err := os.Readlink("/sys/class/block/" + e.Name())
		if err != nil || strings.Contains(target, "/virtual/") || strings.HasPrefix(e.Name(), "sr") || strings.HasPrefix(e.Name(), "fd") {
			continue
		}
		path := "/dev/" + strings.ReplaceAll(e.Name(), "!", "/")
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		found, err := image.Probe(f, 1<<40)
		f.Close() // only read
		if err != nil || found.Type != "vfat" || !strings.EqualFold(strings.TrimSpace(found.Label), label) {
			continue
		}
		if strings.Contains(target, "/usb") {
			return path
		}
		if device == "" {
			device = path
		}
	}
	return device
}

// mountStick mounts a FAT file system so that what is written gets there soon. After a reset a file that was being written may be damaged, for which the others must not become read-only.
func mountStick(ctx context.Context, device string) error {
	if err := boot.LoadModules(ctx, "vfat", "nls_cp437", "nls_ascii"); err != nil {
		return err
	}
	if err := os.MkdirAll(stickDir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount(device, stickDir, "vfat", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_NOATIME, "flush,errors=continue"); err != nil {
		return fmt.Errorf("mount %s: %w", device, err)
	}
	return nil
}

// freeSpace is how much can still be written to the file system of a directory, bytes.
func freeSpace(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// syncStick has all written that was written to the stick, and to nothing else: a disk that was tested may be broken, and never ready. Without a stick there is nothing to do.
func syncStick() error {
	if mountedAt(stickDir) == "" {
		return nil
	}
	f, err := os.Open(stickDir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}

// mountedAt is the device that is mounted on a directory, "" if there is none (proc_pid_mounts(5)).
func mountedAt(dir string) string {
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[1] == dir {
			return fields[0]
		}
	}
	return ""
}
