// SPDX-License-Identifier: Apache-2.0

package conductor

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"strings"
)

// secret is a token or a password. It prints as ***; code that needs the value converts it to a string.
type secret string

func (secret) String() string               { return "***" }
func (secret) GoString() string             { return "***" }
func (secret) MarshalText() ([]byte, error) { return []byte("***"), nil }

// equals compares in constant time, whatever the lengths. An empty secret equals nothing.
func (s secret) equals(other string) bool {
	a, b := sha256.Sum256([]byte(s)), sha256.Sum256([]byte(other))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1 && s != ""
}

// Ironic's tokens are secrets.token_urlsafe(32) of Python: 32 random bytes in 43 characters.
func newSecret() secret {
	b := make([]byte, 32)
	rand.Read(b) // never returns an error
	return secret(base64.RawURLEncoding.EncodeToString(b))
}

// WriteToken makes a new agent token and writes it to a new file that only its owner can read. The token is 43
// URL-safe characters, as Ironic makes them. A file that exists is left alone, with an error.
func WriteToken(path string) error {
	return writeNew(path, []byte(string(newSecret())+"\n"), 0o600)
}

// minToken is the length from which an agent believes a token (ironic_python_agent/agent.py, process_lookup_data).
const minToken = 32

// readToken reads a token from a file, which must be readable by its owner only.
func readToken(path string) (secret, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s: mode %04o lets others read the token: chmod 600", path, info.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(b))
	if len(token) < minToken || len(token) > 128 {
		return "", fmt.Errorf("%s: token of %d characters, want %d to 128", path, len(token), minToken)
	}
	if i := strings.IndexFunc(token, func(r rune) bool { return !isURLSafe(r) }); i >= 0 {
		return "", fmt.Errorf("%s: character %d of the token is none of A-Z a-z 0-9 - _", path, i+1)
	}
	return secret(token), nil
}

func isURLSafe(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
}

// writeNew writes a file that must not exist yet.
func writeNew(path string, b []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if _, err := f.Write(b); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
