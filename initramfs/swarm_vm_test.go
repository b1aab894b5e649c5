// SPDX-License-Identifier: Apache-2.0

package initramfs_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/agent/conductor"
	"github.com/ironhand/ironhand/initramfs/vmtest"
)

// Three machines get one image by BitTorrent, from a conductor whose uplink is what is scarce. One of them loses its power in the middle and goes on with what is on its disk. When the first has
// all of the image the conductor goes away, and with it seeder and tracker: the one that is late gets the rest from the others.
func TestVMSwarm(t *testing.T) {
	for _, tt := range []struct {
		name  string
		image func(t *testing.T, to string)
		upKB  int // of the conductor, and what the machine takes that is late
		time  time.Duration
		long  bool
	}{
		{name: "small", upKB: 1 << 10, time: deployTime, image: func(t *testing.T, to string) {
			disk := slices.Clone(grubSystem.make(t))
			rand.NewChaCha8([32]byte{}).Read(disk[1<<20 : len(disk)-1<<20]) // what is zero is on many disks already
			if err := os.WriteFile(to, disk, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "Debian", upKB: 4 << 10, time: 30 * time.Minute, long: true, image: func(t *testing.T, to string) {
			run(t, "zstd", "-q", "-d", "-o", to, vmtest.Artefact(t, "image/debian.img.zst"))
		}},
	} {
		if tt.long && os.Getenv("LONG") == "" {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			labs := []*lab{newLab(t), newLab(t), newLab(t)}
			l := labs[0]
			if err := os.Mkdir(l.path("files"), 0o700); err != nil {
				t.Fatal(err)
			}
			image := l.path("files/disk.img")
			tt.image(t, image)
			l.wrap = func(h http.Handler) http.Handler { // no mirror: what the conductor sends goes through its seeder
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if strings.HasPrefix(r.URL.Path, "/files/") {
						http.NotFound(w, r)
						return
					}
					h.ServeHTTP(w, r)
				})
			}
			l.startSwarm(labs, tt.upKB)

			// 1. All begin, and those that are done leave when the test ends. The disks are as large as the image, so that what it has of a GPT at its end stays where it is. That of the machine that is late is full of old data.
			info, err := os.Stat(image)
			if err != nil {
				t.Fatal(err)
			}
			late := len(labs) - 1
			machines, vms := make([]vmtest.Machine, len(labs)), make([]*vmtest.VM, len(labs))
			for i, one := range labs {
				one.params = []string{"ironhand-torrent-share=3600"}
				if i == late {
					one.params = []string{fmt.Sprintf("ironhand-torrent-down=%d", tt.upKB)}
				}
				machines[i] = one.machine()
				machines[i].Disks = []vmtest.Disk{{Size: info.Size(), Serial: "ROOT"}}
				if i == late {
					machines[i].Disks[0].Path = l.path("disk")
					run(t, "bash", "-c", fmt.Sprintf(`head -c %d /dev/zero | tr '\0' '\377' >"$1"`, info.Size()), "bash", l.path("disk"))
				}
				vms[i] = vmtest.Start(t, machines[i])
			}

			// 2. The power of one goes, and comes again.
			const begun = `write: .*, ([3-9]|\d\d+) MiB written`
			vms[late].Expect(t, begun, bootTime+deployTime)
			vms[late].Stop()
			wantNoSecrets(t, labs[late], vms[late])
			l.conductor.PowerCycled(labs[late].uuid)
			vms[late] = vmtest.Start(t, machines[late])
			vms[late].Expect(t, begun, bootTime+deployTime)

			// 3. The conductor goes, when one has all of it and another has not.
			const whole = `(verify|read-back|commit): \d+ of`
			vms[0].Expect(t, whole, tt.time)
			l.conductor.Pause()
			if regexp.MustCompile(whole).MatchString(vms[late].Console()) {
				t.Error("the machine that was to be late is not: that the others serve it is not shown")
			}
			for i, vm := range vms {
				m := vm.Expect(t, `torrent disk.img .*: (\d+) MiB from peers, 0 MiB from mirrors, (\d+) MiB were on the disk already, \d+ MiB are zeros\n`, tt.time)
				t.Logf("machine %d: %s", i, strings.TrimSpace(m[0]))
				if (m[2] != "0") != (i == late) {
					t.Errorf("machine %d found %s MiB on its disk", i, m[2])
				}
			}

			// 4. It comes again, and finds that all is well.
			if err := l.conductor.Resume(); err != nil {
				t.Fatal(err)
			}
			if err := l.result(deployTime); err != nil {
				t.Fatalf("conductor: %v\n%s", err, l.timeline())
			}
			vms[late].Wait(t, time.Minute)
			for i, vm := range vms {
				vm.Stop()
				run(t, "cmp", vm.Disks[0], image)
				wantNoSecrets(t, labs[i], vm)
			}
			sent := 0.0 // in copies
			for _, m := range regexp.MustCompile(`disk.img: \d+ MiB were sent to nodes that share it, (\S+) copies`).FindAllStringSubmatch(l.timeline(), -1) {
				copies, err := strconv.ParseFloat(m[1], 64)
				if err != nil {
					t.Fatal(err)
				}
				sent += copies
			}
			data := dataOf(t, image)
			if t.Logf("%.2f copies of the image, of which %.2f are not zero, came from the conductor", sent, data); sent < 0.9*data || sent > 2.2 {
				t.Errorf("the conductor has sent %.2f copies of the image, want %.2f to 2.2:\n%s", sent, data, l.timeline())
			}
		})
	}
}

// dataOf is which part of the blocks of a file is not all zeros.
func dataOf(t *testing.T, file string) float64 {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var data, all float64
	for block, zeros := make([]byte, 64<<10), make([]byte, 64<<10); ; all++ {
		n, err := io.ReadFull(f, block)
		if err == io.EOF {
			return data / all
		}
		if err != nil && err != io.ErrUnexpectedEOF {
			t.Fatal(err)
		}
		if !bytes.Equal(block[:n], zeros[:n]) {
			data++
		}
	}
}

// startSwarm starts a conductor that deploys the machines of some labs, whose networks it connects.
func (l *lab) startSwarm(labs []*lab, upKB int) {
	l.t.Helper()
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil { // in the namespace of the tests
		l.t.Fatal(err)
	}
	if err := conductor.WriteCertificates(l.path("tls"), []string{l.host()}); err != nil {
		l.t.Fatal(err)
	}
	yaml := fmt.Sprintf(`
listen: ["%s:6385"]
public_url: %s
tls: {cert: %s, key: %s}
files: %s
poll: 1s
heartbeat_timeout: 20s
exit: done
torrent: {up_kb: %d}
nodes:
`, l.host(), l.api(), l.path("tls/server.crt"), l.path("tls/server.key"), l.path("files"), upKB)
	for i, one := range labs {
		if err := conductor.WriteToken(one.path("token")); err != nil {
			l.t.Fatal(err)
		}
		one.uuid, one.mac = fmt.Sprintf("%s%d", labUUID[:len(labUUID)-1], i), fmt.Sprintf("%s%d", labMAC[:len(labMAC)-1], i)
		one.apiURL, one.ca = l.api(), l.path("tls/ca.crt")
		yaml += fmt.Sprintf(`
  - name: node%d
    uuid: %s
    macs: ["%s"]
    token_file: %s
    boot_mode: bios
    properties: {root_device: {serial: ROOT}}
    image: {file: disk.img, torrent: true}
    handoff: poweroff
`, i, one.uuid, one.mac, one.path("token"))
	}
	l.conduct(yaml)
}
