// SPDX-License-Identifier: Apache-2.0

package looptest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// New returns the path of a new loop device of size bytes, in sectors of sectorSize (512 or 4096), and that of the sparse file that it shows, which
// may be read to judge what is on the device. The kernel finds partitions on it when it is asked to.
func New(t testing.TB, size int64, sectorSize int) (device, file string) {
	t.Helper()
	NeedRoot(t)
	file = filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(file)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return Attach(t, file, sectorSize), file
}

// Attach returns the path of a new loop device that shows an existing file.
func Attach(t testing.TB, file string, sectorSize int) (device string) {
	t.Helper()
	NeedRoot(t)
	loop, err := attach(file, sectorSize)
	if err != nil {
		t.Fatalf("make a loop device of %s: %v", file, err)
	}
	t.Cleanup(func() {
		// The kernel lets go of the file when the last user has, be it us (LO_FLAGS_AUTOCLEAR).
		if err := loop.Close(); err != nil {
			t.Error(err)
		}
	})
	return loop.Name()
}

func attach(file string, sectorSize int) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	backing, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close() // the kernel holds it

	// Between asking for a free device and taking it another process may take it.
	for range 100 {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free one: %w", err)
		}
		loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", number), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &unix.LoopConfig{
			Fd:   uint32(backing.Fd()),
			Size: uint32(sectorSize),
			Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_PARTSCAN},
		})
		if err == nil {
			return loop, nil
		}
		loop.Close() // never configured
		if !errors.Is(err, unix.EBUSY) {
			return nil, err
		}
	}
	return nil, errors.New("all that were free were taken by others")
}
