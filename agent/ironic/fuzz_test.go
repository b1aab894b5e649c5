// SPDX-License-Identifier: Apache-2.0

package ironic

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func FuzzLookupAnswer(f *testing.F) {
	f.Add([]byte(lookupAnswer))
	for _, e := range recording(f, "deploy-2026.1.jsonl") {
		if strings.HasPrefix(e.Path, "/v1/lookup") {
			f.Add([]byte(e.Response))
		}
	}
	f.Add([]byte(`{"node": {"uuid": "u"}, "heartbeat_timeout": 1e-300}`))
	f.Add([]byte(`{"node": {"uuid": ""}}`))
	f.Add([]byte(`<html>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		node, settings, err := ParseLookup(body)
		if err != nil {
			if len(err.Error()) > 1000+len(body) {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if node.UUID == "" || settings.HeartbeatTimeout < 0 || settings.HeartbeatTimeout > 1e9*time.Second {
			t.Errorf("accepted node %q, heartbeat timeout %v", node.UUID, settings.HeartbeatTimeout)
		}
		again, err := ParseNode(node.Raw)
		if err != nil || again.UUID != node.UUID {
			t.Errorf("the node's own record reads as %q, %v", again.UUID, err)
		}
	})
}

func FuzzVersionDocument(f *testing.F) {
	f.Add([]byte(rootDocument))
	f.Add([]byte(`{"default_version": {"version": "1.065536"}}`))
	f.Add([]byte(`{"default_version": null}`))
	f.Add([]byte(`{"error_message": "{\"faultstring\": \"x\"}"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if v, err := parseRoot(body); err == nil {
			if again, err := ParseVersion(v.String()); err != nil || again != v {
				t.Errorf("version %v reads back as %v, %v", v, again, err)
			}
		}
		text := faultText(body)
		if len(text) > 510 || strings.ContainsAny(text, "\n\r\x00\x1b") || !utf8.ValidString(text) {
			t.Errorf("fault text %q", text)
		}
	})
}

// The answer to inspection data is success whatever it says, unless it names a node in a way that cannot be read.
func FuzzInspected(f *testing.F) {
	f.Add([]byte(`{"uuid": "f73c0aab-9617-47e8-9dbc-63361e3ef95e"}`))
	f.Add([]byte(lookupAnswer))
	f.Add([]byte(`{"uuid": 7, "node": {}}`))
	f.Add([]byte(`<html>`))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := parseInspected(body)
		if err != nil && (got.Found || got.UUID != "") || got.Found && (got.UUID == "" || got.UUID != got.Node.UUID) {
			t.Errorf("parseInspected(%q) = %+v, %v", body, got, err)
		}
	})
}
