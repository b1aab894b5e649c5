// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf16"

	"github.com/ironhand/ironhand/image/gpt"
)

var (
	// ErrNoESP says that a disk has no EFI system partition.
	ErrNoESP = errors.New("no EFI partition could be detected")
	// ErrNoLoader says that an EFI system partition holds no boot loader for this machine.
	ErrNoLoader = errors.New("no boot loader in the EFI partition")
)

// LoadOption is what a variable Boot#### holds: UEFI 2.10 section 3.1.3, EFI_LOAD_OPTION.
type LoadOption struct {
	Attributes  uint32 // LoadActive and others
	Description string
	Path        []byte // a device path, packed, with its end node
	Data        []byte // handed to what is loaded
}

// LoadActive marks a LoadOption that the firmware may start.
const LoadActive = 1

// ParseLoadOption reads the value of a variable Boot####.
func ParseLoadOption(b []byte) (LoadOption, error) {
	if len(b) < 6 {
		return LoadOption{}, fmt.Errorf("parse boot option: %d bytes", len(b))
	}
	o := LoadOption{Attributes: binary.LittleEndian.Uint32(b)}
	length := int(binary.LittleEndian.Uint16(b[4:]))
	rest := b[6:]
	end := 0
	for ; ; end += 2 {
		if end+2 > len(rest) {
			return LoadOption{}, errors.New("parse boot option: description has no end")
		}
		if rest[end] == 0 && rest[end+1] == 0 {
			break
		}
	}
	o.Description = fromUTF16(rest[:end])
	if rest = rest[end+2:]; length > len(rest) {
		return LoadOption{}, fmt.Errorf("parse boot option: device path of %d bytes in %d", length, len(rest))
	}
	o.Path, o.Data = bytes.Clone(rest[:length]), bytes.Clone(rest[length:])
	return o, nil
}

// Encode gives the value of a variable Boot####.
func (o LoadOption) Encode() ([]byte, error) {
	if len(o.Path) > 0xffff || strings.ContainsRune(o.Description, 0) {
		return nil, errors.New("boot option cannot be encoded")
	}
	b := binary.LittleEndian.AppendUint32(nil, o.Attributes)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(o.Path)))
	b = appendUTF16(b, o.Description)
	b = append(b, o.Path...)
	return append(b, o.Data...), nil
}

// espPartition is a partition as a device path names it.
type espPartition struct {
	number       uint32
	start, count uint64   // sectors
	signature    [16]byte // GUID of the partition as GPT stores it, or the MBR's signature in the first 4 bytes
	gpt          bool
}

// devicePath makes the short path HD(...)/File(...) of a file: UEFI 2.10 sections 3.1.2 (short form), 10.3.5.1 (hard drive), 10.3.5.4 (file)
// and 10.3.1 (end). Back slashes separate the parts of file.
func (p espPartition) devicePath(file string) []byte {
	kind, signature := byte(1), byte(1) // MBR
	if p.gpt {
		kind, signature = 2, 2
	}
	b := []byte{4, 1, 42, 0}
	b = binary.LittleEndian.AppendUint32(b, p.number)
	b = binary.LittleEndian.AppendUint64(b, p.start)
	b = binary.LittleEndian.AppendUint64(b, p.count)
	b = append(b, p.signature[:]...)
	b = append(b, kind, signature)
	name := appendUTF16(nil, file)
	b = append(b, 4, 4)
	b = binary.LittleEndian.AppendUint16(b, uint16(4+len(name)))
	b = append(b, name...)
	return append(b, 0x7f, 0xff, 4, 0)
}

// findESP finds the EFI system partition of a disk by the table in its first bytes.
func findESP(head []byte, sectorSize int) (espPartition, error) {
	table, err := gpt.Parse(head, sectorSize)
	if err == nil {
		for _, p := range table.Partitions() {
			if p.Type == gpt.EFISystem {
				id, err := p.ID.Encode()
				return espPartition{uint32(p.Number), p.First, p.Last - p.First + 1, id, true}, err
			}
		}
		return espPartition{}, ErrNoESP
	}
	if !errors.Is(err, gpt.ErrNone) {
		return espPartition{}, err
	}
	mbr, err := gpt.ParseMBR(head)
	if err != nil {
		return espPartition{}, err
	}
	for _, p := range mbr.Partitions() {
		if p.Type == 0xef { // UEFI 2.10 section 5.2.2
			e := espPartition{number: uint32(p.Number), start: p.First, count: p.Count}
			binary.LittleEndian.PutUint32(e.signature[:], mbr.Signature())
			return e, nil
		}
	}
	return espPartition{}, ErrNoESP
}

// loader is a file to start, and what to call it.
type loader struct {
	file  string // with back slashes and a leading one, as the firmware wants it
	label string
	data  []byte // in UTF-16, from the third field of a CSV file
}

// efiArch is what UEFI 2.10 section 3.5.1.1 calls the architectures, by Go's names.
func efiArch(goarch string) string {
	return map[string]string{"amd64": "x64", "arm64": "aa64", "386": "ia32", "arm": "arm", "riscv64": "riscv64", "loong64": "loongarch64"}[goarch]
}

// findLoader finds the boot loader for an architecture on a mounted EFI system partition. A CSV file, which distributions put there for shim's
// fallback (rhboot/shim README.fallback), says best what to start; then comes the file that any firmware would start; then what
// distributions are known to install.
func findLoader(esp fs.FS, goarch string) (loader, error) {
	arch := efiArch(goarch)
	if arch == "" {
		return loader{}, fmt.Errorf("%w: UEFI has no name for %s", ErrNoLoader, goarch)
	}
	vendors := subdirectories(esp, "efi")
	for _, csv := range []string{"boot" + arch + ".csv", "boot.csv"} {
		for _, dir := range vendors {
			name, ok := lookup(esp, dir, csv)
			if !ok {
				continue
			}
			b, err := readFile(esp, name, 64<<10)
			if err != nil {
				return loader{}, err
			}
			for _, l := range parseCSV(b) {
				if file, ok := lookup(esp, dir, l.file); ok {
					l.file = efiPath(file)
					return l, nil
				}
			}
		}
	}
	// A label of its own, so that the entry of the next deployment replaces this one.
	for _, want := range []string{"boot" + arch + ".efi", "shim" + arch + ".efi", "grub" + arch + ".efi", "systemd-boot" + arch + ".efi", "bootmgfw.efi", "winload.efi"} {
		for _, dir := range vendors {
			if strings.HasPrefix(want, "boot"+arch) && !strings.EqualFold(path.Base(dir), "boot") {
				continue
			}
			if file, ok := lookup(esp, dir, want); ok {
				return loader{file: efiPath(file), label: "ironic1"}, nil
			}
			inner, ok := lookup(esp, dir, "boot") // EFI/Microsoft/Boot
			if !ok {
				continue
			}
			if file, ok := lookup(esp, inner, want); ok {
				return loader{file: efiPath(file), label: "ironic1"}, nil
			}
		}
	}
	return loader{}, fmt.Errorf("%w for %s", ErrNoLoader, arch)
}

// subdirectories lists the directories in EFI in the order of their names.
func subdirectories(esp fs.FS, dir string) []string {
	root, ok := lookup(esp, ".", dir)
	if !ok {
		return nil
	}
	entries, err := fs.ReadDir(esp, root)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && len(out) < 1000 {
			out = append(out, path.Join(root, e.Name()))
		}
	}
	return out
}

// lookup finds a name in a directory in whatever case it is written.
func lookup(fsys fs.FS, dir, name string) (string, bool) {
	entries, err := fs.ReadDir(fsys, dir)
	if err != nil {
		return "", false
	}
	for _, e := range entries {
		if strings.EqualFold(e.Name(), name) {
			return path.Join(dir, e.Name()), true
		}
	}
	return "", false
}

func efiPath(name string) string { return `\` + strings.ReplaceAll(name, "/", `\`) }

// parseCSV reads lines of "file,label,options,description" in UTF-16, little endian unless a byte order mark says otherwise.
func parseCSV(b []byte) []loader {
	if bytes.HasPrefix(b, []byte{0xfe, 0xff}) {
		b = bytes.Clone(b)
		for i := 0; i+1 < len(b); i += 2 {
			b[i], b[i+1] = b[i+1], b[i]
		}
	}
	var out []loader
	for line := range strings.Lines(strings.TrimPrefix(fromUTF16(b), "\ufeff")) {
		fields := strings.Split(strings.TrimRight(line, "\r\n\x00"), ",")
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		if len(fields) < 2 || fields[0] == "" || fields[1] == "" || strings.ContainsAny(fields[0], `/\`) || strings.ContainsRune(fields[1], 0) {
			continue
		}
		l := loader{file: fields[0], label: fields[1]}
		if len(fields) > 2 && fields[2] != "" {
			l.data = appendUTF16(nil, fields[2])
		}
		out = append(out, l)
	}
	return out
}

func fromUTF16(b []byte) string {
	u := make([]uint16, len(b)/2)
	for i := range u {
		u[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return string(utf16.Decode(u))
}

// appendUTF16 appends s and a NUL.
func appendUTF16(b []byte, s string) []byte {
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return append(b, 0, 0)
}

// efiGlobal is the GUID of the variables that UEFI itself defines: UEFI 2.10 section 3.3.
const efiGlobal = "8be4df61-93ca-11d2-aa0d-00e098032b8c"

// efiVars are the variables of that GUID.
type efiVars interface {
	Names() ([]string, error)              // without the GUID
	Read(name string) ([]byte, error)      // the value; fs.ErrNotExist if there is none
	Write(name string, value []byte) error // kept over power-off, for boot and run time
	Delete(name string) error
}

// BootVariable is a boot entry of the firmware.
type BootVariable struct {
	Number uint16 // of Boot####
	Label  string
	File   string // on the EFI system partition, with back slashes
	// Unread are other boot entries that could not be read, and so were left alone: lines for people.
	Unread []string
}

// String is how efibootmgr(8) would begin its line.
func (b BootVariable) String() string {
	text := fmt.Sprintf("Boot%04X %s %s", b.Number, b.Label, b.File)
	if len(b.Unread) > 0 {
		text += "; left alone, as it cannot be read: " + strings.Join(b.Unread, ", ")
	}
	return text
}

// installBootEntry makes an entry for l the first in the boot order. Other entries with the same label go. One that is the same
// already stays as it is, which spares the flash memory.
func installBootEntry(vars efiVars, esp espPartition, l loader) (BootVariable, error) {
	want, err := LoadOption{Attributes: LoadActive, Description: l.label, Path: esp.devicePath(l.file), Data: l.data}.Encode()
	if err != nil {
		return BootVariable{}, err
	}
	names, err := vars.Names()
	if err != nil {
		return BootVariable{}, err
	}

	// 1. What is there.
	entry := BootVariable{Label: l.label, File: l.file}
	used := map[uint16]bool{}
	var same, stale []uint16
	for _, name := range names {
		number, is := bootNumber(name)
		if !is {
			continue
		}
		used[number] = true
		// One that cannot be read or understood is somebody else's, and keeps its number.
		value, err := vars.Read(name)
		if err != nil {
			entry.Unread = append(entry.Unread, fmt.Sprintf("%s: %v", name, err))
			continue
		}
		o, err := ParseLoadOption(value)
		switch {
		case err != nil:
		case bytes.Equal(value, want):
			same = append(same, number)
		case o.Description == l.label:
			stale = append(stale, number)
		}
	}
	slices.Sort(same)
	order, err := readOrder(vars)
	if err != nil {
		return BootVariable{}, err
	}

	// 2. The entry, then the order that begins with it, and last the old ones: at no moment is there less to boot from.
	if len(same) > 0 {
		entry.Number = same[0]
		stale = append(stale, same[1:]...)
	}
	old := stale // they leave the order
	write := func(name string, value []byte) error {
		err := vars.Write(name, value)
		if errors.Is(err, syscall.ENOSPC) && len(stale) > 0 { // then the old ones make room, though for a moment there is less to boot from
			if err := deleteEntries(vars, stale); err != nil {
				return err
			}
			stale, err = nil, vars.Write(name, value)
		}
		switch {
		case errors.Is(err, syscall.ENOSPC):
			return fmt.Errorf("write %s: %w: the firmware's memory for variables is full; the steps clean_uefi_nvram and erase_pstore make room", name, err)
		case err != nil:
			return fmt.Errorf("write %s: %w", name, err)
		}
		return nil
	}
	if len(same) == 0 {
		for used[entry.Number] {
			if entry.Number++; entry.Number == 0 {
				return BootVariable{}, errors.New("all 65536 boot entries are in use")
			}
		}
		if err := write(entry.name(), want); err != nil {
			return BootVariable{}, err
		}
	}
	newOrder := []uint16{entry.Number}
	for _, n := range order {
		if n != entry.Number && !slices.Contains(old, n) {
			newOrder = append(newOrder, n)
		}
	}
	if !slices.Equal(order, newOrder) {
		var b []byte
		for _, n := range newOrder {
			b = binary.LittleEndian.AppendUint16(b, n)
		}
		if err := write("BootOrder", b); err != nil {
			return BootVariable{}, err
		}
	}
	if err := deleteEntries(vars, stale); err != nil {
		return BootVariable{}, err
	}
	return entry, nil
}

func deleteEntries(vars efiVars, numbers []uint16) error {
	for _, n := range numbers {
		name := BootVariable{Number: n}.name()
		if err := vars.Delete(name); err != nil {
			return fmt.Errorf("delete %s: %w", name, err)
		}
	}
	return nil
}

func (b BootVariable) name() string { return fmt.Sprintf("Boot%04X", b.Number) }

// bootNumber takes the number off a name like Boot000A.
func bootNumber(name string) (uint16, bool) {
	digits, is := strings.CutPrefix(name, "Boot")
	n, err := strconv.ParseUint(digits, 16, 16)
	return uint16(n), is && err == nil && len(digits) == 4 && strings.ToUpper(digits) == digits
}

func readOrder(vars efiVars) ([]uint16, error) {
	b, err := vars.Read("BootOrder")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read BootOrder: %w", err)
	}
	var order []uint16
	for i := 0; i+1 < len(b); i += 2 {
		order = append(order, binary.LittleEndian.Uint16(b[i:]))
	}
	return order, nil
}

// efiVarNames takes the names of the global variables from those of the files in efivarfs.
func efiVarNames(files []string) []string {
	var names []string
	for _, f := range files {
		if name, is := strings.CutSuffix(f, "-"+efiGlobal); is {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, cmp.Compare)
	return names
}
