// SPDX-License-Identifier: Apache-2.0

// Package tool has the one list of external programs in the ramdisk, and runs them.
//
// The builder packs what the list names and the agent runs from it, so what is not packed cannot be named. A program is
// run only where a file of the kernel, one ioctl or one netlink message will not do. No program is run through a shell,
// and no secret is ever an argument: arguments are visible to every process and are part of errors.
package tool

import (
	"context"
	"fmt"
	"strings"
)

// Tool names one program. Only the constants of this package are of use.
type Tool string

// Busybox is the emergency shell with its commands. It runs only when a kernel parameter asks for a shell.
const Busybox Tool = "busybox"

// Dropbear is the SSH server of rescue mode, and of debugging with a key; Dropbearkey makes its host key.
const (
	Dropbear    Tool = "dropbear"
	Dropbearkey Tool = "dropbearkey"
)

// Mdadm makes, finds and stops software RAID arrays.
const Mdadm Tool = "mdadm"

// Mke2fs makes file systems of the kinds ext2, ext3 and ext4, E2fsck checks them, and Resize2fs makes them as large as their partition.
const (
	Mke2fs    Tool = "mke2fs"
	E2fsck    Tool = "e2fsck"
	Resize2fs Tool = "resize2fs"
)

// MkfsXFS makes file systems of the kind xfs.
const MkfsXFS Tool = "mkfs.xfs"

// Lvm makes volume groups and logical volumes, and tells what is there of them. Its first argument is the command.
const Lvm Tool = "lvm"

// StressNG loads processors and memory, Fio disks and networks. They are in the ramdisk for burn-in alone.
const (
	StressNG Tool = "stress-ng"
	Fio      Tool = "fio"
)

// Deploy returns the programs that every ramdisk has.
func Deploy() []Tool {
	return []Tool{Busybox, Dropbear, Dropbearkey, Mdadm, Mke2fs, E2fsck, Resize2fs, MkfsXFS, Lvm}
}

// BurnIn returns the programs that the ramdisk for burn-in has on top.
func BurnIn() []Tool { return []Tool{StressNG, Fio} }

// All returns every program of the list.
func All() []Tool { return append(Deploy(), BurnIn()...) }

// String returns the program's name, such as "busybox".
func (t Tool) String() string { return string(t) }

// Path is where the program lies in the ramdisk.
func (t Tool) Path() string { return "/bin/" + string(t) }

// Package is the Debian package that has the program in the form that is packed.
func (t Tool) Package() string {
	switch t {
	case Busybox:
		return "busybox-static" // the package busybox links to libc
	case Dropbear, Dropbearkey:
		return "dropbear-bin"
	case Mdadm:
		return "mdadm"
	case Mke2fs, E2fsck, Resize2fs:
		return "e2fsprogs"
	case MkfsXFS:
		return "xfsprogs"
	case Lvm:
		return "lvm2"
	case StressNG, Fio:
		return string(t)
	}
	return ""
}

// Links are further paths in the ramdisk that lead to the program.
func (t Tool) Links() []string {
	switch t {
	case Busybox:
		return []string{"/bin/sh"} // its own commands are found by its shell without links
	}
	return nil
}

// Runner runs programs. Exec is the real one; tooltest.Script plays one.
type Runner interface {
	// Run runs t to its end and returns what it wrote to standard output, also if it did not exit with 0. If it did not, or
	// could not be run, the error is an *Error.
	Run(ctx context.Context, t Tool, args ...string) (stdout []byte, err error)
}

// Error is a program that failed.
type Error struct {
	Tool   Tool
	Args   []string
	Exit   int    // exit status; -1 if it never ran, or was killed
	Stderr string // the end of what it wrote to standard error, without white space around it
	Err    error  // the cause, such as *exec.ExitError or context.DeadlineExceeded
}

// Error returns for example "mdadm --stop /dev/md0: exit status 1: mdadm: Cannot get exclusive access".
func (e *Error) Error() string {
	text := fmt.Sprintf("%s: %v", Line(e.Tool, e.Args...), e.Err)
	if e.Stderr != "" {
		text += ": " + strings.ReplaceAll(e.Stderr, "\n", "; ")
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Line is a program and its arguments as one line for people and for scripts of tooltest: an argument that is empty or
// has white space, quotes or unprintable characters is quoted as in Go.
func Line(t Tool, args ...string) string {
	var b strings.Builder
	b.WriteString(string(t))
	for _, a := range args {
		quoted := fmt.Sprintf("%q", a)
		if a != "" && quoted == `"`+a+`"` && !strings.Contains(a, " ") {
			quoted = a
		}
		b.WriteString(" " + quoted)
	}
	return b.String()
}
