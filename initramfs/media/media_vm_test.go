// SPDX-License-Identifier: Apache-2.0

//go:build linux

package media_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/initramfs/media"
	"github.com/ironhand/ironhand/initramfs/vmtest"
)

// guest says that the tests run in the machine that TestVMMedia has started.
var guest = flag.Bool("guest", false, "run the tests for a virtual machine with media")

// contents are the same on the host and in the machine.
func contents(kind string) media.Contents {
	return media.Contents{
		Parameters:  []media.Parameter{{Key: "ipa-api-url", Value: "https://192.0.2.1:6385/" + kind}},
		NetworkData: []byte(`{"links": [], "networks": [], "services": []}`),
		Files:       map[string][]byte{"ironhand/a-longer-name.txt": bytes.Repeat([]byte(kind), 3000)},
	}
}

// Media of all kinds, made here, are found by a real kernel's drivers, and its own file systems read them too.
func TestVMMedia(t *testing.T) {
	vmtest.Require(t)
	dir := t.TempDir()
	image := func(kind, name string) string {
		b, err := media.Make(kind, contents(kind))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	vmtest.RunInGuest(t, ".", vmtest.Guest{
		Machine: vmtest.Machine{
			Board: "pc", Floppy: image(media.Floppy, "floppy"), USB: image(media.USB, "usb"), CD: []string{image(media.CD, "cd")},
			Disks: []vmtest.Disk{{Path: image(media.USB, "disk")}}, // an internal disk that pretends to be a medium
		},
		Args: "-guest -test.run=TestGuest",
	})
}

func TestGuestFind(t *testing.T) {
	if !*guest {
		t.Skip("runs in the machine of TestVMMedia")
	}
	var found []media.Medium
	var seen []media.Seen
	// The USB disk comes when it is ready.
	for end := time.Now().Add(time.Minute); len(found) < 3 && time.Now().Before(end); time.Sleep(time.Second) {
		if _, err := boot.Coldplug(t.Context()); err != nil {
			t.Log(err)
		}
		var err error
		if found, seen, err = media.Find(t.Context(), func(line string) { t.Log(line) }); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range seen {
		t.Log(s)
	}
	var got []string
	for _, m := range found {
		p, err := m.Parameters()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %s %d %s", m.Kind, m.Device, len(m.Files), p["ipa-api-url"]))
		if !bytes.Equal(m.Files["ironhand/a-longer-name.txt"], bytes.Repeat([]byte(m.Kind), 3000)) {
			t.Errorf("%s: the long file is not what was written", m.Device)
		}
	}
	const want = "floppy /dev/fd0 3 https://192.0.2.1:6385/floppy, usb /dev/sda 3 https://192.0.2.1:6385/usb, cd /dev/sr0 3 https://192.0.2.1:6385/cd"
	if text := strings.Join(got, ", "); text != want {
		t.Errorf("media %q, want %q", text, want)
	}
}

func TestGuestKernelReads(t *testing.T) {
	if !*guest {
		t.Skip("runs in the machine of TestVMMedia")
	}
	if err := boot.LoadModules(t.Context(), "vfat", "nls_cp437", "nls_ascii", "isofs"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ kind, device, filesystem string }{
		{media.Floppy, "/dev/fd0", "vfat"},
		{media.USB, "/dev/sda", "vfat"},
		{media.CD, "/dev/sr0", "iso9660"},
	} {
		t.Run(c.kind, func(t *testing.T) {
			dir := t.TempDir()
			if err := unix.Mount(c.device, dir, c.filesystem, unix.MS_RDONLY, ""); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := unix.Unmount(dir, 0); err != nil {
					t.Error(err)
				}
			}()
			b, err := os.ReadFile(filepath.Join(dir, "ironhand/a-longer-name.txt"))
			if err != nil || !bytes.Equal(b, bytes.Repeat([]byte(c.kind), 3000)) {
				t.Errorf("%d bytes, %v, want %d", len(b), err, 3000*len(c.kind))
			}
			b, err = os.ReadFile(filepath.Join(dir, media.NetworkDataFile))
			if err != nil || !bytes.Equal(b, contents(c.kind).NetworkData) {
				t.Errorf("network data %q, %v", b, err)
			}
		})
	}
}
