// SPDX-License-Identifier: Apache-2.0

// Package utp stands in for github.com/anacrolix/go-utp: there are no sockets of uTP.
package utp

import (
	"context"
	"errors"
	"log/slog"
	"net"
)

// Default names the implementation.
const Default = "none"

type (
	// FirewallCallback would be asked about each new connection.
	FirewallCallback func(net.Addr) bool
	// Option would change a socket.
	Option func()
	// Socket is what none is ever made of.
	Socket interface {
		net.PacketConn
		Accept() (net.Conn, error)
		Addr() net.Addr
		DialContext(ctx context.Context, network, addr string) (net.Conn, error)
		SetFirewallCallback(FirewallCallback)
	}
)

var errNone = errors.New("uTP is not spoken")

// NewSocket fails.
func NewSocket(string, string, ...Option) (Socket, error) { return nil, errNone }

// NewSocketFromPacketConn fails.
func NewSocketFromPacketConn(net.PacketConn, ...Option) (Socket, error) { return nil, errNone }

// WithLogger does nothing.
func WithLogger(*slog.Logger) Option { return func() {} }
