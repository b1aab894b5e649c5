// SPDX-License-Identifier: Apache-2.0

package ironic

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A Version is the N of Ironic's API version 1.N, which Ironic calls a microversion.
type Version int

// The versions that change what the agent sends.
// Source: IPA ironic_python_agent/ironic_api_client.py.
const (
	VersionFallback     Version = 31 // assumed if the server does not tell
	VersionAgentVersion Version = 36 // the heartbeat may have agent_version
	VersionToken        Version = 62 // lookup gives a token and the heartbeat must have it
	VersionVerifyCA     Version = 68 // the heartbeat may have agent_verify_ca
)

// String returns the version as in Ironic's headers: 1.68.
func (v Version) String() string { return "1." + strconv.Itoa(int(v)) }

// ParseVersion reads a version such as 1.82.
func ParseVersion(s string) (Version, error) {
	major, minor, _ := strings.Cut(s, ".")
	n, err := strconv.ParseUint(minor, 10, 16)
	if major != "1" || err != nil {
		return 0, fmt.Errorf("read API version %.40q: not of the form 1.N", s)
	}
	return Version(n), nil
}

// parseRoot reads the version document that GET / answers. What it calls the version is the
// highest that the server knows.
func parseRoot(body []byte) (Version, error) {
	var root struct {
		Default struct {
			Version string `json:"version"`
		} `json:"default_version"`
	}
	if err := json.Unmarshal(body, &root); err != nil {
		return 0, fmt.Errorf("read version document: %w", err)
	}
	if root.Default.Version == "" {
		return 0, errors.New("read version document: default_version.version is missing")
	}
	return ParseVersion(root.Default.Version)
}
