// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ironhand/ironhand/agent"
	"github.com/ironhand/ironhand/agent/conductor"
	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/initramfs/media"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/inspect/inspecttest"
	"github.com/ironhand/ironhand/netconfig"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/generic"
	"github.com/ironhand/ironhand/stream/streamtest"
)

const (
	nodeUUID = "1be26c0b-03f2-4d2e-ae87-c02d7f33c123"
	nodeMAC  = "52:54:00:4e:3d:30" // of the recorded machine

	imageSize = 12 << 20
	diskSize  = 80 << 20 // room for the config drive's 64 MiB
)

// site is an agent's surroundings: a real conductor, and a machine of fakes that keep what was done to them.
type site struct {
	t         *testing.T
	dir       string
	conductor *conductor.Conductor
	result    chan error
	medium    []media.Medium
	port      int // of the agent's API
	disk      *streamtest.Disk
	opened    []string
	kexec     error // of loading the kernel
	jump      error // of the jump into it
	firmware  error // of making its boot entry
	entries   []string
	network   netconfig.Kernel
	loaded    bool
	kill      bool // the agent, when it opens the disk
	clock     []time.Time

	mu      sync.Mutex
	console bytes.Buffer // and log
	events  []string
	ended   []boot.How
}

func (s *site) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.console.Write(b)
}

func (s *site) shown() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.console.String()
}

// happened is the conductor's view, a line for each event.
func (s *site) happened() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.events, "\n")
}

// options of a site's node, in the conductor's YAML.
type options struct {
	hint, handoff, sha512, bootMode string
	token                           bool // on the medium, from before
}

func newSite(t *testing.T, o options) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), port: streamtest.FreePort(t), result: make(chan error, 1), disk: streamtest.NewDisk(diskSize, 512)}
	image := gptImage(t)
	if o.sha512 == "" {
		sum := sha512.Sum512(image)
		o.sha512 = hex.EncodeToString(sum[:])
	}
	s.write("files/disk.img", image)
	s.write("files/disk.img.sha512", []byte(o.sha512+"  disk.img\n"))
	if err := conductor.WriteCertificates(s.path("tls"), []string{"127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	if err := conductor.WriteToken(s.path("token")); err != nil {
		t.Fatal(err)
	}
	token, tokenFile := "", ""
	if o.token {
		b, err := os.ReadFile(s.path("token"))
		if err != nil {
			t.Fatal(err)
		}
		token, tokenFile = "ipa-agent-token="+strings.TrimSpace(string(b)), "token_file: token"
	}
	s.write("lab.yaml", []byte(fmt.Sprintf(`
listen: ["127.0.0.1:0"]
tls: {cert: tls/server.crt, key: tls/server.key}
files: files
poll: 100ms
heartbeat_timeout: 10s
exit: done
nodes:
  - uuid: %s
    macs: ["%s"]
    %s
    boot_mode: %s
    properties: {root_device: %s}
    image: {file: disk.img}
    config_drive: {hostname: test-host}
    handoff: %s
`, nodeUUID, nodeMAC, tokenFile, or(o.bootMode, "bios"), or(o.hint, "{serial: root-disk}"), or(o.handoff, "kexec"))))
	config, err := conductor.LoadConfig(s.path("lab.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	s.conductor, err = conductor.New(config, conductor.Options{Event: func(e conductor.Event) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, fmt.Sprintf("%s: %s", e.Kind, e.Text))
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.conductor.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go func() { s.result <- s.conductor.Run(ctx) }()
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(s.happened(), "SHA-512"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) { // until then it answers that the node is locked, for which the agent waits 5 s
			t.Fatal("the conductor does not get ready")
		}
	}

	ca, err := os.ReadFile(s.path("tls/ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	s.medium = []media.Medium{{Device: "/dev/fd0", Kind: "floppy", Label: "ir-vfd-dev", Files: map[string][]byte{
		"parameters.txt": []byte(fmt.Sprintf("ipa-api-url=https://%s %s ipa-listen-host=127.0.0.1 ipa-listen-port=%d ipa-image-download-connection-timeout=5 "+
			"ipa-image-download-connection-retries=0 ipa-disk-wait-attempts=1\n", s.conductor.Addrs()[0], token, s.port)),
		"etc/ironic-python-agent/ironic.crt":              ca,
		"etc/ironic-python-agent.d/ironic-tls.conf":       []byte("[DEFAULT]\ncafile = /etc/ironic-python-agent/ironic.crt\n"),
		"etc/ironic-python-agent.d/unrelated-options.txt": []byte("not a configuration file"),
	}}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console:\n%s\nconductor:\n%s", s.shown(), s.happened())
		}
	})
	return s
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(name string, b []byte) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.path(name), b, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// gptImage is a GPT disk with one partition, made by sfdisk.
func gptImage(t *testing.T) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, imageSize); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sfdisk", "--quiet", file)
	cmd.Stdin = strings.NewReader("label: gpt\nstart=2048, size=16384, name=root\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v: %s", err, out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1 << 20; i < 8<<20; i++ {
		b[i] = byte(i ^ i>>8)
	}
	return b
}

// run runs the agent until the machine is told to go down, or the given time has passed.
func (s *site) run(within time.Duration) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), within)
	defer cancel()
	machine := inspecttest.Machine(s.t, "../inspect/testdata/virtio.txt")
	if s.disk != nil {
		inspecttest.Resize(machine, s.disk.Size(), s.disk.Sector)
	}
	return agent.Run(ctx, agent.Options{
		Parts:   agent.Parts{Managers: []steps.Manager{generic.Manager{}}},
		Version: "test", Out: s, Log: s,
		System: agent.System{
			Root:     fstest.MapFS{},
			Cmdline:  "quiet boot_method=vmedia console=ttyS0",
			StateDir: s.path("state"),
			Machine:  inspect.Machine{FS: machine},
			FindMedia: func(context.Context, func(string)) ([]media.Medium, []media.Seen, error) {
				return s.medium, nil, nil
			},
			Network: func() (netconfig.Kernel, error) {
				if s.network == nil {
					return nil, errors.New("not looked at in this test")
				}
				return s.network, nil
			},
			OpenDisk: func(path string) (steps.Disk, error) {
				s.opened = append(s.opened, path)
				if s.kill {
					cancel()
					time.Sleep(500 * time.Millisecond) // until nobody can be told any more
					return nil, errors.New("killed")
				}
				if s.disk == nil {
					return nil, errors.New("open disk " + path + ": in use")
				}
				return s.disk, nil
			},
			SetClock:     func(to time.Time) error { s.clock = append(s.clock, to); return nil },
			LoadKernel:   func(context.Context, string) (string, error) { s.loaded = s.kexec == nil; return "its kernel", s.kexec },
			KernelLoaded: func() bool { return s.loaded },
			UnloadKernel: func() error { s.loaded = false; return nil },
			KernelLog:    func() ([]byte, error) { return []byte("its log"), nil },
			Sync:         func() error { return nil },
			InstallUEFI: func(_ context.Context, _ steps.Host, d steps.Deployed) (string, error) {
				s.entries = append(s.entries, d.Disk)
				return "Boot0001 on " + d.Disk, s.firmware
			},
			Power: func(ctx context.Context, how boot.How) error {
				s.mu.Lock()
				s.ended = append(s.ended, how)
				s.mu.Unlock()
				if how == boot.Kexec && s.jump != nil {
					return s.jump
				}
				cancel() // as process 1 ends the agent
				return nil
			},
		},
	})
}

// The whole way, with a real conductor, real TLS and real commands.
func TestRun(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		options options
		change  func(*site)
		ended   []boot.How
		shows   []string
	}{
		{"kexec", options{}, nil, []boot.How{boot.Kexec}, []string{`media: floppy /dev/fd0`, `heartbeat: first one accepted`, `hand-off: start the loaded kernel`}},
		{"pregenerated token", options{token: true}, nil, []boot.How{boot.Kexec}, nil},
		{"no kexec: through the firmware", options{}, func(s *site) { s.kexec = errors.New("kexec: it is disabled") }, []boot.How{boot.Reboot},
			[]string{`kexec FAILED: .*it is disabled`, `hand-off: reboot`}},
		{"the jump fails: through the firmware", options{}, func(s *site) { s.jump = errors.New("no jump today") }, []boot.How{boot.Kexec, boot.Reboot},
			[]string{`hand-off: no jump today; rebooting through the firmware instead`}},
		{"reboot", options{handoff: "reboot"}, nil, []boot.How{boot.Reboot}, nil},
		{"power off", options{handoff: "poweroff"}, nil, []boot.How{boot.PowerOff}, []string{`hand-off: power off`}},
		{"UEFI", options{bootMode: "uefi", handoff: "reboot"}, nil, []boot.How{boot.Reboot}, []string{`boot loader: Boot0001 on /dev/vda`}},
		{"two disks fit", options{hint: `{size: "< 1"}`}, nil, []boot.How{boot.Kexec}, []string{`writing https://.*/files/disk.img to /dev/sda.*the hints fit /dev/vda too`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, test.options)
			if test.change != nil {
				test.change(s)
			}
			if err := s.run(time.Minute); err != nil {
				t.Fatalf("Run() = %v", err)
			}
			select {
			case err := <-s.result:
				if err != nil {
					t.Errorf("the conductor's deployment: %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Error("the conductor's deployment has not ended")
			}
			if !slices.Equal(s.ended, test.ended) {
				t.Errorf("the machine went down by %v, want %v", s.ended, test.ended)
			}
			if uefi := test.options.bootMode == "uefi"; uefi != slices.Equal(s.entries, []string{"/dev/vda"}) || !uefi && s.entries != nil {
				t.Errorf("boot entries were made for %q", s.entries)
			}
			if got := s.conductor.Nodes()[0].Agent; got != fmt.Sprintf("https://127.0.0.1:%d", s.port) {
				t.Errorf("the conductor was told to call %s", got)
			}
			s.wantConsole(test.shows...)
			s.wantNoToken()
			s.wantSoundDisk()
		})
	}
}

// wantSoundDisk has sgdisk look at what is on the disk.
func (s *site) wantSoundDisk() {
	s.t.Helper()
	file := s.path("written")
	s.write("written", s.disk.Bytes)
	out, err := exec.Command("sgdisk", "-v", file).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No problems found") {
		s.t.Errorf("sgdisk -v: %v\n%s", err, out)
	}
	if out, _ := exec.Command("sgdisk", "-p", file).CombinedOutput(); !strings.Contains(string(out), "config-2") {
		s.t.Errorf("no config drive:\n%s", out)
	}
}

func (s *site) wantConsole(texts ...string) {
	s.t.Helper()
	for _, text := range texts {
		if !matches(s.shown(), text) {
			s.t.Errorf("the console does not show %q", text)
		}
	}
}

// wantNoToken looks for the tokens of the site in all that was printed.
func (s *site) wantNoToken() {
	s.t.Helper()
	for _, file := range []string{"token", "state/token"} {
		b, err := os.ReadFile(s.path(file))
		if err != nil {
			continue // the site has none of this kind
		}
		if strings.Contains(s.shown()+s.happened(), strings.TrimSpace(string(b))) {
			s.t.Errorf("%s was printed", file)
		}
	}
}

// A deployment that fails names the reason to the conductor and on the console, and leaves no disk that boots.
func TestRunStepFails(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		options options
		break_  func(*site)
		want    string
		touched bool
	}{
		{"wrong digest", options{sha512: strings.Repeat("a", 128)}, nil, "digest does not match", true},
		{"disk in use", options{}, func(s *site) { s.disk = nil }, "open disk /dev/vda: in use", false},
		{"no disk fits", options{hint: "{serial: none-such}"}, nil, "none-such", false},
		{"disk too small", options{}, func(s *site) { s.disk = streamtest.NewDisk(8<<20, 512) }, "larger than the disk", false},
		{"4096-byte sectors", options{}, func(s *site) { s.disk = streamtest.NewDisk(diskSize, 4096) }, "sector size", false},
		{"write error", options{}, func(s *site) { s.disk.FailWriteAt = 5 << 20 }, "input/output error", true},
		{"disk that lies", options{}, func(s *site) { s.disk.Flip = 100 }, "does not return what was written", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, test.options)
			if test.break_ != nil {
				test.break_(s)
			}
			done := make(chan error, 1)
			go func() { done <- s.run(25 * time.Second) }()
			var err error
			select {
			case err = <-s.result:
			case <-time.After(20 * time.Second):
				t.Fatal("the deployment has not ended")
			}
			if err == nil {
				t.Fatal("the deployment succeeded")
			}
			if last := s.conductor.Nodes()[0].LastError; !strings.Contains(last, test.want) {
				t.Errorf("last error = %q, want %q in it", last, test.want)
			}
			s.wantConsole("FAILED: .*" + test.want)
			s.wantNoToken()
			if s.disk == nil {
				return
			}
			head := s.disk.Bytes[:1<<20]
			if old := bytes.Equal(head, bytes.Repeat([]byte{streamtest.Old}, len(head))); test.touched == old {
				t.Errorf("the start of the disk is as it was: %v", old)
			}
			if test.touched && !bytes.Equal(head, make([]byte, len(head))) {
				t.Error("the start of the disk is not zero")
			}
		})
	}
}

// An agent that is started again within one boot keeps media, token and certificate.
func TestRunAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{handoff: "poweroff"})
	s.kill = true
	if err := s.run(time.Minute); err != nil {
		t.Fatalf("first Run() = %v", err)
	}
	token, err := os.ReadFile(s.path("state/token"))
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := os.ReadFile(s.path("state/certificate/agent.pem"))
	if err != nil {
		t.Fatal(err)
	}
	s.kill, s.medium = false, nil // it has vanished
	if err := s.run(time.Minute); err != nil {
		t.Fatalf("second Run() = %v", err)
	}
	s.wantConsole(`media: kept from the start of this boot`)
	for file, before := range map[string][]byte{"state/token": token, "state/certificate/agent.pem": certificate} {
		after, err := os.ReadFile(s.path(file))
		if err != nil || !bytes.Equal(before, after) {
			t.Errorf("%s has changed: %v", file, err)
		}
	}
	if err := <-s.result; err != nil {
		t.Errorf("the conductor's deployment: %v", err)
	}
}

// What is wrong before the conductor is known is an error with what to check.
func TestRunStageFails(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(*site)
		want   string
		check  string
	}{
		{"no API URL", func(s *site) { s.medium[0].Files["parameters.txt"] = []byte("ipa-debug=1\n") }, "no ipa-api-url given", "ipa-api-url"},
		{"bad value", func(s *site) {
			s.medium[0].Files["parameters.txt"] = []byte("ipa-api-url=https://h ipa-listen-port=x\n")
		}, "ipa-listen-port", "parameters"},
		{"CA that is none", func(s *site) { s.medium[0].Files["etc/ironic-python-agent/ironic.crt"] = []byte("hello") }, "no certificate", "PEM"},
		{"no CA", func(s *site) { delete(s.medium[0].Files, "etc/ironic-python-agent/ironic.crt") }, "cafile", "parameters"},
		{"broken network data", func(s *site) { s.medium[0].Files["openstack/latest/network_data.json"] = []byte(`{"links": [}`) }, "line 1", "network_data.json"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, options{})
			test.change(s)
			err := s.run(10 * time.Second)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("Run() = %v, want %q in it", err, test.want)
			}
			s.wantConsole("FAILED: .*"+test.want, "check: .*"+test.check)
			if strings.Contains(s.happened(), "lookup:") {
				t.Error("the agent went on to look up its node")
			}
		})
	}
}

// A second lookup after the token was lost: nothing is served that nobody could be allowed to use.
func TestRunTokenLost(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{handoff: "poweroff"})
	s.kill = true
	if err := s.run(time.Minute); err != nil {
		t.Fatalf("first Run() = %v", err)
	}
	if err := os.Remove(s.path("state/token")); err != nil {
		t.Fatal(err)
	}
	if err := s.run(10 * time.Second); err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("Run() = %v, want an error about the token", err)
	}
	s.wantConsole(`lookup: FAILED: .*token`, `lookup: check: `)
	if n := strings.Count(s.shown(), " api: https://"); n != 1 {
		t.Errorf("the API was opened %d times, want once: before the token was lost", n)
	}
}

// A boot entry that cannot be made fails the deployment: the machine would start something else.
func TestRunNoBootEntry(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{bootMode: "uefi", handoff: "reboot"})
	s.firmware = errors.New("efivars is full")
	go s.run(25 * time.Second) // it would serve on
	if err := <-s.result; err == nil || !strings.Contains(err.Error(), "boot entry for /dev/vda: efivars is full") {
		t.Errorf("the conductor's deployment: %v", err)
	}
	if s.ended != nil {
		t.Errorf("the machine went down by %v", s.ended)
	}
}

// wires are the network of the recorded machine: one NIC, whose routes cannot be changed.
type wires struct{ state netconfig.State }

func (w *wires) State(context.Context) (netconfig.State, error) { return w.state, nil }

func (w *wires) Do(_ context.Context, c netconfig.Change) error {
	nic := &w.state.NICs[0]
	switch c := c.(type) {
	case netconfig.SetUp:
		nic.Up, nic.Carrier = true, true
	case netconfig.AddAddress:
		nic.Addresses = append(nic.Addresses, netconfig.Address{Prefix: c.Address})
	case netconfig.AddRoute:
		return errors.New("no such process")
	case netconfig.SetDNS:
		w.state.DNS = c.Servers
	}
	return nil
}

// The network is made as the medium says. What goes wrong with it is told, and counts only if the conductor is out of reach.
func TestRunNetwork(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{handoff: "poweroff"})
	network := &wires{netconfig.State{NICs: []netconfig.NIC{{Index: 2, Name: "eth0", Kind: "device", MAC: nodeMAC, PermanentMAC: nodeMAC, MTU: 1500}}}}
	s.network = network
	s.medium[0].Files["openstack/latest/network_data.json"] = []byte(`{
		"links": [{"id": "port0", "type": "phy", "ethernet_mac_address": "52-54-00-4E-3D-30"},
			{"id": "port1", "type": "unheard-of", "ethernet_mac_address": "52:54:00:4e:3d:31"}],
		"networks": [{"id": "net0", "network_id": "n", "link": "port0", "type": "ipv4", "ip_address": "192.0.2.10", "netmask": "255.255.255.0",
			"routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "192.0.2.1"}]}],
		"services": [{"type": "dns", "address": "192.0.2.53"}]}`)
	if err := s.run(time.Minute); err != nil {
		t.Fatalf("Run() = %v", err)
	}
	if err := <-s.result; err != nil {
		t.Errorf("the conductor's deployment: %v", err)
	}
	s.wantConsole(`network: left out what is wrong: floppy /dev/fd0 openstack/latest/network_data.json: .*unheard-of`,
		`network: add route default via 192.0.2.1 dev eth0: no such process`, `network: eth0 52:54:00:4e:3d:30 192.0.2.10/24`)
	if got, want := fmt.Sprint(network.state.NICs[0].Up, network.state.NICs[0].Addresses, network.state.DNS), "true [{192.0.2.10/24 false false}] [192.0.2.53]"; got != want {
		t.Errorf("the network is %s, want %s", got, want)
	}
}

func matches(text, expr string) bool { return regexp.MustCompile(expr).MatchString(text) }
