// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Watchdog is hardware that resets the machine when its time is over.
type Watchdog struct {
	Name string        // what the driver says it is
	Time time.Duration // until the reset, as the hardware took it; at least what was asked for
	f    *os.File
}

// ArmWatchdog starts the first watchdog, so that a jump into a kernel which does not come up ends with a reset through the firmware. It goes
// on when this process ends: only [Watchdog.Disarm] stops it, or the driver of the next kernel, which has to take over within the time.
//
// It refuses hardware that would be stopped by the kexec or by the end of this process, since it guards nothing. Most drivers are
// stopped by a kexec unless the watchdog module has the parameter stop_on_reboot=0, which the ramdisk gives it; where that module is built into the
// kernel, watchdog.stop_on_reboot=0 has to be on the command line. Without any watchdog the error is fs.ErrNotExist.
// The interface is Documentation/watchdog/watchdog-api.rst.
func ArmWatchdog(timeout time.Duration) (*Watchdog, error) {
	const keep = "/sys/module/watchdog/parameters/stop_on_reboot"
	stop, err := os.ReadFile(keep)
	if err != nil {
		return nil, fmt.Errorf("arm watchdog: %w", err)
	}
	if s := strings.TrimSpace(string(stop)); s != "0" {
		return nil, fmt.Errorf("arm watchdog: a kexec would stop it (watchdog.stop_on_reboot is %s; it must be 0)", s)
	}
	return startWatchdog(timeout)
}

// OpenWatchdog starts the first watchdog, which resets the machine unless [Watchdog.Feed] is called within the time, again and again. It goes on when this process ends:
// only [Watchdog.Disarm] stops it. One that can never be stopped again is refused. Without any watchdog the error is fs.ErrNotExist.
func OpenWatchdog(timeout time.Duration) (*Watchdog, error) {
	const forever = "/sys/class/watchdog/watchdog0/nowayout" // Documentation/ABI/testing/sysfs-class-watchdog
	b, err := os.ReadFile(forever)
	if err != nil {
		return nil, fmt.Errorf("arm watchdog: %w", err)
	}
	if strings.TrimSpace(string(b)) != "0" {
		return nil, errors.New("arm watchdog: it could never be stopped again (nowayout)")
	}
	return startWatchdog(timeout)
}

func startWatchdog(timeout time.Duration) (*Watchdog, error) {
	f, err := os.OpenFile("/dev/watchdog", os.O_WRONLY, 0) // this starts it
	if err != nil {
		return nil, fmt.Errorf("arm watchdog: %w", err)
	}
	w := &Watchdog{f: f}
	if err := w.set(timeout); err != nil {
		return nil, fmt.Errorf("arm watchdog: %w", errors.Join(err, w.Disarm()))
	}
	return w, nil
}

// watchdogInfo is struct watchdog_info of linux/watchdog.h.
type watchdogInfo struct {
	options, firmware uint32
	identity          [32]byte
}

func (w *Watchdog) set(timeout time.Duration) error {
	var info watchdogInfo
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, w.f.Fd(), unix.WDIOC_GETSUPPORT, uintptr(unsafe.Pointer(&info))); errno != 0 {
		return fmt.Errorf("ask what it can: %w", errno)
	}
	w.Name = printable(unix.ByteSliceToString(info.identity[:]))
	const magicClose, setTimeout = 0x100, 0x80 // WDIOF_MAGICCLOSE, WDIOF_SETTIMEOUT
	if info.options&magicClose == 0 {
		return fmt.Errorf("%s stops when this process ends", w.Name)
	}
	if info.options&setTimeout == 0 {
		return fmt.Errorf("%s has a fixed time", w.Name)
	}
	seconds := int((timeout + time.Second - 1) / time.Second)
	if err := unix.IoctlSetPointerInt(int(w.f.Fd()), unix.WDIOC_SETTIMEOUT, seconds); err != nil {
		return fmt.Errorf("%s: set %d s: %w", w.Name, seconds, err)
	}
	got, err := unix.IoctlGetInt(int(w.f.Fd()), unix.WDIOC_GETTIMEOUT)
	if err != nil {
		return fmt.Errorf("%s: ask for its time: %w", w.Name, err)
	}
	if w.Time = time.Duration(got) * time.Second; w.Time < timeout {
		return fmt.Errorf("%s takes %v, not %v", w.Name, w.Time, timeout)
	}
	return nil
}

// Feed starts the watchdog's time anew.
func (w *Watchdog) Feed() error {
	if _, err := w.f.WriteString("\x00"); err != nil {
		return fmt.Errorf("feed watchdog: %w", err)
	}
	return nil
}

// Disarm stops the watchdog.
func (w *Watchdog) Disarm() error {
	_, err := w.f.WriteString("V") // the magic character: closing stops it
	if err = errors.Join(err, w.f.Close()); err != nil {
		return fmt.Errorf("disarm watchdog: %w", err)
	}
	return nil
}
