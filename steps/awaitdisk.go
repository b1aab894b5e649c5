// SPDX-License-Identifier: Apache-2.0

package steps

import (
	"context"
	"errors"
	"time"

	"github.com/ironhand/ironhand/inspect"
)

// AwaitRootDisk is [RootDisk] for a disk that may appear late. It looks as often as h says.
func AwaitRootDisk(ctx context.Context, h Host, n Node) (inspect.Choice, error) {
	for attempt := 1; ; attempt++ {
		choice, err := RootDisk(ctx, h, n)
		if err == nil || !errors.Is(err, inspect.ErrNoDisk) && !errors.Is(err, inspect.ErrUnread) || attempt >= h.DiskAttempts {
			return choice, err
		}
		if attempt == 1 {
			h.Say("no disk fits yet: %v", err)
		}
		select {
		case <-time.After(h.DiskDelay):
		case <-ctx.Done():
			return choice, context.Cause(ctx)
		}
	}
}
