// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package inspect

import (
	"errors"
	"net"
	"net/netip"
)

func permanentMAC(string) (net.HardwareAddr, error) { return nil, errors.ErrUnsupported }

func addresses() (map[int][]netip.Prefix, error) { return nil, errors.ErrUnsupported }
