// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/agent/ironic"
	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/initramfs/media"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/inspect/inspecttest"
	"github.com/ironhand/ironhand/netconfig"
	"github.com/ironhand/ironhand/steps"
)

// newTestAgent is an agent at the start of its life, and its console.
func newTestAgent(t *testing.T, s System) (*agent, *bytes.Buffer) {
	t.Helper()
	console := new(bytes.Buffer)
	if s.StateDir == "" {
		s.StateDir = t.TempDir()
	}
	if s.KernelLoaded == nil {
		s.KernelLoaded = func() bool { return false }
	}
	if s.Root == nil {
		s.Root = fstest.MapFS{}
	}
	return newAgent(Options{Version: "test", Out: console, Log: io.Discard, System: s}), console
}

func wantText(t *testing.T, what, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("%s\n%s\nlacks %q", what, text, want)
		}
	}
}

func TestFindMedia(t *testing.T) {
	one := []media.Medium{{Device: "/dev/sr0", Kind: "cd", Label: "config-2", Files: map[string][]byte{"parameters.txt": []byte("a=b")}}}
	seen := []media.Seen{{Device: "/dev/sda", Reason: "an internal disk"}}
	tests := []struct {
		name    string
		cmdline string
		find    func(attempt int) ([]media.Medium, error)
		took    time.Duration
		console []string
		wantErr string
		wantHas bool
	}{
		{"not by virtual media", "quiet boot_method=pxe", nil, 0, []string{"not looked for: boot_method=vmedia is not on the kernel command line"}, "", false},
		{"at once", "boot_method=vmedia", func(int) ([]media.Medium, error) { return one, nil }, 0, []string{"cd /dev/sr0, label config-2: 1 files"}, "", true},
		{"slow", "boot_method=vmedia", func(n int) ([]media.Medium, error) {
			if n < 4 {
				return nil, errors.New("no medium in the drive")
			}
			return one, nil
		}, 3 * time.Second, []string{"cd /dev/sr0"}, "", true},
		{"one of two is read at the third try", "boot_method=vmedia", func(n int) ([]media.Medium, error) {
			if n < 3 {
				return one, errors.New("read /dev/fd0: input/output error")
			}
			return append([]media.Medium{{Device: "/dev/fd0", Kind: "floppy", Label: "ir-vfd-dev"}}, one...), nil
		}, 2 * time.Second, []string{"floppy /dev/fd0", "cd /dev/sr0"}, "", true},
		{"one of two is broken", "boot_method=vmedia", func(int) ([]media.Medium, error) { return one, errors.New("read /dev/fd0: input/output error") }, 4 * time.Second,
			[]string{"cd /dev/sr0", "media: read /dev/fd0: input/output error", "WARNING: going on without what could not be read"}, "", true},
		{"none", "boot_method=vmedia", func(int) ([]media.Medium, error) { return nil, nil }, 19 * time.Second,
			[]string{"media: /dev/sda: an internal disk"}, "no configuration medium found", false},
		{"a former tenant's", "boot_method=vmedia ir_pub_id=0F1D3F6C-6F0C-4C1E-9D31-0A4C1B2E7A55", func(int) ([]media.Medium, error) {
			files := map[string][]byte{media.NetworkDataFile: []byte("{}")}
			return []media.Medium{{Kind: media.CD, Device: "/dev/sr0", Label: "config-2", Publisher: "ironic", Files: files}, {Kind: media.CD, Device: "/dev/sr1", Label: "config-2", Publisher: "0f1d3f6c-6f0c-4c1e-9d31-0a4c1b2e7a55", Files: files},
				{Kind: media.CD, Device: "/dev/sr2", Label: "config-2", Files: files}}, nil
		}, 0, []string{`media: cd /dev/sr0, label config-2: left out: it was published by "ironic", and ir_pub_id names another`, "media: cd /dev/sr1, label config-2: 1 files", "media: cd /dev/sr2, label config-2: 1 files"}, "", true},
		{"a former tenant's alone", "boot_method=vmedia ir_pub_id=0f1d3f6c", func(int) ([]media.Medium, error) {
			return []media.Medium{{Kind: media.CD, Device: "/dev/sr0", Label: "config-2", Publisher: "ironic"}}, nil
		}, 19 * time.Second, []string{"left out"}, "no configuration medium found", false},
		{"none, and none is needed", "boot_method=vmedia ipa-api-url=https://192.0.2.1:6385", func(int) ([]media.Medium, error) { return nil, nil }, 19 * time.Second,
			[]string{"media: /dev/sda: an internal disk", "media: no configuration medium found", "going on with the kernel command line"}, "", false},
		{"none, and the API is looked for", "boot_method=vmedia ipa-use-mdns=1", func(int) ([]media.Medium, error) { return nil, nil }, 19 * time.Second,
			[]string{"going on with the kernel command line"}, "", false},
		{"broken", "boot_method=vmedia", func(int) ([]media.Medium, error) { return nil, errors.New("read /dev/fd0: input/output error") }, 19 * time.Second,
			[]string{"media: /dev/sda"}, "read /dev/fd0: input/output error", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				attempt, start := 0, time.Now()
				system := System{Cmdline: test.cmdline, StateDir: dir, FindMedia: func(context.Context, func(string)) ([]media.Medium, []media.Seen, error) {
					attempt++
					found, err := test.find(attempt)
					return found, seen, err
				}}
				a, console := newTestAgent(t, system)
				err := a.findMedia(t.Context())
				if test.wantErr == "" && err != nil || test.wantErr != "" && (err == nil || !strings.Contains(err.Error(), test.wantErr)) {
					t.Errorf("findMedia() = %v, want %q", err, test.wantErr)
				}
				var check *hintError
				if err != nil && (!errors.As(err, &check) || !strings.Contains(check.check, "label")) {
					t.Errorf("the error does not say what to check")
				}
				if took := time.Since(start); took != test.took {
					t.Errorf("took %v, want %v", took, test.took)
				}
				wantText(t, "console", console.String(), test.console...)
				if (len(a.media) > 0) != test.wantHas {
					t.Errorf("media = %v", a.media)
				}
				if (len(a.host.Media) > 0) != test.wantHas {
					t.Errorf("steps are told %q", a.host.Media)
				}

				if strings.Contains(test.name, "broken") { // the next agent must look again
					if kept, err := a.state.media(); len(kept) > 0 || err != nil {
						t.Errorf("kept for the next agent: %v, %v", kept, err)
					}
					return
				}
				// The next agent of this boot finds them even if they have vanished.
				system.FindMedia = func(context.Context, func(string)) ([]media.Medium, []media.Seen, error) {
					return nil, nil, errors.New("they have vanished")
				}
				if again, _ := newTestAgent(t, system); test.wantHas && (again.findMedia(t.Context()) != nil || fmt.Sprint(again.media) != fmt.Sprint(a.media)) {
					t.Errorf("again: media = %v, want %v", again.media, a.media)
				} else if byHand, err := system.MediaRead(); test.wantHas && (!slices.Equal(again.host.Media, a.host.Media) || err != nil || !slices.Equal(byHand, a.host.Media)) {
					t.Errorf("again: steps are told %q, by hand %q, %v; want %q", again.host.Media, byHand, err, a.host.Media)
				}
			})
		})
	}
}

// wire is a network whose NICs appear some time after the start and have link at once. It keeps no routes.
type wire struct {
	mu    sync.Mutex
	start time.Time
	nics  map[string]time.Duration // MAC -> when
	anew  time.Duration            // when they have gone and come again, with nothing that they had; 0 is never
	state netconfig.State
	asked []netconfig.Neighbor
}

func (w *wire) State(context.Context) (netconfig.State, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.state
	s.NICs = nil
	for i, mac := range []string{"52:54:00:00:00:01", "52:54:00:00:00:02"} {
		if after, has := w.nics[mac]; has && time.Since(w.start) >= after {
			n := netconfig.NIC{Index: i + 2, Name: fmt.Sprintf("eth%d", i), Kind: "device", MAC: netconfig.MAC(mac), PermanentMAC: netconfig.MAC(mac), Up: true, Carrier: true}
			if w.anew > 0 && time.Since(w.start) >= w.anew {
				n.Index += 10
			}
			for _, old := range w.state.NICs {
				if old.Name == n.Name && (old.Index == n.Index || n.Index < 10) {
					n.Addresses = old.Addresses
				}
			}
			s.NICs = append(s.NICs, n)
		}
	}
	s.Neighbors = w.asked
	w.state = s
	s.NICs = slices.Clone(s.NICs)
	return s, nil
}

func (w *wire) Do(_ context.Context, c netconfig.Change) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch c := c.(type) {
	case netconfig.AddAddress:
		for i := range w.state.NICs {
			if n := &w.state.NICs[i]; n.Name == c.NIC {
				n.Addresses = append(n.Addresses, netconfig.Address{Prefix: c.Address})
			}
		}
	case netconfig.AddRoute:
		w.state.Routes = append(w.state.Routes, netconfig.NICRoute{NIC: c.NIC, Route: c.Route})
	case netconfig.AskNeighbor:
		w.asked = append(w.asked, netconfig.Neighbor{NIC: c.NIC, Address: c.Address, Failed: true})
	}
	return nil
}

const twoLinks = `{"links": [
		{"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:00:00:01"}, {"id": "b", "type": "phy", "ethernet_mac_address": "52:54:00:00:00:02"}],
	"networks": [
		{"id": "x", "network_id": "x", "link": "a", "type": "ipv4", "ip_address": "192.0.2.10", "netmask": "255.255.255.0",
			"routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "192.0.2.1"}]},
		{"id": "y", "network_id": "y", "link": "b", "type": "ipv4", "ip_address": "198.51.100.10", "netmask": "255.255.255.0", "routes": []}],
	"services": []}`

func TestBringUpNetwork(t *testing.T) {
	tests := []struct {
		name    string
		data    string
		nics    map[string]time.Duration
		took    time.Duration // at least, and less than a second more
		console []string
		wantErr string
	}{
		{"no data", "", nil, 0, []string{"no network_data.json given: interfaces are left as they are"}, ""},
		{"all there", twoLinks, map[string]time.Duration{"52:54:00:00:00:01": 0, "52:54:00:00:00:02": 0}, 0,
			[]string{"eth0 52:54:00:00:00:01 192.0.2.10/24 via 192.0.2.1\n", "eth1 52:54:00:00:00:02 198.51.100.10/24\n"}, ""},
		{"late", twoLinks, map[string]time.Duration{"52:54:00:00:00:01": 0, "52:54:00:00:00:02": 7 * time.Second}, 7 * time.Second,
			[]string{"192.0.2.10/24", "198.51.100.10/24"}, ""},
		{"one never", twoLinks, map[string]time.Duration{"52:54:00:00:00:01": 0}, nicWait,
			[]string{"192.0.2.10/24", "52:54:00:00:00:02"}, ""},
		{"none", twoLinks, nil, nicWait, nil, "no such NIC"},
		{"no JSON", `{"links": [}`, nil, 0, nil, "cd /dev/sr0 openstack/latest/network_data.json: "},
		{"kernel command line", "ip=192.0.2.77::192.0.2.1:24::eth0:none rd.route=x", map[string]time.Duration{"52:54:00:00:00:01": 0}, 0,
			[]string{"left out what is wrong: kernel command line: rd.route=x: ", "as described by kernel command line", "eth0 52:54:00:00:00:01 192.0.2.77/24 via 192.0.2.1\n"}, ""},
		{"strict, wrong", "ironhand-strict-network ip=192.0.2.77::192.0.2.1:24::eth0:none rd.route=x", map[string]time.Duration{"52:54:00:00:00:01": 0}, 0, nil, "rd.route=x"},
		{"strict, NIC missing", "ironhand-strict-network ip=192.0.2.77:::24::eth0:none ip=192.0.2.78:::24::eth1:none", map[string]time.Duration{"52:54:00:00:00:01": 0}, nicWait, nil, `no NIC is named "eth1"`},
		{"ramdisk", "ramdisk", map[string]time.Duration{"52:54:00:00:00:01": 0, "52:54:00:00:00:02": 0}, 0, []string{"as described by ramdisk /etc/ironhand/network_data.json", "192.0.2.10/24 via 192.0.2.1\n"}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				w := &wire{start: time.Now(), nics: test.nics}
				root := fstest.MapFS{}
				a, console := newTestAgent(t, System{StateDir: dir, Root: root, Network: func() (netconfig.Kernel, error) { return w, nil }})
				switch {
				case strings.Contains(test.data, "ip="):
					a.sys.Cmdline = test.data
					a.config.StrictNetwork = strings.Contains(test.data, "ironhand-strict-network")
				case test.data == "ramdisk":
					root[RamdiskNetwork] = &fstest.MapFile{Data: []byte(twoLinks)}
				case test.data != "":
					a.config.NetworkData, a.config.NetworkFrom = []byte(test.data), "cd /dev/sr0 openstack/latest/network_data.json"
				}
				err := a.bringUpNetwork(t.Context())
				if test.wantErr == "" && err != nil || test.wantErr != "" && (err == nil || !strings.Contains(err.Error(), test.wantErr)) {
					t.Errorf("bringUpNetwork() = %v, want %q", err, test.wantErr)
				}
				if took := time.Since(w.start); took < test.took || took > test.took+time.Second {
					t.Errorf("took %v, want %v", took, test.took)
				}
				wantText(t, "console", console.String(), test.console...)
			})
		})
	}
}

// A network that is described is made again when its NICs have gone and come again.
func TestDescribedNetworkIsKept(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w := &wire{start: time.Now(), nics: map[string]time.Duration{"52:54:00:00:00:01": 0, "52:54:00:00:00:02": 0}, anew: 5 * time.Minute}
		a, console := newTestAgent(t, System{StateDir: dir, Root: fstest.MapFS{}, Asker: servers{}, Network: func() (netconfig.Kernel, error) { return w, nil }})
		a.config.NetworkData, a.config.NetworkFrom = []byte(twoLinks), "floppy"
		if err := a.bringUpNetwork(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(7 * time.Minute)
		state, err := w.State(ctx)
		if err != nil || len(state.NICs) != 2 || len(state.NICs[0].Addresses) != 1 || len(state.NICs[1].Addresses) != 1 {
			t.Errorf("State() = %v, %v", state.NICs, err)
		}
		cancel()
		synctest.Wait()
		wantText(t, "console", console.String(), "a: eth0 has gone and come again", "b: eth1 has gone and come again")
	})
}

// What firmware says is looked for only if the kernel command line asks for it, and counts then.
func TestFirmwareNetwork(t *testing.T) {
	root := fstest.MapFS{}
	for name, value := range map[string]string{"flags": "3", "mac": "52:54:00:00:00:01", "ip-addr": "192.0.2.77", "prefix-len": "24", "gateway": "192.0.2.1", "origin": "1"} {
		root["sys/firmware/ibft/ethernet0/"+name] = &fstest.MapFile{Data: []byte(value + "\n")}
	}
	for cmdline, want := range map[string]string{
		"ip=ibft": "eth0 52:54:00:00:00:01 192.0.2.77/24 via 192.0.2.1\n", "quiet": "no network_data.json given",
	} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			w := &wire{start: time.Now(), nics: map[string]time.Duration{"52:54:00:00:00:01": 0}}
			a, console := newTestAgent(t, System{StateDir: dir, Root: root, Cmdline: cmdline, Network: func() (netconfig.Kernel, error) { return w, nil }})
			if err := a.bringUpNetwork(t.Context()); err != nil {
				t.Errorf("%s: bringUpNetwork() = %v", cmdline, err)
			}
			wantText(t, "console", console.String(), want)
		})
	}
}

// servers answer on one NIC.
type servers struct{ nic string }

func (s servers) Ask(ctx context.Context, n netconfig.NIC, m netconfig.Method) (netconfig.Lease, error) {
	if n.Name != s.nic || m != netconfig.DHCP4 {
		<-ctx.Done()
		return netconfig.Lease{}, context.Cause(ctx)
	}
	return netconfig.Lease{Method: m, From: "192.0.2.2", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.50/24")},
		Routes: []netconfig.Route{{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("192.0.2.1")}}, Renew: time.Hour}, nil
}

// A network that nobody describes is asked for on all NICs, unless somebody has set it up.
func TestAskForNetwork(t *testing.T) {
	both := map[string]time.Duration{"52:54:00:00:00:01": 0, "52:54:00:00:00:02": 0}
	tests := []struct {
		name, cmdline string
		before        func(w *wire, state string) // the agent
		nics          map[string]time.Duration
		console       []string
		not           string
		wantErr       string
	}{
		{"asked", "", nil, both, []string{"as described by nobody", "asking on 2 NICs: dhcpv4, ipv6-auto", "eth1: dhcpv4 from 192.0.2.2, 192.0.2.50/24, default via 192.0.2.1", "eth1 52:54:00:00:00:02 192.0.2.50/24 via 192.0.2.1\n"}, "", ""},
		{"set up by somebody", "", func(w *wire, _ string) { w.setUp() }, both, []string{"somebody has set it up: it is left as it is"}, "asking", ""},
		{"set up by an agent of this boot", "", func(w *wire, state string) {
			w.setUp()
			if err := keepFile(filepath.Join(state, askedEverywhere), nil); err != nil {
				panic(err)
			}
		}, both, []string{"asking on 2 NICs"}, "left as it is", ""},
		{"description for another machine", "data", nil, both, []string{"WARNING: link a: no such NIC: no NIC has the MAC 52:54:00:00:00:71", "none of the NICs that are described is here: asking on all NICs instead", "asking on 2 NICs: dhcpv4, ipv6-auto",
			"eth1 52:54:00:00:00:02 192.0.2.50/24 via 192.0.2.1\n"}, "", ""},
		{"description for another machine, and nobody answers", "data", nil, map[string]time.Duration{"52:54:00:00:00:01": 0}, []string{"asking on all NICs instead", "asking on 1 NICs"}, "", "no NIC has the MAC 52:54:00:00:00:71"},
		{"description for another machine, strict", "data ironhand-strict-network", nil, both, nil, "asking", "no NIC has the MAC 52:54:00:00:00:71"},
		{"description of nothing", "empty", nil, both, []string{"WARNING: it describes no link: asking on all NICs instead", "asking on 2 NICs"}, "", ""},
		{"description of nothing, strict", "empty ironhand-strict-network", nil, both, nil, "asking", ""},
		{"ip=dhcp", "ip=dhcp", func(w *wire, _ string) { w.setUp() }, both, []string{"as described by kernel command line", "asking on 2 NICs: dhcpv4\n", "192.0.2.50/24"}, "left as it is", ""},
		{"ip=dhcp with BOOTIF", "ip=dhcp BOOTIF=52:54:00:00:00:02", nil, both, []string{"as described by kernel command line", "BOOTIF: dhcpv4 from 192.0.2.2", "192.0.2.50/24"}, "asking on", ""},
		{"late NIC", "BOOTIF=52:54:00:00:00:02", nil, map[string]time.Duration{"52:54:00:00:00:01": 0, "52:54:00:00:00:02": 5 * time.Second}, []string{"asking on 2 NICs"}, "", ""},
		{"no NIC", "", nil, nil, nil, "", "no NIC that the kernel has a driver for"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "made when something is kept")
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				w := &wire{start: time.Now(), nics: test.nics}
				if test.before != nil {
					test.before(w, dir)
				}
				a, console := newTestAgent(t, System{StateDir: dir, Cmdline: test.cmdline, Asker: servers{"eth1"}, Network: func() (netconfig.Kernel, error) { return w, nil }})
				switch {
				case strings.Contains(test.cmdline, "data"):
					a.config.NetworkData = []byte(strings.ReplaceAll(twoLinks, "52:54:00:00:00:0", "52:54:00:00:00:7"))
				case strings.Contains(test.cmdline, "empty"):
					a.config.NetworkData = []byte(`{"links": [], "networks": [], "services": []}`)
				}
				if a.config.NetworkData != nil {
					a.config.NetworkFrom, a.config.StrictNetwork = "floppy", strings.Contains(test.cmdline, "strict")
				}
				err := a.bringUpNetwork(ctx)
				cancel()
				synctest.Wait()
				if test.wantErr == "" && err != nil || test.wantErr != "" && (err == nil || !strings.Contains(err.Error(), test.wantErr)) {
					t.Errorf("bringUpNetwork() = %v, want %q", err, test.wantErr)
				}
				wantText(t, "console", console.String(), test.console...)
				if test.not != "" && strings.Contains(console.String(), test.not) {
					t.Errorf("console\n%s\nhas %q", console, test.not)
				}
			})
		})
	}
}

// An agent that is started again tries the network that an earlier one has set up, and if the conductor answers leaves it as it is.
func TestResumeNetwork(t *testing.T) {
	address := clockServer(t, nil, 0)
	for _, api := range []string{"http://" + address, "http://127.0.0.1:1"} {
		dir := t.TempDir()
		if err := keepFile(filepath.Join(dir, askedEverywhere), nil); err != nil {
			t.Fatal(err)
		}
		w := &wire{start: time.Now(), nics: map[string]time.Duration{"52:54:00:00:00:01": 0, "52:54:00:00:00:02": 0}}
		w.setUp()
		a, console := newTestAgent(t, System{StateDir: dir, Asker: servers{"eth1"}, Network: func() (netconfig.Kernel, error) { return w, nil }})
		a.config = Config{APIURLs: []string{api}, RequestTimeout: 10 * time.Second}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		asks := func(e boot.Event) bool { return strings.Contains(e.Text, "asking on 2 NICs") }
		go func() { // nobody answers
			for ctx.Err() == nil && !slices.ContainsFunc(a.console.Events(), asks) {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		err := a.bringUpNetwork(ctx)
		cancel()
		works := api == "http://"+address
		if works && err != nil {
			t.Errorf("bringUpNetwork() = %v", err)
		}
		wantText(t, "console", console.String(), "set up by an earlier agent of this boot: trying it as it is")
		if strings.Contains(console.String(), "asking on 2 NICs") == works {
			t.Errorf("conductor answers %v; console\n%s", works, console)
		}
	}
}

// counted servers count what they are asked.
type counted struct {
	servers
	asked *atomic.Int32
}

func (c counted) Ask(ctx context.Context, n netconfig.NIC, m netconfig.Method) (netconfig.Lease, error) {
	c.asked.Add(1)
	return c.servers.Ask(ctx, n, m)
}

// A network that has led to the conductor once is not changed any more, whoever answers later and however the conductor is then.
func TestReachedNetworkStays(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &wire{start: time.Now(), nics: map[string]time.Duration{"52:54:00:00:00:01": 0, "52:54:00:00:00:02": 0}}
		var asked atomic.Int32
		a, _ := newTestAgent(t, System{StateDir: dir, Asker: counted{servers{"eth1"}, &asked}, Network: func() (netconfig.Kernel, error) { return w, nil }})
		a.config = Config{APIURLs: []string{"http://127.0.0.1:1"}, RequestTimeout: time.Second} // nobody is there
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if err := a.bringUpNetwork(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		before := asked.Load()
		if before < 3*2 { // NICs
			t.Errorf("asked %d times in five minutes", before)
		}
		a.reached.Store(true)
		time.Sleep(10 * time.Minute)
		if after := asked.Load(); after > before+2 { // one round may have begun
			t.Errorf("asked %d times more", after-before)
		}
		cancel()
		synctest.Wait()
	})
}

// What the conductor is comes from the medium that was kept, and the kernel command line.
func TestConductorOfThisBoot(t *testing.T) {
	site := newAuthority(t, "site")
	dir := t.TempDir()
	system := System{StateDir: dir, Root: fstest.MapFS{}}
	if _, known, err := system.Conductor(); known || err != nil {
		t.Errorf("Conductor() without settings = %v, %v", known, err)
	}
	medium := media.Medium{Kind: "cd", Device: "/dev/sr0", Label: "config-2", Files: map[string][]byte{
		"etc/ironic-python-agent.d/ironic-tls.conf": []byte("[DEFAULT]\napi_url = https://192.0.2.1:6385\ncafile = /etc/ironic-python-agent/ironic.crt\n"),
		"etc/ironic-python-agent/ironic.crt":        []byte(site.pem),
	}}
	if err := (state{dir}).keepMedia([]media.Medium{medium}); err != nil {
		t.Fatal(err)
	}
	to, known, err := system.Conductor()
	if err != nil || !known || to.String() != "192.0.2.1:6385" || to.TLS == nil || to.TLS.RootCAs == nil {
		t.Errorf("Conductor() = %v, %v, %v", to, known, err)
	}
	system.Cmdline = "ipa-api-url=http://192.0.2.9:80"
	if to, known, err = system.Conductor(); err != nil || !known || to.String() != "192.0.2.9:80" || to.TLS != nil {
		t.Errorf("Conductor() = %v, %v, %v", to, known, err)
	}
}

// setUp is what firmware or another program may have done.
func (w *wire) setUp() {
	w.state.NICs = []netconfig.NIC{{Name: "eth0", Addresses: []netconfig.Address{{Prefix: netip.MustParsePrefix("203.0.113.5/24")}}}}
	w.state.Routes = []netconfig.NICRoute{{NIC: "eth0", Route: netconfig.Route{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("203.0.113.1")}}}
}

// A conductor that does not answer is asked again and again, and what is in the way is looked for.
func TestReachConductorGivesUp(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &wire{start: time.Now(), nics: map[string]time.Duration{"52:54:00:00:00:01": 0}}
		a, console := newTestAgent(t, System{StateDir: dir, Network: func() (netconfig.Kernel, error) { return w, nil }})
		a.config = Config{APIURLs: []string{"https://127.0.0.1:1", "http://127.0.0.1:2"}, RequestTimeout: time.Second, LookupTimeout: time.Minute}
		err := a.reachConductor(t.Context())
		if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1: connect: connection refused\n") {
			t.Errorf("reachConductor() = %v", err)
		}
		if took := time.Since(w.start); took < 30*time.Second || took > 90*time.Second {
			t.Errorf("gave up after %v, want about %v", took, a.config.LookupTimeout)
		}
		wantText(t, "console", console.String(), "127.0.0.1:2: connect: connection refused", "next try in 2s", "next try in 4s",
			"network: nic eth0", "network: cause: 127.0.0.1 refuses connections to port 1")
	})
}

func TestReachConductor(t *testing.T) {
	site := newAuthority(t, "site")
	cert := site.certify(t, 300*day, 900*day, "127.0.0.1")
	address := clockServer(t, &cert, 400*day)
	tests := []struct {
		name    string
		ntp     string
		set     error
		clock   time.Duration // set ahead by this; 0: not at all
		console []string
	}{
		{"by the answer", "", nil, 400 * day, []string{"conductor: https://" + address + " answers", "this machine's is 400 days behind, says https://" + address, "; set to 2"}},
		{"cannot be set", "", errors.New("set the clock: not permitted"), 0, []string{"400 days behind", "; set the clock: not permitted"}},
		{"by NTP", ntpServer(t, 400*day+20*time.Second, 1), nil, 400*day + 20*time.Second, []string{"400 days behind, says NTP server", "answers"}},
		{"by NTP that was found", ntpServer(t, 400*day+20*time.Second, 1), nil, 400*day + 20*time.Second, []string{"NTP server 127.0.0.1:1: ", "going on without", "400 days behind, says NTP server 127.0.0.1:"}},
		{"NTP far from the proven time", ntpServer(t, 410*day, 1), nil, 400 * day, []string{"WARNING: NTP server", " are 240h0m", "the latter is believed", "400 days behind, says https"}},
		{"NTP server is silent", "127.0.0.1:1", nil, 400 * day, []string{"NTP server 127.0.0.1:1: ", "going on without", "400 days behind, says https"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var set time.Time
			a, console := newTestAgent(t, System{SetClock: func(to time.Time) error {
				if test.set == nil {
					set = to
				}
				return test.set
			}})
			a.trust = trusts(true, site)
			a.config = Config{APIURLs: []string{"https://127.0.0.1:1", "https://" + address}, NTPServer: test.ntp, RequestTimeout: 10 * time.Second, LookupTimeout: time.Minute}
			if test.name == "by NTP that was found" {
				a.ntpFound, a.config.NTPServer = []string{"127.0.0.1:1", test.ntp}, ""
			} else if test.ntp != "" {
				a.ntpFound = []string{ntpServer(t, 900*day, 1)} // counts for nothing beside the one that was given
			}
			if err := errors.Join(a.setClockByNTP(t.Context()), a.reachConductor(t.Context())); err != nil {
				t.Fatalf("setClockByNTP and reachConductor: %v", err)
			}
			if got := time.Until(set); test.clock == 0 != set.IsZero() || test.clock != 0 && (got-test.clock).Abs() > 10*time.Second {
				t.Errorf("the clock was set ahead by %v, want %v", got, test.clock)
			}
			wantText(t, "console", console.String(), test.console...)
		})
	}
}

// The clock on the board is written only if that is asked for.
func TestSetRTC(t *testing.T) {
	tests := []struct {
		name    string
		asked   bool
		err     error
		console string
	}{
		{"not asked for", false, nil, "(the clock on the board is left as it is)"},
		{"asked for", true, nil, "(the clock on the board too)"},
		{"asked for, and there is none", true, errors.New("open /dev/rtc0: no such file or directory"), "(open /dev/rtc0: no such file or directory)"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var set []string
			a, console := newTestAgent(t, System{
				SetClock: func(time.Time) error { set = append(set, "system"); return nil },
				SetRTC:   func(time.Time) error { set = append(set, "board"); return test.err },
			})
			a.config.SetRTC = test.asked
			if err := a.setClock(time.Hour, "NTP server n"); err != nil {
				t.Fatal(err)
			}
			if want := []string{"system", "board"}; test.asked && !slices.Equal(set, want) || !test.asked && !slices.Equal(set, want[:1]) {
				t.Errorf("set %q", set)
			}
			wantText(t, "console", console.String(), test.console)
		})
	}
}

// What the conductor's time is worth depends on whether its certificate is verified with CAs of this site.
func TestChooseClock(t *testing.T) {
	const server = "https://192.0.2.1:6385"
	tests := []struct {
		name           string
		trust          trust
		url            string
		ntp, conductor time.Duration // how far our clock is behind; unless the conductor is proven, NTP has set it before
		want           string
		set            bool
	}{
		{"proven, NTP agrees", trust{given: true}, server, day + 50*time.Second, day, "says NTP server n; set to", true},
		{"proven, NTP disagrees", trust{given: true}, server, 0, day, "WARNING: NTP server n and " + server + " are 24h0m0s apart; the latter is believed", true},
		{"not of this site, agrees", trust{}, server, day, time.Second, "", false},
		{"not of this site, disagrees", trust{}, server, day, time.Hour, "WARNING: NTP server n and " + server + " are 1h0m0s apart; the former is believed", false},
		{"not verified", trust{given: true, insecure: true}, server, day, -time.Hour, "the former is believed", false},
		{"in the clear", trust{given: true}, "http://192.0.2.1:6385", day, time.Hour, "the former is believed", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			set := false
			a, console := newTestAgent(t, System{SetClock: func(time.Time) error { set = true; return nil }})
			a.trust = test.trust
			a.ntp = &ntpAnswer{"n", test.ntp}
			if err := a.chooseClock(test.url, test.conductor); err != nil {
				t.Errorf("chooseClock() = %v", err)
			}
			wantText(t, "console", console.String(), test.want)
			if set != test.set {
				t.Errorf("the clock was set: %v, want %v\n%s", set, test.set, console.String())
			}
		})
	}
}

func TestSetClock(t *testing.T) {
	for skew, want := range map[time.Duration]string{
		0:                        "right within 2s of X",
		-1900 * time.Millisecond: "right within 2s of X",
		2 * time.Second:          "this machine's is 2.0 s behind, says X; set to",
		-3 * time.Hour:           "this machine's is 3.0 hours ahead, says X; set to",
	} {
		set := false
		a, console := newTestAgent(t, System{SetClock: func(time.Time) error { set = true; return nil }})
		if err := a.setClock(skew, "X"); err != nil {
			t.Errorf("setClock(%v) = %v", skew, err)
		}
		wantText(t, "console", console.String(), want)
		if set != strings.Contains(want, "set to") {
			t.Errorf("%v: the clock was set: %v", skew, set)
		}
	}
}

func TestAdvertisedAddress(t *testing.T) {
	tests := []struct {
		name    string
		given   string
		urls    []string
		want    string
		wantErr string
	}{
		{"as given", "192.0.2.7", []string{"https://127.0.0.1"}, "192.0.2.7", ""},
		{"URL with port", "", []string{"https://127.0.0.1:6385"}, "127.0.0.1", ""},
		{"https without port", "", []string{"https://127.0.0.1"}, "127.0.0.1", ""},
		{"http without port", "", []string{"http://127.0.0.1/baremetal"}, "127.0.0.1", ""},
		{"second URL", "", []string{"https://no-such-host.invalid", "https://127.0.0.1"}, "127.0.0.1", ""},
		{"no way", "", []string{"https://no-such-host.invalid"}, "", "find the address to advertise: "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a, _ := newTestAgent(t, System{})
			a.config.AdvertiseHost = test.given
			var err error
			if a.client, err = ironic.New(ironic.Options{URLs: test.urls}); err != nil {
				t.Fatal(err)
			}
			got, err := a.advertisedAddress(t.Context())
			if got != test.want || test.wantErr == "" && err != nil || test.wantErr != "" && (err == nil || !strings.Contains(err.Error(), test.wantErr)) {
				t.Errorf("advertisedAddress() = %s, %v, want %s, %s", got, err, test.want, test.wantErr)
			}
		})
	}
}

// What an earlier agent of this boot left behind and cannot be read is told on the console, as any failure.
func TestRunShowsABrokenState(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "deployed.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	var console bytes.Buffer
	err := Run(t.Context(), Options{Out: &console, Log: io.Discard, System: System{StateDir: dir, Root: fstest.MapFS{}}})
	if err == nil || !strings.Contains(console.String(), "start: FAILED: read what was deployed in this boot: deployed.json: ") {
		t.Errorf("Run() = %v, console\n%s", err, console.String())
	}
}

func TestState(t *testing.T) {
	s := state{filepath.Join(t.TempDir(), "agent")}
	if token, err := s.token(); token != "" || err != nil {
		t.Errorf("token() = %q, %v before there is one", token.Reveal(), err)
	}
	if d, err := s.deployed(); d != nil || err != nil {
		t.Errorf("deployed() = %v, %v before there is anything", d, err)
	}
	if m, err := s.media(); m != nil || err != nil {
		t.Errorf("media() = %v, %v before there are any", m, err)
	}
	want := steps.Deployed{Text: "t", Disk: "/dev/sda", UUIDs: map[string]any{"root uuid": "0x1"}}
	if err := errors.Join(s.keepToken("hush-hush"), s.keepDeployed(&want)); err != nil {
		t.Fatal(err)
	}
	if token, err := s.token(); token != "hush-hush" || err != nil {
		t.Errorf("token() = %q, %v", token.Reveal(), err)
	}
	if d, err := s.deployed(); err != nil || fmt.Sprint(*d) != fmt.Sprint(want) {
		t.Errorf("deployed() = %v, %v, want %v", d, err, want)
	}
	for range 2 {
		if err := s.keepDeployed(nil); err != nil {
			t.Errorf("keepDeployed(nil) = %v", err)
		}
	}
	if d, err := s.deployed(); d != nil || err != nil {
		t.Errorf("deployed() = %v, %v after it was forgotten", d, err)
	}
	files, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be read by others: %v, %v", f.Name(), info.Mode(), err)
		}
	}
}

func TestLookUp(t *testing.T) {
	long := func(letter string) string { return strings.Repeat(letter, 43) }
	tests := []struct {
		name     string
		version  string // of the API
		answer   string // config of the lookup
		medium   string // token
		kept     string // by an earlier agent of this boot
		want     string // token
		wantErr  string
		noMD5    bool
		wantNode string
	}{
		{"first lookup", "1.82", `"agent_token": "` + long("a") + `"`, "", "", long("a"), "", false, "n1"},
		{"from the medium", "1.82", `"agent_token": "******"`, long("m"), "", long("m"), "", false, "n1"},
		{"second lookup", "1.82", `"agent_token": "******"`, "", long("k"), long("k"), "", false, "n1"},
		{"kept one over the medium's", "1.82", `"agent_token": "******"`, long("m"), long("k"), long("k"), "", false, "n1"},
		{"a new one over all", "1.82", `"agent_token": "` + long("a") + `"`, long("m"), long("k"), long("a"), "", false, "n1"},
		{"MD5 is not allowed", "1.82", `"agent_token": "` + long("a") + `", "agent_md5_checksum_enable": false`, "", "", long("a"), "", true, "n1"},
		{"MD5 is allowed", "1.82", `"agent_token": "` + long("a") + `", "agent_md5_checksum_enable": true`, "", "", long("a"), "", false, "n1"},
		{"lost", "1.82", `"agent_token": "******"`, "", "", "", "gave out this boot's token before", false, ""},
		{"none at all", "1.61", `"heartbeat_timeout": 300`, "", "", "", "no agent token, neither from the conductor nor on a medium", false, ""},
		{"no timeout", "1.82", `"heartbeat_timeout": 0`, "", "", "", "heartbeat_timeout of 0 s is not possible", false, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/" {
					fmt.Fprintf(w, `{"default_version": {"version": %q}}`, test.version)
				} else {
					fmt.Fprintf(w, `{"node": {"uuid": "n1"}, "config": {"heartbeat_timeout": 60, %s}}`, test.answer)
				}
			}))
			defer api.Close()
			a, console := newTestAgent(t, System{})
			a.config = Config{APIURLs: []string{api.URL}, RequestTimeout: 5 * time.Second, LookupTimeout: 1, Token: ironic.Secret(test.medium)}
			if test.kept != "" {
				if err := a.state.keepToken(ironic.Secret(test.kept)); err != nil {
					t.Fatal(err)
				}
			}
			err := a.lookUp(t.Context())
			if test.wantErr == "" && err != nil || test.wantErr != "" && (err == nil || !strings.Contains(err.Error(), test.wantErr)) {
				t.Fatalf("lookUp() = %v, want %q", err, test.wantErr)
			}
			if a.token.Reveal() != test.want || a.host.Download.RefuseMD5 != test.noMD5 || a.currentNode().UUID != test.wantNode {
				t.Errorf("token %q, MD5 refused %v, node %s; want %q, %v, %s", a.token.Reveal(), a.host.Download.RefuseMD5, a.currentNode().UUID, test.want, test.noMD5, test.wantNode)
			}
			if kept, err := a.state.token(); test.wantErr == "" && (err != nil || kept.Reveal() != test.want) {
				t.Errorf("kept for the next agent: %q, %v", kept.Reveal(), err)
			}
			for _, token := range []string{long("a"), long("m"), long("k")} {
				if strings.Contains(console.String()+fmt.Sprint(err), token) {
					t.Errorf("a token was shown: %v\n%s", err, console.String())
				}
			}
		})
	}
}

// brokenManager cannot tell whether it supports the machine.
type brokenManager struct{ vendor }

func (brokenManager) Name() string { return "broken" }
func (brokenManager) Support(context.Context, steps.Host) (steps.Support, error) {
	return steps.None, errors.New("no such bus")
}

func TestTakeInventory(t *testing.T) {
	good, broken := vendor{new(error)}, brokenManager{}
	tests := []struct {
		name     string
		managers []steps.Manager
		console  []string
		want     string // versions
		wantErr  error
	}{
		{"all", []steps.Manager{good}, []string{"hardware: QEMU Standard PC", "1 NICs, 3 disks", "disk /dev/vda"}, "map[vendor_manager:7]", nil},
		{"one cannot tell", []steps.Manager{broken, good}, []string{"probe broken: no such bus"}, "map[vendor_manager:7]", nil},
		{"none can", []steps.Manager{broken}, nil, "map[]", steps.ErrNoManager},
		{"none", nil, nil, "map[]", steps.ErrNoManager},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a, console := newTestAgent(t, System{Machine: inspect.Machine{FS: inspecttest.Machine(t, "../inspect/testdata/virtio.txt")}})
			a.managers = test.managers
			if err := a.takeInventory(t.Context()); !errors.Is(err, test.wantErr) {
				t.Errorf("takeInventory() = %v, want %v", err, test.wantErr)
			}
			if got := fmt.Sprint(a.set.Versions()); got != test.want {
				t.Errorf("managers %s, want %s", got, test.want)
			}
			if got := macList(a.macs); got != "52:54:00:4e:3d:30" {
				t.Errorf("MACs %s", got)
			}
			wantText(t, "console", console.String(), test.console...)
		})
	}
}
