// SPDX-License-Identifier: Apache-2.0

package generic

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/steps"
)

func TestParseInjections(t *testing.T) {
	tests := []struct {
		name, node, args string
		want             string // paths, or part of the error if it begins with "!"
	}{
		{"node's, then the request's", `[{"path": "/etc/a", "content": "YQ=="}]`, `{"files": [{"path": "/etc/b", "content": "https://a/{node[uuid]}"}], "verify_ca": false}`, "[etc/a etc/b] false"},
		{"all keys", ``, `{"files": [{"path": "/a", "partition": 1, "content": "YQ==", "mode": 420, "dirmode": 493, "owner": 0, "group": 4294967294, "deleted": false}]}`, "[a] true"},
		{"partitions", ``, `{"files": [{"path": "/a", "partition": "2"}, {"path": "/b", "partition": "/dev/sda1"}, {"path": "/c", "partition": "LABEL=root"}, {"path": "/d", "partition": "UUID=12AB-34CD"}]}`, "[a b c d] true"},
		{"deleted", ``, `{"files": [{"path": "/etc/a", "deleted": true}]}`, "[etc/a] true"},
		{"nulls", ``, `{"files": null, "verify_ca": null}`, "[] true"},
		{"nothing", ``, ``, "[] true"},

		{"unknown key", ``, `{"files": [{"path": "/etc/a", "colour": "red"}]}`, `!unknown field "colour"`},
		{"unknown key in the node's", `[{"path": "/etc/a", "x": 1}]`, ``, `!inject_files in the node's properties: json: unknown field "x"`},
		{"no list", ``, `{"files": {"path": "/etc/a"}}`, "!cannot unmarshal object"},
		{"null in the list", ``, `{"files": [null]}`, "!file 1 is null"},
		{"no path", ``, `{"files": [{"content": "YQ=="}]}`, "!path: not the absolute, plain path of a file"},
		{"relative", ``, `{"files": [{"path": "etc/a"}]}`, "!path: "},
		{"directory", ``, `{"files": [{"path": "/etc/"}]}`, "!path: "},
		{"root", ``, `{"files": [{"path": "/"}]}`, "!path: "},
		{"leads out", ``, `{"files": [{"path": "/etc/../../a"}]}`, "!path: "},
		{"top without partition", ``, `{"files": [{"path": "/a"}]}`, "!partition: missing"},
		{"partition 0", ``, `{"files": [{"path": "/etc/a", "partition": 0}]}`, "!partition: neither a number from 1 on"},
		{"partition is an option", ``, `{"files": [{"path": "/etc/a", "partition": "sda1"}]}`, "!partition: neither a number from 1 on"},
		{"partition is a list", ``, `{"files": [{"path": "/etc/a", "partition": [1]}]}`, "!partition: neither a number nor a text"},
		{"deleted with content", ``, `{"files": [{"path": "/etc/a", "deleted": true, "content": "YQ=="}]}`, "!it has content, and is to be deleted"},
		{"content is none", ``, `{"files": [{"path": "/etc/a", "content": "hush-hush"}]}`, "!content: neither base64 nor a URL"},
		{"mode in octal", ``, `{"files": [{"path": "/etc/a", "mode": "0644"}]}`, "!cannot unmarshal string"},
		{"mode too large", ``, `{"files": [{"path": "/etc/a", "mode": 10644}]}`, "!mode: 10644 is more than 4095"},
		{"negative mode", ``, `{"files": [{"path": "/etc/a", "dirmode": -1}]}`, "!cannot unmarshal number"},
		{"owner by name", ``, `{"files": [{"path": "/etc/a", "owner": "root"}]}`, "!cannot unmarshal string"},
		{"negative owner", ``, `{"files": [{"path": "/etc/a", "owner": -1}]}`, "!owner: -1"},
		{"too many", ``, `{"files": [` + strings.Repeat(`{"path": "/etc/a"},`, 1000) + `{"path": "/etc/a"}]}`, "!there are 1001 files"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			j := steps.Job{Node: steps.Node{Properties: map[string]json.RawMessage{"inject_files": json.RawMessage(test.node)}}, Args: json.RawMessage(test.args)}
			files, verify, err := parseInjections(j)
			if want, fails := strings.CutPrefix(test.want, "!"); fails {
				if !errors.Is(err, steps.ErrArgs) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "validation of files: ") || strings.Contains(err.Error(), "hush") {
					t.Errorf("parseInjections() = %v, want ErrArgs with %q", err, want)
				}
				return
			}
			paths := []string{}
			for _, f := range files {
				paths = append(paths, f.file.Path)
			}
			if got := fmt.Sprint(paths, verify); err != nil || got != test.want {
				t.Errorf("parseInjections() = %s, %v, want %s", got, err, test.want)
			}
		})
	}
}

func TestExpandURL(t *testing.T) {
	var j steps.Job
	if err := json.Unmarshal([]byte(`{"uuid": "n1", "name": null, "properties": {"rack": 5, "big": true, "x y": "z"}, "traits": ["a", "b"]}`), &j.Node); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(`[{"address": "52:54:00:12:34:56"}, {"address": "b"}]`), &j.Ports); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ in, want string }{ // an empty want is an error
		{"https://a/b", "https://a/b"},
		{"https://a/{node[uuid]}/{ports[1][address]}", "https://a/n1/b"},
		{"{node[properties][rack]}{node[properties][big]}{node[traits][1]}{node[properties][x y]}", "5Truebz"},
		{"{{node}}", "{node}"},
		{"{node}", ""}, {"{node[properties]}", ""}, {"{node[nothing]}", ""}, {"{node[name]}", ""}, {"{node.uuid}", ""}, {"{node[uuid]!r}", ""}, {"{node[uuid][0]}", ""},
		{"{ports[2][address]}", ""}, {"{ports[-1][address]}", ""}, {"{ports[x]}", ""}, {"{other[x]}", ""}, {"{node[uuid]", ""}, {"{node[uuid}", ""}, {"}", ""}, {"{", ""}, {"{}", ""}, {"{node[uuid][}", ""},
	}
	for _, test := range tests {
		t.Run(test.in, func(t *testing.T) {
			if got, err := expandURL(test.in, j); got != test.want || (err == nil) != (test.want != "") {
				t.Errorf("expandURL() = %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

func FuzzParseInjections(f *testing.F) {
	f.Add([]byte(`{"files": [{"path": "/a", "partition": 1, "content": "YQ==", "mode": 420, "dirmode": 493, "owner": 0, "group": 1, "deleted": false}]}`), "https://a/{node[uuid]}{{")
	f.Fuzz(func(t *testing.T, b []byte, url string) {
		if _, _, err := parseInjections(steps.Job{Args: b}); err != nil && !errors.Is(err, steps.ErrArgs) {
			t.Errorf("parseInjections() = %v, want ErrArgs", err)
		}
		expandURL(url, steps.Job{Node: steps.Node{Record: map[string]any{"uuid": "n1"}}})
	})
}

// On a machine of fakes nothing is mounted.
func TestInjectFilesElsewhere(t *testing.T) {
	if _, err := injectFiles(t.Context(), steps.Host{}, steps.Job{Args: json.RawMessage(`{"files": [{"path": "/etc/a"}]}`)}); err == nil || !strings.Contains(err.Error(), "on the machine itself only") {
		t.Errorf("injectFiles() = %v", err)
	}
	if got, err := injectFiles(t.Context(), steps.Host{}, steps.Job{}); got != nil || err != nil {
		t.Errorf("without files: %v, %v", got, err)
	}
}
