// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	"github.com/ironhand/ironhand/inspect/inspecttest"
)

func TestClean(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"S2HT\n", "S2HT"},
		{"  S2HT\x00\x00 ", "S2HT"},
		{"\x00\x00", ""},
		{"A\x00B", "A_B"},
		{"A\xff\xfeB", "A__B"},
		{"A\x1b[31mB", "A_[31mB"},
		{"A\tB", "A_B"},
		{"Größe", "Größe"},
		{"A\u200bB", "A_B"}, // a blank of no width
		{"A\ufffdB", "A\ufffdB"},
		{strings.Repeat("ä", 2000), strings.Repeat("ä", maxText/2)},
		{"x" + strings.Repeat("ä", 2000), "x" + strings.Repeat("ä", maxText/2-1) + "_"},
	} {
		if got := clean([]byte(tt.in)); got != tt.want {
			t.Errorf("clean(%.40q) = %.40q, want %.40q", tt.in, got, tt.want)
		}
	}
}

// unhex makes bytes of hex digits with blanks.
func unhex(t testing.TB, s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseVPD80(t *testing.T) {
	for _, tt := range []struct{ name, page, want, err string }{
		{"plain", "00 80 00 03 41 42 43", "ABC", ""},
		{"padded", "00 80 00 06 20 20 41 42 00 20", "AB", ""},
		{"longer than it says", "00 80 00 01 41 42 43", "A", ""},
		{"empty", "00 80 00 00", "", ""},
		{"no header", "00 80 00", "", "page of 3 bytes has no header"},
		{"nothing", "", "", "page of 0 bytes has no header"},
		{"shorter than it says", "00 80 00 04 41", "", "page says 4 bytes and has 1"},
		{"much shorter", "00 80 ff ff 41", "", "page says 65535 bytes and has 1"},
		{"other page", "00 b0 00 01 41", "", "page code is 0xb0, want 0x80"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseVPD80(unhex(t, tt.page))
			if got != tt.want || errorText(err) != tt.err {
				t.Errorf("parseVPD80 = %q, %v, want %q, %s", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestParseVPD83(t *testing.T) {
	const (
		naa5   = "01 03 00 08 50 00 c5 00 a1 b2 c3 d4 "
		naa6   = "01 03 00 10 61 86 6d a0 a1 b2 c3 00 22 11 33 44 55 66 77 88 "
		port   = "61 93 00 08 50 00 c5 00 ff ff 00 01 " // association 1, with a protocol
		t10    = "02 01 00 0a 41 54 41 20 20 20 20 20 58 59 "
		eui64  = "01 02 00 08 00 11 22 33 44 55 66 77 "
		vendor = "02 00 00 03 41 42 43 "
	)
	for _, tt := range []struct{ name, page, naa, t10, err string }{
		{"NAA 5", "00 83 00 0c " + naa5, "5000c500a1b2c3d4", "", ""},
		{"NAA 6", "00 83 00 14 " + naa6, "61866da0a1b2c3002211334455667788", "", ""},
		{"both", "00 83 00 20 " + naa5 + naa6, "61866da0a1b2c3002211334455667788", "", ""},
		{"both, the other way", "00 83 00 20 " + naa6 + naa5, "61866da0a1b2c3002211334455667788", "", ""},
		{"of the port", "00 83 00 0c " + port, "", "", ""},
		{"port first", "00 83 00 18 " + port + naa5, "5000c500a1b2c3d4", "", ""},
		{"T10 and others", "00 83 00 2d " + vendor + eui64 + t10 + naa5, "5000c500a1b2c3d4", "ATA     XY", ""},
		{"NAA as text", "00 83 00 0c 02 03 00 08 50 00 c5 00 a1 b2 c3 d4", "", "", ""},
		{"NAA of odd length", "00 83 00 07 01 03 00 03 50 00 c5", "", "", ""},
		{"none", "00 83 00 00", "", "", ""},
		{"second cut in its header", "00 83 00 0e " + naa5 + "01 03", "5000c500a1b2c3d4", "", "designator is cut off"},
		{"second cut in its value", "00 83 00 12 " + naa5 + "01 03 00 08 50 00", "5000c500a1b2c3d4", "", "designator is cut off"},
		{"page cut", "00 83 00 0c 01 03 00 08", "", "", "page says 12 bytes and has 4"},
		{"other page", "00 80 00 00", "", "", "page code is 0x80, want 0x83"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseVPD83(unhex(t, tt.page))
			if got.naa != tt.naa || got.t10 != tt.t10 || errorText(err) != tt.err {
				t.Errorf("parseVPD83 = %+v, %v, want %q, %q, %s", got, err, tt.naa, tt.t10, tt.err)
			}
		})
	}
}

// What udev's scsi_id gives as ID_SERIAL and ID_SERIAL_SHORT. TestVMJudges has it judge QEMU's disks.
func TestSCSIID(t *testing.T) {
	const model = "HARDDISK"
	for _, tt := range []struct{ name, page, unitSerial, long, short string }{
		{"the vendor's own", "00 83 00 08 02 00 00 04 53 50 49 31", "SPI1", "0QEMU_HARDDISK_SPI1", "SPI1"},
		{"no designator", "00 83 00 00", "A B", "SQEMU_HARDDISK_A_B", "A_B"},
		{"nothing", "00 83 00 00", "", "", ""},
		{"T10 before the vendor's own", "00 83 00 14 02 00 00 04 53 50 49 31 02 01 00 08 41 43 4d 45 20 20 20 58", "SPI1", "1ACME_X", "ACME_X"},
		{"EUI-64 before T10", "00 83 00 14 02 01 00 04 41 43 4d 45 01 02 00 08 00 11 22 33 44 55 66 77", "SPI1", "20011223344556677", "0011223344556677"},
		{"of the port", "00 83 00 08 02 10 00 04 53 50 49 31", "SPI2", "SQEMU_HARDDISK_SPI2", "SPI2"},
		{"not UTF-8", "00 83 00 07 02 00 00 03 41 ff 42", "", "0QEMU_HARDDISK_A_B", "A_B"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			names, err := parseVPD83(unhex(t, tt.page))
			if err != nil {
				t.Fatal(err)
			}
			if long, short := names.scsiID("QEMU", model, tt.unitSerial); long != tt.long || short != tt.short {
				t.Errorf("scsiID = %q, %q, want %q, %q", long, short, tt.long, tt.short)
			}
		})
	}
	names := vpd83{other: "1", otherKind: "0"}
	if long, _ := names.scsiID("EIGHTCHR", "SIXTEEN-CHARS-16", "x"); long != "0EIGHTCHRSIXTEEN-CHARS-161" {
		t.Errorf("scsiID = %q, want vendor and model in their 8 and 16 characters", long)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestInstalledMemory(t *testing.T) {
	const (
		system  = "10 0b 00 10 03 03 06 00 00 00 80 00 00 " // array 0x1000
		flash   = "10 0b 00 20 03 05 06 00 00 00 80 00 00 " // array 0x2000
		gib16   = "11 15 01 10 00 10 fe ff 48 00 40 00 00 40 09 00 01 02 1a 00 00 44 49 4d 4d 00 00 "
		kib512  = "11 15 02 10 00 10 fe ff 48 00 40 00 00 82 09 00 00 00 1a 00 00 00 00 "
		empty   = "11 15 03 10 00 10 fe ff 48 00 40 00 00 00 09 00 00 00 1a 00 00 00 00 "
		unknown = "11 15 04 10 00 10 fe ff 48 00 40 00 ff ff 09 00 00 00 1a 00 00 00 00 "
		tib1    = "11 20 05 10 00 10 fe ff 48 00 40 00 ff 7f 09 00 00 00 1a 00 00 00 00 00 00 00 00 00 00 00 10 00 00 00 "
		noExt   = "11 15 06 10 00 10 fe ff 48 00 40 00 ff 7f 09 00 00 00 1a 00 00 00 00 "
		ofFlash = "11 15 07 20 00 20 fe ff 48 00 40 00 00 40 09 00 00 00 1a 00 00 00 00 "
		short   = "11 0c 08 10 00 10 fe ff 48 00 40 00 00 00 "
		end     = "7f 04 ff fe 00 00 "
	)
	for _, tt := range []struct {
		name, tables string
		want         int64 // bytes
		err          string
	}{
		{"one", system + gib16 + end, 16 << 30, ""},
		{"KiB", system + kib512 + end, 512 << 10, ""},
		{"empty slots", system + gib16 + empty + gib16 + empty + end, 32 << 30, ""},
		{"extended", system + tib1 + end, 1 << 40, ""},
		{"flash does not count", system + gib16 + flash + ofFlash + end, 16 << 30, ""},
		{"flash before its array", ofFlash + flash + end, 0, ""},
		{"array is missing", gib16 + end, 16 << 30, ""},
		{"no end marker", system + gib16, 16 << 30, ""},
		{"padding after the end", system + gib16 + end + "01 02 03 00", 16 << 30, ""},
		{"nothing", "", 0, ""},
		{"unknown size", system + gib16 + unknown + end, 0, "memory device 0x1004: its size is unknown"},
		{"extended size is missing", system + noExt + end, 0, "memory device 0x1006: it is too short for its extended size"},
		{"too short", system + short + end, 0, "memory device 0x1008: it is too short for a size"},
		{"cut in a header", system + "11 15", 0, "structure at byte 13: 2 bytes are too few"},
		{"cut in a structure", system + "11 15 01 10 00", 0, "structure at byte 13: length of 21 bytes is wrong"},
		{"cut in the strings", system + "11 05 01 10 00 41 42 00", 0, "structure at byte 13: its strings have no end"},
		{"length of 0", "11 00 01 10 00 00", 0, "structure at byte 0: length of 0 bytes is wrong"},
		{"text", "67 61 72 62 61 67 65", 0, "structure at byte 0: length of 97 bytes is wrong"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseInstalledMemory(unhex(t, tt.tables))
			if got != tt.want || errorText(err) != tt.err {
				t.Errorf("parseInstalledMemory = %d, %v, want %d, %s", got, err, tt.want, tt.err)
			}
		})
	}
}

// What computes is known by its class, a display controller only by its vendor too: every BMC has one.
func TestAccelerators(t *testing.T) {
	for _, tt := range []struct{ vendor, class, want string }{
		{"10de", "030200", "NVIDIA GPU"}, {"10de", "030000", "NVIDIA GPU"}, {"1002", "038000", "AMD GPU"}, {"8086", "030000", "Intel GPU"}, {"1da3", "120000", "Habana accelerator"},
		{"10ee", "120000", "Xilinx accelerator"}, {"8086", "0b4000", "Intel co-processor"}, {"abcd", "030200", "GPU"}, {"abcd", "120000", "accelerator"},
		{"1a03", "030000", ""}, {"102b", "030000", ""}, {"1234", "030000", ""}, {"10de", "040300", ""}, {"10de", "0300", "NVIDIA GPU"}, {"8086", "050210", ""}, {"8086", "", ""}, {"8086", "020000", ""},
	} {
		if got := accelerator(PCIDevice{VendorID: tt.vendor, Class: tt.class}); got != tt.want {
			t.Errorf("accelerator of vendor %s and class %s is %q, want %q", tt.vendor, tt.class, got, tt.want)
		}
	}
}

func TestTPM(t *testing.T) {
	const dir = "sys/class/tpm/tpm0"
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"none", nil, "<nil>"},
		{"2.0 with two banks", map[string]string{"tpm_version_major": "2\n", "pcr-sha1/0": "", "pcr-sha384/0": ""}, "&{2.0 [sha1 sha384] }"},
		{"1.2", map[string]string{"tpm_version_major": "1\n"}, "&{1.2 [] }"},
		{"of an old kernel", map[string]string{"uevent": ""}, "&{ [] }"},
		{"of another version", map[string]string{"tpm_version_major": "\xff3\n"}, "&{_3 [] }"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := fstest.MapFS{}
			for name, text := range tt.files {
				files[dir+"/"+name] = &fstest.MapFile{Data: []byte(text)}
			}
			if got := fmt.Sprint(readTPM(&reader{ctx: t.Context(), fsys: files})); got != tt.want {
				t.Errorf("readTPM = %s, want %s", got, tt.want)
			}
		})
	}
}

func TestCXL(t *testing.T) {
	for _, tt := range []struct{ name, file, content, want, problem string }{
		{"as it is", "serial", "0x1122334455\n", "[{mem0 0000:c1:00.0 0x1122334455 1.0.7 274877906944 0 1}]", ""},
		{"no size", "ram/size", "", "[{mem0 0000:c1:00.0 0x1122334455 1.0.7 0 0 1}]", ""},
		{"a size that is none", "pmem/size", "much\n", "[{mem0 0000:c1:00.0 0x1122334455 1.0.7 274877906944 0 1}]", "mem0/pmem/size: strconv.ParseInt"},
		{"a size beyond reason", "ram/size", "0xffffffffffffffff\n", "[{mem0 0000:c1:00.0 0x1122334455 1.0.7 0 0 1}]", "value out of range"},
		{"firmware that is no text", "firmware_version", "A\xff\x00B\x00\x00", "[{mem0 0000:c1:00.0 0x1122334455 A__B 274877906944 0 1}]", ""},
		{"no node", "numa_node", "-1\n", "[{mem0 0000:c1:00.0 0x1122334455 1.0.7 274877906944 0 -1}]", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := inspecttest.Server()
			files["sys/devices/pci0000:00/0000:c1:00.0/mem0/"+tt.file] = &fstest.MapFile{Data: []byte(tt.content)}
			r := &reader{ctx: t.Context(), fsys: files}
			got, problem := fmt.Sprint(readCXL(r)), fmt.Sprint(errors.Join(r.problems()...))
			if got != tt.want || (tt.problem == "") != (r.count() == 0) || !strings.Contains(problem, tt.problem) {
				t.Errorf("readCXL = %s, %s, want %s, %q", got, problem, tt.want, tt.problem)
			}
		})
	}
}

func TestSwapUUID(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"00112233-4455-6677-8899-AABBCCDDEEFF", "33221100-5544-7766-8899-aabbccddeeff"},
		{"33221100-5544-7766-8899-aabbccddeeff", "00112233-4455-6677-8899-aabbccddeeff"},
		{"", "is no UUID"},
		{"00112233445566778899AABBCCDDEEFF", "is no UUID"},
		{"0011223-44556-6677-8899-AABBCCDDEEFF", "is no UUID"},
		{"00112233-4455-6677-8899-AABBCCDDEEFG", "is no UUID"},
		{"00112233-4455-6677-8899-AABBCCDDEEF", "is no UUID"},
		{"00112233-4455-6677-889-AABBCCDDEEFF0", "is no UUID"},
	} {
		got, err := swapUUID(tt.in)
		if got != tt.want && !strings.Contains(errorText(err), tt.want) {
			t.Errorf("swapUUID(%q) = %q, %v, want %q", tt.in, got, err, tt.want)
		}
	}
}

// recordedBytes returns one file of all the recorded machines.
func recordedBytes(f *testing.F, suffix string) (list [][]byte) {
	for _, name := range []string{"virtio", "sata-nvme", "sas"} {
		for file, entry := range inspecttest.Machine(f, "testdata/"+name+".txt") {
			if strings.HasSuffix(file, suffix) {
				list = append(list, entry.Data)
			}
		}
	}
	if len(list) == 0 {
		f.Fatal("no machine has a file " + suffix)
	}
	return list
}

func FuzzVPD80(f *testing.F) {
	for _, page := range recordedBytes(f, "/vpd_pg80") {
		f.Add(page)
	}
	f.Fuzz(func(t *testing.T, page []byte) {
		serial, err := parseVPD80(page)
		if !utf8.ValidString(serial) || err != nil && serial != "" {
			t.Errorf("parseVPD80 = %q, %v", serial, err)
		}
	})
}

func FuzzVPD83(f *testing.F) {
	for _, page := range recordedBytes(f, "/vpd_pg83") {
		f.Add(page)
	}
	f.Fuzz(func(t *testing.T, page []byte) {
		v, _ := parseVPD83(page)
		if n := len(v.naa); n != 0 && n != 16 && n != 32 {
			t.Errorf("NAA name %q", v.naa)
		}
		if long, short := v.scsiID("ACME", "DISK", ""); !utf8.ValidString(long+short) || (long == "") != (short == "") {
			t.Errorf("scsiID = %q, %q", long, short)
		}
	})
}

func FuzzInstalledMemory(f *testing.F) {
	for _, tables := range recordedBytes(f, "/DMI") {
		f.Add(tables)
	}
	f.Add(inspecttest.Tables(4))
	f.Fuzz(func(t *testing.T, tables []byte) {
		if size, err := parseInstalledMemory(tables); size < 0 || err != nil && size != 0 {
			t.Errorf("parseInstalledMemory = %d, %v", size, err)
		}
		checkSMBIOS(t, tables)
	})
}

// checkSMBIOS reads all that is read of tables.
func checkSMBIOS(t *testing.T, tables []byte) {
	list, _ := parseSMBIOS(tables)
	for _, m := range memoryModules(list) {
		if m.Size < 0 || !utf8.ValidString(m.Slot+m.Serial+m.Part+m.Manufacturer+m.Bank) {
			t.Errorf("module %+v", m)
		}
	}
	if _, err := json.Marshal(decodeDMI(list)); err != nil {
		t.Error(err)
	}
	for _, h := range hostInterfaces(list) {
		if !utf8.ValidString(h.Name) {
			t.Errorf("host interface %+v", h)
		}
	}
}

// Tables that end anywhere, or have a wrong byte anywhere, are read as far as they go.
func TestSMBIOSCutAndGarbled(t *testing.T) {
	whole := inspecttest.Tables(12)
	for i := range whole {
		checkSMBIOS(t, whole[:i])
	}
	small := inspecttest.Tables(1)
	for i := range small {
		for _, b := range []byte{0, 1, 0x7f, 0xff} {
			wrong := slices.Clone(small)
			wrong[i] = b
			checkSMBIOS(t, wrong)
		}
	}
	list, err := parseSMBIOS(whole[:len(whole)/2])
	if modules := memoryModules(list); err == nil || len(modules) == 0 || modules[0].Serial != "03B71234" {
		t.Errorf("half the tables give %+v, %v, want the first modules and an error", modules, err)
	}
}

// Every file of a machine is taken over from firmware or devices, whatever is in it.
func FuzzInventory(f *testing.F) {
	const (
		cpuinfo = "proc/cpuinfo"
		vendor  = "sys/devices/virtual/dmi/id/sys_vendor"
	)
	f.Add("model name\t: x\nflags\t: lm\n\n", "0-3", "BOOTIF=01-aa", "MemTotal: 5 kB", "ACME\x00")
	f.Add("Features: fp\nCPU architecture: 8", "0,2-1", `"BOOTIF=`, "MemTotal:", "\xff\xfe")
	f.Fuzz(func(t *testing.T, cpu, present, cmdline, meminfo, manufacturer string) {
		m := recorded(t, "virtio")
		files := inspecttest.Machine(t, "testdata/virtio.txt")
		for name, contents := range map[string]string{cpuinfo: cpu, "sys/devices/system/cpu/present": present,
			"proc/cmdline": cmdline, "proc/meminfo": meminfo, vendor: manufacturer} {
			files[name].Data = []byte(contents)
		}
		m.FS = files
		inv, _ := m.Inventory(t.Context())
		for _, s := range append(inv.CPU.Flags, inv.CPU.ModelName, string(inv.Boot.PXEInterface), inv.SystemVendor.Manufacturer) {
			if !utf8.ValidString(s) {
				t.Errorf("%q is not UTF-8", s)
			}
		}
		if inv.Memory.Total < 0 || inv.CPU.Count < 0 || len(inv.Disks) != 3 {
			t.Errorf("inventory %+v", inv)
		}
	})
}

func TestAvailableMemory(t *testing.T) {
	tests := []struct {
		name, meminfo string
		want          int64
		err           string
	}{
		{"a machine", "MemTotal:        998584 kB\nMemAvailable:    624832 kB\nBuffers: 4 kB\n", 624832 << 10, ""},
		{"none", "MemTotal:        998584 kB\n", 0, `MemAvailable is ""`},
		{"no number", "MemAvailable: much\n", 0, `MemAvailable is "much"`},
		{"negative", "MemAvailable: -1 kB\n", 0, `MemAvailable is "-1 kB"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Machine{FS: fstest.MapFS{"proc/meminfo": {Data: []byte(tt.meminfo)}}}.AvailableMemory()
			if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("AvailableMemory() = %d, %v; want %d, %q", got, err, tt.want, tt.err)
			}
		})
	}
	if _, err := (Machine{FS: fstest.MapFS{}}).AvailableMemory(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("AvailableMemory() = %v without the file", err)
	}
}
