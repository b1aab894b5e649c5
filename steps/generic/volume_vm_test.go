// SPDX-License-Identifier: Apache-2.0

//go:build linux

package generic

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/initramfs/vmtest"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/guesttest"
	"github.com/ironhand/ironhand/steps/lvm"
	"github.com/ironhand/ironhand/steps/raid"
)

var (
	guest = flag.Bool("guest", false, "run the tests for a virtual machine with disks")
	every = flag.Int("every", 1, "of the operations at which a machine is killed, take each n-th")
)

// systems are the UUIDs of the file systems of two images.
var systems = map[string]string{"one": "6f2c1a30-8d0e-4c55-9f6e-2f4d3c9a7b11", "two": "6f2c1a30-8d0e-4c55-9f6e-2f4d3c9a7b12"}

// systemImage makes the image of a root file system with all that firmware and GRUB start, and the digests of its content.
const systemImage = `set -eu
cd "$1"
mkdir -p root/boot/efi/EFI/debian root/boot/loader/entries root/sys-data
for f in boot/vmlinuz-1 boot/initrd.img-1 boot/efi/EFI/debian/shimx64.efi boot/efi/EFI/debian/grubx64.efi; do echo "$f of $2" >root/$f; done
printf 'title %s\nversion 1\nlinux /boot/vmlinuz-1\ninitrd /boot/initrd.img-1\noptions ro quiet\n' $2 >root/boot/loader/entries/one.conf
head -c 2M /dev/urandom >root/sys-data/data
(cd root && sha256sum sys-data/data boot/vmlinuz-1 boot/initrd.img-1) >sums
mv sums root/sums
mke2fs -q -t ext4 -U "$3" -d root image 32M
`

// The machine loses its power, in a manner of speaking, at each operation of the step that writes an image to the root volume; the node boots by UEFI.
// What firmware would start in between is whole, and the next attempt ends right.
func TestVMVolumeWriteKilled(t *testing.T) {
	if os.Getenv("LONG") == "" {
		t.Skip("takes minutes: make test-long")
	}
	runGuest(t, fmt.Sprintf("TestGuestVolumeWriteKilled -every=%d", *every), 40*time.Minute)
}

// runGuest runs tests in a machine with two disks, and the images of two systems.
func runGuest(t *testing.T, tests string, limit time.Duration) {
	t.Helper()
	vmtest.Require(t)
	files := vmtest.Programs(t, "blkid", "dmsetup")
	for name, uuid := range systems {
		dir := t.TempDir()
		if out, err := exec.Command("bash", "-c", systemImage, "bash", dir, name, uuid).CombinedOutput(); err != nil {
			t.Fatalf("make image: %v\n%s", err, out)
		}
		files["images/"+name] = filepath.Join(dir, "image")
	}
	disk := vmtest.Disk{Size: 4 << 30}
	vmtest.RunInGuest(t, ".", vmtest.Guest{
		Machine: vmtest.Machine{MemoryMiB: 1024, Disks: []vmtest.Disk{disk, disk}}, Files: files,
		Args: "-guest -test.run=" + tests, Timeout: limit,
	})
}

// The image is on the volume of an array, and its last act fails: what firmware starts, which is on the disks below the array, goes again.
func TestVMVolumeOnArrayFails(t *testing.T) {
	t.Parallel()
	runGuest(t, "TestGuestVolumeOnArrayFails", 10*time.Minute)
}

func TestGuestVolumeOnArrayFails(t *testing.T) {
	if !*guest {
		t.Skip("runs in the machine of TestVMVolumeOnArrayFails")
	}
	b := &guestBench{guesttest.New(t, modules...), "2"}
	b.Host.Transport = shelf{}
	b.Node.TargetRAIDConfig = json.RawMessage(`{"logical_disks": [{"size_gb": "MAX", "raid_level": "1", "controller": "software", "volume_name": "system"}]}`)
	const layout = `[{"name": "vg", "volume_name": "system", "volumes": [{"name": "root", "size_gb": 1, "is_root_volume": true}]}]`
	if _, err := raid.Create(t.Context(), b.Host, steps.Job{Node: b.Node}); err != nil {
		t.Fatal(err)
	}
	if _, err := lvm.Create(t.Context(), b.Host, steps.Job{Node: b.Node, Args: json.RawMessage(`{"logical_volumes": ` + layout + `}`)}); err != nil {
		t.Fatal(err)
	}
	open := b.Host.Open
	for _, step := range []struct {
		system string
		writes int    // of the array's start, before one fails
		want   string // systems that firmware starts
	}{
		{"one", 100, "[one one]"},
		{"two", 1, "[]"}, // the mark; its end is the last act
		{"two", 100, "[two two]"},
	} {
		b.Host.Open = func(path string) (steps.Disk, error) {
			d, err := open(path)
			if err == nil && path == "/dev/md0" {
				d = worn{d, &step.writes}
			}
			return d, err
		}
		fails := step.want == "[]"
		if err := b.deploy(step.system); (err != nil) != fails || fails && !errors.Is(err, errWorn) {
			t.Fatalf("system %s: %v, want %s", step.system, err, step.want)
		}
		if got := fmt.Sprint(b.startable()); got != step.want {
			t.Errorf("system %s: firmware starts %s, want %s", step.system, got, step.want)
		}
	}
}

// worn is a disk whose start can be written so many times.
type worn struct {
	steps.Disk
	writes *int
}

var errWorn = errors.New("the start is worn out")

func (w worn) WriteAt(b []byte, at int64) (int, error) {
	if at == 0 {
		if *w.writes--; *w.writes == -1 { // once
			return 0, errWorn
		}
	}
	return w.Disk.WriteAt(b, at)
}

// modules are those that the tests in a machine need.
var modules = []string{"raid1", "dm_mod", "ext4", "vfat", "nls_cp437", "nls_ascii", "loop"}

func TestGuestVolumeWriteKilled(t *testing.T) {
	if !*guest {
		t.Skip("runs in the machine of TestVMVolumeWriteKilled")
	}
	b := &guestBench{guesttest.New(t, modules...), "1"}
	b.Host.Transport = shelf{}
	const layout = `[{"name": "vg", "physical_disks": [{"name": "/dev/vda"}, {"name": "/dev/vdb"}], "volumes": [{"name": "root", "size_gb": 1, "type": "raid1", "is_root_volume": true}]}]`
	if _, err := lvm.Create(t.Context(), b.Host, steps.Job{Node: b.Node, Args: json.RawMessage(`{"logical_volumes": ` + layout + `}`)}); err != nil {
		t.Fatal(err)
	}
	if got := b.startable(); len(got) > 0 {
		t.Fatalf("firmware starts %s before there is an image", got)
	}
	for n, killed := 0, true; killed; n += *every {
		name := []string{"one", "two"}[(n / *every)%2]
		b.Said = nil
		b.KillAfter(n)
		err := b.deploy(name)
		did := b.Operations()
		if killed = errors.Is(err, guesttest.ErrKilled); err != nil && !killed {
			t.Fatalf("killed after %d operations: %v", n, err)
		}
		b.restart()
		between := b.startable()
		for _, s := range between {
			b.wantWhole(s)
		}
		if err := b.deploy(name); err != nil {
			t.Fatalf("killed after %d operations, and then: %v", n, err)
		}
		b.restart()
		if got := fmt.Sprint(b.startable()); got != fmt.Sprint([]string{name, name}) {
			t.Errorf("firmware starts %s, want %s from both disks", got, name)
		}
		b.wantWhole(name)
		if t.Failed() {
			t.Fatalf("killed after %d operations", n)
		}
		t.Logf("killed after %d operations: %v, of %d; firmware starts %s in between", n, killed, did, between)
	}
}

// guestBench is the machine that a test runs in.
type guestBench struct {
	*guesttest.Bench
	esp string // number of each disk's EFI system partition
}

func (b *guestBench) restart() {
	b.T.Helper()
	b.KillAfter(-1)
	b.Restart("/dev/vda", "/dev/vdb")
}

// shelf is a server of images.
type shelf struct{}

func (shelf) RoundTrip(r *http.Request) (*http.Response, error) {
	content, err := os.ReadFile("/images" + r.URL.Path)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, ContentLength: int64(len(content)), Body: io.NopCloser(bytes.NewReader(content)), Header: http.Header{}, Request: r}, nil
}

// deploy puts an image onto the root volume, as a conductor has it done.
func (b *guestBench) deploy(name string) error {
	b.T.Helper()
	content, err := os.ReadFile("/images/" + name)
	if err != nil {
		b.T.Fatal(err)
	}
	drive, err := image.MakeConfigDrive(map[string][]byte{"openstack/latest/meta_data.json": []byte(`{"hostname": "system-` + name + `"}`)})
	if err != nil {
		b.T.Fatal(err)
	}
	sum := sha256.Sum256(content)
	args, err := json.Marshal(map[string]any{
		"configdrive": base64.StdEncoding.EncodeToString(drive),
		"image_info": map[string]any{
			"id": name, "urls": []string{"http://images/" + name}, "disk_format": "raw", "image_type": "partition", "root_mb": 100,
			"os_hash_algo": "sha256", "os_hash_value": hex.EncodeToString(sum[:]), "deploy_boot_mode": "uefi",
		},
	})
	if err != nil {
		b.T.Fatal(err)
	}
	_, err = writeImage(b.T.Context(), b.Host, steps.Job{Node: b.Node, Args: args})
	return err
}

// startable is the system that firmware starts from each disk from which it starts one.
func (b *guestBench) startable() (names []string) {
	b.T.Helper()
	for _, disk := range []string{"/dev/vda", "/dev/vdb"} {
		if name := b.fromESP(disk); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// fromESP is the system in whose root file system the loader in a disk's EFI system partition looks for the kernel.
func (b *guestBench) fromESP(disk string) string {
	b.T.Helper()
	b.Run("busybox", "blockdev", "--flushbufs", disk+b.esp)                                                                          // an array that it is a member of is written beside what was read here before
	if out, _ := exec.Command("blkid", "-p", "-u", "filesystem", disk+b.esp).Output(); !bytes.Contains(out, []byte(`TYPE="vfat"`)) { // fails if there is nothing
		return ""
	}
	dir := b.T.TempDir()
	const loop = "/dev/loop0" // what is a member cannot be mounted itself
	b.Run("busybox", "losetup", "-r", loop, disk+b.esp)
	defer b.Run("busybox", "losetup", "-d", loop)
	b.Run("busybox", "mount", "-t", "vfat", "-o", "ro", loop, dir)
	defer b.Run("busybox", "umount", dir)
	menu, err := os.ReadFile(dir + "/EFI/debian/grub.cfg")
	if err != nil {
		b.T.Fatal(err)
	}
	for name, uuid := range systems {
		if bytes.Contains(menu, []byte(uuid)) {
			return name
		}
	}
	b.T.Fatalf("the menu on %s names no system:\n%s", disk, menu)
	return ""
}

// volume activates the root volume until end is called.
func (b *guestBench) volume() (end func()) {
	b.T.Helper()
	const settings = "activation{udev_sync=0 udev_rules=0 monitoring=0}"
	b.Run("lvm", "vgchange", "--config", settings, "-ay", "vg")
	return func() { b.Run("lvm", "vgchange", "--config", settings, "-an", "vg") }
}

// wantWhole wants a system to be in the volume as it was published, and its config drive beside it.
func (b *guestBench) wantWhole(name string) {
	b.T.Helper()
	defer b.volume()()
	const volume = "/dev/mapper/vg-root"
	if got := strings.TrimSpace(b.Run("blkid", "-p", "-s", "UUID", "-o", "value", volume)); got != systems[name] {
		b.T.Errorf("UUID of the volume = %s, want that of system %s", got, name)
	}
	b.Run("e2fsck", "-fn", volume)
	dir := b.T.TempDir()
	b.Run("busybox", "mount", "-t", "ext4", "-o", "ro", volume, dir)
	b.Run("busybox", "sh", "-c", "cd "+dir+" && busybox sha256sum -c sums")
	b.Run("busybox", "umount", dir)
	if out := b.Run("blkid", "-p", "/dev/vda2"); !strings.Contains(out, `LABEL="config-2"`) {
		b.T.Errorf("blkid -p /dev/vda2: %s", out)
	}
	drive, err := os.ReadFile("/dev/vda2")
	if err != nil || !bytes.Contains(drive, []byte("system-"+name)) {
		b.T.Errorf("the config drive is not that of system %s, %v", name, err)
	}
}
