// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// kernelLog returns what is in the kernel's ring buffer, with times since power-on.
func kernelLog() ([]byte, error) {
	b := make([]byte, 1<<20)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, b)
	if err != nil {
		return nil, fmt.Errorf("read kernel log: %w", err)
	}
	return b[:n], nil
}
