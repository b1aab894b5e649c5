// SPDX-License-Identifier: Apache-2.0

//go:build linux

package interop

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/initramfs/vmtest"
)

// smallImage is a disk image with a boot sector that speaks, a partition, and some bytes that do not pack.
func (b *bench) smallImage(size int64) string {
	b.t.Helper()
	file := b.path("small.img")
	b.must(os.WriteFile(file, vmtest.BootCode(), 0o600))
	b.must(os.Truncate(file, size))
	b.run("bash", "-c", `printf 'label: dos\nlabel-id: 0x1234abcd\nstart=2048, type=83, bootable\n' | sfdisk --quiet --no-reread --no-tell-kernel "$1" &&
		head -c $(($2 - 4194304)) /dev/urandom | dd of="$1" bs=1M seek=2 conv=notrunc status=none`, "bash", file, strconv.FormatInt(size, 10))
	return file
}

// espImage is an image with an EFI system partition, whose boot loader is none, and nothing else.
func (b *bench) espImage() string {
	b.t.Helper()
	file := b.path("esp.img")
	b.run("bash", "-c", `truncate -s 40M "$1" && printf 'label: gpt\nstart=2048, size=65536, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\n' | sfdisk --quiet --no-reread --no-tell-kernel "$1" &&
		truncate -s 32M "$1.fat" && mkfs.vfat -i 1234abcd -n ESP "$1.fat" >/dev/null && mmd -i "$1.fat" ::EFI ::EFI/BOOT && mcopy -i "$1.fat" /bin/true ::EFI/BOOT/BOOTX64.EFI &&
		dd if="$1.fat" of="$1" bs=1M seek=1 conv=notrunc status=none`, "bash", file)
	return file
}

// The life of a UEFI node: automated cleaning, deployment of a real Debian with a config drive, the first boot from the disk, and back.
func TestIronicUEFI(t *testing.T) {
	b := newBench(t, nil)
	n := b.newNode("uefi", "uefi")
	b.sub("automated cleaning", func(t *testing.T) {
		n.do("provide")
		n.until("available", 5*time.Minute)
		wantConsole(t, n, "step: erase_devices_metadata done")
	})
	b.sub("deployment with a config drive, require_tls, image_download_source=http", func(t *testing.T) {
		n.setImage(vmtest.Artefact(t, "image/debian.img.zst"), nil)
		n.do("active", "configdrive", map[string]any{"meta_data": map[string]any{"hostname": "from-ironic", "uuid": n.uuid}})
		n.until("active", 10*time.Minute)
		wantConsole(t, n, "step: write_image done", "boot loader: Boot")
		n.fromDisk(`from-ironic login:`, 5*time.Minute)
	})
	b.sub("undeployment", func(*testing.T) {
		n.do("deleted")
		n.until("available", 5*time.Minute)
	})
}

// A BIOS node, with the image from a cache of the conductor's, and its rescue.
func TestIronicBIOS(t *testing.T) {
	b := newBench(t, map[string]string{"agent.image_download_source": "local"})
	n := b.newNode("bios", "bios")
	b.sub("deployment, image_download_source=local", func(t *testing.T) {
		n.do("provide")
		n.until("available", 5*time.Minute)
		n.setImage(b.smallImage(64<<20), nil)
		n.do("active", "configdrive", map[string]any{"meta_data": map[string]any{"hostname": "from-ironic"}})
		n.until("active", 5*time.Minute)
		wantConsole(t, n, "step: write_image done")
		n.fromDisk("BOOT CODE RUNS", time.Minute)
	})

	// The tenant gets in with the password, nobody else does, and the API is closed.
	b.sub("rescue and unrescue", func(t *testing.T) {
		const password = "tenant's own"
		n.do("rescue", "rescue_password", password)
		n.until("rescue", 5*time.Minute)
		n.vm.Expect(t, `rescue: Ironic may move the ports`, time.Minute)
		n.vm.Expect(t, `end: rescue mode`, time.Minute)
		if out, err := n.ssh(password, "echo I am $USER; { mount -o ro /dev/vdb2 /mnt || mount -o ro /dev/vda2 /mnt; } && cat /mnt/openstack/latest/meta_data.json"); err != nil || !strings.Contains(out, "I am rescue") || !strings.Contains(out, "from-ironic") {
			t.Errorf("ssh: %v\n%s", err, out)
		}
		if out, err := n.ssh("guessed", "id"); err == nil {
			t.Errorf("ssh with a wrong password: %s", out)
		}
		if conn, err := net.DialTimeout("tcp", net.JoinHostPort(b.network.Guest4.Addr().String(), "9999"), time.Second); err == nil {
			conn.Close()
			t.Error("the API is still open")
		}
		if strings.Contains(n.vm.Console(), password) {
			t.Error("the password is on the console")
		}
		n.do("unrescue")
		n.until("active", 5*time.Minute)
		if n.vm != nil {
			t.Error("the ramdisk runs on")
		}
	})
}

// One boot of the ramdisk serves cleaning and deployment. The image comes by BitTorrent, and the conductor, which looks at all images, is content with the torrent.
func TestIronicFastTrack(t *testing.T) {
	b := newBench(t, map[string]string{"deploy.fast_track": "true", "conductor.conductor_always_validates_images": "true"})
	n := b.newNode("fast", "bios")
	n.do("provide")
	n.until("available", 5*time.Minute)
	boots := n.boots
	n.setImage(b.smallImage(16<<20), nil)
	torrent, ended := b.share(n.name + ".img")
	n.patch("/instance_info/image_source", torrent)
	n.do("active")
	n.until("active", 5*time.Minute)
	wantConsole(t, n, "writing torrent fast.img (")
	if n.boots != boots {
		t.Errorf("the ramdisk was booted %d times more: the deployment did not use the one that was running\n%s", n.boots-boots, n.timeline())
	}
	n.fromDisk("BOOT CODE RUNS", time.Minute)

	// What docs/using.md says that does not work with a torrent ends before anything is asked of the machine.
	for _, c := range []struct{ name, key, value, reason string }{
		{"a format that the torrent is not of", "image_disk_format", "qcow2", "The requested image is not valid for use"},
		{"conductor hands on the torrent", "image_download_source", "local", "checksum is invalid or does not match"},
	} {
		b.sub(c.name, func(t *testing.T) {
			n.setImage(b.path("small.img"), map[string]any{"image_source": torrent, c.key: c.value})
			n.do("rebuild")
			if r := n.until("deploy failed", 5*time.Minute); !strings.Contains(r.LastError, c.reason) {
				t.Errorf("last error = %q, want %q in it", r.LastError, c.reason)
			}
		})
	}
	if text := ended(); !regexp.MustCompile(`fast.img: (1[0-9]|[1-9]) MiB were sent`).MatchString(text) {
		t.Errorf("the image did not come from the seeder:\n%s", text)
	}
}

// What goes wrong ends in the state that it should, says what happened, and after it all goes well again.
func TestIronicFailures(t *testing.T) {
	b := newBench(t, nil)
	n := b.newNode("broken", "bios")
	n.do("provide")
	n.until("available", 5*time.Minute)
	small := b.smallImage(64 << 20)

	b.sub("wrong digest", func(t *testing.T) {
		n.setImage(small, map[string]any{"image_os_hash_value": strings.Repeat("0", 128)})
		n.do("active")
		r := n.until("deploy failed", 5*time.Minute)
		if !strings.Contains(r.LastError, "digest does not match") {
			t.Errorf("last error = %q", r.LastError)
		}
		wantLogs(t, b, "digest does not match")
	})
	b.sub("no disk fits", func(t *testing.T) {
		n.patch("/properties/root_device", map[string]string{"serial": "NONE-SUCH"})
		defer n.patch("/properties/root_device", map[string]string{"serial": "ROOT"})
		n.setImage(small, nil)
		n.do("active")
		if r := n.until("deploy failed", 5*time.Minute); !strings.Contains(r.LastError, `wanted \"none-such\"`) && !strings.Contains(r.LastError, `wanted "NONE-SUCH"`) {
			t.Errorf("last error = %q", r.LastError)
		}
	})
	b.sub("conductor restarted while a step runs", func(t *testing.T) {
		b.slow.Store(4 << 20)
		defer b.slow.Store(0)
		n.setImage(small, nil)
		n.do("active")
		n.while(func(r record) bool { return n.vm == nil || !strings.Contains(n.vm.Console(), "step: write: ") }, 3*time.Minute)
		b.stop(b.conductor)
		b.conductor = b.start("ironic-conductor")
		b.wait()
		// A conductor that starts fails what was on its way in itself, and goes on with what waits for the agent.
		n.until("active", 5*time.Minute)
		n.fromDisk("BOOT CODE RUNS", time.Minute)
	})
	b.sub("agent killed while a step runs", func(t *testing.T) {
		b.slow.Store(4 << 20)
		defer b.slow.Store(0)
		n.setImage(small, nil)
		n.do("rebuild")
		n.while(func(r record) bool { return n.vm == nil || !strings.Contains(n.vm.Console(), "step: write: ") }, 3*time.Minute)
		n.vm.Send(t, "\nkill -9 $(pidof ironhand | tr ' ' '\\n' | grep -v '^1$')\n")
		r := n.until("deploy failed", 5*time.Minute)
		if !strings.Contains(r.LastError, "the agent was killed while it ran") {
			t.Errorf("last error = %q", r.LastError)
		}
		wantLogs(t, b, "the agent was killed")
	})
}

// Software RAID is made and deleted by manual cleaning. Ironic keeps the configuration, and the disks hold what it says.
func TestIronicRAID(t *testing.T) {
	b := newBench(t, nil)
	n := b.newNode("raid", "uefi")
	clean := func(state string, names ...string) record {
		t.Helper()
		var list []map[string]string
		for _, name := range names {
			list = append(list, map[string]string{"interface": "raid", "step": name})
		}
		n.do("clean", "clean_steps", list)
		return n.until(state, 5*time.Minute)
	}
	configure := func(size any) {
		t.Helper()
		b.must(b.call("PUT", "/v1/nodes/"+n.uuid+"/states/raid", map[string]any{"logical_disks": []map[string]any{
			{"size_gb": size, "raid_level": "1", "controller": "software", "volume_name": "system", "is_root_volume": true, "physical_disks": []map[string]string{{"serial": "OTHER"}, {"serial": "ROOT"}}},
			{"size_gb": "MAX", "raid_level": "0", "controller": "software"},
		}}, nil))
	}
	configure(2)
	r := clean("manageable", "delete_configuration", "create_configuration")
	var kept struct {
		LogicalDisks []struct {
			Level string          `json:"raid_level"`
			Name  string          `json:"volume_name"`
			Size  json.RawMessage `json:"size_gb"`
		} `json:"logical_disks"`
		Updated string `json:"last_updated"`
	}
	b.must(json.Unmarshal(r.RAID, &kept))
	if got := fmt.Sprintf("%s", kept.LogicalDisks); got != `[{1 system 2} {0  "MAX"}]` || kept.Updated == "" {
		t.Errorf("raid_config = %s: %s", r.RAID, got)
	}
	for i, d := range n.machine.Disks {
		if out := b.run("sgdisk", "-v", d.Path); !strings.Contains(out, "No problems found") {
			t.Errorf("sgdisk -v of disk %d:\n%s", i, out)
		}
		for offset, want := range map[int]string{551 << 20: `LABEL="any:system"`, 2 << 30: `LABEL="any:md1"`} {
			if out := b.run("blkid", "-p", "-O", strconv.Itoa(offset), d.Path); !strings.Contains(out, want) || !strings.Contains(out, `TYPE="linux_raid_member"`) {
				t.Errorf("blkid of disk %d at %d: %s, want %s", i, offset, out, want)
			}
		}
	}

	// An operating system goes onto the root volume, and what firmware starts onto both disks. Automated cleaning before leaves the arrays.
	n.do("provide")
	n.until("available", 5*time.Minute)
	n.setImage(b.espImage(), nil)
	n.do("active")
	n.until("active", 5*time.Minute)
	wantConsole(t, n, "to /dev/md", "boot loader: Boot", "ironic1 (RAID, part0)", "ironic1 (RAID, part1)")
	for i, d := range n.machine.Disks {
		if out := b.run("blkid", "-p", "-O", "1048576", d.Path); !strings.Contains(out, `UUID="1234-ABCD"`) || !strings.Contains(out, `TYPE="vfat"`) {
			t.Errorf("blkid of the EFI system partition of disk %d: %s", i, out)
		}
	}
	n.do("deleted")
	n.until("available", 5*time.Minute)
	n.do("manage")
	n.until("manageable", time.Minute)

	// The machine was switched off; the arrays are found again. What cannot be leaves them as they are.
	configure(20)
	if r := clean("clean failed", "create_configuration"); !strings.Contains(r.LastError, "it would end at 20 GiB of /dev/vda") {
		t.Errorf("last error = %q", r.LastError)
	}
	b.must(b.call("DELETE", "/v1/nodes/"+n.uuid+"/maintenance", nil, nil))
	n.do("manage")
	n.until("manageable", time.Minute)

	r = clean("manageable", "delete_configuration")
	wantConsole(t, n, `raid1, of /dev/vda1, /dev/vdb1`, "disk /dev/md")
	if string(r.RAID) != "{}" {
		t.Errorf("raid_config after the deletion = %s", r.RAID)
	}
	for _, d := range n.machine.Disks {
		if out := b.run("wipefs", "--no-act", d.Path); strings.TrimSpace(out) != "" {
			t.Errorf("wipefs finds on %s:\n%s", d.Path, out)
		}
	}
}

func wantConsole(t *testing.T, n *node, wants ...string) {
	t.Helper()
	all := strings.Join(n.consoles, "")
	for _, want := range wants {
		if !strings.Contains(all, want) {
			t.Errorf("no console shows %q\n%s", want, n.timeline())
		}
	}
}

// wantLogs looks for a text in the newest logs that the conductor has collected.
func wantLogs(t *testing.T, b *bench, want string) {
	t.Helper()
	names, err := filepath.Glob(b.path("logs/*.tar.gz"))
	if err != nil || len(names) == 0 {
		t.Fatalf("the conductor has collected no logs: %v", err)
	}
	f, err := os.Open(names[len(names)-1])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() // only read
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for archive := tar.NewReader(z); ; {
		header, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		found[header.Name] = strings.Contains(string(content), want)
	}
	for _, name := range []string{"timeline", "machine/run/ironhand/log"} {
		if !found[name] {
			t.Errorf("%s in the collected logs does not have %q; there are %v", name, want, found)
		}
	}
}
