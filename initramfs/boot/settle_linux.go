// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// Settle waits until no device has come or gone for the time quiet, and none is known to be still on its way. On a machine with USB,
// less than a second of quiet says little. The error names what did not settle before ctx ended.
func Settle(ctx context.Context, quiet time.Duration) error {
	u, err := openUevents()
	if err != nil {
		return err
	}
	defer u.close()
	return settle(ctx, u, quiet, func() bool { return false })
}

// settle is Settle with the messages that came since u was opened, and with a further reason to wait.
func settle(ctx context.Context, u *uevents, quiet time.Duration, busy func() bool) error {
	const look = 20 * time.Millisecond // what is not told by a uevent is looked for this often
	waiting := "devices come and go"
	last := time.Now()
	for {
		e, err := u.next(time.Now().Add(look))
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			pending, err := pendingUSB(os.DirFS("/sys"))
			if err != nil {
				return fmt.Errorf("wait for devices: %w", err)
			}
			switch {
			case busy():
				waiting = "modules are being loaded"
			case len(pending) > 0:
				waiting = "USB storage " + strings.Join(pending, ", ") + " shows no disk"
			case time.Since(last) >= quiet:
				return nil
			default:
				waiting = "devices come and go"
			}
		case err == nil && e.action != "add" && e.action != "remove" && e.action != "bind":
			// Some devices report a change for ever.
		case err == nil, errors.Is(err, errOverrun):
			last = time.Now()
		default:
			return fmt.Errorf("wait for devices: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("wait for devices: %s: %w", waiting, err)
		}
	}
}
