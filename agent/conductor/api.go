// SPDX-License-Identifier: Apache-2.0

package conductor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The API versions that are offered, and those at which something changes (reference: Ironic's
// api/controllers/v1/versions.py). The highest is one that has all that is here.
const (
	minMinor     = 1
	ramdiskMinor = 22 // lookup and heartbeat
	agentMinor   = 36 // agent_version
	tokenMinor   = 62 // agent_token
	maxMinor     = 82 // beyond 68, from which agent_verify_ca is sent
)

const versionHeader = "X-OpenStack-Ironic-API-Version"

// Bounds for what comes from outside.
const (
	maxHeartbeat = 64 << 10 // bytes of a heartbeat or report
	maxAddresses = 256      // MAC addresses of one lookup
)

// Handler returns the server side: Ironic's API as far as an agent uses it, the published files, and the place where
// deployed systems report.
func (c *Conductor) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", c.serveRoot)
	mux.HandleFunc("GET /v1/lookup", c.serveLookup)
	mux.HandleFunc("POST /v1/heartbeat/{uuid}", c.serveHeartbeat)
	mux.HandleFunc("POST /lab/booted/{uuid}", c.serveBooted)
	if c.files != nil {
		mux.Handle("GET /files/{path...}", http.HandlerFunc(c.serveFile))
		mux.Handle("GET /torrents/{path...}", http.HandlerFunc(c.serveTorrent))
		mux.Handle("GET /announce", &c.swarms.tracker)
	}
	return mux
}

// serveRoot answers with the versions of the API, which the agent reads before anything else.
func (c *Conductor) serveRoot(w http.ResponseWriter, _ *http.Request) {
	v1 := map[string]any{
		"id":     "v1",
		"links":  []any{map[string]any{"href": c.publicURL() + "/v1/", "rel": "self"}},
		"status": "CURRENT", "min_version": fmt.Sprintf("1.%d", minMinor), "version": fmt.Sprintf("1.%d", maxMinor),
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"name":            "OpenStack Ironic API",
		"description":     "labconductor: a small conductor that speaks Ironic's side of the agent's protocol.",
		"default_version": v1,
		"versions":        []any{v1},
	})
}

// serveLookup finds a node by its UUID, else by its MAC addresses, and gives out its token once.
func (c *Conductor) serveLookup(w http.ResponseWriter, r *http.Request) {
	minor, ok := c.negotiate(w, r)
	if !ok {
		return
	}
	query := r.URL.Query()
	uuid := strings.ToLower(query.Get("node_uuid"))
	if !uuidForm.MatchString(uuid) {
		uuid = ""
	}
	macs := make(map[string]bool)
	for i, a := range strings.Split(query.Get("addresses"), ",") {
		if hw, err := net.ParseMAC(strings.TrimSpace(a)); err == nil && len(hw) == 6 && i < maxAddresses {
			macs[hw.String()] = true
		}
	}
	if uuid == "" && len(macs) == 0 {
		c.refuse(w, r, "", http.StatusBadRequest, "At least one of 'addresses' and 'node_uuid' parameters is required")
		return
	}

	n := c.find(uuid, macs)
	if n == nil { // the answer does not tell an unknown node from one in the wrong state
		c.refuse(w, r, "", http.StatusNotFound, "Resource could not be found.")
		return
	}
	name := n.config.Name
	answer, code, fault := c.lookup(n, minor)
	if code != http.StatusOK {
		c.refuse(w, r, name, code, fault)
		if n.status().State == StateBooting {
			c.event(name, EventWarning, "an agent looks for its node after the hand-off: the machine did not start from its disk")
		}
		return
	}
	c.event(name, EventLookup, "%s found the node", peer(r))
	writeJSON(w, code, answer)
}

// lookup makes the answer to a lookup, or a status code and a text that say why there is none.
func (c *Conductor) lookup(n *node, minor int) (answer map[string]any, code int, fault string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.state != StateWait && n.state != StateDeploying {
		return nil, http.StatusNotFound, "Resource could not be found."
	}
	if n.image == nil {
		return nil, http.StatusConflict, n.locked()
	}
	var token any
	if minor >= tokenMinor {
		token = "******"
		if n.token == "" {
			n.token = newSecret()
			token = string(n.token)
		}
	}
	return map[string]any{
		"node": map[string]any{
			"uuid":                 n.config.UUID,
			"properties":           n.properties(),
			"instance_info":        n.instanceInfo(),
			"driver_internal_info": map[string]any{"is_whole_disk_image": true, "agent_secret_token": "******"},
			"links": []any{
				map[string]any{"href": c.publicURL() + "/v1/nodes/" + n.config.UUID, "rel": "self"},
				map[string]any{"href": c.publicURL() + "/nodes/" + n.config.UUID, "rel": "bookmark"},
			},
		},
		"config": map[string]any{
			"metrics": map[string]any{"backend": "noop", "prepend_host": false, "prepend_uuid": false,
				"prepend_host_reverse": true, "global_prefix": nil},
			"metrics_statsd":                 map[string]any{"statsd_host": "localhost", "statsd_port": 8125},
			"heartbeat_timeout":              max(1, int(time.Duration(c.config.HeartbeatTimeout).Seconds())),
			"agent_token":                    token,
			"agent_token_required":           true,
			"agent_md5_checksum_enable":      false,
			"disable_deep_image_inspection":  false,
			"permitted_image_formats":        []string{"raw", "gpt", "qcow2", "iso"},
			"agent_skip_bmc_detect":          false,
			"enable_bios_bootloader_install": false,
			"tls_min_version":                "1.3",
			"tls_cipher_suites":              nil,
		},
	}, http.StatusOK, ""
}

// locked is Ironic's text for a node that somebody is working on: here, while the digest of its image is computed.
func (n *node) locked() string {
	return "Node " + n.config.UUID + " is locked by host labconductor, please retry after the current operation is completed."
}

// find returns the one node that is meant, or nil.
func (c *Conductor) find(uuid string, macs map[string]bool) *node {
	if uuid != "" {
		return c.byUUID[uuid]
	}
	var found *node
	for _, n := range c.nodes {
		for _, mac := range n.config.MACs {
			if macs[mac] && n != found {
				if found != nil {
					return nil // several nodes match
				}
				found = n
			}
		}
	}
	return found
}

// serveHeartbeat takes a heartbeat: who the agent is and how it is reached, which then stays fixed until the machine
// starts anew.
func (c *Conductor) serveHeartbeat(w http.ResponseWriter, r *http.Request) {
	minor, ok := c.negotiate(w, r)
	if !ok {
		return
	}
	uuid := strings.ToLower(r.PathValue("uuid"))
	n := c.byUUID[uuid]
	if n == nil {
		c.refuse(w, r, "", http.StatusNotFound, "Node "+printable(uuid)+" could not be found.")
		return
	}
	beat, err := parseHeartbeat(http.MaxBytesReader(w, r.Body, maxHeartbeat))
	if err != nil {
		c.refuse(w, r, n.config.Name, http.StatusBadRequest, err.Error())
		return
	}
	fresh, code, fault := c.accept(n, beat, minor)
	if code != http.StatusAccepted {
		c.refuse(w, r, n.config.Name, code, fault)
		return
	}
	if fresh {
		c.event(n.config.Name, EventAgent, "agent %s at %s", printable(beat.AgentVersion), printable(beat.CallbackURL))
	}
	w.WriteHeader(code)
	n.poke("heartbeat")
}

// accept checks a heartbeat as Ironic does (api/controllers/v1/ramdisk.py, then conductor/manager.py) and keeps what it
// says. It returns whether this is the agent's first, the status code, and the text if it is an error.
func (c *Conductor) accept(n *node, beat heartbeat, minor int) (fresh bool, code int, fault string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case minor >= agentMinor && beat.AgentVersion == "":
		fault = "Agent did not transmit a version, and a version is required. Please update the agent being used."
	case minor < tokenMinor || beat.AgentToken == nil:
		fault = "Agent token is required for heartbeat processing."
	case !n.token.equals(*beat.AgentToken):
		fault = "Invalid or missing agent token received."
	case n.agent != nil && beat.CallbackURL != n.agent.url:
		fault = "Detected change in ramdisk provided \"callback_url\""
	case n.agent != nil && strings.TrimSpace(beat.AgentVerifyCA) != n.agent.ca:
		fault = "Detected change in ramdisk provided \"agent_verify_ca\""
	}
	if fault != "" {
		return false, http.StatusBadRequest, fault
	}
	if n.agent == nil {
		if n.image == nil {
			return false, http.StatusConflict, n.locked()
		}
		a, err := newAgent(beat, n.token, time.Duration(c.config.CommandTimeout))
		if err != nil {
			return false, http.StatusBadRequest, err.Error()
		}
		n.agent, fresh = a, true
	}
	n.lastHeartbeat = time.Now()
	return fresh, http.StatusAccepted, ""
}

// heartbeat is the body of a heartbeat. Keys that are not known are ignored.
type heartbeat struct {
	CallbackURL   string  `json:"callback_url"`
	AgentToken    *string `json:"agent_token"`
	AgentVersion  string  `json:"agent_version"`
	AgentVerifyCA string  `json:"agent_verify_ca"`
}

// parseHeartbeat reads one JSON object. An error never repeats what was read: there is a token in it.
func parseHeartbeat(r io.Reader) (heartbeat, error) {
	var beat heartbeat
	if err := decodeOne(r, &beat); err != nil {
		return heartbeat{}, errors.New("heartbeat is not a JSON object of the expected form")
	}
	return beat, nil
}

// decodeOne reads exactly one JSON value.
func decodeOne(r io.Reader, v any) error {
	d := json.NewDecoder(r)
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more than one JSON value")
	}
	return nil
}

// report is what a deployed system says about itself.
type report struct {
	HostName string `json:"hostname"`
	Kernel   string `json:"kernel"`
	IP       string `json:"ip"`
}

// serveBooted takes the report of a deployed system. The secret in its config drive is good for one report.
func (c *Conductor) serveBooted(w http.ResponseWriter, r *http.Request) {
	n := c.byUUID[strings.ToLower(r.PathValue("uuid"))]
	given, isBearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if n == nil || !isBearer || !n.reportSecret.equals(given) {
		name := ""
		if n != nil {
			name = n.config.Name
		}
		c.refuse(w, r, name, http.StatusUnauthorized, "no such node, or not its secret")
		return
	}
	var rep report
	if err := decodeOne(http.MaxBytesReader(w, r.Body, maxHeartbeat), &rep); err != nil {
		c.refuse(w, r, n.config.Name, http.StatusBadRequest, "report is not a JSON object with hostname, kernel and ip")
		return
	}
	if state := n.status().State; state != StateBooting {
		c.refuse(w, r, n.config.Name, http.StatusConflict, "no report is expected: the node is "+string(state))
		return
	}
	select {
	case n.booted <- rep:
		w.WriteHeader(http.StatusNoContent)
	default:
		c.refuse(w, r, n.config.Name, http.StatusConflict, "reported already")
	}
}

// negotiate reads the version that the agent speaks. It answers the request itself if that is not one of ours.
func (c *Conductor) negotiate(w http.ResponseWriter, r *http.Request) (minor int, ok bool) {
	h := w.Header()
	h.Set("X-OpenStack-Ironic-API-Minimum-Version", fmt.Sprintf("1.%d", minMinor))
	h.Set("X-OpenStack-Ironic-API-Maximum-Version", fmt.Sprintf("1.%d", maxMinor))
	minor, fault := parseMinor(r.Header.Get(versionHeader))
	if fault != "" {
		c.refuse(w, r, "", http.StatusNotAcceptable, fault)
		return 0, false
	}
	h.Set(versionHeader, fmt.Sprintf("1.%d", minor))
	if minor < ramdiskMinor {
		c.refuse(w, r, "", http.StatusNotFound, "Resource could not be found.")
		return 0, false
	}
	return minor, true
}

// parseMinor reads the version header: 1.N, latest, or nothing for the lowest. The fault is Ironic's text.
func parseMinor(s string) (minor int, fault string) {
	switch s {
	case "":
		return minMinor, ""
	case "latest":
		return maxMinor, ""
	}
	digits, isOne := strings.CutPrefix(s, "1.")
	n, err := strconv.ParseUint(digits, 10, 16)
	if !isOne || err != nil {
		return 0, "Invalid value for " + versionHeader + " header"
	}
	if n < minMinor || n > maxMinor {
		return 0, fmt.Sprintf("Version 1.%d was requested but the requested API version is not supported. Supported versions are 1.%d to 1.%d.", n, minMinor, maxMinor)
	}
	return int(n), ""
}

// refuse answers with an error in Ironic's form, which is JSON in a JSON string, and tells it to people.
func (c *Conductor) refuse(w http.ResponseWriter, r *http.Request, name string, code int, text string) {
	c.event(name, EventRefused, "%s %s from %s: %d %s", r.Method, printable(r.URL.Path), peer(r), code, text)
	fault, err := json.Marshal(struct {
		Code   string  `json:"faultcode"`
		String string  `json:"faultstring"`
		Debug  *string `json:"debuginfo"`
	}{"Client", text, nil})
	if err != nil {
		http.Error(w, text, code)
		return
	}
	writeJSON(w, code, map[string]any{"error_message": string(fault)})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "answer has no JSON form", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	w.Write(b) // an agent that went away asks again
}

// peer names the sender of a request by its address.
func peer(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
