// SPDX-License-Identifier: Apache-2.0

package steps_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/steps"
)

func TestRecord(t *testing.T) {
	long := strings.Repeat("x", 64<<10)
	tests := []struct{ name, json, want string }{
		{"all kinds", `{"uuid": "u", "a": [1, {"b": null}], "c": true, "n": 12345678901234567890, "properties": {"x": "y"}}`, "u map[a:[1 map[b:<nil>]] c:true n:12345678901234567890 properties:map[x:y] uuid:u]"},
		{"a long value", `{"uuid": "u", "instance_info": {"configdrive": "` + long + `", "short": 1}}`, "u map[instance_info:map[configdrive:<nil> short:1] uuid:u]"},
		{"a long list", `{"uuid": "u", "l": ["` + long + `"]}`, "u map[l:<nil> uuid:u]"},
		{"null", `null`, " map[]"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var n steps.Node
			if err := json.Unmarshal([]byte(test.json), &n); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(n.UUID, " ", n.Record); got != test.want {
				t.Errorf("Node has %s, want %s", got, test.want)
			}
			var p steps.Port
			if err := json.Unmarshal([]byte(test.json), &p); err != nil || fmt.Sprint(p.UUID, " ", p.Record) != test.want {
				t.Errorf("Port has %s %v, %v, want %s", p.UUID, p.Record, err, test.want)
			}
		})
	}
	if err := json.Unmarshal([]byte(`[]`), new(steps.Node)); err == nil {
		t.Error("a list is a node")
	}
}
