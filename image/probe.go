// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// FileSystem is what the superblock of a file system says about it.
type FileSystem struct {
	Type  string // as mount(2) wants it: "ext4" (for ext2 and ext3 too), "xfs", "btrfs", "vfat", "iso9660"; empty if none is known
	UUID  string // as blkid(8) prints it; empty for iso9660
	Label string
}

// probeSize is how much of a partition's start holds the superblocks of all known file systems: the last is btrfs's at 64 KiB.
const probeSize = 64<<10 + 4096

// Probe tells which file system lies in the first size bytes of r, by its superblock alone.
// It reads multiples of 4096 bytes at such offsets only (or up to size), so r may be a disk opened for direct input.
// An error is an error of reading; bytes that are no known file system give the zero FileSystem.
func Probe(r io.ReaderAt, size int64) (FileSystem, error) {
	b := make([]byte, min(probeSize, size))
	if _, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return FileSystem{}, fmt.Errorf("read superblocks: %w", err)
	}
	b = append(b, make([]byte, probeSize-len(b))...)
	for _, probe := range []func([]byte) (FileSystem, bool){probeExt, probeXFS, probeBtrfs, probeISO} {
		if f, ok := probe(b); ok {
			return f, nil
		}
	}
	return probeFAT(b, r, size)
}

// probeExt: Linux Documentation/filesystems/ext4/super.rst. The ext4 driver mounts all three.
func probeExt(b []byte) (FileSystem, bool) {
	s := b[1024:2048]
	if binary.LittleEndian.Uint16(s[0x38:]) != 0xef53 {
		return FileSystem{}, false
	}
	return FileSystem{Type: "ext4", UUID: uuid(s[0x68:]), Label: text(s[0x78:0x88])}, true
}

// probeXFS: xfs_types, fs/xfs/libxfs/xfs_format.h, struct xfs_dsb.
func probeXFS(b []byte) (FileSystem, bool) {
	if string(b[:4]) != "XFSB" {
		return FileSystem{}, false
	}
	return FileSystem{Type: "xfs", UUID: uuid(b[32:]), Label: text(b[108:120])}, true
}

// probeBtrfs: Linux include/uapi/linux/btrfs_tree.h, struct btrfs_super_block.
func probeBtrfs(b []byte) (FileSystem, bool) {
	s := b[64<<10:]
	if string(s[0x40:0x48]) != "_BHRfS_M" {
		return FileSystem{}, false
	}
	return FileSystem{Type: "btrfs", UUID: uuid(s[0x20:]), Label: text(s[0x12b:0x22b])}, true
}

// probeISO: ECMA-119 section 8.4, the primary volume descriptor.
func probeISO(b []byte) (FileSystem, bool) {
	s := b[32<<10:]
	if string(s[:6]) != "\x01CD001" {
		return FileSystem{}, false
	}
	return FileSystem{Type: "iso9660", Label: text(s[40:72])}, true
}

// probeFAT: Microsoft Extensible Firmware Initiative FAT32 File System Specification 1.03. The label in the root directory is the one that
// counts; the one in the boot sector may be older.
func probeFAT(b []byte, r io.ReaderAt, size int64) (FileSystem, error) {
	le := binary.LittleEndian
	sector, cluster := int64(le.Uint16(b[11:])), int64(b[13])
	reserved, copies := int64(le.Uint16(b[14:])), int64(b[16])
	rootEntries, fatSize := int64(le.Uint16(b[17:])), int64(le.Uint16(b[22:]))
	power2 := func(n int64) bool { return n > 0 && n&(n-1) == 0 }
	if b[510] != 0x55 || b[511] != 0xaa || b[21] < 0xf0 || !power2(cluster) || !power2(sector) || sector < 512 || sector > 4096 ||
		reserved == 0 || copies == 0 {
		return FileSystem{}, nil
	}
	var id, label []byte
	var root, length int64 // the root directory's start, in bytes
	switch {
	case fatSize != 0 && rootEntries != 0: // FAT12, FAT16
		id, label = b[39:43], b[43:54]
		root, length = (reserved+copies*fatSize)*sector, rootEntries*32
	case fatSize == 0 && rootEntries == 0 && le.Uint32(b[36:]) != 0: // FAT32
		id, label = b[67:71], b[71:82]
		fatSize = int64(le.Uint32(b[36:]))
		root, length = (reserved+copies*fatSize+(int64(le.Uint32(b[44:]))-2)*cluster)*sector, cluster*sector
	default:
		return FileSystem{}, nil
	}
	f := FileSystem{Type: "vfat", UUID: fmt.Sprintf("%02X%02X-%02X%02X", id[3], id[2], id[1], id[0]), Label: text(label)}
	if f.Label == "NO NAME" {
		f.Label = ""
	}
	if root < sector || root >= size {
		return f, nil
	}

	from := root &^ 4095
	dir := make([]byte, min((root-from+min(length, 16<<10)+4095)&^4095, size-from))
	if _, err := r.ReadAt(dir, from); err != nil && !errors.Is(err, io.EOF) {
		return FileSystem{}, fmt.Errorf("read root directory of FAT: %w", err)
	}
	for e := dir[min(root-from, int64(len(dir))):]; len(e) >= 32 && e[0] != 0; e = e[32:] {
		if attributes := e[11]; e[0] != 0xe5 && attributes&0x08 != 0 && attributes&0x3f != 0x0f { // a label, and not a piece of a long name
			f.Label = text(e[:11])
			break
		}
	}
	return f, nil
}

func uuid(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// text ends at the first NUL and has no spaces behind it: labels are padded with either.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return strings.TrimRight(string(b), " ")
}
