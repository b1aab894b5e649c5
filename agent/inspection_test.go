// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/agent/ironic"
	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/inspect/inspecttest"
	"github.com/ironhand/ironhand/netconfig"
)

// newInspected is an agent that has looked at the recorded server and has these settings.
func newInspected(t *testing.T, files fstest.MapFS, cmdline string) (*agent, func() string) {
	t.Helper()
	a, console := newTestAgent(t, System{Machine: inspect.Recorded(files), KernelLog: func() ([]byte, error) { return []byte("kernel"), nil },
		Network: func() (netconfig.Kernel, error) { return nil, errors.New("none") }})
	config, err := ParseConfig(Sources{Ramdisk: fstest.MapFS{}, Cmdline: cmdline})
	if err != nil {
		t.Fatal(err)
	}
	a.config = config
	if a.inventory, err = a.sys.Machine.Inventory(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.macs = inspect.LookupMACs(a.inventory)
	return a, console.String
}

// endpoint takes inspection data and answers.
type endpoint struct {
	*httptest.Server
	code    int
	answer  string
	version string // that GET / says
	got     map[string]json.RawMessage
	header  http.Header
	posts   int
}

func newEndpoint(t *testing.T) *endpoint {
	e := &endpoint{code: 202, answer: `{"uuid": "u-1"}`}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			io.WriteString(w, `{"default_version": {"version": "`+e.version+`"}}`)
			return
		}
		e.posts++
		e.header = r.Header
		e.got = nil
		if err := json.NewDecoder(r.Body).Decode(&e.got); err != nil {
			t.Error(err)
		}
		w.WriteHeader(e.code)
		io.WriteString(w, e.answer)
	}))
	t.Cleanup(e.Close)
	return e
}

// post inspects and lets an agent without API go when it begins to wait.
func inspectOnce(t *testing.T, a *agent) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if len(a.config.APIURLs) == 0 {
		waits := func(e boot.Event) bool { return e.Stage == "end" }
		go func() {
			for ctx.Err() == nil && !slices.ContainsFunc(a.console.Events(), waits) {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
	}
	err := a.inspectMachine(ctx)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func TestInspectionReport(t *testing.T) {
	for _, tt := range []struct {
		name, collectors string
		keys             string
		err              string
	}{
		{"usual", "", "boot_interface configuration error inventory logs root_disk", ""},
		{"all", "default,pci-devices,numa-topology,usb-devices,dmi-decode,extra-hardware,lldp,logs",
			"boot_interface configuration data dmi error inventory lldp_raw logs numa_topology pci_devices root_disk usb_devices", ""},
		{"unknown", "default,nonsense", "boot_interface configuration error inventory root_disk",
			"The following errors were encountered:\n* collector nonsense is not known"},
		{"a vendor's, and one that fails", "vendor,broken,pci-devices", "error pci_devices vendor_data",
			"The following errors were encountered:\n* collector broken failed: the fan is gone"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEndpoint(t)
			files := inspecttest.Server()
			files["answers/nic/ens0/lldp"] = &fstest.MapFile{Data: []byte("\x01\x80\xc2\x00\x00\x0e\x64\x64\x9b\x32\x2d\x00\x88\xcc\x02\x07\x04\x64\x64\x9b\x32\x2d\x00\x00\x00")}
			a, _ := newInspected(t, files, "ipa-inspection-callback-url="+e.URL+"/v1/continue_inspection ipa-inspection-collectors="+tt.collectors+" ipa-lldp-timeout=0.1 ipa-collect-lldp=1")
			a.collectors = []inspect.Collector{
				{Name: "vendor", Collect: func(_ context.Context, _ inspect.Machine, r *inspect.Report) error {
					r.Data["vendor_data"] = 1
					return nil
				}},
				{Name: "broken", Collect: func(context.Context, inspect.Machine, *inspect.Report) error { return errors.New("the fan is gone") }},
			}
			if err := inspectOnce(t, a); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(slices.Sorted(maps.Keys(e.got)), " "); got != tt.keys {
				t.Errorf("keys %s, want %s", got, tt.keys)
			}
			var failed *string
			if err := json.Unmarshal(e.got["error"], &failed); err != nil || (failed == nil) != (tt.err == "") || failed != nil && *failed != tt.err {
				t.Errorf("error %s, want %q", e.got["error"], tt.err)
			}
			if (a.inspected != nil) != (tt.err == "") {
				t.Errorf("the answer counts: %t, want only without errors", a.inspected != nil)
			}
			if e.header.Get("X-OpenStack-Ironic-API-Version") != "" {
				t.Error("a version is sent to a callback URL")
			}
			for key, want := range map[string]string{
				"root_disk":      `"name":"/dev/nvme0n1"`,
				"boot_interface": `"01-3c-ec-ef-00-00-00"`,
				"pci_devices":    `{"vendor_id":"8086","product_id":"1572","class":"020000","revision":"01","bus":"0000:3d:00.0","numa_node_id":"0"}`,
				"numa_topology":  `{"cpu":0,"numa_node":0,"thread_siblings":[0,32]}`,
				"usb_devices":    `[{"product":"Virtual Keyboard and Mouse","vendor":"American Megatrends Inc.","handle":"USB:1:3"}]`,
				"dmi":            `"Maximum Capacity":"4 TB","Number Of Devices":32`,
				"data":           `["cpu","logical","number","64"]`,
				"lldp_raw":       `{"ens0":[[1,"0464649b322d00"],[0,""]],"ens1":[],`,
				"inventory":      `"has_carrier":true,"lldp":[[1,"0464649b322d00"],[0,""]],"vendor":"0x8086"`,
				"configuration":  `"managers":[]`,
			} {
				if v, found := e.got[key]; found && !strings.Contains(string(v), want) {
					t.Errorf("%s is %.300s, want %s in it", key, v, want)
				}
			}
			if logs, found := e.got["logs"]; found {
				var text string
				if err := json.Unmarshal(logs, &text); err != nil {
					t.Error(err)
				}
				if b, err := base64.StdEncoding.DecodeString(text); err != nil || !strings.HasPrefix(string(b), "\x1f\x8b") {
					t.Errorf("logs are no gzip: %v", err)
				}
			}
		})
	}
}

func TestInspectionIsAskedFor(t *testing.T) {
	for _, tt := range []struct{ cmdline, want string }{
		{"", ""},
		{"ipa-api-url=https://a", ""},
		{"ipa-inspection-collectors=default", ""},
		{"ipa-api-url=https://a,https://b/x/ ipa-inspection-collectors=default", "https://a/v1/continue_inspection https://b/x/v1/continue_inspection"},
		{"ipa-inspection-callback-url=http://c:5050/v1/continue", "http://c:5050/v1/continue"},
		{"ipa-api-url=https://a ipa-inspection-callback-url=https://c/1,https://d/2/", "https://c/1 https://d/2/"},
	} {
		c, err := ParseConfig(Sources{Ramdisk: fstest.MapFS{}, Cmdline: tt.cmdline})
		if err != nil {
			t.Fatal(err)
		}
		targets, wanted := c.inspection()
		if got := strings.Join(targets, " "); got != tt.want || wanted != (tt.want != "") {
			t.Errorf("%s: %q, %t, want %q", tt.cmdline, got, wanted, tt.want)
		}
	}
	if _, err := ParseConfig(Sources{Ramdisk: fstest.MapFS{}, Cmdline: "ipa-inspection-callback-url=mdns,https://h"}); err == nil {
		t.Error("mdns is taken for a URL")
	}
}

// What the answer says goes to the lookup; one with a token is the lookup.
func TestInspectionAndLookup(t *testing.T) {
	const token = "0123456789012345678901234567890123456789"
	for _, tt := range []struct {
		name, version, answer string
		header, asked         string
		token                 string
	}{
		{"UUID", "1.82", `{"uuid": "u-1"}`, "", "addresses=", "other"},
		{"token", "1.90", `{"node": {"uuid": "u-1"}, "config": {"heartbeat_timeout": 300, "agent_token": "` + token + `"}}`, "1.84", "", token},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEndpoint(t)
			e.version, e.answer = tt.version, tt.answer
			a, _ := newInspected(t, inspecttest.Server(), "ipa-api-url="+e.URL+" ipa-inspection-collectors=default")
			if err := inspectOnce(t, a); err != nil {
				t.Fatal(err)
			}
			if got := e.header.Get("X-OpenStack-Ironic-API-Version"); got != tt.header {
				t.Errorf("version %q, want %q", got, tt.header)
			}
			asked := ""
			api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/v1/lookup" {
					asked = r.URL.RawQuery
				}
				io.WriteString(w, `{"default_version": {"version": "1.82"}, "node": {"uuid": "u-1"}, "config": {"heartbeat_timeout": 1, "agent_token": "other"}}`)
			}))
			defer api.Close()
			client, err := ironic.New(ironic.Options{URLs: []string{api.URL}})
			if err != nil {
				t.Fatal(err)
			}
			node, settings, err := a.findNode(t.Context(), client)
			if err != nil || node.UUID != "u-1" || settings.Token.Reveal() != tt.token {
				t.Errorf("findNode = %v, token %q, %v", node, settings.Token.Reveal(), err)
			}
			if tt.asked == "" && asked != "" || tt.asked != "" && !strings.Contains(asked, "node_uuid=u-1") {
				t.Errorf("lookup asked %q", asked)
			}
		})
	}
}

// A server that refuses the data does not stop the agent; one that never takes it ends it.
// The token of an answer that does not count is kept: the conductor gives out no other.
func TestInspectionErrorKeepsToken(t *testing.T) {
	const token = "0123456789012345678901234567890123456789"
	for _, tt := range []struct{ name, answered, want string }{
		{"given out", token, token},
		{"withheld", "******", ""},
		{"none", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEndpoint(t)
			e.version, e.answer = "1.90", `{"node": {"uuid": "u-1"}, "config": {"heartbeat_timeout": 300, "agent_token": "`+tt.answered+`"}}`
			a, _ := newInspected(t, inspecttest.Server(), "ipa-api-url="+e.URL+" ipa-inspection-collectors=default,nonsense")
			if err := inspectOnce(t, a); err != nil || a.inspected != nil {
				t.Fatalf("inspectMachine = %v, and the answer counts: %t", err, a.inspected != nil)
			}
			api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, `{"default_version": {"version": "1.90"}, "node": {"uuid": "u-1"}, "config": {"heartbeat_timeout": 1, "agent_token": "******"}}`)
			}))
			defer api.Close()
			a.config.APIURLs = []string{api.URL}
			err := a.lookUp(t.Context())
			if a.token.Reveal() != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("lookUp() = %v with the token %q, want %q", err, a.token.Reveal(), tt.want)
			}
		})
	}
}

func TestInspectionRefused(t *testing.T) {
	e := newEndpoint(t)
	e.code, e.answer = 404, `{"error_message": "no node"}`
	a, console := newInspected(t, inspecttest.Server(), "ipa-api-url="+e.URL+" ipa-inspection-callback-url="+e.URL+"/v1/continue_inspection")
	if err := inspectOnce(t, a); err != nil || a.inspected != nil || e.posts != 1 {
		t.Errorf("inspectMachine = %v after %d posts", err, e.posts)
	}
	wantText(t, "console", console(), "404 Not Found", "3c:ec:ef:00:00:00")

	synctest.Test(t, func(t *testing.T) {
		a, console := newInspected(t, inspecttest.Server(), "ipa-api-url=http://127.0.0.1:1 ipa-inspection-callback-url=http://127.0.0.1:1/x?token=secret")
		err := inspectOnce(t, a)
		var check *hintError
		if !errors.As(err, &check) || check.check != "that http://127.0.0.1:1 can be reached" {
			t.Errorf("inspectMachine = %v", err)
		}
		wantText(t, "console", console(), "attempt 4", "next in 12 s")
		if text := fmt.Sprint(console(), err, a.config.Origins); strings.Contains(text, "secret") {
			t.Errorf("the secret is told: %s", text)
		}
	})
}

// linkSwitch is a kernel that remembers what is set up.
type linkSwitch struct {
	nics []netconfig.NIC
	up   []string
}

func (k *linkSwitch) State(context.Context) (netconfig.State, error) {
	return netconfig.State{NICs: k.nics}, nil
}

func (k *linkSwitch) Do(_ context.Context, c netconfig.Change) error {
	k.up = append(k.up, c.String())
	return nil
}

// A switch says nothing on a cable without link, so interfaces are switched on to listen; and only to listen.
func TestInspectionSwitchesLinksOn(t *testing.T) {
	both := []string{netconfig.SetUp{NIC: "ens1"}.String(), netconfig.SetOption{NIC: "ens2", Option: netconfig.AcceptRA}.String(), netconfig.SetUp{NIC: "ens2"}.String()}
	for cmdline, want := range map[string][]string{"": nil, "ipa-collect-lldp=1": both, "ipa-inspection-collectors=lldp": both} {
		a, _ := newInspected(t, inspecttest.Server(), "ipa-lldp-timeout=0.01 "+cmdline)
		k := &linkSwitch{nics: []netconfig.NIC{{Name: "lo", Loopback: true}, {Name: "ens0", Up: true}, {Name: "ens1"}, {Name: "ens2", Options: map[netconfig.Option]int{netconfig.AcceptRA: 1}}, {Name: "dummy0"}}}
		a.sys.Network = func() (netconfig.Kernel, error) { return k, nil }
		a.listenForSwitches(t.Context(), a.config.Inspection.LLDP || slices.Contains(a.config.Inspection.Collectors, "lldp"))()
		if !slices.Equal(k.up, want) {
			t.Errorf("%s: %q, want %q", cmdline, k.up, want)
		}
	}
}

func TestInspectionWaitsForAddress(t *testing.T) {
	const boot = "01-3c-ec-ef-00-00-00"
	for _, tt := range []struct {
		name, cmdline string
		after         time.Duration // an address is there
		took          time.Duration
		warns         bool
	}{
		{"has one", "", 0, 0, false},
		{"comes", "", 5 * time.Second, 6 * time.Second, false},
		{"never comes", "", time.Hour, time.Minute, true},
		{"no waiting", "ipa-inspection-dhcp-wait-timeout=0", time.Hour, 0, false},
		{"all interfaces", "ipa-inspection-dhcp-all-interfaces=1 ipa-inspection-dhcp-wait-timeout=4", 0, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				files := inspecttest.Server()
				a, console := newInspected(t, files, "ipa-inspection-callback-url=https://a/x "+tt.cmdline)
				start := time.Now()
				m := a.sys.Machine
				a.sys.Machine.Ask = func(ctx context.Context, question string) ([]byte, error) {
					if question == "addresses" && time.Since(start) < tt.after {
						return nil, nil
					}
					return m.Ask(ctx, question)
				}
				a.inventory, _ = a.sys.Machine.Inventory(t.Context())
				a.waitForAddresses(t.Context())
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				if warns := strings.Contains(console(), "WARNING: no IPv4 address on ens0 within"); warns != tt.warns {
					t.Errorf("console %s", console())
				}
			})
		})
	}
	if got := macOf(boot); got != "3c:ec:ef:00:00:00" {
		t.Errorf("macOf = %s", got)
	}
}
