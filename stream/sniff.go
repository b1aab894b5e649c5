// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// ErrFormat says that a file is not an image of a kind that can be written. See [FormatError] for the kind.
var ErrFormat = errors.New("image format is not supported")

// FormatError names the format that a file was recognised to have. It wraps [ErrFormat].
type FormatError struct {
	Format string // for people: "VHD disk image"
	Inside string // what it is packed in: "gzip", "zstd"; empty if in nothing
}

// Error says what was found, and in what.
func (e *FormatError) Error() string {
	if e.Inside != "" {
		return fmt.Sprintf("%v: it is %s inside %s; only a raw or qcow2 disk image can be written", ErrFormat, withArticle(e.Format), e.Inside)
	}
	return fmt.Sprintf("%v: it is %s; only a raw or qcow2 disk image, plain or packed with gzip, zstd, xz, bzip2 or lz4, can be written", ErrFormat, withArticle(e.Format))
}

// Unwrap returns [ErrFormat].
func (e *FormatError) Unwrap() error { return ErrFormat }

// withArticle puts a or an in front, as it is spoken: an xz file, an lz4 file.
func withArticle(name string) string {
	for _, vowel := range []string{"xz", "lz", "ISO"} {
		if strings.HasPrefix(name, vowel) {
			return "an " + name
		}
	}
	return "a " + name
}

// sniffLength is how many bytes at the start of a file tell its format.
const sniffLength = 512

// Compression is what an image is packed with.
type Compression string

// The compressions.
const (
	Plain Compression = "none"
	Gzip  Compression = "gzip"
	Zstd  Compression = "zstd"
	XZ    Compression = "xz"
	Bzip2 Compression = "bzip2"
	LZ4   Compression = "lz4"
)

// sniffCompression tells from the start of a file what it is packed with.
func sniffCompression(head []byte) Compression {
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b\x08")): // RFC 1952, 2.3.1: deflate is the only method there is
		return Gzip
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")): // RFC 8878, 3.1.1
		return Zstd
	case len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.HasPrefix(head[1:], []byte("\x2a\x4d\x18")): // 3.1.2: skippable frame
		return Zstd
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")): // The .xz File Format 1.2.1, 2.1.1.1
		return XZ
	case bytes.HasPrefix(head, []byte("\x04\x22\x4d\x18")): // lz4_Frame_format.md, magic number
		return LZ4
	// Three letters may be text in a boot sector; a bzip2 file has a level and a block's or the end's magic after them.
	case len(head) >= 10 && bytes.HasPrefix(head, []byte("BZh")) && head[3] >= '1' && head[3] <= '9' &&
		(bytes.Equal(head[4:10], []byte("1AY&SY")) || bytes.Equal(head[4:10], []byte("\x17\x72\x45\x38\x50\x90"))):
		return Bzip2
	}
	return Plain
}

// foreign are formats that would be written as they are, to a disk that nothing can boot from, if they were taken for raw.
var foreign = []struct {
	offset int
	magic  string
	name   string
}{
	{0, "QED\x00", "QED disk image (convert it with qemu-img convert -O qcow2)"},
	{0, "KDMV", "VMDK disk image (convert it with qemu-img convert -O qcow2)"},
	{0, "COWD", "VMDK disk image (convert it with qemu-img convert -O qcow2)"},
	{0, "# Disk DescriptorFile", "VMDK descriptor, which names the image's files (convert it with qemu-img convert -O qcow2)"},
	{0, "conectix", "VHD disk image (convert it with qemu-img convert -O qcow2)"},
	{0, "vhdxfile", "VHDX disk image (convert it with qemu-img convert -O qcow2)"},
	{64, "\x7f\x10\xda\xbe", "VDI disk image (convert it with qemu-img convert -O qcow2)"},
	{0, "\x02\x21\x4c\x18", "lz4 file of the old kind, whose end cannot be told (unpack it with lz4 -d, and pack it with lz4)"},
	{0, "LZIP", "lzip file"},
	{0, "7z\xbc\xaf\x27\x1c", "7-Zip archive"},
	{0, "PK\x03\x04", "ZIP archive"},
	{0, "\x1f\x9d", "file of compress(1)"},
	{257, "ustar", "tar archive"},
	{0, "MSWIM\x00\x00\x00", "WIM image"},
	{0, "<!DOCTYPE html", "web page"},
	{0, "<!doctype html", "web page"},
	{0, "<html", "web page"},
}

// isQCOW2 tells whether the start of a file is that of a disk image in QEMU's format qcow2.
func isQCOW2(head []byte) bool { return bytes.HasPrefix(head, []byte("QFI\xfb")) }

// sniffForeign names the format if the start of a file is one that is not a raw disk image; otherwise it returns "".
func sniffForeign(head []byte) string {
	for _, f := range foreign {
		if len(head) < f.offset || !bytes.HasPrefix(head[f.offset:], []byte(f.magic)) {
			continue
		}
		return f.name
	}
	return ""
}

// IsDisk tells whether the start of an image, at least 512 bytes of it, is that of the bytes of a disk: not packed, and in no other format.
func IsDisk(start []byte) bool {
	return sniffCompression(start) == Plain && !isQCOW2(start) && sniffForeign(start) == ""
}
