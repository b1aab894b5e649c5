// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"errors"
	"fmt"
)

// errNoObject is for JSON that is something else than an object.
var errNoObject = errors.New("must be an object")

// Names are copied: these bound their length in bytes of JSON, and their number. Conductors' objects have some dozens.
const maxName, maxMembers = 1 << 10, 1 << 13

// object returns the members of a JSON object, the last of each name. The values are parts of raw and not copies: a command may hold a
// config drive several times, and each level of parsing would make another copy of it. What is no object, null too, is an error.
func object(raw json.RawMessage) (map[string]json.RawMessage, error) {
	if !json.Valid(raw) { // which looks at the depth, too
		return nil, json.Unmarshal(raw, new(struct{})) // says why not
	}
	at := skipBlanks(raw, 0)
	if raw[at] != '{' {
		return nil, errNoObject
	}
	members := map[string]json.RawMessage{}
	n := 0
	for at = skipBlanks(raw, at+1); raw[at] != '}'; at = skipBlanks(raw, at) {
		if raw[at] == ',' {
			at = skipBlanks(raw, at+1)
		}
		end := skipValue(raw, at)
		if n++; n > maxMembers || end-at > maxName {
			return nil, fmt.Errorf("it has more than %d members, or a name of more than %d bytes", maxMembers, maxName)
		}
		var name string
		if err := json.Unmarshal(raw[at:end], &name); err != nil {
			return nil, err
		}
		at = skipBlanks(raw, skipBlanks(raw, end)+1) // over the colon
		end = skipValue(raw, at)
		members[name] = raw[at:end:end]
		at = end
	}
	return members, nil
}

// skipBlanks returns the offset of the next byte of valid JSON that is no white space.
func skipBlanks(b []byte, at int) int {
	for at < len(b) && (b[at] == ' ' || b[at] == '\t' || b[at] == '\n' || b[at] == '\r') {
		at++
	}
	return at
}

// skipValue returns the end of the value of valid JSON that begins at an offset.
func skipValue(b []byte, at int) int {
	depth := 0
	for ; at < len(b); at++ {
		switch b[at] {
		case '"':
			for at++; b[at] != '"'; at++ {
				if b[at] == '\\' {
					at++
				}
			}
		case '{', '[':
			depth++
			continue
		case '}', ']':
			if depth == 0 { // the end of what the value is in
				return at
			}
			depth--
		case ',', ' ', '\t', '\n', '\r', ':':
			if depth == 0 {
				return at
			}
			continue
		default: // a number or a word goes on
			continue
		}
		if depth == 0 {
			return at + 1
		}
	}
	return at
}
