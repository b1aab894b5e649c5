// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// efivarfs is the variables as files: Linux Documentation/filesystems/efivarfs.rst. A file holds 4 bytes of attributes and the value.
type efivarfs string

// variableAttributes: non-volatile, boot service access, runtime access (UEFI 2.10 section 8.2.1).
const variableAttributes = 0x1 | 0x2 | 0x4

// immutable is FS_IMMUTABLE_FL of include/uapi/linux/fs.h.
const immutable = 0x10

// variableSize is the most that is read of one variable, bytes.
const variableSize = 64 << 10

func (dir efivarfs) file(name string) string { return filepath.Join(string(dir), name+"-"+efiGlobal) }

func (dir efivarfs) Names() ([]string, error) {
	entries, err := os.ReadDir(string(dir))
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		files = append(files, e.Name())
	}
	return efiVarNames(files), nil
}

func (dir efivarfs) Read(name string) ([]byte, error) {
	b, err := readFile(os.DirFS(string(dir)), name+"-"+efiGlobal, variableSize)
	if err != nil {
		return nil, err
	}
	if len(b) == 0 { // made, and never written
		return nil, fmt.Errorf("variable has no value: %w", fs.ErrNotExist)
	}
	if len(b) < 4 {
		return nil, fmt.Errorf("variable has %d bytes", len(b))
	}
	return b[4:], nil
}

// Write hands the value over in one write, as the kernel demands.
func (dir efivarfs) Write(name string, value []byte) (err error) {
	if err := dir.mutable(name); err != nil {
		return err
	}
	f, err := os.OpenFile(dir.file(name), os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b := binary.LittleEndian.AppendUint32(nil, variableAttributes)
	if _, err := f.Write(append(b, value...)); err != nil {
		if info, serr := f.Stat(); serr == nil && info.Size() == 0 { // a name without a variable would stay until the next start
			err = errors.Join(err, os.Remove(f.Name()))
		}
		return err
	}
	// The kernel has cut the file to the value. Any other file system has not.
	info, err := f.Stat()
	if err == nil && info.Size() > int64(4+len(value)) {
		err = f.Truncate(int64(4 + len(value)))
	}
	return err
}

func (dir efivarfs) Delete(name string) error {
	if err := dir.mutable(name); err != nil {
		return err
	}
	return os.Remove(dir.file(name))
}

// mutable takes the flag off that the kernel puts on most variables so that "rm -r" does not break a machine.
func (dir efivarfs) mutable(name string) (err error) {
	f, err := os.Open(dir.file(name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) || err == nil && flags&immutable == 0 {
		return nil
	}
	if err == nil {
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags&^immutable))
	}
	if err != nil {
		return fmt.Errorf("make %s changeable: %w", name, err)
	}
	return nil
}

// CleanBootEntries deletes the boot entries whose device path remove wants, a text as efibootmgr(8) prints it: "HD(1,GPT,...)/File(\EFI\...)". The variables are in
// efivarsDir. It returns a line for each that was deleted, and for each that is left because it has not the form of a boot entry; one that cannot be read is left alone, and named in the error.
func CleanBootEntries(efivarsDir string, remove func(path string) bool) (deleted, odd []string, err error) {
	return cleanBootEntries(efivarfs(efivarsDir), remove)
}
