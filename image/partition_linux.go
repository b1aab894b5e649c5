// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ironhand/ironhand/initramfs/tool"
)

// LocalVolumes are parts of the block device at a path. It may be open for writing, exclusively too: they are seen through loop devices, so that neither a partition table nor the kernel's
// view of one matters. prepare may be nil, see Prepare; "loop" is asked for like a file system.
func LocalVolumes(path string, tools tool.Runner, prepare func(ctx context.Context, kind string) error) Volumes {
	return localVolumes{path, tools, prepare}
}

type localVolumes struct {
	path    string
	tools   tool.Runner
	prepare Prepare
}

// Format runs mke2fs or mkfs.xfs.
func (v localVolumes) Format(ctx context.Context, p Partition, kind, label string) error {
	return v.with(ctx, p, func(device string) error {
		if v.tools == nil {
			return errors.New("no programs can be run here")
		}
		// Nothing is discarded: what is behind a partition may hold on to its discards for long.
		if kind == "xfs" {
			_, err := v.tools.Run(ctx, tool.MkfsXFS, "-q", "-f", "-K", "-L", label, device)
			return err
		}
		_, err := v.tools.Run(ctx, tool.Mke2fs, "-q", "-F", "-t", kind, "-L", label, "-E", "nodiscard", device)
		return err
	})
}

// The requests to file systems to grow: Linux fs/xfs/libxfs/xfs_fs.h, include/uapi/linux/btrfs.h.
const (
	xfsGrow     = 0x4010586e // XFS_IOC_FSGROWFSDATA, _IOW('X', 110, struct xfs_growfs_data)
	btrfsResize = 0x50009403 // BTRFS_IOC_RESIZE, _IOW(0x94, 3, struct btrfs_ioctl_vol_args)
)

// subvolume is the number of the subvolume of a btrfs that root is in: include/uapi/linux/btrfs.h, BTRFS_IOC_INO_LOOKUP, _IOWR(0x94, 18, struct btrfs_ioctl_ino_lookup_args).
func subvolume(root *os.Root) (uint64, error) {
	d, err := root.Open(".")
	if err != nil {
		return 0, err
	}
	defer d.Close() // only asked
	args := struct {
		tree, object uint64
		name         [4080]byte
	}{object: 256} // of which every subvolume has one
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), 0xd0009412, uintptr(unsafe.Pointer(&args))); errno != 0 {
		return 0, fmt.Errorf("ask for the subvolume: %w", errno)
	}
	return args.tree, nil
}

// Grow runs e2fsck and resize2fs for ext2, ext3 and ext4; xfs and btrfs grow while they are mounted.
func (v localVolumes) Grow(ctx context.Context, p Partition, f FileSystem) error {
	return v.with(ctx, p, func(device string) error {
		if f.Type == "ext4" {
			return v.growExt(ctx, device)
		}
		head := make([]byte, probeSize)
		file, err := os.Open(device)
		if err != nil {
			return err
		}
		_, err = file.ReadAt(head, 0)
		if err = errors.Join(err, file.Close()); err != nil {
			return err
		}
		e, err := parseExtent(head, f.Type)
		if err != nil {
			return err
		}
		return v.mounted(ctx, device, f.Type, func(dir string) error { return grow(dir, f.Type, e, p.Size) })
	})
}

func (v localVolumes) growExt(ctx context.Context, device string) error {
	if v.tools == nil {
		return errors.New("no programs can be run here")
	}
	// Only what was checked is grown. Exit status 1 says that something was mended: e2fsck(8).
	if _, err := v.tools.Run(ctx, tool.E2fsck, "-f", "-p", device); err != nil {
		if e, ok := errors.AsType[*tool.Error](err); !ok || e.Exit != 1 {
			return err
		}
	}
	_, err := v.tools.Run(ctx, tool.Resize2fs, device)
	return err
}

func grow(dir, kind string, e extent, size int64) (err error) {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close() // only asked
	var stat unix.Statfs_t
	if err := unix.Fstatfs(int(d.Fd()), &stat); err != nil {
		return fmt.Errorf("ask for the size of blocks: %w", err)
	}
	blocks := uint64(size / stat.Bsize)
	var request uintptr
	var argument unsafe.Pointer
	switch kind {
	case "xfs":
		data := struct {
			blocks  uint64
			percent uint32
			_       uint32
		}{blocks, e.percent, 0}
		request, argument = xfsGrow, unsafe.Pointer(&data)
	case "btrfs":
		data := struct {
			fd   int64
			name [4088]byte
		}{}
		copy(data.name[:], fmt.Sprintf("%d:max", e.device))
		request, argument = btrfsResize, unsafe.Pointer(&data)
	default:
		return fmt.Errorf("%s: %w", kind, errors.ErrUnsupported)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), request, uintptr(argument)); errno != 0 {
		return fmt.Errorf("grow %s to %d bytes: %w", kind, size, errno)
	}
	return nil
}

// mounted has do work in a file system that is mounted for writing.
func (v localVolumes) mounted(ctx context.Context, device, kind string, do func(dir string) error) (err error) {
	if v.prepare != nil {
		if err := v.prepare(ctx, kind); err != nil {
			return fmt.Errorf("mount %s: %w", kind, err)
		}
	}
	dir, err := os.MkdirTemp("", "ironhand-mount-")
	if err != nil {
		return err
	}
	// What is broken in the image must not stop this machine, which its superblock may ask for.
	options := map[string]string{"ext4": "errors=remount-ro", "xfs": "nouuid"}[kind]
	const flags = unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NOATIME
	if err := unix.Mount(device, dir, kind, flags, options); err != nil {
		return errors.Join(fmt.Errorf("mount %s: %w", kind, err), os.Remove(dir))
	}
	defer func() {
		if uerr := unix.Unmount(dir, 0); uerr != nil {
			err = errors.Join(err, fmt.Errorf("unmount %s: %w", dir, uerr))
			return
		}
		err = errors.Join(err, os.Remove(dir))
	}()
	return do(dir)
}

// View mounts the file system as FindBootEntry does.
func (v localVolumes) View(ctx context.Context, p Partition, f FileSystem, look func(fs.FS) error) error {
	return v.with(ctx, p, func(device string) (err error) {
		m := &mounts{prepare: v.prepare}
		defer func() { err = errors.Join(err, m.unmount()) }()
		dir, err := m.mount(ctx, device, f.Type)
		if err != nil {
			return err
		}
		inside, err := os.OpenRoot(dir) // links in the image must not lead out of it
		if err != nil {
			return err
		}
		m.roots = append(m.roots, inside)
		return look(inside.FS())
	})
}

// Change mounts the file system.
func (v localVolumes) Change(ctx context.Context, p Partition, f FileSystem, do func(*os.Root) error) error {
	return v.with(ctx, p, func(device string) error {
		return v.mounted(ctx, device, f.Type, func(dir string) (err error) {
			inside, err := os.OpenRoot(dir) // links in the image must not lead out of it
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, inside.Close()) }()
			return do(inside)
		})
	})
}

// with has do work on a block device that shows one part of the disk.
func (v localVolumes) with(ctx context.Context, p Partition, do func(device string) error) (err error) {
	if v.prepare != nil {
		if err := v.prepare(ctx, "loop"); err != nil {
			return err
		}
	}
	loop, err := v.loop(p)
	if err != nil {
		return fmt.Errorf("make a loop device of %d bytes at %d of %s: %w", p.Size, p.Start, v.path, err)
	}
	defer func() {
		if err == nil {
			err = loop.Sync()
		}
		err = errors.Join(err, loop.Close()) // which gives the device back: LO_FLAGS_AUTOCLEAR
	}()
	return do(loop.Name())
}

func (v localVolumes) loop(p Partition) (*os.File, error) {
	backing, err := os.OpenFile(v.path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close() // the kernel holds it
	sector, err := unix.IoctlGetInt(int(backing.Fd()), unix.BLKSSZGET)
	if err != nil {
		return nil, fmt.Errorf("ask for its sector size: %w", err)
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close() // only asked
	const attempts = 100  // between asking for a free one and taking it another process may take it
	for range attempts {
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
			Size: uint32(sector),
			Info: unix.LoopInfo64{Offset: uint64(p.Start), Sizelimit: uint64(p.Size), Flags: unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO},
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
