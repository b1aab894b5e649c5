// SPDX-License-Identifier: Apache-2.0

package ironic

import (
	"fmt"
	"log/slog"
)

// A Secret is a string that must not be seen: an agent token, a password. However it is
// printed, logged or encoded, it comes out as ***; only Reveal gives the text. Decoding JSON
// into a Secret works as for any string. Two holes remain that a type cannot close: fmt calls no
// methods of unexported fields, and encoding/json none of map keys. So a struct that has a Secret
// in an unexported field is not printed, and a Secret is no map key.
type Secret string

// masked is what people see in place of a Secret.
const masked = "***"

// Reveal returns the text itself, for the one place that has to send or compare it.
func (s Secret) Reveal() string { return string(s) }

// String returns ***.
func (s Secret) String() string { return masked }

// GoString returns ***, for %#v.
func (s Secret) GoString() string { return masked }

// Format writes *** for every verb: without it, %x and %d would show the text.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, masked) }

// LogValue returns ***, for log/slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(masked) }

// MarshalText returns ***, for encodings other than JSON.
func (s Secret) MarshalText() ([]byte, error) { return []byte(masked), nil }

// MarshalJSON returns "***". What really sends a secret names it with Reveal.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + masked + `"`), nil }
