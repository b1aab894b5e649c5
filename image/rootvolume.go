// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/ironhand/ironhand/image/volume"
	"github.com/ironhand/ironhand/stream"
)

// WriteVolume writes a partition image, which s describes, to all of a logical volume of size bytes with sectors of some bytes. When the image is known to be one for it, use is called, and has to call what it
// is given with the volume, which until then may be inactive. The menus of the image name the volume afterwards, and the system starts without a disk if the volume is a mirror and the image's initial ramdisk one of
// initramfs-tools or of dracut, with lvm2. With uefi the files that an EFI system partition needs to start it
// are returned: who writes them does so last. No files are a warning. The config drive of s is only checked. After an error there is no file system in the volume, or what was there if use was not called.
func WriteVolume(ctx context.Context, size int64, sector int, s Spec, at LogicalVolume, mirror, uefi bool, use func(write func(Disk, Volumes) error) error) (r Partitioned, files map[string][]byte, err error) {
	if err := s.Check(size, sector); err != nil {
		return r, nil, err
	}

	// The start of the image says whether it is one for this volume.
	meter := stream.NewMeter()
	if s.Progress != nil {
		defer meter.Report(ctx, time.Second, s.Progress)()
	}
	o, found, has, err := s.openRoot(ctx, meter, size, sector)
	if err != nil {
		return r, nil, err
	}
	defer o.close()
	r.Format, r.Compression, r.RootUUID = o.format, o.compression, found.UUID
	if !plainWord.MatchString(found.UUID) {
		return r, nil, fmt.Errorf("%w: its file system has no UUID", ErrNoImageLoader)
	}
	err = use(func(dst Disk, v Volumes) (err error) {
		if dst.Size() != size || dst.SectorSize() != sector {
			return fmt.Errorf("the volume has %d bytes and sectors of %d, and was to have %d and %d", dst.Size(), dst.SectorSize(), size, sector)
		}
		files, err = r.writeVolume(ctx, dst, s, o, meter, Root{FileSystem: found, Volume: at}, has, mirror, uefi, v)
		return err
	})
	return r, files, err
}

// writeVolume is WriteVolume when the image is open and the volume is there.
func (r *Partitioned) writeVolume(ctx context.Context, dst Disk, s Spec, o *opened, meter *stream.Meter, self Root, has extent, mirror, uefi bool, v Volumes) (files map[string][]byte, err error) {
	if v == nil {
		return nil, errors.New("the image cannot be looked into here")
	}
	root := Partition{Size: dst.Size()}

	// 1. From here on, what was in the volume is gone.
	ends := []Partition{{Size: stream.HeadSize}, {Start: root.Size - stream.HeadSize, Size: stream.HeadSize}}
	defer func() {
		if err == nil {
			return
		}
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if cerr := zeroAll(late, dst, ends); cerr != nil {
			err = fmt.Errorf("%w; afterwards: %w", err, cerr)
		}
	}()
	if err := zeroAll(ctx, dst, ends); err != nil {
		return nil, err
	}
	if err := r.writeRoot(ctx, dst, root, o, s, meter); err != nil {
		return nil, err
	}
	r.grow(ctx, v, root, self.FileSystem, has)

	// 2. The system has to find itself.
	err = v.Change(ctx, root, self.FileSystem, func(inside *os.Root) error {
		if err := self.nameVolume(inside); err != nil {
			return err
		}
		return self.tellRamdisks(inside, mirror)
	})
	if err != nil {
		return nil, fmt.Errorf("name the volume in what the image is started by: %w", err)
	}
	if uefi {
		err := v.View(ctx, root, self.FileSystem, func(fsys fs.FS) (err error) {
			files, r.Loader, err = espFiles(fsys, self, runtime.GOARCH)
			return err
		})
		if err != nil {
			r.Warnings = append(r.Warnings, fmt.Sprintf("the EFI system partition is empty, and the firmware cannot start the system: %v", err))
		}
	}
	if err := dst.Sync(); err != nil {
		return nil, fmt.Errorf("sync: %w", err)
	}
	return files, nil
}

// PrepareBIOSOn is PrepareBIOS for a logical volume, which d is, whose file system has the UUID root; if that is empty, any UUID. The error is ErrNoRoot if it has not.
func PrepareBIOSOn(ctx context.Context, d Disk, at LogicalVolume, root string, v Volumes) (l *BIOSLoader, err error) {
	f, err := Probe(d, d.Size())
	if err != nil {
		return nil, err
	}
	if f.Type == "" || root != "" && !strings.EqualFold(f.UUID, root) {
		return nil, fmt.Errorf("%s: %w: %.40q", at, ErrNoRoot, root)
	}
	err = v.Change(ctx, Partition{Size: d.Size()}, f, func(inside *os.Root) (err error) {
		l, err = PrepareBIOS(ctx, inside, Root{FileSystem: f, Volume: at})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("prepare GRUB in %s: %w", at, err)
	}
	return l, nil
}

// WriteESP makes a FAT file system with some files in a partition of a disk, or on all of a device, and returns its UUID. Its start comes last: until then firmware finds nothing.
func WriteESP(d Disk, p Partition, files map[string][]byte) (uuid string, err error) {
	serial := random32()
	fat, err := volume.FAT{Size: p.Size, SectorSize: d.SectorSize(), Label: "efi-part", Serial: serial, Files: files}.Head()
	if err != nil {
		return "", err
	}
	w := finish{disk: d, check: true}
	head := min(len(fat), stream.HeadSize)
	if len(fat) > head {
		if err := w.write(fat[head:], p.Start+int64(head)); err != nil {
			return "", err
		}
	}
	if err := d.Sync(); err != nil {
		return "", fmt.Errorf("sync: %w", err)
	}
	if err := w.write(fat[:head], p.Start); err != nil {
		return "", err
	}
	if err := d.Sync(); err != nil {
		return "", fmt.Errorf("sync: %w", err)
	}
	return fmt.Sprintf("%04X-%04X", serial>>16, serial&0xffff), nil
}

// ConfigDriveSize is that of a partition which has room for any config drive, in bytes.
const ConfigDriveSize = configDriveSize

// WriteConfigDrive puts a config drive, or nothing if it is empty, into a partition of a disk. What was there before does not show through.
func WriteConfigDrive(ctx context.Context, d Disk, p Partition, drive []byte) error {
	fit, err := fitConfigDrive(drive, d.SectorSize(), p.Size)
	if err != nil {
		return err
	}
	if err := d.Zero(ctx, p.Start, p.Size); err != nil {
		return err
	}
	if len(fit) > 0 {
		if err := (&finish{disk: d, check: true}).write(fit, p.Start); err != nil {
			return err
		}
	}
	return d.Sync()
}
