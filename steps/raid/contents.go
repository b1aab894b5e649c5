// SPDX-License-Identifier: Apache-2.0

package raid

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/image/gpt"
	"github.com/ironhand/ironhand/stream"
)

// HasLabel tells whether a device begins as a physical volume of LVM does.
func HasLabel(head []byte) bool {
	_, has := Label(head)
	return has
}

// Label is the UUID of a physical volume, by how it begins: lib/label/label.h and lib/format_text/layout.h of lvm2. The label is in one of the first four sectors of 512 bytes.
func Label(head []byte) (uuid string, has bool) {
	for at := 0; at < 4*512 && at+64 <= len(head); at += 512 {
		if string(head[at:at+8]) == "LABELONE" && string(head[at+24:at+32]) == "LVM2 001" {
			return string(head[at+32 : at+64]), true
		}
	}
	return "", false
}

// Tables that the kernel does not see. One that is being written is like that too, until its first sector is.
const (
	bareGPT   = "a GPT without an MBR"
	backupGPT = "the backup of a GPT"
)

// HalfWritten tells whether what [Contents] found is a table as a loss of power leaves it, on a disk with a mark: the table's partitions, as far as it can be read, are
// those of the mark.
func HalfWritten(what string, m Mark, head []byte, sector int) bool {
	if m.Run == "" || len(m.Partitions) == 0 || what != bareGPT && what != backupGPT {
		return false
	}
	whole := slices.Clone(head)
	guard, err := gpt.New(int64(len(head)), sector)
	if err != nil {
		return false
	}
	copy(whole, guard.Head()[:512])
	table, err := gpt.Parse(whole, sector)
	if err != nil {
		return true // not all of it was written
	}
	return !slices.ContainsFunc(table.Partitions(), func(p gpt.Partition) bool {
		size := int64(p.Last-p.First+1) * int64(sector)
		return !made(p) || !slices.Contains(m.Partitions, stream.Partition{Number: p.Number, Start: int64(p.First) * int64(sector), Size: size})
	})
}

// made tells whether a partition is one that is made for arrays and volume groups, or beside them for what boots and for a config drive.
func made(p gpt.Partition) bool {
	return p.Type == gpt.LinuxRAID || p.Type == gpt.LinuxLVM || beside(p)
}

func beside(p gpt.Partition) bool {
	return p.Type == gpt.EFISystem || p.Type == gpt.BIOSBoot || p.Type == gpt.LinuxData && p.Name == "config-2"
}

// Foreign says which partition of a disk is none that is made for arrays and volume groups, or holds something else, so that no mark speaks for it; "" if there is none. A mark is
// believed no further: a former user of the machine may have written it.
func Foreign(root fs.FS, device string, head []byte, sector int, parts []stream.Partition) (string, error) {
	ours, besides := partitionsOf(head, sector, made), partitionsOf(head, sector, beside)
	isMBR := false
	if mbr, err := gpt.ParseMBR(head); err == nil {
		isMBR = !mbr.Guards()
	}
	for _, p := range parts {
		path := member{device, p.Number}.device()
		if !slices.Contains(ours, p.Number) {
			return path + " of another type", nil
		}
		if !isMBR && slices.Contains(besides, p.Number) {
			continue // what was installed there goes with a volume group
		}
		f, err := openToRead(root, path)
		if err != nil {
			return "", err
		}
		head, tail, err := ReadEnds(f, p.Size)
		if err := errors.Join(err, f.Close()); err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
		if what, err := Contents(head, tail, p.Size); err != nil || what != "" {
			return path + " with " + what, err
		}
	}
	return "", nil
}

// signatures of what a whole disk may hold beside the file systems that package image knows, as in util-linux' libblkid/src/superblocks.
var signatures = []struct {
	at         int
	magic, say string
}{
	{4096 - 10, "SWAPSPACE2", "a swap area"},
	{0, "LUKS\xba\xbe", "an encrypted volume (LUKS)"},
	{0, "bluestore block device", "a Ceph OSD"},
	{3, "NTFS    ", "a file system (ntfs)"},
	{3, "EXFAT   ", "a file system (exfat)"},
	{3, "-FVE-FS-", "an encrypted volume (BitLocker)"},
	{64<<10 + 52, "ReIsEr", "a file system (reiserfs)"},
	{32<<10 + 0, "JFS1", "a file system (jfs)"},
	{64 << 10, "\x01\x16\x19\x70", "a file system (gfs2)"},
	{8192, "OCFSV2", "a file system (ocfs2)"},
	{4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", "a cache (bcache)"},
	{4096, "\x83\x74\x02\x67", "a replicated volume (DRBD)"},
	{512, "EFI PART", bareGPT},
	{4096, "EFI PART", bareGPT},
	{16<<10 + 24, "version\x00", "a pool (zfs)"}, // the first name in a label
	{516, "!Stra0tis\x86\xff\x02^\x41rh", "a pool (Stratis)"},
	{0, "dmvdo001", "a deduplicated volume (VDO)"},
	{0, "integrit\x00", "a volume of dm-integrity"},
	{0, "verity\x00\x00", "hashes of dm-verity"},
	{0, "SnAp", "a snapshot of LVM"},
	{0, "HM\x01\x00", "a physical volume of LVM 1"},
	{0, "HM\x02\x00", "a physical volume of LVM 1"},
	{32, "ORCLDISK", "a disk of Oracle ASM"},
	{16 << 10, "SKUL\xba\xbe", "an encrypted volume (LUKS)"}, // the second header
	{16<<10 - 10, "SWAPSPACE2", "a swap area"},
	{64<<10 - 10, "SWAPSPACE2", "a swap area"},
	{4096 - 10, "S1SUSPEND", "a hibernated system"},
	{3, "ReFS\x00", "a file system (refs)"},
	{32, "NXSB", "a file system (apfs)"},
	{1024, "H+\x00\x04", "a file system (hfsplus)"},
	{1024, "HX\x00\x05", "a file system (hfsplus)"},
	{1024, "\x10\x20\xf5\xf2", "a file system (f2fs)"},
	{1024, "\xe2\xe1\xf5\xe0", "a file system (erofs)"},
	{1024 + 6, "\x34\x34", "a file system (nilfs2)"},
	{4096 + 24, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef", "a file system (bcachefs)"},
	{8<<10 + 1372, "\x54\x19\x01\x00", "a file system (ufs)"},
	{64<<10 + 1372, "\x19\x01\x54\x19", "a file system (ufs)"},
	{0, "hsqs", "a file system (squashfs)"},
	{32<<10 + 1, "BEA01", "a file system (udf)"},
	{9*512 + 32, "\xf0\x16\x78\x5a", "a member of an array of firmware (HighPoint)"},
	{9*512 + 32, "\xfd\x16\x78\x5a", "a member of an array of firmware (HighPoint)"},
}

// endings are what marks the disks of firmware's RAID, and the copy of a GPT, counted from their ends: a disk that is not the first of its array shows no partitions. Sources: mdadm's
// super-intel.c and super-ddf.c, for sectors of 512 and 4096 bytes; for the others *_raid.c in util-linux' libblkid/src/superblocks. Where the mark is short it is not alone.
var endings = []struct {
	before     int
	magic, say string
	fits       func(at []byte) bool // the rest of the mark's sector; nil if the mark is enough
}{
	{2 * 512, "Intel Raid ISM Cfg Sig. ", "a member of an array of firmware (Intel)", nil},
	{2 * 4096, "Intel Raid ISM Cfg Sig. ", "a member of an array of firmware (Intel)", nil},
	{512, "\xde\x11\xde\x11", "a member of an array of firmware (DDF)", nil},
	{4096, "\xde\x11\xde\x11", "a member of an array of firmware (DDF)", nil},
	{257 * 512, "\xde\x11\xde\x11", "a member of an array of firmware (DDF)", nil},
	{2 * 512, "NVIDIA  ", "a member of an array of firmware (NVIDIA)", nil},
	{512, "JM", "a member of an array of firmware (JMicron)", func(b []byte) bool { return b[48] <= 5 && words(b[:128]) <= 1 }},
	{512, "", "a member of an array of firmware (Silicon Image)", func(b []byte) bool {
		return string(b[96:100]) == "\x00\x00\x00\x2f" && b[278] < 8 && words(b[:320]) == 0
	}},
	{512, "\x55\xaa", "a member of an array of firmware (VIA)", func(b []byte) bool { return b[2] <= 2 && octets(b[:50]) == b[50] }},
	{11 * 512, "\xf3\x16\x78\x5a", "a member of an array of firmware (HighPoint)", nil},
	{11 * 512, "\xfd\x16\x78\x5a", "a member of an array of firmware (HighPoint)", nil},
	{512, "$XIDE$", "a member of an array of firmware (LSI)", nil},
	{512, "\x37\xfc\x4d\x1e", "a member of an array of firmware (Adaptec)", func(b []byte) bool { return string(b[256:260]) == "DPTM" }},
	{512, "EFI PART", backupGPT, nil},
	{4096, "EFI PART", backupGPT, nil},
}

// promise are the sectors before the end in which Promise's firmware has its mark: it counts in cylinders, by the disk's size. Source: libblkid's promise_raid.c.
var promise = [...]int{63, 255, 256, 16, 399, 591, 675, 735, 911, 974, 991, 951, 3087}

// words adds up words of 16 bits, and octets bytes.
func words(b []byte) (sum uint16) {
	for ; len(b) >= 2; b = b[2:] {
		sum += binary.LittleEndian.Uint16(b)
	}
	return sum
}

func octets(b []byte) (sum byte) {
	for _, c := range b {
		sum += c
	}
	return sum
}

// firmwareEnd says what marks the end of a disk.
func firmwareEnd(tail []byte) string {
	for _, e := range endings {
		if at := len(tail) - e.before; at >= 0 && string(tail[at:at+len(e.magic)]) == e.magic && (e.fits == nil || e.fits(tail[at:])) {
			return e.say
		}
	}
	for _, sectors := range promise {
		if at := len(tail) - sectors*512; at >= 0 && bytes.HasPrefix(tail[at:], []byte("Promise Technology, Inc.")) {
			return "a member of an array of firmware (Promise)"
		}
	}
	return ""
}

// Contents says what lies on the whole of a disk that somebody may count on, by what [ReadEnds] reads; "" if nothing is known. Members of software RAID and physical volumes of
// LVM are not told here: [Memberships], [HasLabel].
func Contents(head, tail []byte, size int64) (string, error) {
	if mbr, err := gpt.ParseMBR(head); err == nil && len(mbr.Partitions()) > 0 {
		return "a partition table that the kernel does not see", nil
	}
	for _, s := range signatures {
		if s.at+len(s.magic) <= len(head) && string(head[s.at:s.at+len(s.magic)]) == s.magic {
			return s.say, nil
		}
	}
	f, err := image.Probe(bytes.NewReader(head), min(size, int64(len(head))))
	if err != nil {
		return "", err
	}
	if f.Type != "" {
		return "a file system (" + f.Type + ")", nil
	}
	return firmwareEnd(tail), nil
}

// tailSize is how much of the end of a disk is looked at, bytes: the farthest mark there is Promise's.
const tailSize = 2 * mib

// ReadEnds reads the first MiB of a device of size bytes and the last two, or all of a smaller one twice.
func ReadEnds(r io.ReaderAt, size int64) (head, tail []byte, err error) {
	head, tail = make([]byte, min(mib, size)), make([]byte, min(tailSize, size))
	for _, end := range []struct {
		b  []byte
		at int64
	}{{head, 0}, {tail, size - int64(len(tail))}} {
		if n, err := r.ReadAt(end.b, end.at); n < len(end.b) {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, nil, fmt.Errorf("read %d bytes at %d: %w", len(end.b), end.at, err)
		}
	}
	return head, tail, nil
}
