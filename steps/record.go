// SPDX-License-Identifier: Apache-2.0

package steps

import (
	"bytes"
	"encoding/json"
)

// UnmarshalJSON reads a node's record, and keeps all of it but what is long.
func (n *Node) UnmarshalJSON(b []byte) error {
	type object Node
	if err := json.Unmarshal(b, (*object)(n)); err != nil {
		return err
	}
	var err error
	n.Record, err = record(b)
	return err
}

// UnmarshalJSON reads a port's record, and keeps all of it but what is long.
func (p *Port) UnmarshalJSON(b []byte) error {
	type object Port
	if err := json.Unmarshal(b, (*object)(p)); err != nil {
		return err
	}
	var err error
	p.Record, err = record(b)
	return err
}

// longValue is the length in bytes of JSON from which on a value is not kept twice: a config drive is in a node's record, too.
const longValue = 64 << 10

func record(b []byte) (map[string]any, error) {
	var members map[string]value
	if err := json.Unmarshal(b, &members); err != nil {
		return nil, err
	}
	return kept(members), nil
}

// value is any value of JSON, nil if it is long; the members of a long object are looked at each for itself.
type value struct{ any }

func (v *value) UnmarshalJSON(b []byte) error {
	switch {
	case len(b) <= longValue:
		d := json.NewDecoder(bytes.NewReader(b))
		d.UseNumber()
		return d.Decode(&v.any)
	case b[0] == '{':
		var members map[string]value
		if err := json.Unmarshal(b, &members); err != nil {
			return err
		}
		v.any = kept(members)
	}
	return nil
}

func kept(members map[string]value) map[string]any {
	if members == nil {
		return nil
	}
	m := make(map[string]any, len(members))
	for k, v := range members {
		m[k] = v.any
	}
	return m
}
