// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
)

// UKI says what a unified kernel image is made from: one EFI program that is stub, kernel, command line and initramfs together (UAPI group
// specification 5). A firmware starts it as it is: over HTTP, from a disk, from a boot entry. It is not signed: sbsign(1) does that, with a key
// that the machine's firmware knows.
type UKI struct {
	Stub      string // path of systemd's stub for EFI, "" stands for DebianStub
	Kernel    string // path of a bzImage that is an EFI program itself, as distributions' are
	Initramfs string // path
	Cmdline   string // "" stands for DefaultCmdline
}

// DebianStub is where Debian's package systemd-boot-efi puts the stub.
const DebianStub = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"

const (
	ukiPage    = 4096          // each part begins at a multiple of so many bytes in memory
	ukiSector  = 512           // and of so many in the file
	ukiHeader  = 40            // bytes of a section's header (PE format, section table)
	ukiContent = 0x40000040    // of a section: initialized data, to be read
	maxUKI     = math.MaxInt32 // bytes; offsets in a PE file have 32 bits, and some firmware takes them with a sign
)

// ukiPart is a section to be added.
type ukiPart struct {
	name string
	size int64
	r    io.Reader
}

// Write writes the image to w and returns its size.
func (u UKI) Write(w io.Writer) (int64, error) {
	if u.Stub == "" {
		u.Stub = DebianStub
	}
	if u.Cmdline == "" {
		u.Cmdline = DefaultCmdline
	}
	if err := checkCmdline(u.Cmdline); err != nil {
		return 0, err
	}
	stub, err := readLoader(u.Stub, "systemd-boot-efi")
	if err != nil {
		return 0, err
	}
	const release = "ID=ironhand\nNAME=ironhand\nPRETTY_NAME=ironhand\n" // what boot managers show (os-release(5))
	parts := []ukiPart{
		{".osrel", int64(len(release)), strings.NewReader(release)},
		{".cmdline", int64(len(u.Cmdline)), strings.NewReader(u.Cmdline)},
	}
	for _, p := range []struct{ section, what, path string }{{".linux", "kernel", u.Kernel}, {".initrd", "initramfs", u.Initramfs}} {
		f, err := os.Open(p.path)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", p.what, err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return 0, fmt.Errorf("%s: %w", p.what, err)
		}
		if !info.Mode().IsRegular() || info.Size() == 0 {
			return 0, fmt.Errorf("%s %s: is not a file, or is empty", p.what, p.path)
		}
		if p.what == "kernel" {
			if _, err := pe.NewFile(io.NewSectionReader(f, 0, info.Size())); err != nil {
				return 0, fmt.Errorf("kernel %s: is not an EFI program, which a bzImage built with CONFIG_EFI_STUB is: %w", p.path, err)
			}
		}
		parts = append(parts, ukiPart{p.section, info.Size(), io.NewSectionReader(f, 0, info.Size())})
	}
	head, err := extendStub(stub, parts)
	if err != nil {
		return 0, fmt.Errorf("stub %s: %w", u.Stub, err)
	}
	out := &counter{w: w}
	if _, err := out.Write(head); err != nil {
		return out.n, fmt.Errorf("write UKI: %w", err)
	}
	for _, p := range parts {
		n, err := io.Copy(out, p.r)
		if err == nil && n != p.size {
			err = io.ErrUnexpectedEOF
		}
		if err == nil {
			_, err = out.Write(make([]byte, -out.n&(ukiSector-1)))
		}
		if err != nil {
			return out.n, fmt.Errorf("write UKI: part %s: %w", p.name, err)
		}
	}
	return out.n, nil
}

// extendStub returns the stub with headers for parts that follow it in the file, in their order, each at a multiple of ukiSector. The offsets are
// those of the PE format, https://learn.microsoft.com/windows/win32/debug/pe-format.
func extendStub(stub []byte, parts []ukiPart) ([]byte, error) {
	f, err := pe.NewFile(bytes.NewReader(stub))
	if err != nil {
		return nil, err
	}
	optional, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok || f.Machine != pe.IMAGE_FILE_MACHINE_AMD64 {
		return nil, errors.New("is not an EFI program for x86-64")
	}
	if optional.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_SECURITY].Size != 0 {
		return nil, errors.New("is signed, which what is added would break")
	}
	// 1. Where its sections end, in the file and in memory.
	const fixed, coff = 0x3c, 24 // where the offset of the PE header is; its signature and file header, in bytes
	start := int64(binary.LittleEndian.Uint32(stub[fixed:]))
	table := start + coff + int64(f.SizeOfOptionalHeader)
	var end, top int64
	first := int64(optional.SizeOfHeaders)
	for _, s := range f.Sections {
		if s.Name == ".linux" || s.Name == ".initrd" || s.Name == ".cmdline" || s.Name == ".osrel" {
			return nil, fmt.Errorf("has a section %s already: it is a UKI, not a stub", s.Name)
		}
		end = max(end, int64(s.Offset)+int64(s.Size))
		top = max(top, int64(s.VirtualAddress)+max(int64(s.VirtualSize), int64(s.Size)))
		if s.Size > 0 {
			first = min(first, int64(s.Offset))
		}
	}
	used := table + int64(len(f.Sections))*ukiHeader
	if end > int64(len(stub)) || used > first || first > end {
		return nil, errors.New("its sections are not where its headers say")
	}
	if used+int64(len(parts))*ukiHeader > first {
		return nil, fmt.Errorf("has no room in its header for %d sections more", len(parts))
	}
	// 2. The sections, and their headers. Symbols, which may follow them, are left out.
	size := (end + ukiSector - 1) &^ (ukiSector - 1)
	head := make([]byte, size)
	copy(head, stub[:end])
	at := used
	var data int64
	for _, p := range parts {
		top = (top + ukiPage - 1) &^ (ukiPage - 1)
		stored := (p.size + ukiSector - 1) &^ (ukiSector - 1)
		if p.size > maxUKI || size+stored > maxUKI || top+stored > maxUKI {
			return nil, fmt.Errorf("part %s of %d bytes makes the UKI longer than %d", p.name, p.size, maxUKI)
		}
		copy(head[at:at+8], p.name)
		for i, v := range []int64{p.size, top, stored, size, 0, 0, 0, ukiContent} {
			binary.LittleEndian.PutUint32(head[at+8+int64(i)*4:], uint32(v))
		}
		at += ukiHeader
		size += stored
		top += stored
		data += stored
	}
	// 3. The counts in the headers.
	const sections, symbols, numberOfSymbols = 6, 12, 16 // from the PE signature
	binary.LittleEndian.PutUint16(head[start+sections:], uint16(len(f.Sections)+len(parts)))
	binary.LittleEndian.PutUint32(head[start+symbols:], 0)
	binary.LittleEndian.PutUint32(head[start+numberOfSymbols:], 0)
	const initialized, image, checksum = coff + 8, coff + 56, coff + 64
	binary.LittleEndian.PutUint32(head[start+initialized:], uint32(int64(optional.SizeOfInitializedData)+data))
	align := int64(max(optional.SectionAlignment, 1))
	binary.LittleEndian.PutUint32(head[start+image:], uint32((top+align-1)/align*align))
	binary.LittleEndian.PutUint32(head[start+checksum:], 0) // of which UEFI takes no notice
	return head, nil
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
