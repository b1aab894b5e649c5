// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	endTime     = 5 * time.Second  // for processes to end when asked
	killTime    = 2 * time.Second  // when not asked any more
	quiesceTime = 60 * time.Second // for disks to take what is still to be written
	drainTime   = 2 * time.Second  // for consoles to print the last lines
	sayTime     = 300 * time.Millisecond
)

// Sync writes what the machine has in memory to its disks. It returns when that is done; a disk that takes nothing may hold it up for ever.
func Sync() error {
	unix.Sync() // sync(2) is always successful; a disk's errors are seen by whoever wrote to it
	return nil
}

// takeDown ends everything, and does not return.
func (p *process1) takeDown(how How) {
	p.mute.Store(false)
	p.say("init: going down: %s", how)
	time.Sleep(sayTime) // the end of a session throws away what its terminal has not sent yet
	p.endAll()
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.warn(quiesce(how))
	}()
	select {
	case <-done:
	case <-time.After(quiesceTime):
		p.say("init: disks still not written after %v; going on", quiesceTime)
	}
	for _, how := range []How{how, Reboot} {
		p.say("init: %s", how)
		p.consoles.drain(drainTime)
		err := now(how)
		p.useConsoles()
		p.warn(fmt.Errorf("%s: %w", how, err))
	}
	p.say("init: this machine must be reset by hand")
	select {}
}

// endAll asks all processes to end, and kills those that do not.
func (p *process1) endAll() {
	for _, s := range []struct {
		signal unix.Signal
		most   time.Duration
	}{{unix.SIGTERM, endTime}, {unix.SIGKILL, killTime}} {
		if err := unix.Kill(-1, s.signal); err != nil && !errors.Is(err, unix.ESRCH) {
			p.warn(fmt.Errorf("end all processes: %w", err))
		}
		for began := time.Now(); time.Since(began) < s.most; time.Sleep(10 * time.Millisecond) {
			if p.reaper.reap() {
				return
			}
		}
	}
	p.say("init: some processes do not end; going on")
}

// quiesce leaves the disks clean, and before a kexec the network interfaces down: the next kernel must not find memory
// that an old order still writes to.
func quiesce(how How) error {
	var errs []error
	unix.Sync()
	table, err := os.ReadFile("/proc/swaps")
	if !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, swap := range swaps(string(table)) {
		errs = append(errs, swapoff(swap))
	}
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	errs = append(errs, err)
	for _, target := range toUnmount(string(mountinfo)) {
		errs = append(errs, unmount(target))
	}
	unix.Sync()
	errs = append(errs, freezeArrays("/sys/block"))
	if how == Kexec {
		errs = append(errs, LinksDown())
	}
	return errors.Join(errs...)
}

// freezeArrays has the kernel bring no members of arrays in step any more. Where reboot(2) has to end that, an array of level 5 or 6 may keep it for ever: md_notify_reboot (drivers/md/md.c) holds the array's
// lock while it ends the thread that does it, and then waits in raid5_quiesce for the last stripes. What is to handle them, raid5d (drivers/md/raid5.c, since CVE-2024-39476 was mended), sleeps until that lock is
// free if it has seen MD_SB_CHANGE_PENDING, which the thread sets at its end. Told by sysfs, the kernel frees the lock before anybody waits for stripes. With Linux 6.1.192 and a new array of three disks 11 of 34
// machines hung without this, and none of 30 with it.
func freezeArrays(block string) error {
	actions, err := filepath.Glob(filepath.Join(block, "md*/md/sync_action"))
	errs := []error{err}
	for _, a := range actions {
		errs = append(errs, os.WriteFile(a, []byte("frozen"), 0))
	}
	return errors.Join(errs...)
}

// LinksDown takes all network interfaces down.
func LinksDown() error {
	links, err := os.ReadDir("/sys/class/net")
	errs := []error{err}
	for _, l := range links {
		if l.Type()&fs.ModeSymlink != 0 { // bonding_masters is a file
			errs = append(errs, setLinkUp(l.Name(), false))
		}
	}
	return errors.Join(errs...)
}

// unmount unmounts; what is still in use is at least made clean, and taken out of sight.
func unmount(target string) error {
	err := unix.Unmount(target, 0)
	if !errors.Is(err, unix.EBUSY) {
		if err != nil {
			return fmt.Errorf("unmount %s: %w", target, err)
		}
		return nil
	}
	err = errors.Join(
		unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""),
		unix.Unmount(target, unix.MNT_DETACH))
	if err != nil {
		return fmt.Errorf("unmount %s, which is in use: %w", target, err)
	}
	return nil
}

func swapoff(path string) error {
	b, err := unix.BytePtrFromString(path)
	if err == nil {
		_, _, errno := unix.Syscall(unix.SYS_SWAPOFF, uintptr(unsafe.Pointer(b)), 0, 0)
		if errno != 0 {
			err = errno
		}
	}
	if err != nil {
		return fmt.Errorf("swapoff %s: %w", path, err)
	}
	return nil
}

// now is reboot(2); it returns only with an error.
func now(how How) error {
	switch how {
	case PowerOff:
		return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	case Kexec:
		return unix.Reboot(unix.LINUX_REBOOT_CMD_KEXEC)
	default:
		return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	}
}
