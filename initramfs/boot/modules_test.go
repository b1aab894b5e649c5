// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// Lines of Debian's 6.1 kernel, and some made up to be difficult.
const (
	testDep = `kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko kernel/fs/mbcache.ko kernel/fs/jbd2/jbd2.ko
kernel/lib/crc16.ko:
kernel/fs/mbcache.ko:
kernel/fs/jbd2/jbd2.ko: kernel/arch/x86/crypto/missing.ko
kernel/crypto/crc32c_generic.ko:
kernel/arch/x86/crypto/crc32c-intel.ko:
kernel/drivers/usb/storage/usb-storage.ko: kernel/drivers/scsi/scsi_mod.ko kernel/drivers/usb/core/usbcore.ko kernel/drivers/usb/common/usb-common.ko
kernel/drivers/scsi/scsi_mod.ko: kernel/drivers/scsi/scsi_common.ko
kernel/drivers/scsi/scsi_common.ko:
kernel/drivers/usb/core/usbcore.ko: kernel/drivers/usb/common/usb-common.ko
kernel/drivers/usb/common/usb-common.ko:
kernel/lib/libcrc32c.ko:
kernel/fs/xfs/xfs.ko: kernel/lib/libcrc32c.ko
kernel/a/first.ko:
kernel/a/second.ko: kernel/a/first.ko
kernel/a/left.ko:
kernel/a/right.ko:
kernel/a/after.ko:
kernel/a/orphan.ko: kernel/a/gone.ko
kernel/a/lone.ko:
kernel/a/slash.ko.xz:
`
	testAlias = `# Aliases extracted from modules themselves.
alias usb:v*p*d*dc*dsc*dp*ic08isc06ip50in* usb_storage
alias pci:v00001AF4d00001041sv*sd*bc*sc*i* virtio_net
alias pci:v*d*sv*sd*bc01sc06i01* ahci
alias crypto-crc32c crc32c_intel
alias crc32c crc32c_intel
alias crypto-crc32c crc32c_generic
alias crc32c crc32c_generic
alias fs-ext4 ext4
alias dmi*:svnA*:pnB[12]*: slash
alias acpi*:PNP0700:* floppy
`
	testSoftdep = `softdep ext4 pre: crypto-crc32c
softdep libcrc32c pre: crc32c
softdep cifs gcm
softdep first pre: second
softdep left post: right pre: nothere
softdep right post: left after
softdep lone pre: orphan
`
	testBuiltin = "kernel/arch/x86/crypto/missing.ko\nkernel/fs/built-in.ko\n"
)

func testTables() fstest.MapFS {
	return fstest.MapFS{
		"modules.dep":     {Data: []byte(testDep)},
		"modules.alias":   {Data: []byte(testAlias)},
		"modules.softdep": {Data: []byte(testSoftdep)},
		"modules.builtin": {Data: []byte(testBuiltin)},
	}
}

func printPlan(loads []Load) string {
	var b strings.Builder
	for _, l := range loads {
		b.WriteString(l.Name)
		if len(l.After) > 0 {
			b.WriteString("(" + strings.Join(l.After, " ") + ")")
		}
		b.WriteString(" ")
	}
	return strings.TrimSpace(b.String())
}

func TestPlan(t *testing.T) {
	m, err := ReadModules(testTables())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, wanted, want, wantErr string }{
		{"nothing", "", "", ""},
		{"alone", "crc16", "crc16", ""},
		{"what it needs, deepest first", "usb-storage", "usb_common usbcore(usb_common) scsi_common scsi_mod(scsi_common) usb_storage(usb_common usbcore scsi_mod)", ""},
		{"soft dependencies by alias, and a built-in one left out", "ext4",
			"crc32c_intel crc32c_generic jbd2 mbcache crc16 ext4(jbd2 mbcache crc16 crc32c_intel crc32c_generic)", ""},
		{"soft dependency of what it needs", "xfs", "crc32c_intel crc32c_generic libcrc32c(crc32c_intel crc32c_generic) xfs(libcrc32c)", ""},
		{"by alias", "fs-ext4", "crc32c_intel crc32c_generic jbd2 mbcache crc16 ext4(jbd2 mbcache crc16 crc32c_intel crc32c_generic)", ""},
		{"shared needs once", "usbcore scsi_mod usb_storage", "usb_common usbcore(usb_common) scsi_common scsi_mod(scsi_common) usb_storage(usb_common usbcore scsi_mod)", ""},
		{"built in", "built_in", "", ""},
		{"soft dependency that needs it", "first", "first", ""},
		{"the same from the other end", "second", "first second(first)", ""},
		{"post, in a circle", "left", "left right(left) after(right)", ""},
		{"soft dependency that is not complete", "lone", "lone", ""},
		{"unknown", "nosuch", "", "module nosuch is not in the ramdisk, nor built in"},
		{"unknown among known", "nosuch crc16", "crc16", "module nosuch is not in the ramdisk, nor built in"},
		{"needs what is not there", "orphan crc16", "crc16", "module orphan: module gone is not in the ramdisk, nor built in"},
		{"alias of what is not there", "acpi:PNP0700:", "", "module floppy is not in the ramdisk, nor built in"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			loads, err := m.Plan(strings.Fields(test.wanted)...)
			if got := printPlan(loads); got != test.want {
				t.Errorf("Plan(%s) =\n%s, want\n%s", test.wanted, got, test.want)
			}
			if got := errString(err); got != test.wantErr {
				t.Errorf("Plan(%s) error = %q, want %q", test.wanted, got, test.wantErr)
			}
		})
	}
}

func TestMatch(t *testing.T) {
	m, err := ReadModules(testTables())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ modalias, want string }{
		{"usb:v0781p5567d0126dc00dsc00dp00ic08isc06ip50in00", "usb_storage"},
		{"pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00", "virtio_net"},
		{"pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01", "ahci"},
		{"crc32c", "crc32c_intel crc32c_generic"},
		{"acpi:PNP0700:", "floppy"},
		{"dmi:bvnX/Y:svnA/C:pnB2/D:", "slash"},
		{"pci:v00001AF4d00001042sv00001AF4sd00001100bc02sc00i00", ""},
		{"usb:v0781p5567d0126dc00dsc00dp00ic08isc06ip62in00", ""},
		{"dmi:bvnX:svnA:pnB3:", ""},
		{"crc32c_", ""},
		{"", ""},
	}
	for _, test := range tests {
		t.Run(test.modalias, func(t *testing.T) {
			if got := strings.Join(m.Match(test.modalias), " "); got != test.want {
				t.Errorf("Match(%s) = %s, want %s", test.modalias, got, test.want)
			}
		})
	}
}

func TestReadModulesRefuses(t *testing.T) {
	tests := []struct{ name, file, content, want string }{
		{"no colon", "modules.dep", "kernel/a.ko\n", `read module tables: modules.dep:1: no colon in "kernel/a.ko"`},
		{"outside", "modules.dep", "a.ko:\n../../a.ko:\n", `read module tables: modules.dep:2: "../../a.ko" is not a path below the directory of modules`},
		{"absolute", "modules.dep", "/a.ko:\n", `read module tables: modules.dep:1: "/a.ko" is not a path below the directory of modules`},
		{"alias of nothing", "modules.alias", "alias pci:*\n", `read module tables: modules.alias:1: "alias pci:*" is not an alias`},
		{"bad pattern", "modules.alias", "alias a[ b\n", `read module tables: modules.alias:1: alias "a[": syntax error in pattern`},
		{"not a softdep", "modules.softdep", "alias a b\n", `read module tables: modules.softdep:1: "alias a b" is not a soft dependency`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := testTables()
			dir[test.file] = &fstest.MapFile{Data: []byte(test.content)}
			_, err := ReadModules(dir)
			if got := errString(err); got != test.want {
				t.Errorf("ReadModules error = %q, want %q", got, test.want)
			}
		})
	}
	t.Run("too large", func(t *testing.T) {
		dir := testTables()
		dir["modules.alias"] = &fstest.MapFile{Data: slices.Repeat([]byte("#\n"), maxTable/2+1)}
		if _, err := ReadModules(dir); err == nil {
			t.Error("ReadModules took a table of more than the most")
		}
	})
	t.Run("no table", func(t *testing.T) {
		if _, err := ReadModules(fstest.MapFS{}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("ReadModules error = %v, want that there is none", err)
		}
	})
}

// modprobe is the judge of what a module needs, and in which order.
func TestPlanAsModprobe(t *testing.T) {
	dir := os.Getenv("IRONHAND_BUILD")
	if dir == "" {
		dir = "../../build"
	}
	dir = filepath.Join(dir, "kernel")
	versions, err := filepath.Glob(filepath.Join(dir, "lib/modules/*/modules.dep"))
	if err != nil {
		t.Fatal(err)
	}
	modprobe, err := exec.LookPath("modprobe")
	if err != nil {
		modprobe, err = exec.LookPath("/sbin/modprobe")
	}
	if err != nil || len(versions) == 0 {
		t.Skip("needs modprobe and an unpacked kernel: run `make packages kernel`")
	}
	tables := filepath.Dir(versions[0])
	m, err := ReadModules(os.DirFS(tables))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ext4", "xfs", "btrfs", "usb_storage", "virtio_net", "mlx5_core", "mpt3sas", "nvme", "sd_mod", "bonding", "i40e", "raid456"} {
		t.Run(name, func(t *testing.T) {
			out, err := exec.Command(modprobe, "-C", "/dev/null", "-d", dir, "-S", filepath.Base(tables), "--show-depends", "--ignore-install", name).Output()
			if err != nil {
				t.Fatalf("modprobe: %v", err)
			}
			var want []string
			for line := range strings.Lines(string(out)) {
				if f := strings.Fields(line); f[0] == "insmod" {
					want = append(want, moduleName(f[1]))
				}
			}
			loads, err := m.Plan(name)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, l := range loads {
				for _, a := range l.After {
					if !slices.Contains(got, a) {
						t.Errorf("%s comes before %s, which it is after", l.Name, a)
					}
				}
				got = append(got, l.Name)
			}
			for _, w := range want {
				if !slices.Contains(got, w) {
					t.Errorf("Plan(%s) = %v lacks modprobe's %s", name, got, w)
				}
			}
		})
	}
}

func TestModaliases(t *testing.T) {
	sys := fstest.MapFS{
		"devices/pci0000:00/0000:00:01.0/modalias":         {Data: []byte("pci:one\n")},
		"devices/pci0000:00/0000:00:02.0/modalias":         {Data: []byte("pci:one\n")},
		"devices/pci0000:00/0000:00:02.0/virtio0/modalias": {Data: []byte("virtio:two\n")},
		"devices/system/cpu/cpu0/modalias":                 {Data: []byte("\n")},
		"devices/virtual/net/lo/uevent":                    {Data: []byte("MODALIAS=no\n")},
	}
	got, err := modaliases(sys)
	if err != nil || strings.Join(got, " ") != "pci:one virtio:two" {
		t.Errorf("modaliases = %v, %v; want pci:one virtio:two", got, err)
	}
}

func TestModaliasesAbove(t *testing.T) {
	sys := fstest.MapFS{
		"devices/pci0000:00/0000:00:01.0/modalias":                 {Data: []byte("pci:bridge\n")},
		"devices/pci0000:00/0000:00:01.0/0000:01:00.0/modalias":    {Data: []byte("pci:controller\n")},
		"devices/pci0000:00/0000:00:01.0/0000:01:00.0/ata1/uevent": {Data: []byte("DEVTYPE=ata_port\n")},
		"devices/pci0000:00/0000:00:02.0/modalias":                 {Data: []byte("pci:other\n")},
		"devices/broken/modalias/x":                                {Data: []byte("a file is awaited here\n")},
	}
	tests := []struct{ name, device, want, wantErr string }{
		{"below two", "/devices/pci0000:00/0000:00:01.0/0000:01:00.0/ata1/host0/target0:0:0/0:0:0:0", "pci:controller pci:bridge", ""},
		{"itself does not count", "/devices/pci0000:00/0000:00:01.0", "", ""},
		{"gone", "/devices/pci0000:00/0000:00:01.0/0000:07:00.0/virtio0", "pci:bridge", ""},
		{"at the top", "/module", "", ""},
		{"unreadable", "/devices/broken/virtio0", "", "read the aliases of the devices above /devices/broken/virtio0: read devices/broken/modalias: invalid argument"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := modaliasesAbove(sys, test.device)
			if strings.Join(got, " ") != test.want || errString(err) != test.wantErr {
				t.Errorf("modaliasesAbove = %v, %q; want %s, %q", got, errString(err), test.want, test.wantErr)
			}
		})
	}
}

func TestLive(t *testing.T) {
	sys := fstest.MapFS{
		"ready/initstate":    {Data: []byte("live\n")},
		"starting/initstate": {Data: []byte("coming\n")},
		"ending/initstate":   {Data: []byte("going\n")},
		"builtin/parameters": {Mode: fs.ModeDir},
	}
	for name, want := range map[string]bool{"ready": true, "starting": false, "ending": false, "builtin": true, "absent": false} {
		if got := live(sys, name); got != want {
			t.Errorf("live(%s) = %v, want %v", name, got, want)
		}
	}
}

func TestModuleParameters(t *testing.T) {
	tests := []struct{ name, cmdline, module, want string }{
		{"none", "quiet", "ext4", ""},
		{"built-in default", "", "bonding", "max_bonds=0"},
		{"added to the default, which it overrides", "bonding.max_bonds=1", "bonding", "max_bonds=0 max_bonds=1"},
		{"dash", "usb-storage.delay_use=0 usb_storage.quirks=1:2:u", "usb_storage", "delay_use=0 quirks=1:2:u"},
		{"without value", "nvme.poll", "nvme", "poll"},
		{"with a space", `"a.b=c d"`, "a", `b="c d"`},
		{"no module", ".b=c a.=d e=f.g", "a", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			params, _ := moduleParameters(parseCmdline(test.cmdline))
			if got := params[test.module]; got != test.want {
				t.Errorf("parameters of %s = %q, want %q", test.module, got, test.want)
			}
		})
	}
	_, deny := moduleParameters(parseCmdline("modprobe.blacklist=virtio-net,b module_blacklist=c quiet"))
	for name, want := range map[string]bool{"virtio_net": true, "b": true, "c": true, "quiet": false} {
		if deny[name] != want {
			t.Errorf("deny[%s] = %v, want %v", name, deny[name], want)
		}
	}
}

func FuzzModules(f *testing.F) {
	f.Add(testDep, testAlias, testSoftdep, "ext4")
	f.Add("a.ko: b.ko\nb.ko: a.ko\n", "alias x* a\n", "softdep a pre: b x post: a\n", "xy")
	f.Fuzz(func(t *testing.T, dep, alias, softdep, name string) {
		m, err := ReadModules(fstest.MapFS{
			"modules.dep": {Data: []byte(dep)}, "modules.alias": {Data: []byte(alias)}, "modules.softdep": {Data: []byte(softdep)},
		})
		if err != nil {
			return
		}
		loads, _ := m.Plan(name) // the order must hold even in what could be planned
		seen := map[string]bool{}
		for _, l := range loads {
			if seen[l.Name] {
				t.Errorf("%s is planned twice", l.Name)
			}
			for _, a := range l.After {
				if !seen[a] {
					t.Errorf("%s is to wait for %s, which comes later", l.Name, a)
				}
			}
			seen[l.Name] = true
		}
	})
}

func errString(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
