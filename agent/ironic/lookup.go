// SPDX-License-Identifier: Apache-2.0

package ironic

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// A Node is Ironic's record of this machine, as far as Ironic shows it. Its values are kept as
// they came: who needs one decodes it. A Node may hold secrets and prints as its UUID.
type Node struct {
	UUID               string
	Properties         map[string]json.RawMessage
	InstanceInfo       map[string]json.RawMessage
	DriverInternalInfo map[string]json.RawMessage
	Raw                json.RawMessage // all of it
}

// String returns the UUID.
func (n Node) String() string { return n.UUID }

// ParseNode reads a node record: from a lookup, which has the fields named in Node only, or from
// the node parameter of a command, which has all of them.
func ParseNode(raw json.RawMessage) (Node, error) {
	var fields struct {
		UUID               string                     `json:"uuid"`
		Properties         map[string]json.RawMessage `json:"properties"`
		InstanceInfo       map[string]json.RawMessage `json:"instance_info"`
		DriverInternalInfo map[string]json.RawMessage `json:"driver_internal_info"`
	}
	if err := json.Unmarshal(raw, &fields); err != nil {
		return Node{}, fmt.Errorf("read node: %w", err)
	}
	if fields.UUID == "" {
		return Node{}, errors.New("read node: it has no uuid")
	}
	return Node{
		UUID:               fields.UUID,
		Properties:         fields.Properties,
		InstanceInfo:       fields.InstanceInfo,
		DriverInternalInfo: fields.DriverInternalInfo,
		Raw:                bytes.Clone(raw),
	}, nil
}

// Settings are what the conductor wants of the agent: the config object of the lookup answer.
// A nil pointer or slice is a setting that the conductor did not send or sent as null.
type Settings struct {
	HeartbeatTimeout            time.Duration // the agent counts as gone after this time without a heartbeat
	Token                       Secret        // as answered; see ChooseToken
	TokenRequired               bool          // of no effect: a token is always required
	MD5Enabled                  *bool         // agent_md5_checksum_enable
	DisableDeepImageInspection  *bool
	PermittedImageFormats       []string
	SkipBMCDetect               bool // agent_skip_bmc_detect
	EnableBIOSBootloaderInstall bool
	TLSMinVersion               string                     // "1.2", "1.3", or "" for not sent
	TLSCipherSuites             string                     // OpenSSL's names, with colons between; "" for not sent
	Containers                  map[string]json.RawMessage // agent_containers
	Metrics                     json.RawMessage
	MetricsStatsd               json.RawMessage
}

// ParseLookup reads the answer to a lookup. Unknown keys are ignored.
func ParseLookup(body []byte) (Node, Settings, error) {
	type config struct {
		HeartbeatTimeout            float64                    `json:"heartbeat_timeout"` // seconds
		Token                       Secret                     `json:"agent_token"`
		TokenRequired               bool                       `json:"agent_token_required"`
		MD5Enabled                  *bool                      `json:"agent_md5_checksum_enable"`
		DisableDeepImageInspection  *bool                      `json:"disable_deep_image_inspection"`
		PermittedImageFormats       []string                   `json:"permitted_image_formats"`
		SkipBMCDetect               bool                       `json:"agent_skip_bmc_detect"`
		EnableBIOSBootloaderInstall bool                       `json:"enable_bios_bootloader_install"`
		TLSMinVersion               string                     `json:"tls_min_version"`
		TLSCipherSuites             string                     `json:"tls_cipher_suites"`
		Containers                  map[string]json.RawMessage `json:"agent_containers"`
		Metrics                     json.RawMessage            `json:"metrics"`
		MetricsStatsd               json.RawMessage            `json:"metrics_statsd"`
	}
	var answer struct {
		Node             json.RawMessage `json:"node"`
		Config           *config         `json:"config"`
		HeartbeatTimeout float64         `json:"heartbeat_timeout"` // servers before the config object
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return Node{}, Settings{}, errors.New("read lookup answer: it is empty")
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) { // the answer of something else than Ironic holds no token
			return Node{}, Settings{}, fmt.Errorf("read lookup answer: %w; it begins with %.60q", err, oneLine(string(body)))
		}
		return Node{}, Settings{}, fmt.Errorf("read lookup answer: %w", err)
	}
	if len(answer.Node) == 0 {
		return Node{}, Settings{}, errors.New("read lookup answer: it has no node")
	}
	node, err := ParseNode(answer.Node)
	if err != nil {
		return Node{}, Settings{}, fmt.Errorf("read lookup answer: %w", err)
	}
	if answer.Config == nil {
		answer.Config = &config{HeartbeatTimeout: answer.HeartbeatTimeout}
	}
	c := answer.Config
	if !(c.HeartbeatTimeout > 0 && c.HeartbeatTimeout <= 1e9) {
		return Node{}, Settings{}, fmt.Errorf("read lookup answer: heartbeat_timeout of %v s is not possible", c.HeartbeatTimeout)
	}
	return node, Settings{
		HeartbeatTimeout:            time.Duration(c.HeartbeatTimeout * float64(time.Second)),
		Token:                       c.Token,
		TokenRequired:               c.TokenRequired,
		MD5Enabled:                  c.MD5Enabled,
		DisableDeepImageInspection:  c.DisableDeepImageInspection,
		PermittedImageFormats:       c.PermittedImageFormats,
		SkipBMCDetect:               c.SkipBMCDetect,
		EnableBIOSBootloaderInstall: c.EnableBIOSBootloaderInstall,
		TLSMinVersion:               c.TLSMinVersion,
		TLSCipherSuites:             c.TLSCipherSuites,
		Containers:                  c.Containers,
		Metrics:                     c.Metrics,
		MetricsStatsd:               c.MetricsStatsd,
	}, nil
}

// ChooseToken returns the token to use from now on: the one that the lookup answered or, if the
// server does not repeat it, the one that this machine got before the lookup (from its media, or
// from an earlier run in this boot). No token from either side gives "", with which the API
// refuses every command. ErrTokenLost means that the token of this boot is unknown here.
func ChooseToken(pregenerated, answered Secret) (Secret, error) {
	const (
		shortest = 32       // anything shorter is no token; source: IPA ironic_python_agent/agent.py
		withheld = "******" // the server has a token and does not repeat it
	)
	switch {
	case len(answered) >= shortest:
		return answered, nil
	case answered == withheld && pregenerated == "":
		return "", ErrTokenLost
	}
	return pregenerated, nil
}

// Lookup finds the node that has one of the MAC addresses or, if uuid is not empty, the node
// with that UUID. Ironic does not tell "unknown" from "not in a state to be looked up", so
// every failure is tried again until Options.LookupTimeout; then the error is ErrLookup with the
// reason of the last attempt.
func (c *Client) Lookup(ctx context.Context, macs []net.HardwareAddr, uuid string) (Node, Settings, error) {
	start := time.Now()
	var conflict time.Duration
	for attempt := 1; ; attempt++ {
		node, settings, err := c.lookup(ctx, macs, uuid)
		if err == nil {
			return node, settings, nil
		}
		if ctx.Err() != nil {
			return Node{}, Settings{}, fmt.Errorf("look up node: %w", err)
		}
		// The node is locked as long as its token is made: wait for that first.
		var pause time.Duration
		var status *StatusError
		if errors.As(err, &status) && status.Code == http.StatusConflict {
			conflict = nextConflictPause(conflict)
			pause = conflict
		}
		if took := time.Since(start) + pause; took >= c.o.LookupTimeout {
			return Node{}, Settings{}, fmt.Errorf("look up node: %w after %d attempts in %v: %w",
				ErrLookup, attempt, time.Since(start).Round(time.Second), err)
		}
		wait := pause + lookupWait(attempt, c.o.LookupInterval, c.o.Rand())
		if c.o.OnRetry != nil {
			c.o.OnRetry(attempt, err, wait)
		} else {
			c.log.Warn("node not found yet", "attempt", attempt, "err", err, "check", Hint(err), "wait", wait)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return Node{}, Settings{}, fmt.Errorf("look up node: %w, after: %w", ctx.Err(), err)
		}
	}
}

// lookup makes one attempt.
func (c *Client) lookup(ctx context.Context, macs []net.HardwareAddr, uuid string) (Node, Settings, error) {
	server, err := c.ServerVersion(ctx)
	if err != nil {
		return Node{}, Settings{}, err
	}
	addresses := make([]string, len(macs))
	for i, mac := range macs {
		addresses[i] = mac.String()
	}
	query := url.Values{"addresses": {strings.Join(addresses, ",")}}
	if uuid != "" {
		query.Set("node_uuid", uuid)
	}
	body, err := c.do(ctx, request{
		method: http.MethodGet, path: "/v1/lookup", query: query,
		version: min(server, VersionToken), want: http.StatusOK,
	})
	if err != nil {
		return Node{}, Settings{}, err
	}
	return ParseLookup(body)
}

// nextConflictPause returns the pause after one more answer that the node is locked: 5 s, 10 s,
// then always 30 s.
func nextConflictPause(last time.Duration) time.Duration {
	switch last {
	case 0:
		return 5 * time.Second
	case 5 * time.Second:
		return 10 * time.Second
	}
	return 30 * time.Second
}

// lookupWait returns the wait after the given failed attempt: random between least and
// 2^(attempt-1) seconds, at most a minute, so that a thousand nodes that were switched on
// together spread out. random is in [0, 1).
func lookupWait(attempt int, least time.Duration, random float64) time.Duration {
	seconds := math.Min(60, math.Exp2(float64(attempt-1)))
	most := max(least, time.Duration(seconds*float64(time.Second)))
	return least + time.Duration(random*float64(most-least))
}
