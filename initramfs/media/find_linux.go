// SPDX-License-Identifier: Apache-2.0

package media

import (
	"context"
	"os"
)

// Find finds the configuration media of this machine, as Finder.Find describes it. log takes lines for people; nil for
// none.
func Find(ctx context.Context, log func(string)) (media []Medium, seen []Seen, err error) {
	f := Finder{
		FS:   os.DirFS("/"),
		Open: func(device string) (Device, error) { return os.Open(device) },
		Log:  log,
	}
	return f.Find(ctx)
}
