// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

const (
	kexecLoaded   = "/sys/kernel/kexec_loaded"
	kexecDisabled = "/proc/sys/kernel/kexec_load_disabled"
	lockdownFile  = "/sys/kernel/security/lockdown"
)

// CanKexec returns what keeps this machine from jumping into another kernel, whichever that be. Whether one certain kernel is accepted,
// which under Secure Boot depends on its signature, shows only when it is loaded.
func CanKexec() error {
	if _, err := os.Stat(kexecLoaded); err != nil {
		return fmt.Errorf("kexec: the running kernel is built without it: %w", err)
	}
	disabled, err := os.ReadFile(kexecDisabled)
	if err != nil {
		return fmt.Errorf("kexec: %w", err)
	}
	if string(bytes.TrimSpace(disabled)) != "0" {
		return errors.New("kexec: it is disabled until the next boot (sysctl kernel.kexec_load_disabled is 1)")
	}
	// File descriptors that are none: the kernel looks at all else before.
	err = unix.KexecFileLoad(-1, -1, "", 0)
	switch {
	case errors.Is(err, unix.EBADF):
		return nil
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("kexec: the running kernel has no kexec_file_load (CONFIG_KEXEC_FILE): %w", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("kexec: not permitted (needs CAP_SYS_BOOT): %w", err)
	}
	return fmt.Errorf("kexec: %w", err)
}

// KernelLoaded reports whether a kernel is loaded that [Power] can jump into.
func KernelLoaded() bool {
	b, err := os.ReadFile(kexecLoaded)
	return err == nil && string(bytes.TrimSpace(b)) == "1"
}

// LoadKernel loads the kernel that Power(ctx, Kexec) will jump into, in place of one loaded before. It reads k to the end, and keeps nothing of
// it. If the kernel is refused, the error says why; a kernel loaded before is then still loaded.
func LoadKernel(k Kernel) error {
	if err := checkCmdline(k.Cmdline); err != nil {
		return fmt.Errorf("load kernel: %w", err)
	}
	image, need, err := asFile("kernel", maxKernel, k.Image)
	if err != nil {
		return fmt.Errorf("load kernel: %w", err)
	}
	defer image.Close()
	initrdFD, flags := -1, unix.KEXEC_FILE_NO_INITRAMFS
	if len(k.Initrds) > 0 {
		initrd, size, err := asFile("initrd", maxInitrd, k.Initrds...)
		if err != nil {
			return fmt.Errorf("load kernel: %w", err)
		}
		defer initrd.Close()
		initrdFD, flags = int(initrd.Fd()), 0
		need += size
	}
	if err := enoughMemory(need); err != nil {
		return fmt.Errorf("load kernel: %w", err)
	}
	if err := unix.KexecFileLoad(int(image.Fd()), initrdFD, k.Cmdline, flags); err != nil {
		mode, readErr := os.ReadFile(lockdownFile)
		if readErr != nil && !errors.Is(readErr, fs.ErrNotExist) {
			return fmt.Errorf("load kernel: %w", errors.Join(err, readErr))
		}
		return fmt.Errorf("load kernel: %w", explainKexec(err, lockdownMode(string(mode))))
	}
	return nil
}

// UnloadKernel forgets a kernel that LoadKernel has loaded.
func UnloadKernel() error {
	if err := unix.KexecFileLoad(-1, -1, "", unix.KEXEC_FILE_UNLOAD); err != nil {
		return fmt.Errorf("unload kernel: %w", err)
	}
	return nil
}

// explainKexec says what an error of kexec_file_load(2) means (kernel/kexec_file.c, kernel/module_signing.c).
func explainKexec(err error, lockdown string) error {
	reason := ""
	switch {
	case errors.Is(err, unix.EPERM) && lockdown != "none":
		reason = fmt.Sprintf("its signature is not by a key that the running kernel trusts, and the kernel is locked down (%s), as it is with Secure Boot", lockdown)
	case errors.Is(err, unix.EPERM):
		reason = "not permitted: needs CAP_SYS_BOOT, and sysctl kernel.kexec_load_disabled to be 0"
	case errors.Is(err, unix.ENODATA):
		reason = "it is not signed, and the running kernel takes signed ones only"
	case errors.Is(err, unix.EKEYREJECTED), errors.Is(err, unix.ENOKEY):
		reason = "its signature is not by a key that the running kernel trusts"
	case errors.Is(err, unix.EBADMSG), errors.Is(err, unix.ELIBBAD):
		reason = "its signature is broken"
	case errors.Is(err, unix.ENOEXEC):
		reason = "it is not a kernel image of a form that the running kernel can start (on a PC a bzImage)"
	case errors.Is(err, unix.EBUSY):
		reason = "another one is being loaded"
	case errors.Is(err, unix.ENOMEM), errors.Is(err, unix.EADDRNOTAVAIL):
		reason = "there is not enough memory for it and its initrd"
	default:
		return err
	}
	return fmt.Errorf("%s: %w", reason, err)
}

// asFile returns what the parts hold together as a file open for reading only, and its size in bytes. One that is such a file is taken as it
// is; everything else is copied into memory.
func asFile(name string, most int64, parts ...io.Reader) (*os.File, int64, error) {
	if f, ok := parts[0].(*os.File); ok && len(parts) == 1 {
		flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
		st, statErr := f.Stat()
		if err == nil && statErr == nil && st.Mode().IsRegular() && flags&unix.O_ACCMODE == unix.O_RDONLY && st.Size() > 0 && st.Size() <= most {
			dup, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				return nil, 0, fmt.Errorf("read %s: %w", name, err)
			}
			return os.NewFile(uintptr(dup), name), st.Size(), nil
		}
	}
	f, err := spool(name, concat(parts), most)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// enoughMemory refuses what would end with the kernel killing processes, this one first: while it loads, the kernel holds
// everything twice.
func enoughMemory(size int64) error {
	const slack = 16 << 20
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return err
	}
	available, err := memAvailable(string(b))
	if err != nil {
		return err
	}
	if need := 2*size + slack; available < need {
		return fmt.Errorf("there is not enough memory: it takes %d MiB while it is loaded, and %d MiB are available", need>>20, available>>20)
	}
	return nil
}

// spool copies r into memory and returns it as a file open for reading only, as kexec_file_load(2) wants it: it takes no file that
// anybody has open for writing.
func spool(name string, r io.Reader, most int64) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("keep %s: %w", name, err)
	}
	w := os.NewFile(uintptr(fd), name)
	defer w.Close() // memory: all errors come with the writing
	n, err := io.Copy(w, io.LimitReader(r, most+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if n > most {
		return nil, fmt.Errorf("%s has more than %d bytes", name, most)
	}
	if n == 0 {
		return nil, fmt.Errorf("%s is empty", name)
	}
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, fmt.Errorf("keep %s: %w", name, err)
	}
	return f, nil
}
