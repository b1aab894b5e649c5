// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/ulikunitz/xz/lzma"
)

// biosModules are what a core is tested with.
var biosModules = strings.Fields("biosdisk part_msdos part_gpt ext2 xfs btrfs search_fs_uuid mdraid1x mdraid09 lvm")

// unpackLZMA unpacks what has no header.
func unpackLZMA(t *testing.T, packed []byte, size int) []byte {
	t.Helper()
	header := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint32([]byte{(2*5+0)*9 + 3}, 1<<22), uint64(size))
	r, err := lzma.NewReader(bytes.NewReader(append(header, packed...)))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPackLZMA(t *testing.T) {
	random := make([]byte, 100000)
	rand.New(rand.NewSource(1)).Read(random)
	for _, test := range []struct {
		name  string
		plain []byte
		most  int // bytes
	}{
		{"one byte", []byte{0xff}, 16},
		{"zeros", make([]byte, 100000), 3000},
		{"ones, which carry", bytes.Repeat([]byte{0xff}, 100000), 3000},
		{"random", random, 103000},
		{"text", []byte(strings.Repeat("menuentry 'Debian GNU/Linux' --class gnu-linux\n", 1000)), 30000},
	} {
		t.Run(test.name, func(t *testing.T) {
			packed := packLZMA(test.plain)
			if got := unpackLZMA(t, packed, len(test.plain)); !bytes.Equal(got, test.plain) || len(packed) > test.most {
				t.Errorf("packLZMA() has %d bytes, want %d at most, and unpacks to %d bytes of %d", len(packed), test.most, len(got), len(test.plain))
			}
		})
	}
}

func FuzzPackLZMA(f *testing.F) {
	f.Add([]byte("\xff\xff\x00\x00GRUB"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 0 && !bytes.Equal(unpackLZMA(t, packLZMA(b), len(b)), b) {
			t.Error("is not what was packed")
		}
	})
}

// split takes a core apart: what comes first, the program that unpacks, and what it unpacks.
func split(t *testing.T, core []byte) (first, unpack, plain []byte) {
	t.Helper()
	length, err := os.Stat("/" + grubBIOSDirectory + "/lzma_decompress.img")
	if err != nil {
		t.Fatal(err)
	}
	packed := core[512+length.Size():]
	unpack = bytes.Clone(core[512 : 512+length.Size()])
	size := binary.LittleEndian.Uint32(unpack[grubAtCompressed:])
	if int(size) > len(packed) || len(packed)-int(size) > 512 {
		t.Fatalf("%d bytes are packed, of %d", size, len(packed))
	}
	plain = unpackLZMA(t, packed[:size], int(binary.LittleEndian.Uint32(unpack[grubAtPlain:])))
	clear(unpack[grubAtCompressed:][:4]) // depends on how well it was packed
	first = bytes.Clone(core[:512])
	clear(first[grubAtBlocks+8:][:2])
	return first, unpack, plain
}

// grub-mkimage makes the same core out of the same files.
func TestGrubCoreIsGrubMkimages(t *testing.T) {
	if _, err := exec.LookPath("grub-mkimage"); err != nil {
		if strings.Contains(os.Getenv("REQUIRE"), "root") {
			t.Fatal(err)
		}
		t.Skip("needs grub-mkimage")
	}
	const config = "search.fs_uuid 6f2c1a30-8d0e-4c55-9f6e-2f4d3c9a7b10 root\nset prefix=($root)/boot/grub\n"
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/config", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, modules := range [][]string{{"biosdisk"}, biosModules} {
		args := append([]string{"-O", "i386-pc", "-c", dir + "/config", "-p", "/boot/grub", "-o", dir + "/core"}, modules...)
		if out, err := exec.Command("grub-mkimage", args...).CombinedOutput(); err != nil {
			t.Fatalf("grub-mkimage: %v\n%s", err, out)
		}
		theirs, err := os.ReadFile(dir + "/core")
		if err != nil {
			t.Fatal(err)
		}
		ours, err := grubCore(os.DirFS("/"), grubBIOSDirectory, modules, config, "/boot/grub")
		if err != nil {
			t.Fatal(err)
		}
		first, unpack, plain := split(t, ours)
		wantFirst, wantUnpack, wantPlain := split(t, theirs)
		if !bytes.Equal(first, wantFirst) || !bytes.Equal(unpack, wantUnpack) || !bytes.Equal(plain, wantPlain) {
			t.Errorf("%v: the core differs from grub-mkimage's: its first sector %v, its unpacking %v, what is unpacked %v", modules,
				!bytes.Equal(first, wantFirst), !bytes.Equal(unpack, wantUnpack), !bytes.Equal(plain, wantPlain))
		}
		t.Logf("%d modules: %d bytes, grub-mkimage's has %d", len(modules), len(ours), len(theirs))
	}
}

// kernelELF is a file like GRUB's kernel.
func kernelELF(address, offset, size uint32, content string) []byte {
	b := make([]byte, 84)
	copy(b, "\x7fELF\x01\x01\x01")
	le := binary.LittleEndian
	le.PutUint16(b[18:], 3)
	le.PutUint32(b[28:], 52)
	le.PutUint16(b[42:], 32)
	le.PutUint16(b[44:], 1)
	le.PutUint32(b[52:], 1)
	le.PutUint32(b[56:], offset)
	le.PutUint32(b[60:], address)
	le.PutUint32(b[68:], size)
	return append(b, content...)
}

// grubFiles are files like GRUB's for BIOS.
func grubFiles() fstest.MapFS {
	diskboot := make([]byte, 512)
	copy(diskboot[510:], "\x20\x08")
	files := fstest.MapFS{}
	for name, b := range map[string]string{
		"kernel.img": string(kernelELF(0x9000, 84, 6, "KERNEL")), "lzma_decompress.img": strings.Repeat("U", 100), "diskboot.img": string(diskboot), "boot.img": strings.Repeat("B", 510) + "\x55\xaa",
		"moddep.lst": "biosdisk:\next2: fshelp\nfshelp:\nloop: loop\n", "biosdisk.mod": "BIOSDISK", "ext2.mod": "EXT2", "fshelp.mod": "FS", "loop.mod": "LOOP",
	} {
		files[grubBIOSDirectory+"/"+name] = &fstest.MapFile{Data: []byte(b), Mode: 0o644}
	}
	return files
}

func TestGrubCoreRefuses(t *testing.T) {
	noise := make([]byte, 900<<10) // which cannot be packed
	rand.New(rand.NewSource(1)).Read(noise)
	for _, test := range []struct {
		name, file, content, want string
	}{
		{"whole", "", "", ""},
		{"no kernel", "kernel.img", "-", "kernel.img: file does not exist"},
		{"kernel is none", "kernel.img", "hello", "kernel.img: is no ELF file for i386"},
		{"kernel ends early", "kernel.img", string(kernelELF(0x9000, 84, 7, "KERNEL")), "has 7 bytes at 84 for the address 0x9000"},
		{"kernel for elsewhere", "kernel.img", string(kernelELF(0x100000, 84, 6, "KERNEL")), "for the address 0x100000"},
		{"table beyond the end", "kernel.img", string(kernelELF(0x9000, 84, 6, ""))[:60], "ends within its table of parts"},
		{"no module", "fshelp.mod", "-", "fshelp.mod: file does not exist"},
		{"module elsewhere", "moddep.lst", "ext2: ../../../../etc/x", "file does not exist"},
		{"module that is too long", "ext2.mod", strings.Repeat("x", 1<<20+1), "longer than 1048576 bytes"},
		{"core that is too long", "ext2.mod", string(noise), "of 454656 that it may have"},
		{"program that does not fit", "lzma_decompress.img", strings.Repeat("U", 4000), "lzma_decompress.img has 4000 bytes, and not 64 to 3584"},
		{"other first sector", "diskboot.img", strings.Repeat("x", 512), "diskboot.img is not what GRUB 2 begins its core with"},
		{"dependencies in a circle", "moddep.lst", "ext2: biosdisk\nbiosdisk: ext2\n", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			files := grubFiles()
			if test.content == "-" {
				delete(files, grubBIOSDirectory+"/"+test.file)
			} else if test.file != "" {
				files[grubBIOSDirectory+"/"+test.file].Data = []byte(test.content)
			}
			_, err := grubCore(files, grubBIOSDirectory, []string{"biosdisk", "ext2"}, "c", "p")
			if test.want == "" && err != nil || test.want != "" && !strings.Contains(fmt.Sprint(err), test.want) {
				t.Errorf("grubCore() = %v, want %q", err, test.want)
			}
		})
	}
}

func FuzzGrubKernel(f *testing.F) {
	f.Add(kernelELF(0x9000, 84, 6, "KERNEL"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := grubKernel(b); err == nil && (len(got) == 0 || !bytes.Contains(b, got)) {
			t.Errorf("grubKernel() = %d bytes that are not in its file", len(got))
		}
	})
}

func FuzzGrubDependencies(f *testing.F) {
	f.Add("ext2: fshelp\nfshelp:\nloop: loop\n")
	f.Fuzz(func(t *testing.T, list string) {
		seen := map[string]bool{}
		for _, name := range grubDependencies(list, []string{"ext2", "loop"}) {
			if seen[name] {
				t.Errorf("%q is there twice", name)
			}
			seen[name] = true
		}
		if !seen["ext2"] || !seen["loop"] {
			t.Error("a module is missing that was asked for")
		}
	})
}
