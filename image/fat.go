// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode/utf16"
)

// makeFAT makes a FAT12 or FAT16 file system of at most size bytes, with the label CONFIG-2, in sectors and clusters of sectorSize (512 or
// 4096) bytes. It returns the start of it, up to the last cluster in use; the rest of its place on the disk must be zero.
// Source: Microsoft Extensible Firmware Initiative FAT32 File System Specification 1.03.
//
// go-diskfs makes FAT16 only for sectors of 512 bytes, and FAT32 may not be this small.
func makeFAT(files map[string][]byte, sectorSize int, size int64) ([]byte, error) {
	// 1. Where everything is. Below 4085 clusters it is FAT12, from 65525 on it would be FAT32.
	const reserved, copies, rootEntries = 1, 2, 512
	rootSectors := rootEntries * 32 / sectorSize
	total := int(min(size/int64(sectorSize), 65000))
	fatSectors := (2*(total+2) + sectorSize - 1) / sectorSize
	data := reserved + copies*fatSectors + rootSectors // first sector of the clusters
	f := &fat{sector: sectorSize, clusters: total - data, next: []uint16{0xfff8, 0xffff}}
	if f.clusters < 1 {
		return nil, fmt.Errorf("%d bytes are too few for a file system", size)
	}

	// 2. The tree, from the leaves up, so that a directory knows where its entries are.
	root, err := f.tree(files)
	if err != nil {
		return nil, err
	}
	entries, err := f.directory(root, 0)
	if err != nil {
		return nil, err
	}
	label := fatEntry("CONFIG-2   ", 0x08, 0, 0)
	entries = append(label, entries...)
	if len(entries) > rootEntries*32 {
		return nil, errors.New("too many files in the root directory")
	}

	// 3. All of it in its place.
	b := make([]byte, (data+len(f.next)-2)*sectorSize)
	le := binary.LittleEndian
	copy(b, "\xeb\x3c\x90ironhand")
	le.PutUint16(b[11:], uint16(sectorSize))
	b[13] = 1 // sectors of a cluster
	le.PutUint16(b[14:], reserved)
	b[16] = copies
	le.PutUint16(b[17:], rootEntries)
	if total < 1<<16 {
		le.PutUint16(b[19:], uint16(total))
	}
	b[21] = 0xf8 // fixed disk
	le.PutUint16(b[22:], uint16(fatSectors))
	le.PutUint16(b[24:], 32) // sectors of a track
	le.PutUint16(b[26:], 64) // heads
	b[36] = 0x80             // drive
	b[38] = 0x29             // three fields follow
	copy(b[39:], "CFG2CONFIG-2   FAT16   ")
	if f.clusters < 4085 {
		copy(b[54:], "FAT12   ")
	}
	b[510], b[511] = 0x55, 0xaa
	for i := range copies {
		f.putTable(b[(reserved+i*fatSectors)*sectorSize:])
	}
	copy(b[(reserved+copies*fatSectors)*sectorSize:], entries)
	copy(b[data*sectorSize:], f.data)
	return b, nil
}

// fat is a file system in the making.
type fat struct {
	sector   int
	clusters int      // that there are
	next     []uint16 // of each cluster, the one behind it in its file; the first two are not clusters
	data     []byte   // of the clusters, from the third entry of next on
}

// fatNode is a file, or a directory if children is not nil.
type fatNode struct {
	children map[string]*fatNode
	content  []byte
}

func (f *fat) tree(files map[string][]byte) (*fatNode, error) {
	root := &fatNode{children: map[string]*fatNode{}}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		d := root
		for part := range strings.SplitSeq(path.Dir(name), "/") {
			if part == "." {
				continue
			}
			if d.children[part] == nil {
				d.children[part] = &fatNode{children: map[string]*fatNode{}}
			}
			if d = d.children[part]; d.children == nil {
				return nil, fmt.Errorf("%s: a file is where a directory should be", name)
			}
		}
		if d.children[path.Base(name)] != nil {
			return nil, fmt.Errorf("%s: there already", name)
		}
		d.children[path.Base(name)] = &fatNode{content: files[name]}
	}
	return root, nil
}

// directory stores what is in d, whose first cluster is self (0 for the root), and returns its entries.
func (f *fat) directory(d *fatNode, self int) ([]byte, error) {
	var entries []byte
	seen := map[string]bool{}
	for i, name := range slices.Sorted(maps.Keys(d.children)) {
		if fold := strings.ToLower(name); seen[fold] {
			return nil, fmt.Errorf("%s: differs from another name in the case of letters only", name)
		} else {
			seen[fold] = true
		}
		long := utf16.Encode([]rune(name))
		if len(long) > 255 || strings.ContainsAny(name, `"*/:<>?\|`) {
			return nil, fmt.Errorf("%q cannot be a name in FAT", name)
		}
		child, attribute := d.children[name], byte(0x20)
		var cluster int
		var err error
		if child.children == nil {
			cluster, err = f.store(child.content)
		} else {
			attribute = 0x10
			cluster, err = f.storeDirectory(child, self)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		short := fmt.Sprintf("F%07d   ", i)
		entries = append(entries, longName(long, short)...)
		entries = append(entries, fatEntry(short, attribute, cluster, len(child.content))...)
	}
	return entries, nil
}

// storeDirectory gives d its clusters, and then fills them: its entries hold their number.
func (f *fat) storeDirectory(d *fatNode, parent int) (cluster int, err error) {
	length := 2 * 32 // "." and ".."
	for name := range d.children {
		length += 32 + (len(utf16.Encode([]rune(name)))+12)/13*32
	}
	if cluster, err = f.store(make([]byte, length)); err != nil {
		return 0, err
	}
	entries, err := f.directory(d, cluster)
	if err != nil {
		return 0, err
	}
	at := f.data[(cluster-2)*f.sector:]
	copy(at, fatEntry(".          ", 0x10, cluster, 0))
	copy(at[32:], fatEntry("..         ", 0x10, parent, 0))
	copy(at[64:], entries)
	return cluster, nil
}

// store puts b into new clusters, one behind the other, and returns the first; 0 if b is empty.
func (f *fat) store(b []byte) (first int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	n := (len(b) + f.sector - 1) / f.sector
	first = len(f.next)
	if first-2+n > f.clusters {
		return 0, errors.New("no space left")
	}
	for i := range n - 1 {
		f.next = append(f.next, uint16(first+i+1))
	}
	f.next = append(f.next, 0xffff)
	f.data = append(f.data, b...)
	f.data = append(f.data, make([]byte, n*f.sector-len(b))...)
	return first, nil
}

// putTable writes the table: 12 or 16 bits for each cluster.
func (f *fat) putTable(b []byte) {
	for i, n := range f.next {
		if f.clusters >= 4085 {
			binary.LittleEndian.PutUint16(b[2*i:], n)
			continue
		}
		at := i + i/2
		if i%2 == 0 {
			b[at], b[at+1] = byte(n), b[at+1]&0xf0|byte(n>>8)&0x0f
		} else {
			b[at], b[at+1] = b[at]&0x0f|byte(n<<4), byte(n>>4)
		}
	}
}

func fatEntry(short string, attribute byte, cluster, size int) []byte {
	const day = 1<<5 | 1 // 1980-01-01
	e := make([]byte, 32)
	copy(e, short)
	e[11] = attribute
	binary.LittleEndian.PutUint16(e[16:], day)
	binary.LittleEndian.PutUint16(e[18:], day)
	binary.LittleEndian.PutUint16(e[24:], day)
	binary.LittleEndian.PutUint16(e[26:], uint16(cluster))
	binary.LittleEndian.PutUint32(e[28:], uint32(size))
	return e
}

// longName makes the entries that stand before the one with the short name, the last piece of the name first.
func longName(name []uint16, short string) []byte {
	var sum byte
	for _, c := range []byte(short) {
		sum = sum>>1 | sum<<7
		sum += c
	}
	n := (len(name) + 12) / 13
	var out []byte
	for i := n; i > 0; i-- {
		e := make([]byte, 32)
		if e[0] = byte(i); i == n {
			e[0] |= 0x40
		}
		e[11], e[13] = 0x0f, sum
		for j, at := range [13]int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
			c := uint16(0xffff)
			switch k := (i-1)*13 + j; {
			case k < len(name):
				c = name[k]
			case k == len(name):
				c = 0
			}
			binary.LittleEndian.PutUint16(e[at:], c)
		}
		out = append(out, e...)
	}
	return out
}
