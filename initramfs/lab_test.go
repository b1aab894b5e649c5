// SPDX-License-Identifier: Apache-2.0

package initramfs_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ironhand/ironhand/agent/conductor"
	"github.com/ironhand/ironhand/initramfs/vmtest"
)

func TestMain(m *testing.M) { vmtest.Main(m) }

const (
	labUUID = "1be26c0b-03f2-4d2e-ae87-c02d7f33c123"
	labMAC  = "52:54:00:12:34:56"
)

// A lab is a machine's surroundings: a network without DHCP, a conductor, an image and where it is published, and
// the node's configuration medium. A test changes what it wants before it calls the methods that use it.
type lab struct {
	t       testing.TB
	dir     string
	network *vmtest.Network

	uuid     string
	mac      string
	hint     string // root_device, as YAML
	handoff  string
	bootMode string
	sizes    string       // root_mb and others, as YAML, for an image of a file system
	raid     string       // configuration of software RAID, as YAML; "" is none
	image    []byte       // as it is published
	digest   string       // SHA-512 that the conductor tells; "" is the right one
	server   http.Handler // of the image; nil is one that works
	network4 string       // network_data.json; "" is the right one
	only6    bool         // the machine has no IPv4 address, and all URLs have IPv6 ones
	apiURL   string       // ipa-api-url on the medium; "" is the right one
	broken   string       // what network_data.json on the medium holds in the end; "" leaves it
	params   []string     // more parameters on the medium
	medium   string       // type of the medium: floppy, usb, iso, none
	ca       string       // CA file on the medium; "" is the right one
	token    string       // token on the medium; "" is the one that the conductor knows
	wrap     func(http.Handler) http.Handler
	poll     string
	timeouts string // more of the conductor's YAML

	conductor *conductor.Conductor
	failed    error
	done      chan struct{}

	mu     sync.Mutex
	events []string
}

var networks atomic.Int32

// newLab prepares surroundings in which all goes well.
func newLab(t testing.TB) *lab {
	t.Helper()
	vmtest.Require(t)
	dir, err := os.MkdirTemp("", "lab") // without the test's name, which is no good in YAML and arguments
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &lab{
		t: t, dir: dir, network: vmtest.NewNetwork(t, int(networks.Add(1))),
		uuid: labUUID, mac: labMAC, hint: "{serial: ROOT}", handoff: "kexec", bootMode: "bios", medium: "floppy", poll: "1s",
		image: grubSystem.make(t), done: make(chan struct{}),
	}
}

// api is the URL of the conductor.
func (l *lab) api() string { return "https://" + net.JoinHostPort(l.host(), "6385") }

// host is the address of the conductor and of the image's server.
func (l *lab) host() string {
	if l.only6 {
		return l.network.Host6.Addr().String()
	}
	return l.network.Host4.Addr().String()
}

// start starts the conductor and the image's server.
func (l *lab) start() {
	l.t.Helper()
	hosts := []string{l.network.Host4.Addr().String(), l.network.Host6.Addr().String()}
	if err := conductor.WriteCertificates(l.path("tls"), hosts); err != nil {
		l.t.Fatal(err)
	}
	if err := conductor.WriteToken(l.path("token")); err != nil {
		l.t.Fatal(err)
	}
	if l.digest == "" {
		sum := sha512.Sum512(l.image)
		l.digest = hex.EncodeToString(sum[:])
	}
	if l.server == nil {
		content := l.image
		l.server = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"1"`)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
		})
	}
	// The image comes over TLS with the conductor's certificate, from a server that can be made to fail.
	listener, err := net.Listen("tcp", net.JoinHostPort(l.host(), "0"))
	if err != nil {
		l.t.Fatal(err)
	}
	images := &http.Server{Handler: l.server}
	go images.ServeTLS(listener, l.path("tls/server.crt"), l.path("tls/server.key"))
	l.t.Cleanup(func() { images.Close() })

	l.conduct(fmt.Sprintf(`
listen: ["%s:6385", "[%s]:6385"]
public_url: %s
tls: {cert: %s, key: %s}
poll: %s
heartbeat_timeout: 20s
callback_timeout: 5m
exit: done
%s
nodes:
  - name: node
    uuid: %s
    macs: ["%s"]
    token_file: %s
    boot_mode: %s
    properties: {root_device: %s}
    image: {url: "https://%s/disk.img", sha512: "%s", disk_format: raw%s}
    config_drive: {hostname: lab-host, report: false}
    raid: %s
    handoff: %s
`, l.network.Host4.Addr(), l.network.Host6.Addr(), l.api(), l.path("tls/server.crt"), l.path("tls/server.key"), l.poll, l.timeouts,
		l.uuid, l.mac, l.path("token"), l.bootMode, l.hint, listener.Addr(), l.digest, l.sizes, cmp.Or(l.raid, "null"), l.handoff))
}

// conduct starts a conductor.
func (l *lab) conduct(yaml string) {
	l.t.Helper()
	config, err := conductor.ParseConfig([]byte(yaml))
	if err != nil {
		l.t.Fatal(err)
	}
	l.conductor, err = conductor.New(config, conductor.Options{Event: l.event, Wrap: l.wrap})
	if err != nil {
		l.t.Fatal(err)
	}
	if err := l.conductor.Listen(); err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.t.Cleanup(func() { cancel(); <-l.done })
	go func() {
		defer close(l.done)
		l.failed = l.conductor.Run(ctx)
	}()
}

// serve has the image be what is in a file.
func (l *lab) serve(path string) {
	l.t.Helper()
	var err error
	if l.image, err = os.ReadFile(path); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) event(e conductor.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, fmt.Sprintf("%s: %s", e.Kind, e.Text))
}

// timeline is what the conductor saw.
func (l *lab) timeline() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.events, "\n")
}

func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

// machine is the node: two disks, of which ROOT is the second, and a NIC. Where a step has failed, nothing else is waited for.
func (l *lab) machine() vmtest.Machine {
	l.t.Helper()
	m := vmtest.Machine{
		Cmdline: "boot_method=vmedia", Hopeless: `step: \w+ FAILED.*\n`,
		Disks: []vmtest.Disk{{Size: 5 << 30, Serial: "OTHER"}, {Size: 6 << 30, Serial: "ROOT"}},
		NICs:  []vmtest.NIC{{MAC: l.mac, Network: l.network}},
	}
	switch l.medium {
	case "none":
	case "floppy":
		m.Floppy = l.makeMedium()
	case "usb":
		m.USB = l.makeMedium()
	case "iso":
		m.CD = []string{l.makeMedium()}
	default:
		l.t.Fatalf("medium %q", l.medium)
	}
	return m
}

// makeMedium makes the node's configuration medium with mkramdisk, as a person would.
func (l *lab) makeMedium() string {
	l.t.Helper()
	ca, token := l.ca, l.token
	if ca == "" {
		ca = l.path("tls/ca.crt")
	}
	if token == "" {
		token = l.path("token")
	}
	data := l.network4
	if data == "" {
		data = l.networkData(l.mac)
	}
	if err := os.WriteFile(l.path("network_data.json"), []byte(data), 0o600); err != nil {
		l.t.Fatal(err)
	}
	out := l.path("medium.img")
	args := []string{"media", "--type", l.medium, "--out", out, "--node-uuid", l.uuid, "--token-file", token,
		"--ca", ca, "--network-data", l.path("network_data.json"), "--param", "ipa-api-url=" + cmp.Or(l.apiURL, l.api())}
	for _, p := range l.params {
		args = append(args, "--param", p)
	}
	l.run(vmtest.Artefact(l.t, "mkramdisk"), args...)
	if l.broken != "" { // mkramdisk would not write it
		if err := os.WriteFile(l.path("broken"), []byte(l.broken), 0o600); err != nil {
			l.t.Fatal(err)
		}
		l.run("mcopy", "-o", "-i", out, l.path("broken"), "::openstack/latest/network_data.json")
	}
	return out
}

func (l *lab) networkData(mac string) string {
	if l.only6 {
		return fmt.Sprintf(`{
  "links": [{"id": "port0", "type": "phy", "ethernet_mac_address": %q}],
  "networks": [{"id": "n6", "network_id": "x", "link": "port0", "type": "ipv6", "ip_address": "%s", "routes": [{"network": "::", "netmask": "::0", "gateway": "%s"}]}],
  "services": [{"type": "dns", "address": "%[3]s"}]}`, mac, l.network.Guest6, l.network.Host6.Addr())
	}
	return fmt.Sprintf(`{
  "links": [{"id": "port0", "type": "phy", "ethernet_mac_address": %q, "mtu": 1500}],
  "networks": [
    {"id": "n4", "network_id": "x", "link": "port0", "type": "ipv4", "ip_address": "%s", "netmask": "255.255.255.0",
     "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "%s"}]},
    {"id": "n6", "network_id": "x", "link": "port0", "type": "ipv6", "ip_address": "%s", "netmask": "ffff:ffff:ffff:ffff::",
     "routes": [{"network": "::", "netmask": "::", "gateway": "%s"}]}],
  "services": [{"type": "dns", "address": "%s"}]}`,
		mac, l.network.Guest4.Addr(), l.network.Host4.Addr(), l.network.Guest6.Addr(), l.network.Host6.Addr(), l.network.Host4.Addr())
}

func (l *lab) run(name string, args ...string) string {
	l.t.Helper()
	return run(l.t, name, args...)
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return string(out)
}

// result waits for the end of the deployment, as the conductor sees it.
func (l *lab) result(within time.Duration) error {
	l.t.Helper()
	select {
	case <-l.done:
	case <-time.After(within):
		l.t.Fatalf("the deployment has not ended within %v:\n%s", within, l.timeline())
	}
	return l.failed
}

// wantFailure waits until the conductor has given up, and wants the reason in its last error and on the console.
func (l *lab) wantFailure(vm *vmtest.VM, reason string, within time.Duration) {
	l.t.Helper()
	if err := l.result(within); err == nil {
		l.t.Fatalf("the deployment succeeded, want it to fail with %q", reason)
	}
	if last := l.conductor.Nodes()[0].LastError; !strings.Contains(last, reason) {
		l.t.Errorf("last error = %q, want %q in it", last, reason)
	}
	if !strings.Contains(vm.Console(), reason) {
		l.t.Errorf("the console does not show %q", reason)
	}
}

// wantEmpty wants nothing on a disk that could start or be mounted, by the word of blkid and wipefs.
func wantEmpty(t testing.TB, disk string) {
	t.Helper()
	if out := run(t, "wipefs", "--no-act", disk); strings.TrimSpace(out) != "" {
		t.Errorf("wipefs finds on %s:\n%s", filepath.Base(disk), out)
	}
}

// A system is a small operating system on a disk: a GPT with boot code that speaks on the serial port, Debian's kernel, and an initial
// ramdisk that says IMAGE RUNS and powers off. Each is made once.
type system struct {
	script string
	once   sync.Once
	image  []byte
	err    error
}

// grubSystem has GRUB's menu and the kernel on ext4.
var grubSystem = &system{script: `
mkdir -p root/boot/grub
cp vmlinuz root/boot/vmlinuz-1
cp initrd root/boot/initrd.img-1
cat >root/boot/grub/grub.cfg <<END
set default="0"
menuentry 'Test system' --class debian {
	search --no-floppy --fs-uuid --set=root 6f2c1a30-8d0e-4c55-9f6e-2f4d3c9a7b10
	linux /boot/vmlinuz-1 root=UUID=6f2c1a30-8d0e-4c55-9f6e-2f4d3c9a7b10 ro console=ttyS0 quiet panic=-1 no_timer_check marker=from-grub
	initrd /boot/initrd.img-1
}
END
printf 'label: gpt\nstart=2048, size=126976, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name=root\n' | sfdisk --quiet disk
mke2fs -q -t ext4 -U 6f2c1a30-8d0e-4c55-9f6e-2f4d3c9a7b10 -L root -d root fs 62M
`}

// signedSystem has the signed boot loader where Debian's packages put it, and an entry of the Boot Loader Specification instead of GRUB's menu; its file system, which begins at 1 MiB, is a partition image.
var signedSystem = &system{script: `
mkdir -p root/boot root/usr/lib/shim root/usr/lib/grub/x86_64-efi-signed
cp vmlinuz root/boot/vmlinuz-1
cp initrd root/boot/initrd.img-1
cp /usr/lib/shim/shimx64.efi.signed /usr/lib/shim/BOOTX64.CSV root/usr/lib/shim/
cp /usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed root/usr/lib/grub/x86_64-efi-signed/
mkdir -p root/boot/loader/entries
printf 'title Test system\nversion 1\nlinux /boot/vmlinuz-1\ninitrd /boot/initrd.img-1\noptions ro console=ttyS0 quiet panic=-1 no_timer_check marker=from-esp\n' >root/boot/loader/entries/one.conf
mke2fs -q -t ext4 -U 6f2c1a30-8d0e-4c55-9f6e-2f4d3c9a7b10 -L root -d root fs 62M
`}

// biosSystem has GRUB for BIOS where Debian's packages put it, and neither a menu nor boot code; its file system, which begins at 1 MiB, is a partition image.
var biosSystem = &system{script: biosRoot + "mke2fs -q -t ext4 -U 6f2c1a30-8d0e-4c55-9f6e-2f4d3c9a7b10 -L root -d root fs 62M\n"}

// xfsSystem and btrfsSystem are the same on other file systems, of 300 and 200 MiB.
var (
	xfsSystem = &system{script: biosRoot + `
truncate -s 300M fs
mkfs.xfs -q -m uuid=6f2c1a30-8d0e-4c55-9f6e-2f4d3c9a7b10 -L root fs
mkdir mnt
mount -o loop fs mnt
cp -r root/. mnt/
umount mnt
`}
	btrfsSystem = &system{script: biosRoot + "truncate -s 200M fs; mkfs.btrfs -q -L root --rootdir root fs\n"}
)

const biosRoot = `
mkdir -p root/boot root/usr/lib/grub
cp vmlinuz root/boot/vmlinuz-1
cp initrd root/boot/initrd.img-1
cp -r /usr/lib/grub/i386-pc root/usr/lib/grub/
mkdir -p root/boot/loader/entries
printf 'title Test system\nversion 1\nlinux /boot/vmlinuz-1\ninitrd /boot/initrd.img-1\noptions ro console=ttyS0 quiet panic=-1 no_timer_check marker=from-bios\n' >root/boot/loader/entries/one.conf
`

// bootSystem has systemd-boot's menu, in the form of the Boot Loader Specification, and the kernel on a FAT EFI system partition, and
// is for a disk with sectors of 4096 bytes.
var bootSystem = &system{script: `
loop=$(losetup --find --show --sector-size 4096 disk)
printf 'label: gpt\nstart=256, size=15872, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=esp\n' | sfdisk --quiet --no-reread --no-tell-kernel $loop
losetup --detach $loop
truncate -s 62M fs
mkfs.vfat -S 4096 -s 1 -n ESP fs >/dev/null
printf 'default one.conf\n' >loader.conf
printf 'title Test system\nversion 1\nlinux /one/linux\ninitrd /one/initrd\noptions console=ttyS0 quiet panic=-1 no_timer_check marker=from-bls\n' >one.conf
printf 'title Another\nversion 2\nlinux /one/none\n' >two.conf
mmd -i fs ::EFI ::EFI/systemd ::EFI/BOOT ::loader ::loader/entries ::one
mcopy -i fs one.conf ::EFI/systemd/systemd-bootx64.efi
mcopy -i fs one.conf ::EFI/BOOT/BOOTX64.EFI
mcopy -i fs loader.conf ::loader/
mcopy -i fs one.conf two.conf ::loader/entries/
mcopy -i fs vmlinuz ::one/linux
mcopy -i fs initrd ::one/initrd
`}

// make returns the image of the system's disk.
func (s *system) make(t testing.TB) []byte {
	t.Helper()
	s.once.Do(func() { s.image, s.err = s.build(t) })
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.image
}

func (s *system) build(t testing.TB) ([]byte, error) {
	dir, err := os.MkdirTemp("", "image")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	initrd := vmtest.Pack(t, map[string]string{"init": vmtest.Build(t, "./testdata/runs")})
	script := `set -eu
cd "$1"
cp -L "$2" vmlinuz
cp "$3" initrd
truncate -s 67108864 disk
` + s.script + `
dd if=fs of=disk bs=1M seek=1 conv=notrunc status=none
`
	if out, err := exec.Command("bash", "-c", script, "bash", dir, vmtest.Artefact(t, "kernel/vmlinuz"), initrd).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make image: %v\n%s", err, out)
	}
	disk, err := os.ReadFile(filepath.Join(dir, "disk"))
	if err != nil {
		return nil, err
	}
	copy(disk, vmtest.BootCode())
	return disk, nil
}
