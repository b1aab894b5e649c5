// SPDX-License-Identifier: Apache-2.0

package raid

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
)

// A Membership is what a superblock says about the array that a disk or partition belongs to.
type Membership struct {
	Version string // as in sysfs: "0.90", "1.0", "1.1" or "1.2"
	UUID    string // 32 digits
	Name    string // of the volume, without the host that made it; may be empty
	Level   string // as in sysfs
}

// Memberships reads the superblocks of a disk or partition of size bytes. There may be several, of former lives; such that the kernel would refuse are none.
func Memberships(r io.ReaderAt, size int64) ([]Membership, error) {
	found, err := readSuperblocks(r, size)
	var list []Membership
	for _, s := range found {
		list = append(list, Membership{s.version, s.uuid, s.volumeName(), s.level})
	}
	return list, err
}

// superblock is what a member of an array says about it. Sources: Linux include/uapi/linux/raid/md_p.h, drivers/md/md.c.
type superblock struct {
	version string // "0.90", "1.0", "1.1" or "1.2"
	uuid    string // 32 digits
	name    string // with the host that made it: "any:system"; 0.90 has none
	level   string // as in sysfs
	disks   int    // that the array is made of
}

const (
	mdMagic       = 0xa92b4efc
	maxSuperblock = 4096 // bytes
)

// readSuperblocks looks at all places of a disk or partition of size bytes that may hold one; there may be several, of former lives.
func readSuperblocks(r io.ReaderAt, size int64) ([]superblock, error) {
	var found []superblock
	end := size / 512
	for _, place := range []struct {
		version string
		at      int64
	}{
		{"1.2", 4096},
		{"1.1", 0},
		{"1.0", (end - 16) &^ 7 * 512},
		{"0.90", size&^(64<<10-1) - 64<<10},
	} {
		b := make([]byte, maxSuperblock)
		if place.at < 0 || place.at+int64(len(b)) > size {
			continue
		}
		if _, err := r.ReadAt(b, place.at); err != nil {
			return nil, fmt.Errorf("read at %d: %w", place.at, err)
		}
		if s, ok := parseSuperblock(b, place.version, place.at); ok {
			found = append(found, s)
		}
	}
	return found, nil
}

// parseSuperblock reads the bytes at a place for superblocks of a version. It takes what the kernel takes: super_90_load and super_1_load in drivers/md/md.c.
func parseSuperblock(b []byte, version string, at int64) (s superblock, ok bool) {
	le := binary.LittleEndian
	if len(b) < maxSuperblock || le.Uint32(b) != mdMagic {
		return s, false
	}
	s.version = version
	var level int32
	switch major := le.Uint32(b[4:]); {
	case major == 0 && version == "0.90":
		if le.Uint32(b[152:]) != checksum(b[:maxSuperblock], 152) {
			return superblock{}, false
		}
		uuid := append(bytes.Clone(b[20:24]), b[52:64]...)
		s.uuid, level, s.disks = hex.EncodeToString(uuid), int32(le.Uint32(b[28:])), int(le.Uint32(b[40:]))
	case major == 1 && version != "0.90":
		roles := le.Uint32(b[220:])
		if roles > (maxSuperblock-256)/2 || le.Uint64(b[144:]) != uint64(at)/512 || le.Uint32(b[216:]) != checksum(b[:256+2*roles], 216) {
			return superblock{}, false
		}
		s.uuid, level, s.disks = hex.EncodeToString(b[16:32]), int32(le.Uint32(b[72:])), int(le.Uint32(b[92:]))
		name, _, _ := bytes.Cut(b[32:64], []byte{0})
		s.name = strings.Map(func(c rune) rune {
			if c < ' ' || c > '~' {
				return '?'
			}
			return c
		}, string(name))
	default:
		return superblock{}, false
	}
	s.level = fmt.Sprintf("raid%d", level)
	if level < 0 {
		s.level = map[int32]string{-1: "linear", -4: "multipath", -5: "faulty"}[level]
	}
	return s, true
}

// checksum adds up a superblock without its checksum, which is at a place in it.
func checksum(b []byte, at int) uint32 {
	le := binary.LittleEndian
	var sum uint64
	for i := 0; i < len(b); i += 4 {
		switch {
		case i == at:
		case len(b)-i >= 4:
			sum += uint64(le.Uint32(b[i:]))
		default:
			sum += uint64(le.Uint16(b[i:]))
		}
	}
	return uint32(sum) + uint32(sum>>32)
}

// volumeName is the name without the host that made the array.
func (s superblock) volumeName() string {
	if _, name, found := strings.Cut(s.name, ":"); found {
		return name
	}
	return s.name
}
