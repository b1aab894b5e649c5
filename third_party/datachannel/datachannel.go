// SPDX-License-Identifier: Apache-2.0

// Package datachannel stands in for github.com/pion/datachannel: there are no data channels.
package datachannel

import "io"

// ReadWriteCloser is a data channel, of which there is none.
type ReadWriteCloser interface{ io.ReadWriteCloser }
