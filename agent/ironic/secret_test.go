// SPDX-License-Identifier: Apache-2.0

package ironic

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSecretIsNeverSeen(t *testing.T) {
	const text = "open-sesame"
	type holder struct {
		Token Secret `json:"token"`
		More  []Secret
	}
	s, h := Secret(text), holder{Token: text, More: []Secret{text}}

	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%20s", "%t"} {
		fmt.Fprintf(&out, verb+" "+verb+" "+verb+"\n", s, h, &h)
	}
	fmt.Fprintln(&out, s, []Secret{s}, map[string]Secret{"a": s}, fmt.Errorf("token %v: %s", s, s))
	slog.New(slog.NewTextHandler(&out, nil)).Info("text", "token", s, "holder", h)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("json", "token", s, "holder", h)
	if err := json.NewEncoder(&out).Encode([]any{s, h, map[string]Secret{"a": s}}); err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{text, fmt.Sprintf("%x", text), fmt.Sprintf("%X", text), "111 112 101"} {
		if strings.Contains(out.String(), shown) {
			t.Errorf("output shows the secret as %q:\n%s", shown, out.String())
		}
	}
	if s.Reveal() != text {
		t.Errorf("Reveal() = %q, want %q", s.Reveal(), text)
	}
	var back holder
	if err := json.Unmarshal([]byte(`{"token": "open-sesame"}`), &back); err != nil || back.Token.Reveal() != text {
		t.Errorf("Unmarshal = %q, %v, want the text", back.Token.Reveal(), err)
	}
}
