// SPDX-License-Identifier: Apache-2.0

package media

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxParameters     = 256
	maxParametersFile = 64 << 10 // bytes
	maxKey            = 128      // bytes
	maxValue          = 8 << 10  // bytes
)

// Parameters returns what the medium's parameters.txt says; nil if it has none.
func (m Medium) Parameters() (map[string]string, error) {
	b, ok := m.Files[ParametersFile]
	if !ok {
		return nil, nil
	}
	p, err := ParseParameters(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Device, err)
	}
	return p, nil
}

// ParseParameters reads the words "key=value" of a parameters.txt, which white space separates; of two with the same key
// the later one counts. Errors name the line and the key, never a value, which may be a secret.
func ParseParameters(b []byte) (map[string]string, error) {
	fail := func(line int, format string, args ...any) error {
		return fmt.Errorf("%s line %d: %s", ParametersFile, line, fmt.Sprintf(format, args...))
	}
	if len(b) > maxParametersFile {
		return nil, fmt.Errorf("%s: has %d bytes, at most %d are allowed", ParametersFile, len(b), maxParametersFile)
	}
	b = bytes.TrimPrefix(b, []byte("\ufeff")) // some editors put it in front
	p := map[string]string{}
	line := 0
	for text := range strings.SplitSeq(string(b), "\n") {
		line++
		for word := range strings.FieldsSeq(text) {
			key, value, ok := strings.Cut(word, "=")
			if !ok {
				return nil, fail(line, "a word without %q; values have no white space", "=")
			}
			if err := checkKey(key); err != nil {
				return nil, fail(line, "%v", err)
			}
			if err := checkValue(value); err != nil {
				return nil, fail(line, "value of %s: %v", key, err)
			}
			p[key] = value
			if len(p) > maxParameters {
				return nil, fail(line, "more than %d parameters", maxParameters)
			}
		}
	}
	return p, nil
}

// checkKey does not repeat the key, which may be a piece of a value that a line break cut off.
func checkKey(key string) error {
	if key == "" || len(key) > maxKey {
		return fmt.Errorf("a key of %d characters, want 1 to %d", len(key), maxKey)
	}
	for _, c := range []byte(key) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_.", c) >= 0) {
			return fmt.Errorf("a key with the character %q, want letters, digits and \"-_.\"", c)
		}
	}
	return nil
}

func checkValue(value string) error {
	if len(value) > maxValue {
		return fmt.Errorf("has %d bytes, at most %d are allowed", len(value), maxValue)
	}
	if !utf8.ValidString(value) {
		return fmt.Errorf("is not UTF-8")
	}
	for _, c := range value {
		if !unicode.IsGraphic(c) || unicode.IsSpace(c) {
			return fmt.Errorf("has the character %q", c)
		}
	}
	return nil
}
