// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"time"

	"golang.org/x/sys/unix"
)

// SinceBoot is the time since the kernel started (CLOCK_BOOTTIME); firmware and boot loader came before.
func SinceBoot() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0 // only kernels before 2.6.39
	}
	return time.Duration(ts.Nano())
}
