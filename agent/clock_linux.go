// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// setClock sets the system's clock, not the one on the board.
func setClock(t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	if err := unix.Settimeofday(&tv); err != nil {
		return fmt.Errorf("set the clock to %s: %w", t.UTC().Format(time.RFC3339), err)
	}
	return nil
}
