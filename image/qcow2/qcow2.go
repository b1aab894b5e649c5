// SPDX-License-Identifier: Apache-2.0

// Package qcow2 reads disk images in QEMU's format qcow2, versions 2 and 3, in one pass through the file.
//
// A [Reader] reads the file once, from its first byte to its last part, so that it can be hashed on the way, and tells of each part where on the disk it
// belongs. [Reader.ReadAhead] looks at the tables before, where parts of the file can be had on their own. Refused is what cannot be written onto a
// disk from this one file: a backing file, an external data file, encryption, the corrupt bit, features that are not known. Snapshots inside an image
// are not looked at.
//
// All comes from outside: tables are bounded, offsets are checked, and nothing is allocated by what a header claims.
//
// Source: QEMU, docs/interop/qcow2.txt.
package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strings"
)

// Magic is how a file begins.
const Magic = "QFI\xfb"

// HeadSize is how many bytes at the start of a file [ParseHeader] wants to see, if the file has so many: the header and its extensions.
const HeadSize = 4 << 10

// ErrFormat says that an image is broken, or uses what cannot be written from one file alone.
var ErrFormat = errors.New("qcow2 image")

// Compression is how clusters are packed.
type Compression uint8

// The compression types of the format.
const (
	Deflate Compression = 0 // raw deflate; "zlib" in QEMU's words
	Zstd    Compression = 1
)

func (c Compression) String() string {
	if c == Zstd {
		return "zstd"
	}
	return "zlib"
}

// Header is what an image says of itself.
type Header struct {
	Version     int
	Size        int64 // of the disk, bytes
	ClusterSize int64 // bytes
	Compression Compression
	Extended    bool // L2 entries have 32 subclusters each
	Dirty       bool // not closed by its last writer: reference counts may be wrong, which does not matter here

	l1       int64 // offset in the file
	l1Length int64 // entries
}

const (
	maxL1      = 32 << 20 // bytes, as in QEMU (block/qcow2.h, QCOW_MAX_L1_SIZE)
	headerV2   = 72
	headerV3   = 104
	minBits    = 9
	maxBits    = 21
	minExtBits = 14 // a subcluster has at least 512 bytes

	bitDirty       = 0
	bitCorrupt     = 1
	bitDataFile    = 2
	bitCompression = 3
	bitExtendedL2  = 4

	extensionFeatures = 0x6803f857
	extensionEnd      = 0
)

// ParseHeader reads the header in the first bytes of a file. The error wraps [ErrFormat].
func ParseHeader(head []byte) (Header, error) {
	h, err := parseHeader(head)
	if err != nil {
		return Header{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return h, nil
}

func parseHeader(head []byte) (h Header, err error) {
	if len(head) < headerV2 || string(head[:4]) != Magic {
		return h, errors.New("no header")
	}
	be := binary.BigEndian
	h.Version = int(be.Uint32(head[4:]))
	if h.Version != 2 && h.Version != 3 {
		return h, fmt.Errorf("version %d is not known", uint32(h.Version))
	}
	size2 := be.Uint32(head[20:])
	if size2 < minBits || size2 > maxBits {
		return h, fmt.Errorf("clusters of 2^%d bytes are not possible", size2)
	}
	h.ClusterSize = 1 << size2
	headerLength := uint32(headerV2)
	if h.Version == 3 {
		if len(head) < headerV3 {
			return h, errors.New("no header")
		}
		if headerLength = be.Uint32(head[100:]); headerLength < headerV3 || int64(headerLength) > h.ClusterSize {
			return h, fmt.Errorf("a header of %d bytes is not possible", headerLength)
		}
		if err := h.features(be.Uint64(head[72:]), head, headerLength); err != nil {
			return h, err
		}
	}
	switch backing, method := be.Uint64(head[8:]), be.Uint32(head[32:]); {
	case backing != 0:
		return h, fmt.Errorf("it needs a backing file%s; make one image of them: qemu-img convert -O qcow2", backingName(head, backing))
	case method != 0:
		return h, errors.New("it is encrypted")
	}
	if h.Extended && size2 < minExtBits {
		return h, fmt.Errorf("subclusters need clusters of at least 2^%d bytes", minExtBits)
	}

	size := be.Uint64(head[24:])
	switch {
	case size == 0:
		return h, errors.New("its disk has no bytes")
	case size > math.MaxInt64-uint64(h.ClusterSize) || (size+uint64(h.unit())-1)/uint64(h.unit()) > math.MaxUint32-32:
		return h, fmt.Errorf("a disk of %d bytes is too large for parts of %d", size, h.unit())
	}
	h.Size = int64(size)

	l1, length := be.Uint64(head[40:]), int64(be.Uint32(head[36:]))
	need := h.tables()
	switch {
	case length*8 > maxL1 || need*8 > maxL1:
		return h, fmt.Errorf("an L1 table for %d tables is too large", max(length, need))
	case length < need:
		return h, fmt.Errorf("its L1 table has %d entries, a disk of %d bytes needs %d", length, h.Size, need)
	case l1 == 0 || l1%uint64(h.ClusterSize) != 0 || l1 > math.MaxInt64-maxL1:
		return h, fmt.Errorf("its L1 table at %d is not at a cluster", l1)
	}
	h.l1, h.l1Length = int64(l1), need // further entries are for a disk that was larger
	return h, nil
}

// features looks at the incompatible features: who does not know one cannot read the image.
func (h *Header) features(set uint64, head []byte, headerLength uint32) error {
	h.Dirty = set&(1<<bitDirty) != 0
	h.Extended = set&(1<<bitExtendedL2) != 0
	switch {
	case set&(1<<bitCorrupt) != 0:
		return errors.New("it is marked as corrupt; look at it with: qemu-img check")
	case set&(1<<bitDataFile) != 0:
		return errors.New("its data is in another file; make one image of them: qemu-img convert -O qcow2")
	}
	known := uint64(1<<bitDirty | 1<<bitCompression | 1<<bitExtendedL2)
	if unknown := set &^ known; unknown != 0 {
		var names []string
		table := featureNames(head, headerLength)
		for bit := range 64 {
			if unknown&(1<<bit) != 0 {
				name := fmt.Sprintf("bit %d", bit)
				if n := table[uint8(bit)]; n != "" {
					name += fmt.Sprintf(" (%q)", n)
				}
				names = append(names, name)
			}
		}
		return fmt.Errorf("it needs features that are not known: %s", strings.Join(names, ", "))
	}
	if set&(1<<bitCompression) != 0 {
		if headerLength <= headerV3 || len(head) <= headerV3 {
			return errors.New("its header is too short for the compression type that it announces")
		}
		if h.Compression = Compression(head[headerV3]); h.Compression > Zstd {
			return fmt.Errorf("compression type %d is not known", uint8(h.Compression))
		}
	}
	return nil
}

// featureNames reads the names of incompatible features, which an image may bring along for programs that do not know them.
func featureNames(head []byte, at uint32) map[uint8]string {
	names := map[uint8]string{}
	for int(at)+8 <= len(head) {
		kind, length := binary.BigEndian.Uint32(head[at:]), binary.BigEndian.Uint32(head[at+4:])
		at += 8
		if kind == extensionEnd || int64(at)+int64(length) > int64(len(head)) {
			break
		}
		if kind == extensionFeatures {
			for e := head[at : at+length]; len(e) >= 48; e = e[48:] {
				if name, _, _ := bytes.Cut(e[2:48], []byte{0}); e[0] == 0 { // 0: incompatible
					names[e[1]] = string(name)
				}
			}
		}
		at += (length + 7) &^ 7
	}
	return names
}

func backingName(head []byte, at uint64) string {
	n := uint64(binary.BigEndian.Uint32(head[16:]))
	if n == 0 || n > 1023 || at > uint64(len(head)) || at+n > uint64(len(head)) {
		return ""
	}
	return fmt.Sprintf(" (%.200q)", head[at:at+n])
}

// unit is the smallest part that the tables place: a subcluster, or else a cluster.
func (h Header) unit() int64 {
	if h.Extended {
		return h.ClusterSize / 32
	}
	return h.ClusterSize
}

// entrySize is that of an L2 entry in bytes.
func (h Header) entrySize() int64 {
	if h.Extended {
		return 16
	}
	return 8
}

// perTable is how many clusters an L2 table places.
func (h Header) perTable() int64 { return h.ClusterSize / h.entrySize() }

// clusters is how many clusters the disk has; the last one may be cut.
func (h Header) clusters() int64 { return (h.Size + h.ClusterSize - 1) / h.ClusterSize }

// tables is how many L2 tables a disk of this size needs.
func (h Header) tables() int64 { return (h.clusters() + h.perTable() - 1) / h.perTable() }

// units is how many units a cluster has.
func (h Header) units() int64 { return h.ClusterSize / h.unit() }

// packed returns where a packed cluster is, and how many bytes it may take: whole sectors, of which the last may belong to the next one.
func (h Header) packed(e uint64) (off, n int64) {
	shift := 62 - (bits.TrailingZeros64(uint64(h.ClusterSize)) - 8)
	off = int64(e & (1<<shift - 1))
	sectors := int64(e&(packedBit-1)>>shift) + 1
	return off, sectors*512 - off%512
}
