// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
)

// hintDisks are the disks of a machine that has one of each.
func hintDisks() []Disk {
	return []Disk{
		{
			Name: "/dev/sda", Model: "SAMSUNG MZ7LM480HMHQ-00005", Vendor: "ATA", Size: 480103981056,
			Serial: "S2HTNX0H500123", Serials: []string{"S2HTNX0H500123", "SAMSUNG_MZ7LM480HMHQ-00005_S2HTNX0H500123"},
			WWN: "0x5002538c40000001", WWNs: []string{"0x5002538c40000001"}, WWNWithExtension: "0x5002538c40000001",
			HCTL: "0:0:0:0", Tran: "sata", ByPath: "/dev/disk/by-path/pci-0000:00:17.0-ata-1",
			ByPaths: []string{"/dev/disk/by-path/pci-0000:00:17.0-ata-1", "/dev/disk/by-path/pci-0000:00:17.0-ata-1.0"},
		},
		{
			Name: "/dev/sdb", Model: "ST4000NM0025", Vendor: "SEAGATE", Size: 4000787030016, Rotational: true,
			Serial: "ZC1234AB", Serials: []string{"ZC1234AB", "5000c500a1b2c3d4", "35000c500a1b2c3d4"},
			WWN: "0x5000c500a1b2c3d4", WWNs: []string{"0x5000c500a1b2c3d4"}, WWNWithExtension: "0x5000c500a1b2c3d4",
			HCTL: "1:0:0:0", Tran: "sas", ByPath: "/dev/disk/by-path/pci-0000:3b:00.0-sas-phy0-lun-0",
		},
		{
			Name: "/dev/sdc", Model: "PERC H730P Mini", Vendor: "DELL", Size: 60 << 30, Rotational: true,
			Serial: "0088776655443322",
			Serials: []string{"0088776655443322", "61866da0a1b2c3002211334455667788",
				"361866da0a1b2c3002211334455667788"},
			WWN:  "0x61866da0a1b2c3002211334455667788",
			WWNs: []string{"0x61866da0a1b2c3002211334455667788", "0x61866da0a1b2c300"},

			WWNWithExtension: "0x61866da0a1b2c3002211334455667788", WWNVendorExtension: "0x2211334455667788",
			HCTL: "2:2:0:0", ByPath: "/dev/disk/by-path/pci-0000:af:00.0-scsi-0:2:0:0",
		},
		{
			Name: "/dev/sdd", Model: "100", Vendor: "Generic", Size: 4 << 30, Rotational: true, Serial: "20220118",
			Serials: []string{"20220118", "Generic_100_20220118"}, HCTL: "3:0:0:0", Tran: "usb",
		},
		{Name: "/dev/vda", Vendor: "0x1af4", Size: 20 << 30, Rotational: true, Tran: "virtio"},
		{
			Name: "/dev/nvme0n1", Model: "INTEL SSDPE2KX010T8", Size: 1000204886016,
			Serial: "PHLJ 9140", Serials: []string{"PHLJ 9140", "INTEL_SSDPE2KX010T8_PHLJ_9140"},
			WWN: "eui.01000000010000005cd2e4a1b2c35051", WWNs: []string{"eui.01000000010000005cd2e4a1b2c35051"},
			Tran: "nvme", ByPath: "/dev/disk/by-path/pci-0000:5e:00.0-nvme-1",
		},
	}
}

// hintCases lists hints and the disks that fit, first the chosen one; or what the error says, when it begins with "!".
// The outcomes are those of ironic-python-agent's own device_hints.py on the same disks, but for the cases that say
// "unlike".
var hintCases = []struct{ hints, want string }{
	// Sizes are in GiB, and without an operator must be exact.
	{`{"size": 60}`, "sdc"},
	{`{"size": "60"}`, "sdc"},
	{`{"size": " 60 "}`, "sdc"},
	{`{"size": "== 60"}`, "sdc"},
	{`{"size": "==60"}`, "sdc"},
	{`{"size": 61}`, "!no suitable disk"},
	{`{"size": 480}`, "!no suitable disk"}, // 447.1 GiB
	{`{"size": ">= 60"}`, "sda sdb sdc nvme0n1"},
	{`{"size": ">=60"}`, "sda sdb sdc nvme0n1"},
	{`{"size": "> 60"}`, "sda sdb nvme0n1"},
	{`{"size": "= 60"}`, "sda sdb sdc nvme0n1"}, // at least
	{`{"size": "= 1000"}`, "sdb"},
	{`{"size": "< 60"}`, "vda"},
	{`{"size": "<= 60"}`, "sdc vda"},
	{`{"size": "<= 4"}`, "!/dev/sdd is a USB disk; a hint has to name it"}, // unlike,
	{`{"size": "< 4"}`, "!no suitable disk"},
	{`{"size": "!= 60"}`, "sda sdb vda nvme0n1"},
	{`{"size": "> 100000"}`, "!/dev/sdb has size 3.6 TiB, wanted \"> 100000\""},
	{`{"size": "<range-in> [ 20 60 ]"}`, "sdc vda"},                   // unlike: IPA rejects what Ironic's API takes
	{`{"size": "<range-in> ( 20 60 ]"}`, "sdc"},                       // unlike
	{`{"size": "<range-in> [ 20 60 )"}`, "vda"},                       // unlike
	{`{"size": "<range-in> ( 20 60 )"}`, "!no suitable"},              // unlike
	{`{"size": "<range-in> [ 4.0 4.0 ]"}`, "!/dev/sdd is a USB disk"}, // unlike
	{`{"size": "<range-in> [ 0.5 447.5 )"}`, "sda sdc vda"},           // unlike
	{`{"size": "<or> 60 <or> 20"}`, "sdc vda"},                        // unlike: IPA compares 60.0 and "60" as texts
	{`{"size": "<or> 60"}`, "sdc"},                                    // unlike
	{`{"size": "<or> 61 <or> 21"}`, "!no suitable disk"},
	{`{"size": "<range-in> [ 60 20 ]"}`, "!60 is more than 20"},
	{`{"size": "<range-in> [ 20 60"}`, "!two numbers in brackets"},
	{`{"size": "<range-in> 20 60"}`, "!two numbers in brackets"},
	{`{"size": "<range-in> [20 60]"}`, "!two numbers in brackets"},
	{`{"size": "<range-in> ] 20 60 ["}`, "!two numbers in brackets"},
	{`{"size": "<range-in> [( 20 60 ]"}`, "!two numbers in brackets"},
	{`{"size": "<range-in> [ a 60 ]"}`, "!\"a\" is no number"},
	{`{"size": "<range-in> [ nan nan ]"}`, "!\"nan\" is no number"},
	{`{"size": "60.5"}`, "!no whole number of GiB"},
	{`{"size": 60.0}`, "!no whole number of GiB"},
	{`{"size": "60 GiB"}`, "!no whole number of GiB"},
	{`{"size": "big"}`, "!no whole number of GiB"},
	{`{"size": 0}`, "!0 GiB is no size"},
	{`{"size": -60}`, "!-60 GiB is no size"},
	{`{"size": ">= 0"}`, "!0 GiB is no size"},
	{`{"size": ">="}`, "!nothing follows >="},
	{`{"size": ">= >= 60"}`, "!one operator too many"},
	{`{"size": ""}`, "!value is empty"},
	{`{"size": null}`, "!no whole number of GiB"},
	{`{"size": true}`, "!no whole number of GiB"},
	{`{"size": [60]}`, "!no whole number of GiB"},
	{`{"size": "s== 60"}`, "!compares texts"},
	{`{"size": "<in> 60"}`, "!compares texts"},
	{`{"size": "<all-in> 60"}`, "!needs a list"},
	{`{"size": 99999999999999999999999999}`, "!no whole number of GiB"},

	// Texts are equal without an operator; case and blanks around do not matter.
	{`{"model": "ST4000NM0025"}`, "sdb"},
	{`{"model": "st4000nm0025"}`, "sdb"},
	{`{"model": "  ST4000NM0025\t"}`, "sdb"},
	{`{"model": "ST4000"}`, "!no suitable disk"},
	{`{"model": "perc h730p mini"}`, "sdc"},
	{`{"model": "perc  h730p mini"}`, "!no suitable disk"},
	{`{"model": "PERC"}`, "!no suitable disk"},
	{`{"model": "s== PERC H730P Mini"}`, "sdc"},
	{`{"model": "s==PERC H730P Mini"}`, "sdc"},
	{`{"model": "S== PERC H730P Mini"}`, "sdc"},
	{`{"model": "s!= ST4000NM0025"}`, "sda sdc sdd vda nvme0n1"},
	{`{"model": "s< intel"}`, "sdd"},
	{`{"model": "s<= 100"}`, "sdd"},
	{`{"model": "s> samsung"}`, "sda sdb"},
	{`{"model": "s>= st4000nm0025"}`, "sdb"},
	{`{"model": "s> zzz"}`, "!no suitable disk"},
	{`{"model": "<in> samsung"}`, "sda"},
	{`{"model": "<in> SSD"}`, "nvme0n1"},
	{`{"model": "<in>ssd"}`, "nvme0n1"},
	{`{"model": "<in> h730p mini"}`, "sdc"},
	{`{"model": "<in> 20"}`, "sda sdc nvme0n1"}, // a blank is %20
	{`{"model": "<in> one"}`, "vda"},            // no model is "none"
	{`{"model": "none"}`, "vda"},
	{`{"model": "<in> toshiba"}`, "!/dev/vda has no model, wanted \"<in> toshiba\""},
	{`{"model": "<or> ST4000NM0025 <or> 100"}`, "sdb sdd"},
	{`{"model": "<or>ST4000NM0025<or>100"}`, "sdb sdd"},
	{`{"model": "<or> PERC H730P Mini <or> Intel SSDPE2KX010T8"}`, "sdc nvme0n1"},
	{`{"model": "<or> perc h730p mini"}`, "sdc"},
	{`{"model": "<or> perc <or> intel"}`, "!no suitable disk"},
	{`{"model": "<or> ST4000NM0025 <or>"}`, "sdb"},
	{`{"model": "<or>"}`, "!nothing follows <or>"},
	{`{"model": "<or> <or>"}`, "!no value in"},
	{`{"model": "<in>"}`, "!nothing follows <in>"},
	{`{"model": "<in> a <in> b"}`, "!one operator too many"}, // unlike: IPA forgets what follows
	{`{"model": "<in> <or> b"}`, "!one operator too many"},
	{`{"model": "s== s== b"}`, "!one operator too many"},
	{`{"model": "foo <in> b"}`, "!no suitable disk"},
	{`{"model": "samsung s== samsung"}`, "!no suitable disk"},
	{`{"model": "<all-in> ['a']"}`, "!needs a list"},
	{`{"model": ""}`, "!value is empty"},
	{`{"model": "   "}`, "!value is empty"},
	{`{"model": 100}`, "!value 100 is no text"},
	{`{"model": null}`, "!value null is no text"},
	{`{"model": ["100"]}`, "!is no text"},
	{`{"model": {"a": 1}}`, "!is no text"},
	{`{"model": true}`, "!value true is no text"},

	// Operators on numbers need numbers on both sides; a disk before the first that fits must have one.
	{`{"model": "== 100"}`, "!/dev/sda: == compares numbers"},
	{`{"model": ">= ST4000NM0025"}`, "!\"st4000nm0025\" is no number"},
	{`{"model": "=ST4000NM0025"}`, "!\"st4000nm0025\" is no number"},
	{`{"model": "<samsung"}`, "!\"samsung\" is no number"},
	{`{"model": "!= nan"}`, "!\"nan\" is no number"},
	{`{"name": "/dev/sdd", "model": "== 100"}`, "sdd"}, // unlike if model comes first: another hint drops the others
	{`{"vendor": "Generic", "size": 4, "serial": "== 20220118"}`, "sdd"},
	{`{"serial": "> 20000000"}`, "sdc sdd"}, // names that are no numbers do not count
	{`{"serial": "== 20220118"}`, "sdd"},
	{`{"serial": "!= 20220118"}`, "sdc"},

	// Vendors.
	{`{"vendor": "seagate"}`, "sdb"},
	{`{"vendor": "ATA"}`, "sda"},
	{`{"vendor": "0x1af4"}`, "vda"},
	{`{"vendor": "none"}`, "nvme0n1"},
	{`{"vendor": "<or> dell <or> seagate"}`, "sdb sdc"},
	{`{"vendor": "s!= seagate"}`, "sda sdc sdd vda nvme0n1"},
	{`{"vendor": "hp"}`, "!no suitable disk"},

	// Serial numbers: under any name; a disk without one never fits.
	{`{"serial": "S2HTNX0H500123"}`, "sda"},
	{`{"serial": "s2htnx0h500123"}`, "sda"},
	{`{"serial": "SAMSUNG_MZ7LM480HMHQ-00005_S2HTNX0H500123"}`, "sda"},
	{`{"serial": "5000c500a1b2c3d4"}`, "sdb"},
	{`{"serial": "35000c500a1b2c3d4"}`, "sdb"},
	{`{"serial": "PHLJ 9140"}`, "nvme0n1"},
	{`{"serial": "PHLJ_9140"}`, "!no suitable disk"},
	{`{"serial": "<in> phlj"}`, "nvme0n1"},
	{`{"serial": "<or> a1 <or> ZC1234AB"}`, "sdb"},
	{`{"serial": "none"}`, "!no suitable disk"},
	{`{"serial": "s== none"}`, "!/dev/vda has no serial"},
	{`{"serial": "s!= S2HTNX0H500123"}`, "sdb sdc sdd nvme0n1"}, // unlike: IPA takes sda by its long name
	{`{"serial": "s!= none"}`, "sda sdb sdc sdd nvme0n1"},
	{`{"serial": 20220118}`, "!value 20220118 is no text"},

	// WWNs.
	{`{"wwn": "0x5000c500a1b2c3d4"}`, "sdb"},
	{`{"wwn": "0x5000C500A1B2C3D4"}`, "sdb"},
	{`{"wwn": "5000c500a1b2c3d4"}`, "!no suitable disk"},
	{`{"wwn": "0x61866da0a1b2c300"}`, "sdc"},
	{`{"wwn": "0x61866da0a1b2c3002211334455667788"}`, "sdc"},
	{`{"wwn": "eui.01000000010000005cd2e4a1b2c35051"}`, "nvme0n1"},
	{`{"wwn": "<or> 0x1 <or> 0x5002538c40000001"}`, "sda"},
	{`{"wwn": "none"}`, "!no suitable disk"},
	{`{"wwn_with_extension": "0x61866da0a1b2c3002211334455667788"}`, "sdc"},
	{`{"wwn_with_extension": "0x61866da0a1b2c300"}`, "!no suitable disk"},
	{`{"wwn_with_extension": "none"}`, "sdd vda nvme0n1"},
	{`{"wwn_vendor_extension": "0x2211334455667788"}`, "sdc"},
	{`{"wwn_vendor_extension": "s!= none"}`, "sdc"},

	// Rotating or not.
	{`{"rotational": true}`, "sdb sdc vda"},
	{`{"rotational": false}`, "sda nvme0n1"},
	{`{"rotational": "true"}`, "sdb sdc vda"},
	{`{"rotational": "False"}`, "sda nvme0n1"},
	{`{"rotational": " no "}`, "sda nvme0n1"},
	{`{"rotational": "off"}`, "sda nvme0n1"},
	{`{"rotational": "y"}`, "sdb sdc vda"},
	{`{"rotational": 0}`, "sda nvme0n1"},
	{`{"rotational": "1"}`, "sdb sdc vda"},
	{`{"rotational": 2}`, "!2 is neither true nor false"},
	{`{"rotational": "ssd"}`, "!ssd is neither true nor false"},
	{`{"rotational": ""}`, "!neither true nor false"},
	{`{"rotational": null}`, "!null is neither true nor false"},
	{`{"rotational": "== true"}`, "!neither true nor false"},

	// Places.
	{`{"name": "/dev/sdb"}`, "sdb"},
	{`{"name": "s== /dev/nvme0n1"}`, "nvme0n1"},
	{`{"name": "<or> /dev/vda <or> /dev/sdc"}`, "sdc vda"},
	{`{"name": "sdb"}`, "!no suitable disk"},
	{`{"name": "<in> nvme"}`, "nvme0n1"},
	{`{"name": "/dev/disk/by-path/pci-0000:00:17.0-ata-1"}`, "!no suitable disk"},
	{`{"hctl": "1:0:0:0"}`, "sdb"},
	{`{"hctl": "s> 1:0:0:0"}`, "sdc sdd vda nvme0n1"},
	{`{"hctl": "none"}`, "vda nvme0n1"},
	{`{"hctl": "9:0:0:0"}`, "!no suitable disk"},
	{`{"by_path": "/dev/disk/by-path/pci-0000:00:17.0-ata-1"}`, "sda"},
	{`{"by_path": "/dev/disk/by-path/pci-0000:00:17.0-ata-1.0"}`, "sda"}, // unlike: IPA knows one of the two
	{`{"by_path": "<in> nvme"}`, "nvme0n1"},
	{`{"by_path": "pci-0000:00:17.0-ata-1"}`, "!no suitable disk"},
	{`{"tran": "nvme"}`, "nvme0n1"},
	{`{"tran": "s!= usb"}`, "sda sdb sdc vda nvme0n1"},
	{`{"tran": "<or> sas <or> sata"}`, "sda sdb"},
	{`{"tran": "none"}`, "sdc"},

	// All hints must fit.
	{`{"rotational": false, "size": ">= 500"}`, "nvme0n1"},
	{`{"rotational": true, "vendor": "ATA"}`, "!/dev/sda has rotational false, wanted \"true\""},
	{`{"size": ">= 10", "rotational": "yes", "tran": "s!= sas"}`, "sdc vda"},
	{`{"size": 60, "model": "<in> perc", "wwn": "0x61866da0a1b2c300", "hctl": "2:2:0:0"}`, "sdc"},

	// What is no hints.
	{`{"colour": "red"}`, "!hint \"colour\" is not one of size, model"},
	{`{"Size": 60}`, "!hint \"Size\" is not one of"},
	{`{"size": 60, "volume_name": "a"}`, "!hint \"volume_name\""},
	{`[]`, "!invalid hints: json"},
	{`"sda"`, "!invalid hints: json"},
	{`{"size": 60`, "!invalid hints: unexpected end"},
	{`{"model": "` + strings.Repeat("x", maxHints) + `"}`, "!more than 65536"},

	// No hints: the smallest disk of 4 GiB or more.
	{``, "vda sdc sda nvme0n1 sdb"},
	{`null`, "vda sdc sda nvme0n1 sdb"},
	{` {} `, "vda sdc sda nvme0n1 sdb"},
}

func TestHintsChoose(t *testing.T) {
	for _, tt := range hintCases {
		name := tt.hints[:min(len(tt.hints), 60)]
		t.Run(name, func(t *testing.T) {
			got := outcome(tt.hints)
			if want, isError := strings.CutPrefix(tt.want, "!"); isError && (got[:1] != "!" || !strings.Contains(got, want)) ||
				!isError && got != want {
				t.Errorf("Choose(%s) = %s, want %s", name, got, tt.want)
			}
		})
	}
}

// outcome chooses among hintDisks; the result is the disks that fit, or "!" and the error.
func outcome(hints string) string {
	h, err := ParseHints(json.RawMessage(hints))
	if err != nil {
		return "!" + err.Error()
	}
	choice, err := h.Choose(hintDisks())
	if err != nil {
		return "!" + err.Error()
	}
	return names(append([]Disk{choice.Disk}, choice.Others...))
}

func names(disks []Disk) string {
	var list []string
	for _, d := range disks {
		list = append(list, strings.TrimPrefix(d.Name, "/dev/"))
	}
	return strings.Join(list, " ")
}

// What the hints drop is said with the value that the disk had, for every disk.
func TestHintsExplain(t *testing.T) {
	h, err := ParseHints(json.RawMessage(`{"rotational": true, "size": ">= 50", "wwn": "0x5000c500a1b2c3d4"}`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range h.Explain(hintDisks()) {
		got = append(got, w.String())
	}
	want := []string{
		`/dev/sda has wwn 0x5002538c40000001, wanted "0x5000c500a1b2c3d4"`,
		`/dev/sdb fits`,
		`/dev/sdc has wwn 0x61866da0a1b2c3002211334455667788, wanted "0x5000c500a1b2c3d4"`,
		`/dev/sdd has size 4.0 GiB, wanted ">= 50"`,
		`/dev/vda has size 20.0 GiB, wanted ">= 50"`,
		`/dev/nvme0n1 has wwn eui.01000000010000005cd2e4a1b2c35051, wanted "0x5000c500a1b2c3d4"`,
	}
	if diff := lineDiff(strings.Join(want, "\n"), strings.Join(got, "\n")); diff != "" {
		t.Errorf("Explain:\n%s", diff)
	}

	// Without hints the rule for them counts.
	small := hintDisks()[:1]
	small[0].Size = 1 << 30
	if got, want := (Hints{}).Explain(small)[0].String(), `/dev/sda has size 1.0 GiB, wanted ">= 4 GiB"`; got != want {
		t.Errorf("Explain: %s\nwant     %s", got, want)
	}

	h, err = ParseHints(json.RawMessage(`{"model": "> 5"}`))
	if err != nil {
		t.Fatal(err)
	}
	w := h.Explain(hintDisks())[2]
	if got, want := w.String(), `/dev/sdc has model PERC H730P Mini (> compares numbers, and model "perc%20h730p%20mini" is no number), wanted "> 5"`; got != want {
		t.Errorf("Explain: %s\nwant     %s", got, want)
	}
}

func TestHintsErrors(t *testing.T) {
	for _, tt := range []struct {
		name, hints string
		want        error
	}{
		{"not JSON", `{`, ErrHints},
		{"unknown", `{"colour": "red"}`, ErrHints},
		{"no number", `{"size": "big"}`, ErrHints},
		{"no number on the disk", `{"model": "> 5"}`, ErrHints},
		{"none fits", `{"name": "/dev/sdx"}`, ErrNoDisk},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, err := ParseHints(json.RawMessage(tt.hints))
			if err == nil {
				_, err = h.Choose(hintDisks())
			}
			if !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
}

func TestNoDiskIsBounded(t *testing.T) {
	var disks []Disk
	for i := range 500 {
		disks = append(disks, Disk{Name: fmt.Sprintf("/dev/sd%d", i), Model: Text(strings.Repeat("M", 1000)), Size: 1 << 30})
	}
	h, err := ParseHints(json.RawMessage(`{"model": "other"}`))
	if err != nil {
		t.Fatal(err)
	}
	for name, choose := range map[string]func([]Disk) (Choice, error){"hints": h.Choose, "default": DefaultDisk} {
		_, err := choose(disks)
		if err == nil || !strings.HasSuffix(err.Error(), "; and 484 disks more") || len(err.Error()) > 4096 {
			t.Errorf("%s: error %.300v..., want 16 disks and the number of the others", name, err)
		}
	}
}

func TestDefaultDisk(t *testing.T) {
	const gib = 1 << 30
	for _, tt := range []struct {
		name  string
		disks []Disk
		want  string // as outcome
	}{
		{"none", nil, "!the machine has no disks"},
		{"too small", []Disk{{Name: "/dev/sda", Size: 4*gib - 512}, {Name: "/dev/sdb", Size: gib}},
			"!at least 4 GiB, as there are no hints: /dev/sdb has size 1.0 GiB, wanted \">= 4 GiB\"; /dev/sda has size 4.0 GiB"},
		{"just enough", []Disk{{Name: "/dev/sda", Size: 4 * gib}}, "sda"},
		{"smallest", []Disk{{Name: "/dev/sda", Size: 9 * gib}, {Name: "/dev/sdb", Size: 5 * gib}, {Name: "/dev/sdc", Size: gib}}, "sdb sda"},
		{"first name among equals", []Disk{{Name: "/dev/sdc", Size: 9 * gib}, {Name: "/dev/sdb", Size: 9 * gib}}, "sdb sdc"},
		{"read-only", []Disk{{Name: "/dev/sda", Size: 9 * gib}, {Name: "/dev/sdb", Size: 5 * gib, ReadOnly: true}}, "sda"},
		{"USB", []Disk{{Name: "/dev/sda", Size: 9 * gib}, {Name: "/dev/sdb", Size: 5 * gib, Tran: "usb"}}, "sda"},
		{"removable", []Disk{{Name: "/dev/sda", Size: 9 * gib}, {Name: "/dev/sdb", Size: 5 * gib, Removable: true}}, "sda"},
		{"none of them", []Disk{{Name: "/dev/sda", Size: 9 * gib, Tran: "usb"}, {Name: "/dev/sdb", Size: 5 * gib, ReadOnly: true}, {Name: "/dev/sdc", Size: gib}},
			"!/dev/sdc has size 1.0 GiB, wanted \">= 4 GiB\"; /dev/sdb is read-only; /dev/sda is a USB disk; a hint has to name it"},
		{"serial unread", []Disk{{Name: "/dev/sda", Size: 9 * gib, Unread: []string{"serial"}}}, "sda"},
		{"size unread", []Disk{{Name: "/dev/sda", Size: 9 * gib}, {Name: "/dev/sdb", Unread: []string{"size"}}}, "?/dev/sdb: disk could not be read: size"},
		{"state unread", []Disk{{Name: "/dev/sda", Size: 9 * gib, Unread: []string{"read-only"}}}, "?/dev/sda: disk could not be read: read-only"},
		{"transport unread", []Disk{{Name: "/dev/sda", Size: 9 * gib, Unread: []string{"tran"}}}, "?/dev/sda: disk could not be read: tran"},
		{"too small for it to matter", []Disk{{Name: "/dev/sda", Size: 9 * gib}, {Name: "/dev/sdb", Size: gib, Unread: []string{"read-only"}}}, "sda"},
		{"names as texts", []Disk{{Name: "/dev/sdb", Size: 9 * gib}, {Name: "/dev/sdaa", Size: 9 * gib}}, "sdaa sdb"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := names(tt.disks)
			choice, err := DefaultDisk(tt.disks)
			got := names(append([]Disk{choice.Disk}, choice.Others...))
			wantIs := ErrNoDisk
			if strings.HasPrefix(tt.want, "?") {
				wantIs = ErrUnread
			}
			if want := strings.TrimLeft(tt.want, "!?"); want != tt.want {
				if !errors.Is(err, wantIs) || !strings.Contains(err.Error(), want) {
					t.Errorf("DefaultDisk = %v, want %q", err, want)
				}
			} else if err != nil || got != want {
				t.Errorf("DefaultDisk = %s, %v, want %s", got, err, want)
			}
			if names(tt.disks) != before {
				t.Errorf("the list is now %s, was %s", names(tt.disks), before)
			}
		})
	}
}

// dying is a machine on which reading some files fails.
type dying struct {
	fstest.MapFS
	files []string
	err   error
}

func (d dying) Open(name string) (fs.File, error) {
	f, err := d.MapFS.Open(name)
	if err == nil && slices.Contains(d.files, name) {
		return dyingFile{f, d.err}, nil
	}
	return f, err
}

type dyingFile struct {
	fs.File
	err error
}

func (d dyingFile) Read([]byte) (int, error) { return 0, d.err }

// A value that cannot be read fits no hint, and the disk that has it is never passed over for the next one.
func TestUnread(t *testing.T) {
	machine := func(unread ...string) dying {
		m := fstest.MapFS{}
		for i, name := range []string{"sda", "sdb"} {
			for file, content := range map[string]string{
				"size": fmt.Sprint((i + 10) << 21), "ro": "0", "removable": "0", "queue/rotational": fmt.Sprint(1 - i), "queue/logical_block_size": "512",
				"device/type": "0", "device/vendor": "ACME", "device/model": "M" + name, "device/vpd_pg80": "\x00\x80\x00\x03S0" + fmt.Sprint(i), "device/wwid": "naa.5000c500a1b2c3d" + fmt.Sprint(i),
			} {
				m["sys/block/"+name+"/"+file] = &fstest.MapFile{Data: []byte(content)}
			}
			m["sys/block/"+name+"/device/scsi_device/"+fmt.Sprint(i)+":0:0:0/dev"] = &fstest.MapFile{}
		}
		for i, f := range unread {
			unread[i] = "sys/block/" + f
		}
		return dying{m, unread, syscall.EIO}
	}
	tests := []struct {
		name   string
		unread []string
		hints  string
		want   string // "!" in front: an ErrUnread with this
	}{
		{"all is read", nil, `{"rotational": false}`, "sdb"},
		{"rotational of the wrong one", []string{"sda/queue/rotational"}, `{"rotational": false}`, "!/dev/sda: disk could not be read: rotational"},
		{"rotational of the right one", []string{"sda/queue/rotational"}, `{"rotational": true}`, "!/dev/sda: disk could not be read: rotational"},
		{"another hint drops it", []string{"sda/queue/rotational"}, `{"rotational": false, "serial": "S01"}`, "sdb"},
		{"a disk further on", []string{"sdb/queue/rotational"}, `{"rotational": true}`, "sda"},
		{"not asked for", []string{"sda/queue/rotational"}, `{"serial": "S00"}`, "sda"},
		{"serial of another one", []string{"sda/device/vpd_pg80"}, `{"serial": "S01"}`, "sdb"},
		{"serial of the one", []string{"sdb/device/vpd_pg80"}, `{"serial": "S01"}`, "!/dev/sdb: disk could not be read: serial"},
		{"serial, one of two", []string{"sda/device/vpd_pg80"}, `{"serial": "<or> s00 <or> s01"}`, "!/dev/sda: disk could not be read: serial"},
		{"serial that must differ", []string{"sda/device/vpd_pg80"}, `{"serial": "s!= X"}`, "!/dev/sda: disk could not be read: serial"},
		{"model that must differ", []string{"sda/device/model"}, `{"model": "s!= X"}`, "!/dev/sda: disk could not be read: model"},
		{"vendor, one of two", []string{"sda/device/vendor"}, `{"vendor": "<or> none <or> acme"}`, "!/dev/sda: disk could not be read: vendor"},
		{"size", []string{"sda/size"}, `{"size": "< 20"}`, "!/dev/sda: disk could not be read: size"},
		{"size, none given", []string{"sda/size"}, `{}`, "!/dev/sda: disk could not be read: size"},
		{"state", []string{"sda/ro"}, `{"serial": "S00"}`, "!/dev/sda: disk could not be read: read-only"},
		{"type", []string{"sda/device/type"}, `{}`, "!/dev/sda: disk could not be read: type"},
		{"removable, but named", []string{"sda/removable"}, `{"serial": "S00"}`, "sda"},
		{"removable, not named", []string{"sda/removable"}, `{"size": 10}`, "!/dev/sda: disk could not be read: removable"},
		{"name", []string{"sda/device/wwid"}, `{"wwn": "0x5000c500a1b2c3d0"}`, "!/dev/sda: disk could not be read: wwn"},
		{"serial, none asked for", []string{"sda/device/vpd_pg80"}, `{}`, "sda"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, err := ParseHints(json.RawMessage(tt.hints))
			if err != nil {
				t.Fatal(err)
			}
			disks, unread := Machine{FS: machine(tt.unread...)}.Disks(t.Context())
			if (unread != nil) != (tt.unread != nil) {
				t.Errorf("Disks() = %v", unread)
			}
			choice, err := h.Choose(disks)
			if want, isError := strings.CutPrefix(tt.want, "!"); isError {
				if !errors.Is(err, ErrUnread) || !strings.Contains(err.Error(), want) {
					t.Errorf("Choose(%s) = %s, %v, want %q", tt.hints, choice.Disk.Name, err, want)
				}
			} else if err != nil || choice.Disk.Name != "/dev/"+want {
				t.Errorf("Choose(%s) = %s, %v, want %s", tt.hints, choice.Disk.Name, err, want)
			}
		})
	}
}

// A disk that has no name for itself is no dying disk: the kernel has the file all the same, and it cannot be read.
func TestNoWWID(t *testing.T) {
	for _, why := range []error{syscall.EINVAL, syscall.ENXIO} {
		m := dying{fstest.MapFS{
			"sys/block/sda/size": {Data: []byte("20971520")}, "sys/block/sda/device/type": {Data: []byte("0")}, "sys/block/sda/device/wwid": {},
			"sys/block/sda/device/vpd_pg80": {Data: []byte("\x00\x80\x00\x03S00")}, "sys/block/sda/device/scsi_device/0:0:0:0/dev": {},
		}, []string{"sys/block/sda/device/wwid"}, why}
		disks, err := Machine{FS: m}.Disks(t.Context())
		if err != nil || len(disks) != 1 || disks[0].Unread != nil || disks[0].Serial != "S00" {
			t.Errorf("%v: Disks() = %+v, %v", why, disks, err)
		}
	}
}

// A disk is written to if it can be, and one that somebody may have plugged in only if somebody has named it.
func TestChooseWritable(t *testing.T) {
	stick := Disk{Name: "/dev/sda", Size: 64 << 30, Tran: "usb", Serial: "S", Serials: []string{"S"}}
	card := Disk{Name: "/dev/sdb", Size: 64 << 30, Removable: true, Serial: "C", Serials: []string{"C"}}
	locked := Disk{Name: "/dev/sdc", Size: 64 << 30, ReadOnly: true, Serial: "L", Serials: []string{"L"}}
	disk := Disk{Name: "/dev/sdd", Size: 64 << 30, Serial: "D", Serials: []string{"D"}}
	for hints, want := range map[string]string{
		`{"size": ">= 60"}`: "/dev/sdd", `{"rotational": false}`: "/dev/sdd", `{"serial": "S"}`: "/dev/sda", `{"name": "/dev/sdb", "size": 64}`: "/dev/sdb",
		`{"tran": "usb"}`: "/dev/sda", `{"serial": "L"}`: "!/dev/sdc is read-only", `{"serial": "X"}`: `!/dev/sdc has serial L, wanted "X"`,
	} {
		h, err := ParseHints(json.RawMessage(hints))
		if err != nil {
			t.Fatal(err)
		}
		choice, err := h.Choose([]Disk{stick, card, locked, disk})
		if text, isError := strings.CutPrefix(want, "!"); isError {
			if !errors.Is(err, ErrNoDisk) || !strings.Contains(err.Error(), text) {
				t.Errorf("Choose(%s) = %v, %v, want %q", hints, choice.Disk.Name, err, text)
			}
		} else if err != nil || choice.Disk.Name != want {
			t.Errorf("Choose(%s) = %s, %v, want %s", hints, choice.Disk.Name, err, want)
		}
	}
	// To be left alone is another matter.
	h, err := ParseHints(json.RawMessage(`{"serial": "<or> s <or> l"}`))
	if err != nil {
		t.Fatal(err)
	}
	if fitting, err := h.Matching([]Disk{stick, locked, disk}); err != nil || names(fitting) != "sda sdc" {
		t.Errorf("Matching(%v) = %s, %v", h, names(fitting), err)
	}
}

func TestSkipList(t *testing.T) {
	disks := append(hintDisks(), Disk{Name: "/dev/md0", Type: "raid1", Size: 1 << 40}, Disk{Name: "/dev/md1", Type: "raid5", Size: 1 << 40})
	for _, tt := range []struct {
		name, list, use, skip string
		want                  string // in the error
	}{
		{name: "nothing", list: ``, use: "sda sdb sdc sdd vda nvme0n1 md0 md1"},
		{name: "null", list: `null`, use: "sda sdb sdc sdd vda nvme0n1 md0 md1"},
		{name: "empty", list: `[]`, use: "sda sdb sdc sdd vda nvme0n1 md0 md1"},
		{name: "one hint, several disks", list: `[{"tran": "<or> usb <or> sas"}]`, use: "sda sdc vda nvme0n1 md0 md1", skip: "sdb sdd"},
		{name: "several entries", list: `[{"name": "/dev/sdb"}, {"name": "/dev/sda"}, {"size": ">= 1000000"}]`, use: "sdc sdd vda nvme0n1 md0 md1", skip: "sda sdb"},
		{name: "all", list: `[{"size": ">= 1"}]`, skip: "sda sdb sdc sdd vda nvme0n1 md0 md1"},
		{name: "an array", list: `[{"volume_name": "data"}, {"tran": "usb"}]`, use: "sda sdb sdc vda nvme0n1", skip: "sdd md0 md1"},
		{name: "no list", list: `{"name": "/dev/sdb"}`, want: "skip list"},
		{name: "no object", list: `["/dev/sdb"]`, want: "entry 1"},
		{name: "null entry", list: `[null]`, want: "entry 1 has no hints"},
		{name: "empty entry", list: `[{"tran": "usb"}, {}]`, want: "entry 2 has no hints"},
		{name: "unknown hint", list: `[{"nam": "/dev/sdb"}]`, want: "entry 1: invalid hints: hint \"nam\""},
		{name: "volume name is no text", list: `[{"volume_name": 5}]`, want: "entry 1"},
		{name: "not comparable", list: `[{"model": "> 5"}]`, want: "skip list: invalid hints: /dev/sda: > compares numbers"},
		{name: "too long", list: strings.Repeat(" ", maxHints+1), want: "longer than 65536"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list, err := ParseSkipList(json.RawMessage(tt.list))
			var use, skip []Disk
			if err == nil {
				use, skip, err = list.Split(disks)
			}
			if tt.want != "" {
				if err == nil || !errors.Is(err, ErrHints) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want %q", err, tt.want)
				}
				return
			}
			if err != nil || names(use) != tt.use || names(skip) != tt.skip {
				t.Errorf("Split = %q, %q, %v, want %q, %q", names(use), names(skip), err, tt.use, tt.skip)
			}
		})
	}
}

// Whatever the hints are, they are refused or give the same answer twice, and a disk that they explain as fitting is the
// one chosen.
func FuzzHints(f *testing.F) {
	for _, tt := range hintCases {
		if len(tt.hints) < 1000 {
			f.Add([]byte(tt.hints))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, err := ParseHints(raw)
		if err != nil {
			if !errors.Is(err, ErrHints) {
				t.Errorf("error %v is not %v", err, ErrHints)
			}
			return
		}
		disks := hintDisks()
		choice, err := h.Choose(disks)
		if err != nil && !errors.Is(err, ErrHints) && !errors.Is(err, ErrNoDisk) {
			t.Errorf("error %v is neither %v nor %v", err, ErrHints, ErrNoDisk)
		}
		if err != nil || h.Empty() {
			return
		}
		why := h.Explain(disks)
		i := slices.IndexFunc(why, func(w Why) bool { return w.Kept })
		if i < 0 || disks[i].Name != choice.Disk.Name {
			t.Errorf("%s: chosen %s, explained %v", h, choice.Disk.Name, why)
		}
	})
}

func FuzzSkipList(f *testing.F) {
	f.Add([]byte(`[{"volume_name": "data"}, {"tran": "usb"}]`))
	f.Add([]byte(`[null, {}, {"size": 5}]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, err := ParseSkipList(raw)
		if err != nil {
			return
		}
		if use, skip, err := list.Split(hintDisks()); err == nil && len(use)+len(skip) != len(hintDisks()) {
			t.Errorf("%d disks to use and %d to skip of %d", len(use), len(skip), len(hintDisks()))
		}
	})
}
