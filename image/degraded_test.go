// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// initramfsTools is what an image has whose initial ramdisk is one of initramfs-tools with lvm2.
func initramfsTools() []string {
	return []string{"usr/share/initramfs-tools/init\n#!/bin/sh", "usr/share/initramfs-tools/hooks/lvm2\n#!/bin/sh"}
}

// An initial ramdisk that zstd has packed is still one for it, with more behind it; zstd and cpio are the judges.
func TestStartDegradedZstd(t *testing.T) {
	const initrd = "boot/initrd.img-6.1.0-9-amd64"
	root := rootTree(t, initramfsTools()...)
	packed := []byte(run(t, "what was there\n", "zstd", "-c"))
	if err := (File{Path: initrd, Content: packed, Owner: -1, Group: -1}).Put(root); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the same again changes nothing
		if err := (Root{FileSystem: FileSystem{UUID: rootUUID}, Volume: testVolume}).tellRamdisks(root, true); err != nil {
			t.Fatal(err)
		}
	}
	if after, err := root.ReadFile(initrd); err != nil || !bytes.HasPrefix(after, packed) {
		t.Fatalf("what was there is changed, %v", err)
	}
	out := run(t, "", "zstd", "-dc", filepath.Join(root.Name(), initrd))
	archive, found := strings.CutPrefix(out, "what was there\n")
	if list := run(t, archive, "cpio", "-t", "--quiet"); !found || list != "scripts\nscripts/local-block\nscripts/local-block/ORDER\nscripts/local-block/ironhand-root-volume\n" {
		t.Errorf("cpio -t:\n%s", list)
	}
}

// What an initial ramdisk has is left as it is, and what comes behind it is an archive for cpio, at a place where the kernel finds it.
func TestStartDegraded(t *testing.T) {
	const initrd = "boot/initrd.img-6.1.0-9-amd64"
	for _, tt := range []struct {
		name    string
		tree    []string
		size    int // of the initial ramdisk
		changed bool
	}{
		{"Debian", initramfsTools(), 1000, true},
		{"ends where a sector ends", initramfsTools(), 1024, true},
		{"ends just before", initramfsTools(), 1022, true},
		{"shorter than what is added", initramfsTools(), 1, true},
		{"empty", initramfsTools(), 0, true},
		{"without lvm2", initramfsTools()[:1:1], 1000, false},
		{"without initramfs-tools", initramfsTools()[1:], 1000, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := bytes.Repeat([]byte("x"), tt.size)
			root := rootTree(t, tt.tree...)
			for name, content := range map[string][]byte{initrd: before, "boot/initrd.img-broken/x": nil} {
				if err := (File{Path: name, Content: content, Owner: -1, Group: -1}).Put(root); err != nil {
					t.Fatal(err)
				}
			}
			at := Root{FileSystem: FileSystem{Type: "ext4", UUID: rootUUID}, Volume: testVolume}
			for range 2 { // the same again changes nothing
				if err := at.tellRamdisks(root, true); err != nil {
					t.Fatal(err)
				}
			}
			after, err := root.ReadFile(initrd)
			if err != nil || !bytes.HasPrefix(after, before) || (len(after) > len(before)) != tt.changed {
				t.Fatalf("%d bytes became %d, %v", len(before), len(after), err)
			}
			if !tt.changed {
				if isFile(root.FS(), degradedFile) {
					t.Error("there is a script that nothing runs")
				}
				return
			}
			added := bytes.TrimLeft(after[len(before):], "\x00")
			if zeros := len(after) - len(before) - len(added); zeros < 4 || (len(after)-len(added))%4 != 0 {
				t.Errorf("%d zeros after %d bytes", zeros, len(before))
			}
			dir := t.TempDir()
			cmd := exec.Command("cpio", "-i", "--make-directories", "--quiet")
			cmd.Dir, cmd.Stdin = dir, bytes.NewReader(added)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("cpio: %v\n%s", err, out)
			}
			script := filepath.Join(dir, localBlock, volumeName)
			b, err := os.ReadFile(script)
			if err != nil {
				t.Fatal(err)
			}
			if later, err := root.ReadFile(degradedFile); err != nil || !bytes.Equal(later, b) {
				t.Errorf("the next initial ramdisk would get another script: %v\n%s", err, later)
			}
			if want := "[ -e /dev/mapper/sys--1-root ] || lvm vgchange --sysinit --yes -aay --activationmode degraded sys-1\n"; !strings.Contains(string(b), want) {
				t.Errorf("the script is\n%s", b)
			}
			run(t, "", "sh", "-n", filepath.Join(dir, localBlock, "ORDER"))
			if out := run(t, "", script, "prereqs"); out != "\n" { // as mkinitramfs asks
				t.Errorf("it needs %q", out)
			}
			// It waits for the disk that is missing as long as others do, and then starts the volume without it.
			calls := filepath.Join(dir, "calls")
			if err := os.WriteFile(filepath.Join(dir, "lvm"), []byte("#!/bin/sh\necho \"$@\" >>"+calls), 0o700); err != nil {
				t.Fatal(err)
			}
			for _, wait := range []struct {
				since, delay string // start of the system in seconds after the kernel's, rootdelay=
				runs         bool
			}{
				{"$((up - 5))", "", false},
				{"$((up - 25))", "", true},
				{"$((up - 25))", "60", false},
				{"$((up - 45))", "60", true},
			} {
				os.Remove(calls)
				run(t, "", "sh", "-c", `read -r up rest </proc/uptime; up=${up%%.*}; export starttime=`+wait.since+` ROOTDELAY=`+wait.delay+` PATH="$2:$PATH"; exec "$1"`, "sh", script, dir)
				if _, err := os.Stat(calls); (err == nil) != wait.runs {
					t.Errorf("started at %s, rootdelay %q: it starts the volume: %v", wait.since, wait.delay, err == nil)
				}
			}
		})
	}
}

// What dracut has made knows the volume, whatever the menu says, and what it will make too: by the word of cpio, and of a shell that reads the configuration as dracut does.
func TestTellDracut(t *testing.T) {
	const dracut = "usr/lib/dracut/dracut-functions.sh\n#!/bin/bash"
	for _, tt := range []struct {
		name, initrd string
		tree         []string
		mirror       bool
		want         string // words; "" if nothing is changed
	}{
		{"Debian", "boot/initrd.img-6.1.0-9-amd64", []string{dracut}, true, "rd.lvm.lv=sys-1/root rd.lvm.vg=sys-1"},
		{"SUSE", "boot/initrd-6.4.0-150600.21-default", []string{dracut}, true, "rd.lvm.lv=sys-1/root rd.lvm.vg=sys-1"},
		{"Red Hat", "boot/initramfs-5.14.0-427.el9.x86_64.img", []string{dracut}, true, "rd.lvm.lv=sys-1/root rd.lvm.vg=sys-1"},
		{"no mirror", "boot/initramfs-5.14.0-427.el9.x86_64.img", []string{dracut}, false, "rd.lvm.lv=sys-1/root"},
		{"initramfs-tools makes them", "boot/initrd.img-6.1.0-9-amd64", append(initramfsTools(), dracut), false, ""},
		{"neither", "boot/initramfs-5.14.0-427.el9.x86_64.img", nil, true, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := rootTree(t, append(tt.tree, tt.initrd+"\nwhat was there")...)
			before, err := root.ReadFile(tt.initrd)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // the same again changes nothing
				if err := (Root{FileSystem: FileSystem{UUID: rootUUID}, Volume: testVolume}).tellRamdisks(root, tt.mirror); err != nil {
					t.Fatal(err)
				}
			}
			after, err := root.ReadFile(tt.initrd)
			added, found := bytes.CutPrefix(after, before)
			if err != nil || !found || (len(added) > 0) != (tt.want != "") || isFile(root.FS(), dracutFile) != (tt.want != "") {
				t.Fatalf("%d bytes became %d, %v", len(before), len(after), err)
			}
			if tt.want == "" {
				return
			}
			if got := run(t, string(bytes.TrimLeft(added, "\x00")), "cpio", "-i", "--quiet", "--to-stdout", "etc/cmdline.d/*.conf"); got != tt.want+"\n" {
				t.Errorf("/etc/cmdline.d has %q, want %q", got, tt.want)
			}
			if got := run(t, "", "bash", "-c", `kernel_cmdline="quiet"; . "$1"; echo $kernel_cmdline`, "bash", filepath.Join(root.Name(), dracutFile)); got != "quiet "+tt.want+"\n" {
				t.Errorf("dracut reads %q, want %q", got, tt.want)
			}
		})
	}
}
