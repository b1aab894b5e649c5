// SPDX-License-Identifier: Apache-2.0

package ironic

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// A Beat is what a heartbeat tells the conductor. It must be the same for a whole boot: Ironic
// refuses another callback URL, token or certificate.
type Beat struct {
	CallbackURL string // of the agent's own API: scheme, host and port, no slash at the end
	Token       Secret
	Version     string // of the agent
	VerifyCA    string // the certificate that the agent's API shows, as PEM; "" if others vouch for it
}

// Heartbeat tells the conductor that the agent of the node lives. It tries once: when to try
// again is the caller's schedule. A locked node is a *StatusError with code 409.
func (c *Client) Heartbeat(ctx context.Context, uuid string, b Beat) error {
	server, err := c.ServerVersion(ctx)
	if err != nil {
		return fmt.Errorf("send heartbeat: %w", err)
	}
	fields := map[string]string{"callback_url": b.CallbackURL}
	if server >= VersionAgentVersion {
		fields["agent_version"] = b.Version
	}
	if server >= VersionToken {
		fields["agent_token"] = b.Token.Reveal()
	}
	if server >= VersionVerifyCA && b.VerifyCA != "" {
		fields["agent_verify_ca"] = b.VerifyCA
	}
	body, err := json.Marshal(fields)
	if err != nil {
		return fmt.Errorf("send heartbeat: %w", err)
	}
	_, err = c.do(ctx, request{
		method: http.MethodPost, path: "/v1/heartbeat/" + uuid,
		version: min(server, VersionVerifyCA), body: body, hide: b.Token, want: http.StatusAccepted,
	})
	if err != nil {
		return fmt.Errorf("send heartbeat: %w", err)
	}
	return nil
}
