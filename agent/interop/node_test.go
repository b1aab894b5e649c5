// SPDX-License-Identifier: Apache-2.0

//go:build linux

package interop

import (
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/ironhand/ironhand/initramfs/vmtest"
)

// A node is one of Ironic's, and the machine behind it, which does what a BMC would have it do.
type node struct {
	b        *bench
	name     string
	uuid     string
	mac      string
	firmware string // uefi or bios
	machine  vmtest.Machine

	vm       *vmtest.VM // nil while the machine is off
	hadToken bool       // Ironic has given this boot of the ramdisk a token
	off      time.Time  // when the machine was seen to be off
	boots    int
	consoles []string // of the boots that are over
	seen     string
}

// record is what the tests look at of Ironic's record.
type record struct {
	State       string `json:"provision_state"`
	Target      string `json:"target_provision_state"`
	Power       string `json:"power_state"`
	LastError   string `json:"last_error"`
	Maintenance bool   `json:"maintenance"`
	CleanStep   step   `json:"clean_step"`
	DeployStep  step   `json:"deploy_step"`
	Internal    struct {
		Token    *string `json:"agent_secret_token"`
		AgentURL string  `json:"agent_url"`
	} `json:"driver_internal_info"`
	RAID json.RawMessage `json:"raid_config"`
}

type step struct {
	Interface, Step string
}

// newNode enrols a node with two disks, of which ROOT is the second.
func (b *bench) newNode(name, firmware string) *node {
	b.t.Helper()
	n := &node{b: b, name: name, firmware: firmware, mac: "52:54:00:12:34:56"}
	var created struct{ UUID string }
	b.must(b.call("POST", "/v1/nodes", map[string]any{
		"name": name, "driver": "manual-management", "power_interface": "fake", "boot_interface": "ipxe", "management_interface": "noop",
		"properties": map[string]any{"cpu_arch": "x86_64", "capabilities": "boot_mode:" + firmware, "root_device": map[string]string{"serial": "ROOT"}},
	}, &created))
	n.uuid = created.UUID
	b.must(b.call("POST", "/v1/ports", map[string]any{"node_uuid": n.uuid, "address": n.mac}, nil))

	b.write("network_data.json", fmt.Appendf(nil, `{
  "links": [{"id": "port0", "type": "phy", "ethernet_mac_address": %q}],
  "networks": [{"id": "n4", "network_id": "x", "link": "port0", "type": "ipv4", "ip_address": "%s", "netmask": "255.255.255.0", "routes": []}],
  "services": []}`, n.mac, b.network.Guest4.Addr()))
	b.run(vmtest.Artefact(b.t, "mkramdisk"), "media", "--out", b.path(name+".floppy"), "--ca", b.path("tls/ca.crt"), "--network-data", b.path("network_data.json"))
	n.machine = vmtest.Machine{
		Firmware: firmware, MemoryMiB: 768, Floppy: b.path(name + ".floppy"),
		NICs: []vmtest.NIC{{MAC: n.mac, Network: b.network}},
	}
	for i, serial := range []string{"OTHER", "ROOT"} {
		disk := b.path(fmt.Sprintf("%s.disk%d", name, i))
		b.write(fmt.Sprintf("%s.disk%d", name, i), nil)
		b.must(os.Truncate(disk, int64(5+i)<<30))
		n.machine.Disks = append(n.machine.Disks, vmtest.Disk{Path: disk, Serial: serial})
	}
	if firmware == "uefi" {
		n.machine.Variables = b.path(name + ".variables")
		b.run("cp", "/usr/share/OVMF/OVMF_VARS_4M.fd", n.machine.Variables)
	} else {
		n.machine.Firmware = "" // the ramdisk starts without; the disk is started by SeaBIOS
	}
	n.do("manage")
	n.until("manageable", time.Minute)
	return n
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// do asks Ironic for something: provide, active, deleted, clean, rescue, ...
func (n *node) do(target string, more ...any) {
	n.b.t.Helper()
	body := map[string]any{"target": target}
	for i := 0; i < len(more); i += 2 {
		body[more[i].(string)] = more[i+1]
	}
	n.b.must(n.b.call("PUT", "/v1/nodes/"+n.uuid+"/states/provision", body, nil))
}

func (n *node) get() record {
	n.b.t.Helper()
	var r record
	for attempt := 1; ; attempt++ {
		err := n.b.call("GET", "/v1/nodes/"+n.uuid, nil, &r)
		if err == nil {
			return r
		}
		if attempt == 20 {
			n.b.t.Fatal(err)
		}
		time.Sleep(time.Second)
	}
}

// patch changes the node's record.
func (n *node) patch(path string, value any) {
	n.b.t.Helper()
	n.b.must(n.b.call("PATCH", "/v1/nodes/"+n.uuid, []map[string]any{{"op": "add", "path": path, "value": value}}, nil))
}

// setImage publishes an image and has the node deployed with it.
func (n *node) setImage(file string, more map[string]any) {
	n.b.t.Helper()
	f, err := os.Open(file)
	n.b.must(err)
	defer f.Close() // only read
	sum := sha512.New()
	_, err = io.Copy(sum, f)
	n.b.must(err)
	name := n.name + ".img"
	n.b.run("cp", file, n.b.path("http/images/"+name))
	info := map[string]any{
		"image_type": "whole-disk", "image_source": n.b.images + "/images/" + name, "image_disk_format": "raw",
		"image_os_hash_algo": "sha512", "image_os_hash_value": hex.EncodeToString(sum.Sum(nil)),
	}
	for k, v := range more {
		info[k] = v
	}
	n.patch("/instance_info", info)
}

// until plays the machine until the node rests in a state, which must be the wanted one, and returns its record.
func (n *node) until(state string, within time.Duration) record {
	n.b.t.Helper()
	for began := time.Now(); ; time.Sleep(300 * time.Millisecond) {
		r := n.get()
		n.play(r)
		rests := r.Target == "" || strings.HasSuffix(r.State, "failed")
		if r.State == state && rests {
			return r
		}
		if rests && strings.HasSuffix(r.State, "failed") {
			n.b.t.Fatalf("the node is in state %q: %s\n%s", r.State, r.LastError, n.timeline())
		}
		if time.Since(began) > within {
			n.b.t.Fatalf("the node is in state %q (%s) after %v, want %q; last error %q\n%s", r.State, r.DeployStep.Step+r.CleanStep.Step, within, state, r.LastError, n.timeline())
		}
	}
}

// while plays the machine as long as a condition holds.
func (n *node) while(condition func(record) bool, within time.Duration) {
	n.b.t.Helper()
	for began := time.Now(); ; time.Sleep(300 * time.Millisecond) {
		r := n.get()
		n.play(r)
		if !condition(r) {
			return
		}
		if time.Since(began) > within {
			n.b.t.Fatalf("the node is still in state %q after %v\n%s", r.State, within, n.timeline())
		}
	}
}

// play switches the machine as Ironic thinks that it does. Its power is a pretence: that Ironic forgets the agent's token is how
// a reboot shows.
func (n *node) play(r record) {
	n.b.t.Helper()
	if text := fmt.Sprintf("%s -> %s, %s, step %s%s, maintenance %v", r.State, r.Target, r.Power, r.CleanStep.Step, r.DeployStep.Step, r.Maintenance); text != n.seen {
		n.b.t.Logf("%s %s: %s", time.Now().Format("15:04:05"), n.name, text)
		n.seen = text
	}
	on := r.Power != "power off"
	token := r.Internal.Token != nil && *r.Internal.Token != ""
	if n.vm != nil && (n.vm.Ended() || !on || n.hadToken && !token) {
		n.stop()
	}
	n.hadToken = n.hadToken || token && n.vm != nil
	waits := slices.Contains([]string{"clean wait", "wait call-back", "rescue wait"}, r.State)
	if n.vm == nil && on && waits && !token && time.Since(n.off) > 2*time.Second {
		n.boot()
	}
}

// boot starts the ramdisk with the kernel parameters that Ironic has written for it.
func (n *node) boot() {
	n.b.t.Helper()
	m := n.machine
	m.Cmdline = n.parameters()
	n.boots++
	n.b.t.Logf("%s %s: boots with %s", time.Now().Format("15:04:05"), n.name, m.Cmdline)
	n.vm = vmtest.Start(n.b.t, m)
	n.hadToken = false
}

func (n *node) stop() {
	n.vm.Stop()
	n.consoles = append(n.consoles, n.vm.Console())
	n.vm, n.hadToken, n.off = nil, false, time.Now()
}

// parameters reads the kernel's line of the node's iPXE configuration.
func (n *node) parameters() string {
	n.b.t.Helper()
	text, err := os.ReadFile(n.b.path("http/" + n.uuid + "/config"))
	n.b.must(err)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "kernel ") && strings.Contains(line, "ipa-api-url=") {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " initrd=")
			var words []string
			for _, w := range strings.Fields(line)[1:] {
				if strings.HasPrefix(w, "--") || strings.Contains(w, "://") && !strings.Contains(w, "=") {
					continue // iPXE's own
				}
				words = append(words, strings.ReplaceAll(w, "${mac}", n.mac))
			}
			return strings.Join(words, " ")
		}
	}
	n.b.t.Fatalf("no kernel line in\n%s", text)
	return ""
}

// fromDisk starts what was deployed, through the firmware, and waits for a text on its console.
func (n *node) fromDisk(expr string, within time.Duration) {
	n.b.t.Helper()
	if n.vm != nil {
		n.stop()
	}
	m := n.machine
	m.Firmware, m.Kernel, m.Cmdline, m.Floppy = n.firmware, "none", "", ""
	m.Disks = m.Disks[1:] // a BIOS looks at the first alone
	vm := vmtest.Start(n.b.t, m)
	vm.Expect(n.b.t, expr, within)
	vm.Stop()
}

// timeline is what the ramdisk's consoles said of its stages.
func (n *node) timeline() string {
	all := slices.Clone(n.consoles)
	if n.vm != nil {
		all = append(all, n.vm.Console())
	}
	var lines []string
	for i, text := range all {
		lines = append(lines, fmt.Sprintf("-- boot %d", i+1))
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "[") && !strings.Contains(line, "level=") && strings.Contains(line, ": ") {
				lines = append(lines, strings.TrimSpace(line))
			}
		}
	}
	return strings.Join(lines[max(0, len(lines)-80):], "\n")
}

// ssh runs a command on the machine as the tenant.
func (n *node) ssh(password, command string) (string, error) {
	n.b.t.Helper()
	ask := n.b.path("ask")
	n.b.must(os.WriteFile(ask, []byte("#!/bin/sh\nprintf '%s\\n' \"$PASSWORD\"\n"), 0o700))
	cmd := exec.Command("ssh", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "PubkeyAuthentication=no",
		"-o", "NumberOfPasswordPrompts=1", "-o", "ConnectTimeout=20", "rescue@"+n.b.network.Guest4.Addr().String(), command)
	cmd.Env = append(os.Environ(), "SSH_ASKPASS="+ask, "SSH_ASKPASS_REQUIRE=force", "PASSWORD="+password)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
