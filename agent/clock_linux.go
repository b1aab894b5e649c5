// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"os"
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

// setRTC sets the clock on the board, in UTC.
func setRTC(t time.Time) error {
	const clock = "/dev/rtc0"
	f, err := os.Open(clock)
	if err != nil {
		return err
	}
	defer f.Close()
	t = t.UTC()
	to := unix.RTCTime{Sec: int32(t.Second()), Min: int32(t.Minute()), Hour: int32(t.Hour()), Mday: int32(t.Day()), Mon: int32(t.Month()) - 1, Year: int32(t.Year()) - 1900}
	if err := unix.IoctlSetRTCTime(int(f.Fd()), &to); err != nil {
		return fmt.Errorf("set %s to %s: %w", clock, t.Format(time.RFC3339), err)
	}
	return nil
}
