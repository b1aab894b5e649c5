// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/ironhand/ironhand/inspect/inspecttest"
	"github.com/ironhand/ironhand/inspect/lldp"
)

// schemas are the JSON Schemas in docs/, by file, of the types that they are made from.
func schemas() map[string]schema {
	return map[string]schema{
		"inventory.schema.json":    withTitle("The inventory of a machine, as Ironic reads it", reflect.TypeFor[Inventory]()),
		"inspect-diff.schema.json": withTitle("What has changed in a machine: ironhand inspect --diff OLD --format json", reflect.TypeFor[Difference]()),
	}
}

// schema is one of JSON Schema, as far as it is used here.
type schema struct {
	Schema     string            `json:"$schema,omitempty"`
	Title      string            `json:"title,omitempty"`
	Type       []string          `json:"type"`
	Properties map[string]schema `json:"properties,omitempty"`
	Required   []string          `json:"required,omitempty"`
	Additional *bool             `json:"additionalProperties,omitempty"`
	Items      *schema           `json:"items,omitempty"`
	Prefix     []schema          `json:"prefixItems,omitempty"`
	Minimum    *int              `json:"minimum,omitempty"`
}

func withTitle(title string, t reflect.Type) schema {
	s := schemaOf(t)
	s.Schema, s.Title = "https://json-schema.org/draft/2020-12/schema", title
	return s
}

func schemaOf(t reflect.Type) schema {
	switch t {
	case reflect.TypeFor[Text]():
		return schema{Type: []string{"string", "null"}}
	case reflect.TypeFor[Number]():
		return schema{Type: []string{"integer", "null"}}
	case reflect.TypeFor[lldp.TLV]():
		return schema{Type: []string{"array"}, Prefix: []schema{{Type: []string{"integer"}, Minimum: new(int)}, {Type: []string{"string"}}}}
	case reflect.TypeFor[[]lldp.TLV]():
		item := schemaOf(t.Elem())
		return schema{Type: []string{"array", "null"}, Items: &item}
	}
	switch t.Kind() {
	case reflect.Pointer:
		s := schemaOf(t.Elem())
		s.Type = append(s.Type, "null")
		return s
	case reflect.String:
		return schema{Type: []string{"string"}}
	case reflect.Bool:
		return schema{Type: []string{"boolean"}}
	case reflect.Int, reflect.Int64:
		return schema{Type: []string{"integer"}}
	case reflect.Slice:
		item := schemaOf(t.Elem())
		return schema{Type: []string{"array"}, Items: &item}
	case reflect.Struct:
		s := schema{Type: []string{"object"}, Properties: map[string]schema{}, Required: []string{}, Additional: new(bool)}
		for i := range t.NumField() {
			name, options, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			if name == "-" {
				continue
			}
			s.Properties[name] = schemaOf(t.Field(i).Type)
			if options != "omitempty" {
				s.Required = append(s.Required, name)
			}
		}
		return s
	}
	panic(fmt.Sprintf("no schema for %v", t))
}

// TestSchemas compares the schemas in docs/ with the types; -update writes them.
func TestSchemas(t *testing.T) {
	for name, s := range schemas() {
		b, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, '\n')
		file := "../docs/" + name
		if *update {
			if err := os.WriteFile(file, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != string(b) {
			t.Errorf("docs/%s is not what the types say (%v); run `make generate`", name, err)
		}
	}
}

// The inventories that are expected of the recorded machines, and comparisons of them, are as the schemas in docs/ have them.
func TestGoldenFilesFitSchemas(t *testing.T) {
	load := func(name string) *jsonschema.Schema {
		s, err := jsonschema.NewCompiler().Compile("../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	decode := func(text string) any {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	inventory, diff := load("inventory.schema.json"), load("inspect-diff.schema.json")
	var machines []Inventory
	for _, name := range []string{"virtio", "sata-nvme", "sas", "qemu", "judged", "server"} {
		golden, err := os.ReadFile("testdata/" + name + ".golden")
		if err != nil {
			t.Fatal(err)
		}
		text, _, _ := strings.Cut(string(golden), "\n}\n")
		if err := inventory.Validate(decode(text + "\n}")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var i Inventory
		if err := json.Unmarshal([]byte(text+"\n}"), &i); err != nil {
			t.Fatal(err)
		}
		machines = append(machines, i)
	}
	heard, err := Recorded(inspecttest.Server()).Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	heard.Interfaces[0].LLDP = []lldp.TLV{{Type: 1, Value: []byte{4}}, {}}
	for i, v := range []any{heard, Inventory{Interfaces: []NIC{}, Disks: []Disk{}, CPU: CPU{Flags: []string{}}},
		Difference{Changes: Changes(machines[0], machines[2])}, Difference{Changes: Changes(heard, heard)}} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		s := inventory
		if i >= 2 {
			s = diff
		}
		if err := s.Validate(decode(string(b))); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{`{}`, `[]`, `{"changes": null}`, `{"changes": [{"part": 5, "where": "", "what": ""}]}`, `{"changes": [], "more": 1}`} {
		if diff.Validate(decode(bad)) == nil {
			t.Errorf("%s fits the schema", bad)
		}
	}
}
