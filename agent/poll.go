// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"github.com/ironhand/ironhand/agent/ironic"
	"github.com/ironhand/ironhand/netconfig"
)

// pollCommands are for a conductor that is not called and asks by itself.
func (a *agent) pollCommands() []Command {
	return []Command{
		{Name: "poll.get_hardware_info", Run: func(context.Context, json.RawMessage) (any, error) { return a.inventory, nil }},
		{Name: "poll.set_node_info", Run: a.setNodeInfo},
	}
}

// setNodeInfo takes what a lookup would have answered. Source: IPA ironic_python_agent/extensions/poll.py.
func (a *agent) setNodeInfo(ctx context.Context, params json.RawMessage) (any, error) {
	if !a.config.Poll {
		return nil, newError("InvalidCommandError", "Node lookup data can only be set when the Ironic Python Agent is in standalone mode")
	}
	var in struct {
		NodeInfo json.RawMessage `json:"node_info"`
	}
	if err := json.Unmarshal(params, &in); err != nil {
		return nil, invalidParams("node_info: %v", err)
	}
	if err := a.useNodeInfo(ctx, in.NodeInfo); err != nil {
		return nil, invalidParams("node_info: %v", err)
	}
	if err := a.state.keepNodeInfo(in.NodeInfo); err != nil {
		return nil, fmt.Errorf("keep what the conductor says of the node: %w", err)
	}
	return nil, nil
}

// useNodeInfo makes what a lookup would have answered count.
func (a *agent) useNodeInfo(ctx context.Context, info json.RawMessage) error {
	node, settings, err := ironic.ParseLookup(info)
	if err != nil {
		return err
	}
	if err := a.applySettings(settings); err != nil {
		return err
	}
	a.console.Stage("node", "%s, as the conductor says", node.UUID)
	return a.changeNode(ctx, node.Raw)
}

// servePolled opens the API for a conductor that polls: there is no lookup and there are no heartbeats. The token has
// to be known to both, from the medium; the certificate is one that the conductor was given, or is shown here by its fingerprint.
func (a *agent) servePolled(ctx context.Context) error {
	if a.config.Token == "" {
		return hint(errors.New("ironhand-poll is set and there is no token: nobody could use the API"), "that the medium has ipa-agent-token")
	}
	a.token = a.config.Token
	if info, err := a.state.nodeInfo(); err != nil {
		return fmt.Errorf("read what the conductor said of the node earlier in this boot: %w", err)
	} else if info != nil {
		if err := a.useNodeInfo(ctx, info); err != nil {
			return fmt.Errorf("use what the conductor said of the node earlier in this boot: %w", err)
		}
	}
	address := a.config.AdvertiseHost
	if address == "" {
		var err error
		if address, err = a.firstAddress(ctx); err != nil {
			return hint(err, "the network, or give ipa-advertise-host")
		}
	}
	tlsConfig, _, err := a.apiTLS(address, ironic.VersionVerifyCA)
	if err != nil {
		return err
	}
	listener, err := a.listen(ctx)
	if err != nil {
		return err
	}
	a.console.Stage("api", "%s, for a conductor that polls; %s", a.callbackURL(address, tlsConfig != nil), fingerprint(tlsConfig))
	return a.runAPI(ctx, listener, tlsConfig, nil)
}

// firstAddress is the first global address of the interfaces that are up.
func (a *agent) firstAddress(ctx context.Context) (string, error) {
	address, err := a.firstFitting(ctx, func(n netconfig.NIC, ip netip.Addr) bool { return n.Up && !n.Loopback && ip.IsGlobalUnicast() })
	if address == "" && err == nil {
		err = errors.New("find the address to advertise: no interface has one")
	}
	return address, err
}
