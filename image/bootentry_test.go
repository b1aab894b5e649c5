// SPDX-License-Identifier: Apache-2.0

package image

import (
	"fmt"
	"os"
	"path"
	"strings"
	"testing"
	"testing/fstest"
)

const (
	debianRoot = "5e8c3a51-0a3d-4c34-9d0b-0b8b4f1e6a11"
	fedoraBoot = "8a1d6f0c-7f2b-4a35-9a3e-0d5d4c7f5b10"
)

// tree makes a file system of "path" or "path\ncontent" texts; "path\n@file" takes the content from testdata.
func tree(t testing.TB, files ...string) fstest.MapFS {
	t.Helper()
	fsys := fstest.MapFS{}
	for _, f := range files {
		name, content, _ := strings.Cut(f, "\n")
		if file, is := strings.CutPrefix(content, "@"); is {
			b, err := os.ReadFile(path.Join("testdata", file))
			if err != nil {
				t.Fatal(err)
			}
			content = string(b)
		}
		fsys[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return fsys
}

func grubenv(lines ...string) string {
	s := "# GRUB Environment Block\n" + strings.Join(lines, "\n") + "\n"
	return s + strings.Repeat("#", 1024-len(s))
}

// printed is a menu as text: one line for each entry, "*" for the default.
func printed(entries []BootEntry) string {
	var b strings.Builder
	for _, e := range entries {
		mark := " "
		if e.Default {
			mark = "*"
		}
		fmt.Fprintf(&b, "%s %s | %d:%s %v | %s\n", mark, e.Title, e.Volume, e.Kernel, e.Initrds, e.Cmdline)
	}
	return b.String()
}

func bls(title, version, kernel, initrd, options string) string {
	return fmt.Sprintf("title %s\nversion %s\nlinux %s\ninitrd %s\noptions %s\ngrub_users $grub_users\ngrub_arg --unrestricted\ngrub_class fedora\n",
		title, version, kernel, initrd, options)
}

func TestBootEntriesOn(t *testing.T) {
	debianFiles := func(extra ...string) fstest.MapFS {
		return tree(t, append([]string{"boot/grub/grub.cfg\n@debian12/grub.cfg",
			"boot/vmlinuz-6.1.0-56-amd64", "boot/initrd.img-6.1.0-56-amd64",
			"boot/vmlinuz-6.1.0-50-amd64", "boot/initrd.img-6.1.0-50-amd64"}, extra...)...)
	}
	debianMenu := func(marked int) string {
		lines := strings.SplitAfter(`  Debian GNU/Linux | 0:boot/vmlinuz-6.1.0-56-amd64 [boot/initrd.img-6.1.0-56-amd64] | root=UUID=UUID ro console=ttyS0,115200 quiet
  Debian GNU/Linux, with Linux 6.1.0-56-amd64 | 0:boot/vmlinuz-6.1.0-56-amd64 [boot/initrd.img-6.1.0-56-amd64] | root=UUID=UUID ro console=ttyS0,115200 quiet
  Debian GNU/Linux, with Linux 6.1.0-56-amd64 (recovery mode) | 0:boot/vmlinuz-6.1.0-56-amd64 [boot/initrd.img-6.1.0-56-amd64] | root=UUID=UUID ro single console=ttyS0,115200
  Debian GNU/Linux, with Linux 6.1.0-50-amd64 | 0:boot/vmlinuz-6.1.0-50-amd64 [boot/initrd.img-6.1.0-50-amd64] | root=UUID=UUID ro console=ttyS0,115200 quiet
  Debian GNU/Linux, with Linux 6.1.0-50-amd64 (recovery mode) | 0:boot/vmlinuz-6.1.0-50-amd64 [boot/initrd.img-6.1.0-50-amd64] | root=UUID=UUID ro single console=ttyS0,115200
`, "\n")
		if marked >= 0 {
			lines[marked] = "*" + lines[marked][1:]
		}
		return strings.ReplaceAll(strings.Join(lines, ""), "UUID=UUID", "UUID="+debianRoot)
	}
	root := FileSystem{Type: "ext4", UUID: debianRoot}
	fedoraFiles := func(extra ...string) fstest.MapFS {
		return tree(t, append([]string{"grub2/grub.cfg\n@fedora/grub.cfg",
			"loader/entries/f3a-0-rescue.conf\n" + bls("Fedora Linux (0-rescue-f3a) 39", "0-rescue-f3a", "/vmlinuz-0-rescue", "/initramfs-0-rescue.img", "$kernelopts"),
			"loader/entries/f3a-6.5.6-300.fc39.x86_64.conf\n" + bls("Fedora Linux (6.5.6-300.fc39.x86_64) 39", "6.5.6-300.fc39.x86_64", "/vmlinuz-6.5.6", "/initramfs-6.5.6.img $tuned_initrd", "root=UUID=0d2c ro rhgb $tuned_params"),
			"loader/entries/f3a-6.11.4-201.fc39.x86_64.conf\n" + bls("Fedora Linux (6.11.4-201.fc39.x86_64) 39", "6.11.4-201.fc39.x86_64", "/vmlinuz-6.11.4", "/initramfs-6.11.4.img", "$kernelopts"),
			"vmlinuz-0-rescue", "initramfs-0-rescue.img", "vmlinuz-6.5.6", "initramfs-6.5.6.img", "vmlinuz-6.11.4", "initramfs-6.11.4.img"}, extra...)...)
	}
	const fedoraOptions = "root=UUID=0d2c8a7e-54b1-4a70-8a55-7b2a9e6d3c21 ro console=ttyS0"
	fedoraMenu := func(first, second, third, kernelopts string) string {
		return fmt.Sprintf(`%[1]s Fedora Linux (6.11.4-201.fc39.x86_64) 39 | 1:vmlinuz-6.11.4 [initramfs-6.11.4.img] | %[4]s
%[2]s Fedora Linux (6.5.6-300.fc39.x86_64) 39 | 1:vmlinuz-6.5.6 [initramfs-6.5.6.img] | root=UUID=0d2c ro rhgb
%[3]s Fedora Linux (0-rescue-f3a) 39 | 1:vmlinuz-0-rescue [initramfs-0-rescue.img] | %[4]s
`, first, second, third, kernelopts)
	}
	esp := Volume{FS: tree(t, "EFI/fedora/grub.cfg\nsearch --no-floppy --fs-uuid --set=dev "+fedoraBoot+"\nset prefix=($dev)/grub2\nexport $prefix\nconfigfile $prefix/grub.cfg\n"), Partition: 1, FileSystem: FileSystem{Type: "vfat", UUID: "7B77-95E7"}}
	boot := FileSystem{Type: "xfs", UUID: fedoraBoot}
	sdboot := func(extra ...string) fstest.MapFS {
		return tree(t, append([]string{"EFI/systemd/systemd-bootx64.efi",
			"loader/entries/a-6.9.1.conf\ntitle Debian\nsort-key debian\nmachine-id a\nversion 6.9.1\noptions root=LABEL=r\noptions  quiet\nlinux /a/6.9.1/linux\ninitrd /a/6.9.1/initrd\n",
			"loader/entries/a-6.10.0.conf\ntitle Debian\nsort-key debian\nmachine-id a\nversion 6.10.0\noptions root=LABEL=r\nlinux /a/6.10.0/linux\ninitrd /ucode\ninitrd /a/6.10.0/initrd\n",
			"loader/entries/windows.conf\ntitle Windows\nefi /EFI/Microsoft/Boot/bootmgfw.efi\n",
			"a/6.9.1/linux", "a/6.9.1/initrd", "a/6.10.0/linux", "a/6.10.0/initrd", "ucode"}, extra...)...)
	}
	one := func(config string) []Volume {
		return []Volume{{FS: tree(t, "boot/grub/grub.cfg\n"+config, "k", "k2", "i", "i2", "boot/k"), FileSystem: FileSystem{UUID: "abc", Label: "root"}}}
	}

	tests := []struct {
		name string
		disk []Volume
		want string
	}{
		{"debian", []Volume{{FS: debianFiles(), Partition: 2, FileSystem: root}}, debianMenu(0)},
		{"debian, file system of unknown identity", []Volume{{FS: debianFiles()}}, debianMenu(0)},
		{"debian, an empty environment", []Volume{{FS: debianFiles("boot/grub/grubenv\n" + grubenv()), FileSystem: root}}, debianMenu(0)},
		{"debian, next_entry by titles", []Volume{{FS: debianFiles("boot/grub/grubenv\n" + grubenv("next_entry=Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux 6.1.0-50-amd64")), FileSystem: root}}, debianMenu(3)},
		{"debian, next_entry by numbers", []Volume{{FS: debianFiles("boot/grub/grubenv\n" + grubenv("next_entry=1>3")), FileSystem: root}}, debianMenu(4)},
		{"debian, next_entry by ids", []Volume{{FS: debianFiles("boot/grub/grubenv\n" + grubenv("next_entry=gnulinux-advanced-"+debianRoot+">gnulinux-6.1.0-56-amd64-advanced-"+debianRoot)), FileSystem: root}}, debianMenu(1)},
		{"debian, next_entry is a submenu", []Volume{{FS: debianFiles("boot/grub/grubenv\n" + grubenv("next_entry=1")), FileSystem: root}}, debianMenu(1)},
		{"debian, next_entry is gone", []Volume{{FS: debianFiles("boot/grub/grubenv\n" + grubenv("next_entry=no such thing")), FileSystem: root}}, debianMenu(0)},
		{"debian, default starts Windows", []Volume{{FS: debianFiles("boot/grub/grubenv\n" + grubenv("next_entry=2")), FileSystem: root}}, debianMenu(-1)},
		{"debian, custom.cfg", []Volume{{FS: debianFiles("boot/grub/custom.cfg\nset default=mine\nmenuentry 'My own' --id mine {\n linux /boot/vmlinuz-6.1.0-50-amd64 x\n}\n"), FileSystem: root}},
			debianMenu(-1) + "* My own | 0:boot/vmlinuz-6.1.0-50-amd64 [] | x\n"},
		{"debian, the ESP leads to it", []Volume{{FS: debianFiles(), Partition: 2, FileSystem: root}, {FS: tree(t, "EFI/debian/grub.cfg\n@debian12/esp-grub.cfg"), Partition: 1}}, debianMenu(0)},
		{"only the ESP has a configuration that is looked for", []Volume{
			{FS: tree(t, "k", "weird/grub/grub.cfg\nmenuentry x { linux /k }"), Partition: 2, FileSystem: root},
			{FS: tree(t, "EFI/debian/grub.cfg\nsearch.fs_uuid "+debianRoot+" root hd0,gpt2\nset prefix=($root)'/weird/grub'\nconfigfile $prefix/grub.cfg"), Partition: 1}},
			"* x | 0:k [] | \n"},
		{"fedora", []Volume{esp, {FS: fedoraFiles(), Partition: 2, FileSystem: boot}}, fedoraMenu("*", " ", " ", fedoraOptions)},
		{"fedora, saved entry and kernelopts", []Volume{esp, {FS: fedoraFiles("grub2/grubenv\n" + grubenv("saved_entry=f3a-6.5.6-300.fc39.x86_64", "kernelopts=root=/dev/mapper/x ro ", "boot_success=1")), Partition: 2, FileSystem: boot}},
			fedoraMenu(" ", "*", " ", "root=/dev/mapper/x ro")},
		{"fedora, boot counting", []Volume{esp, {FS: fedoraFiles("grub2/grubenv\n" + grubenv("boot_counter=0", "boot_success=0")), Partition: 2, FileSystem: boot}},
			fedoraMenu(" ", "*", " ", fedoraOptions)},
		{"systemd-boot", []Volume{{FS: sdboot()}}, "* Debian | 0:a/6.10.0/linux [ucode a/6.10.0/initrd] | root=LABEL=r\n  Debian | 0:a/6.9.1/linux [a/6.9.1/initrd] | root=LABEL=r quiet\n"},
		{"systemd-boot, default by pattern", []Volume{{FS: sdboot("loader/loader.conf\n#timeout 3\ntimeout 3\ndefault a-6.9*\n")}},
			"  Debian | 0:a/6.10.0/linux [ucode a/6.10.0/initrd] | root=LABEL=r\n* Debian | 0:a/6.9.1/linux [a/6.9.1/initrd] | root=LABEL=r quiet\n"},
		{"systemd-boot before GRUB", []Volume{{FS: debianFiles(), FileSystem: root}, {FS: sdboot("loader/loader.conf\ndefault [broken\n")}},
			"* Debian | 1:a/6.10.0/linux [ucode a/6.10.0/initrd] | root=LABEL=r\n  Debian | 1:a/6.9.1/linux [a/6.9.1/initrd] | root=LABEL=r quiet\n"},
		{"entries without a boot loader", []Volume{{FS: tree(t, "loader/entries/x.conf\nlinux /k\n", "k")}}, "* x | 0:k [] | \n"},

		{"kernel is missing", one("menuentry a { linux /nothere\n initrd /i }\nmenuentry b { linux /k }"), "  b | 0:k [] | \n"},
		{"initrd is missing", one("menuentry a { linux /k\n initrd /nothere }\nmenuentry b { linux /k }"), "  b | 0:k [] | \n"},
		{"entries inside conditions and loops", one("for n in 1 2; do if [ $n -gt 1 ]; then menuentry \"n $n\" { linux /k n=$n } fi done"), "* n 2 | 0:k [] | n=2\n"},
		{"while", one("set n=x\nwhile [ $n != xxx ]; do set n=x$n; done\nmenuentry $n { linux /k }"), "* xxx | 0:k [] | \n"},
		{"until", one("until [ \"$n\" = aaa ]; do n=a$n; done\nmenuentry $n { linux /k }"), "* aaa | 0:k [] | \n"},
		{"function with arguments", one("function f {\n menuentry \"$1\" --class x { linux /k $2 }\n}\nf 'A b' c\nf D"), "* A b | 0:k [] | c\n  D | 0:k [] | \n"},
		{"quotes", one(`menuentry 'It'\''s "it"' { linux /k a='b c' "d\"e" f\ g # no comment inside` + "\n}"), "* It's \"it\" | 0:k [] | \"a=b c\" d\\\"e \"f g\"\n"},
		{"empty and split variables", one("set a=\nset b='1  2'\nmenuentry x { linux /k $a \"$a\" $b \"$b\" ${b}3 }"), "* x | 0:k [] | " + ` 1 2 "1  2" 1 23` + "\n"},
		{"root by label", one("search --label --set=r root\nmenuentry x { linux ($r)/k }"), "* x | 0:k [] | \n"},
		{"root by file", one("search -f --set=r /boot/k\nmenuentry x { linux ($r)/k }"), "* x | 0:k [] | \n"},
		{"several initrds", one("menuentry x { linux /k\n initrd /i /i2 }"), "* x | 0:k [i i2] | \n"},
		{"path that climbs", one("menuentry x { linux /../../boot/../k }"), "* x | 0:k [] | \n"},
		{"ubuntu without initrd", one("menuentry x {\nif [ \"${initrdfail}\" = 1 ]; then\n linux /k\n initrd /i\nelse\n linux /k panic=-1\nfi\n}"), "* x | 0:k [i] | \n"},
		{"partition by number", []Volume{{FS: tree(t, "k"), Partition: 1}, {FS: tree(t, "boot/grub/grub.cfg\nset root='hd0,gpt1'\nmenuentry x { linux /k }\nset root=hd0,msdos7\nmenuentry y { linux /k }\nmenuentry z { linux (hd1,1)/k }\n"), Partition: 2}}, "* x | 0:k [] | \n"},
		{"nothing", []Volume{{FS: tree(t, "etc/passwd")}}, ""},
		{"no disk", nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := BootEntriesOn(tt.disk)
			if err != nil {
				t.Fatal(err)
			}
			if s := printed(got); s != tt.want {
				t.Errorf("BootEntriesOn() is\n%swant\n%s", s, tt.want)
			}
		})
	}
}

func TestBootEntriesErrors(t *testing.T) {
	tests := []struct{ name, config, want string }{
		{"quote without end", "menuentry 'x { linux /k }", "line 1: quote without its end"},
		{"double quote without end", "set a=1\nset b=\"", "line 2: quote without its end"},
		{"if without fi", "if [ a = a ]; then set x=1\n", `"fi" is missing`},
		{"brace without end", "menuentry x {\n linux /k\n", `"}" is missing`},
		{"brace too many", "set a=b\n}\n", `line 2: unexpected "}"`},
		{"for without in", "for x y; do done", `for without a variable and "in"`},
		{"function without name", "function 'x' { }", "function without a name"},
		{"endless loop", "while true; do set x=1; done", "too much work"},
		{"endless empty loop", "until ; do\ndone\nwhile ; do\ndone\n", "too much work"},
		{"recursion", "function f { f; }\nf", "too much work"},
		{"file that includes itself", "source /boot/grub/grub.cfg", "too much work"},
		{"growing variable", "set x=aaaaaaaaaaaaaaaa\nwhile true; do set x=$x$x; done", "too much work"},
		{"nesting", strings.Repeat("if true; then ", 100), "too deep"},
		{"too many entries", "for a in " + strings.Repeat("x ", 2000) + "; do menuentry x { true; }; done", "too much work"},
		{"too long", strings.Repeat("# comment\n", grubFileSize/10+1), "longer than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := BootEntries(tree(t, "boot/grub/grub.cfg\n"+tt.config, "k"))
			if err == nil || !strings.Contains(err.Error(), tt.want) || len(got) != 0 {
				t.Errorf("BootEntries() = %v, %v, want an error with %q", got, err, tt.want)
			}
		})
	}
}

// The default comes from a file that is not there: the entries are still listed, and one that could not be started is not chosen.
func TestBootEntriesDefaultMissing(t *testing.T) {
	got, err := BootEntries(tree(t, "boot/grub/grub.cfg\nset default=1\nmenuentry a { linux /k }\nmenuentry b { linux /gone }", "k"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "  a | 0:k [] | \n"; printed(got) != want {
		t.Errorf("BootEntries() is\n%swant\n%s", printed(got), want)
	}
}

func TestCompareVersions(t *testing.T) {
	// In their order.
	names := []string{"", "a", "5.10", "6.1.0~rc1", "6.1.0", "6.1.0-5", "6.1.0-10", "6.01.1", "6.9", "6.10", "f3a-0-rescue", "f3a-6.5"}
	for i, a := range names {
		for j, b := range names {
			if a == "a" || b == "a" { // letters against digits: only that it ends
				compareVersions(a, b)
				continue
			}
			if got := compareVersions(a, b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("compareVersions(%q, %q) = %d", a, b, got)
			}
		}
	}
}

func FuzzBootEntries(f *testing.F) {
	for _, name := range []string{"debian12/grub.cfg", "debian12/esp-grub.cfg", "fedora/grub.cfg"} {
		b, err := os.ReadFile(path.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b), "saved_entry=x\n", "linux /k\noptions $kernelopts\n")
	}
	f.Add("while true; do set x=$x$x; done", "", "")
	f.Add("for a in 1 2 3; do menuentry \"$a\" --id=$a { linux /k \\$a; initrd /k }; done", "", "")
	f.Add("function f { $1 $@; }; f f f; submenu x { submenu y { f; } }", "a=b", "version ~~~")
	f.Fuzz(func(t *testing.T, config, env, entry string) {
		fsys := fstest.MapFS{
			"boot/grub/grub.cfg":     {Data: []byte(config)},
			"boot/grub/grubenv":      {Data: []byte(env)},
			"loader/entries/a1.conf": {Data: []byte(entry)},
			"loader/entries/a2.conf": {Data: []byte(entry)},
			"k":                      {},
		}
		entries, _ := BootEntries(fsys)
		defaults := 0
		for _, e := range entries {
			if !isFile(fsys, e.Kernel) {
				t.Errorf("kernel %q is not on the disk", e.Kernel)
			}
			if e.Default {
				defaults++
			}
		}
		if defaults > 1 {
			t.Errorf("%d defaults", defaults)
		}
	})
}
