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
func FetchChecksum(ctx context.Context, src Source, algorithm, name string, o ReaderOptions) (Digest, error) {
	text, err := fetchText(ctx, src, Digest{}, maxChecksums, o)
	if err != nil {
		return Digest{}, fmt.Errorf("checksum file: %w", err)
	}
	d, err := ParseChecksums(text, algorithm, name)
	if err != nil {
		return Digest{}, fmt.Errorf("checksum file %v: %w", src, err)
	}
	return d, nil
}

// fetchText reads a small file of a digest, and a byte more than limit of a longer one.
func fetchText(ctx context.Context, src Source, want Digest, limit int64, o ReaderOptions) ([]byte, error) {
	o.Connections, o.Meter, o.Signature = 1, nil, Signature{}
	r := NewReader(ctx, []Source{src}, want, o)
	defer r.Close() // what is to be known of it, reading and Verify tell
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil || int64(len(text)) > limit {
		return text, err
	}
	return text, r.Verify()
}

// ParseChecksums finds the digest of the file called name in a checksum file: one digest alone; lines as of sha256sum(1), with the name at the end, or of BSD,
// with algorithm and with the name in parentheses; or the same inside of a PGP signature, which is not looked at. Where a line does not name the algorithm, it is that which has such a
// number of digits. Only digests of the algorithm given count; without one, the longest.
func ParseChecksums(text []byte, algorithm, name string) (Digest, error) {
	if len(text) > maxChecksums {
		return Digest{}, fmt.Errorf("it is longer than %d bytes", maxChecksums)
	}
	algorithm = strings.ToLower(strings.TrimSpace(algorithm))
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
		return ParseDigest(algorithm, lines[0])
	case name == "":
		return Digest{}, errors.New("there is no name to look for in it")
	}
	var best Digest
	for _, line := range lines {
		said, ok := names(line, name)
		if strings.HasPrefix(line, "#") || !ok {
			continue
		}
		words := strings.Fields(line)
		for _, word := range []string{words[0], words[len(words)-1]} {
			d, err := ParseDigest("", word)
			if err == nil && (said == "" || said == d.Algorithm) && (algorithm == "" || algorithm == d.Algorithm) {
				if len(d.Hex) > len(best.Hex) {
					best = d
				}
				break
			}
		}
	}
	switch {
	case !best.IsZero():
		return best, nil
	case algorithm != "":
		return Digest{}, fmt.Errorf("checksum file does not contain name %.200q with a digest of %.32s", name, algorithm)
	}
	return Digest{}, fmt.Errorf("checksum file does not contain name %.200q", name)
}

// names tells whether a line of a checksum file is about the file called name, and which algorithm it says that it has, in the form of [Digest]; "" if it does not say.
func names(line, name string) (algorithm string, ok bool) {
	if tag, _, ok := strings.Cut(line, " ("+name+") "); ok {
		return strings.ReplaceAll(strings.ToLower(tag), "-", ""), true // SHA-256 to some
	}
	before, ok := strings.CutSuffix(line, name)
	if !ok {
		return "", false
	}
	before = strings.TrimSuffix(before, "./")
	before = strings.TrimSuffix(before, "*")
	return "", strings.TrimRight(before, " \t") != before
}
