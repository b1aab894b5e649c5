// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxChecksums is how long a checksum file may be, in bytes.
const maxChecksums = 1 << 20

// FetchChecksum reads a checksum file and returns the digest that it has for the file called name. See [ParseChecksums].
func FetchChecksum(ctx context.Context, src Source, name string, o ReaderOptions) (Digest, error) {
	r := NewReader(ctx, []Source{src}, Digest{}, o)
	defer r.Close() // what is to be known of it, reading tells
	text, err := io.ReadAll(io.LimitReader(r, maxChecksums+1))
	if err != nil {
		return Digest{}, fmt.Errorf("checksum file: %w", err)
	}
	d, err := ParseChecksums(text, name)
	if err != nil {
		return Digest{}, fmt.Errorf("checksum file %v: %w", src, err)
	}
	return d, nil
}

// ParseChecksums finds the digest of the file called name in a checksum file: one digest alone; lines as of sha256sum(1), with the name at the end, or of BSD,
// with the name in parentheses; or the same inside of a PGP signature, which is not looked at. The algorithm is that which has such a number of
// digits.
func ParseChecksums(text []byte, name string) (Digest, error) {
	if len(text) > maxChecksums {
		return Digest{}, fmt.Errorf("it is longer than %d bytes", maxChecksums)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	switch {
	case len(lines) == 0:
		return Digest{}, errors.New("it is empty")
	case len(lines) == 1 && len(strings.Fields(lines[0])) == 1:
		return ParseDigest("", lines[0])
	case name == "":
		return Digest{}, errors.New("there is no name to look for in it")
	}
	for _, line := range lines {
		if strings.HasPrefix(line, "#") || !names(line, name) {
			continue
		}
		words := strings.Fields(line)
		for _, word := range []string{words[0], words[len(words)-1]} {
			if d, err := ParseDigest("", word); err == nil {
				return d, nil
			}
		}
	}
	return Digest{}, fmt.Errorf("checksum file does not contain name %.200q", name)
}

// names tells whether a line of a checksum file is about the file called name.
func names(line, name string) bool {
	if strings.Contains(line, " ("+name+") ") {
		return true
	}
	before, ok := strings.CutSuffix(line, name)
	if !ok {
		return false
	}
	before = strings.TrimSuffix(before, "./")
	before = strings.TrimSuffix(before, "*")
	return strings.TrimRight(before, " \t") != before
}
