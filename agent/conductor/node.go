// SPDX-License-Identifier: Apache-2.0

package conductor

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// State is where a node is in its deployment. The words are Ironic's provision states, but for StateBooting, which
// Ironic has no word for: it does not wait for the deployed system.
type State string

// The states, in order.
const (
	StateWait      State = "wait call-back" // no agent, or one that is asked at its next heartbeat
	StateDeploying State = "deploying"      // a command is being sent
	StateBooting   State = "booting"        // handed off; the deployed system has not reported yet
	StateActive    State = "active"
	StateFailed    State = "deploy failed"
)

// over is true when nothing more will happen with the node.
func (s State) over() bool { return s == StateActive || s == StateFailed }

// NodeStatus is a snapshot of a node for people and tests.
type NodeStatus struct {
	Name, UUID string
	State      State
	LastError  string // the reason of StateFailed
	Agent      string // URL of the agent's API; empty if none
}

// node is a node and the agent that runs on it.
type node struct {
	config       NodeConfig
	configDrive  string // as it is sent: base64 of gzip; empty for none
	reportSecret secret
	hostName     string      // the one the deployed system must report; empty: any
	wake         chan string // why the deployment should look again; holds one
	booted       chan report // the deployed system's report; holds one

	mu            sync.Mutex
	state         State
	lastError     string
	image         *image // nil while its digest is being computed: the node is locked
	token         secret
	pregenerated  bool // the token came from a file
	agent         *agent
	lastHeartbeat time.Time
	raid          map[string]any // the configuration that was made
}

func newNode(c NodeConfig) *node {
	return &node{
		config:       c,
		reportSecret: newSecret(),
		wake:         make(chan string, 1),
		booted:       make(chan report, 1),
		state:        StateWait,
	}
}

func (n *node) status() NodeStatus {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := NodeStatus{Name: n.config.Name, UUID: n.config.UUID, State: n.state, LastError: n.lastError}
	if n.agent != nil {
		s.Agent = n.agent.url
	}
	return s
}

func (n *node) setState(s State) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state = s
}

// setRAID keeps the configuration that the agent has made.
func (n *node) setRAID(config map[string]any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.raid = config
}

// poke makes the deployment look at the agent now.
func (n *node) poke(why string) {
	select {
	case n.wake <- why:
	default: // it will look anyway
	}
}

// forgetAgent forgets who speaks for the node, as Ironic does when it switches the machine on or off
// (ironic/conductor/utils.py, wipe_token_and_url). A pregenerated token stays.
func (n *node) forgetAgent() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.agent = nil
	if !n.pregenerated {
		n.token = ""
	}
}

// agent is how the agent on a node is reached: fixed for one start of the machine.
type agent struct {
	url     string // https://host:port
	ca      string // PEM, trimmed: the only certificate that is trusted
	version string
	token   secret
	http    *http.Client
}

// newAgent checks what a heartbeat says about its sender.
func newAgent(beat heartbeat, token secret, timeout time.Duration) (*agent, error) {
	u, err := url.Parse(beat.CallbackURL)
	switch {
	case err != nil || u.Hostname() == "":
		return nil, errors.New("callback_url is not a URL")
	case u.Scheme != "https":
		return nil, errors.New("TLS is required by configuration")
	case u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return nil, errors.New("callback_url has more than a host and a port")
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(beat.AgentVerifyCA)) {
		return nil, errors.New("agent_verify_ca is required and holds no certificate")
	}
	return &agent{
		url:     beat.CallbackURL,
		ca:      strings.TrimSpace(beat.AgentVerifyCA),
		version: printable(beat.AgentVersion),
		token:   token,
		http: &http.Client{
			Timeout: timeout,
			Transport: &http.Transport{
				// Ironic's default is TLS 1.3 ([agent]tls_minimum_version).
				TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13},
				DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
				IdleConnTimeout:       20 * time.Second,
				MaxIdleConns:          2,
				ResponseHeaderTimeout: timeout,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return errors.New("agent answers with a redirect") // the token must not go elsewhere
			},
		},
	}, nil
}

// record is the node as Ironic sends it with each step: all fields of its database, of which agents read few. The
// names are those of Ironic 21.4 (see testdata/wire).
func (n *node) record(now time.Time, index int, cached map[string]any) map[string]any {
	n.mu.Lock()
	defer n.mu.Unlock()
	stamp := now.UTC().Format("2006-01-02T15:04:05.000000")
	steps := deployment{}.steps()
	internal := map[string]any{
		"clean_steps":                           nil,
		"agent_erase_devices_iterations":        1,
		"agent_erase_devices_zeroize":           true,
		"agent_continue_if_secure_erase_failed": false,
		"agent_continue_if_ata_erase_failed":    false,
		"agent_enable_nvme_secure_erase":        true,
		"agent_enable_ata_secure_erase":         true,
		"agent_erase_skip_read_only":            false,
		"disk_erasure_concurrency":              4,
		"agent_secret_token":                    "******",
		"agent_last_heartbeat":                  n.lastHeartbeat.UTC().Format("2006-01-02T15:04:05.000000"),
		"is_whole_disk_image":                   true,
		"deploy_steps":                          steps,
		"deploy_step_index":                     index,
	}
	for k, v := range cached {
		internal[k] = v
	}
	if n.pregenerated {
		internal["agent_secret_token_pregenerated"] = true
	}
	if n.agent != nil {
		internal["agent_url"] = n.agent.url
		internal["agent_version"] = n.agent.version
	}
	r := map[string]any{
		"id": 1, "uuid": n.config.UUID, "name": n.config.Name,
		"driver": "manual-management", "driver_info": map[string]any{}, "driver_internal_info": internal,
		"properties": n.properties(), "instance_info": n.instanceInfo(), "extra": map[string]any{},
		"provision_state": string(n.state), "target_provision_state": "active", "provision_updated_at": stamp,
		"power_state": "power on", "target_power_state": nil,
		"deploy_step": steps[index], "clean_step": map[string]any{},
		"raid_config": object(n.raid), "target_raid_config": object(n.config.RAID), "network_data": map[string]any{},
		"traits":      map[string]any{"objects": []any{}},
		"maintenance": false, "console_enabled": false, "protected": false, "retired": false,
		"conductor_affinity": 1, "conductor_group": "", "reservation": "labconductor",
		"bios_interface": "no-bios", "boot_interface": "ipxe", "console_interface": "no-console", "deploy_interface": "direct",
		"inspect_interface": "no-inspect", "management_interface": "noop", "network_interface": "noop", "power_interface": "fake",
		"raid_interface": "agent", "rescue_interface": "agent", "storage_interface": "noop", "vendor_interface": "no-vendor",
		"created_at": stamp, "updated_at": stamp,
	}
	for _, k := range []string{
		"allocation_id", "automated_clean", "boot_mode", "chassis_id", "description", "fault", "inspection_finished_at",
		"inspection_started_at", "instance_uuid", "last_error", "lessee", "maintenance_reason", "owner", "protected_reason",
		"resource_class", "retired_reason", "secure_boot", "shard",
	} {
		r[k] = nil
	}
	return r
}

// object is m, or an empty object: never null.
func object(m map[string]any) map[string]any {
	if m == nil {
		return map[string]any{}
	}
	return m
}

// properties are the configured ones with the boot mode among the capabilities. The caller holds the lock.
func (n *node) properties() map[string]any {
	p := map[string]any{"cpu_arch": "x86_64"}
	for k, v := range n.config.Properties {
		p[k] = v
	}
	mode := "boot_mode:" + n.config.BootMode
	switch c := p["capabilities"].(type) {
	case nil:
		p["capabilities"] = mode
	case string:
		if !strings.Contains(","+c, ",boot_mode:") {
			p["capabilities"] = strings.TrimLeft(c+","+mode, ",")
		}
	}
	return p
}

// instanceInfo is what is to be deployed. The caller holds the lock.
func (n *node) instanceInfo() map[string]any {
	if n.image == nil {
		return map[string]any{}
	}
	info := map[string]any{
		"image_type": "whole-disk", "image_source": n.image.URL, "image_url": n.image.URL,
		"image_os_hash_algo": "sha512", "image_os_hash_value": n.image.SHA512, "image_disk_format": n.image.DiskFormat,
	}
	if n.config.Image.RootMB > 0 {
		info["image_type"] = "partition"
	}
	if n.configDrive != "" {
		info["configdrive"] = "******"
	}
	return info
}

// ports are the node's network ports as Ironic sends them.
func (n *node) ports(now time.Time) []map[string]any {
	ports := []map[string]any{}
	stamp := now.UTC().Format("2006-01-02T15:04:05.000000")
	for i, mac := range n.config.MACs {
		ports = append(ports, map[string]any{
			"id": i + 1, "uuid": fmt.Sprintf("%s%012d", n.config.UUID[:24], i+1), "node_id": 1, "node_uuid": n.config.UUID, "address": mac,
			"extra": map[string]any{}, "internal_info": map[string]any{}, "local_link_connection": map[string]any{},
			"pxe_enabled": true, "is_smartnic": false, "name": nil, "portgroup_id": nil, "physical_network": nil,
			"created_at": stamp, "updated_at": nil,
		})
	}
	return ports
}
