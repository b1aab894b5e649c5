// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
)

// ErrDigest says that all of an image arrived and that it is not the image that was wanted. See [DigestError] for the values.
var ErrDigest = errors.New("digest does not match")

// DigestError is the error for a digest that is not the one wanted. It wraps [ErrDigest].
type DigestError struct {
	Want, Got Digest
}

// Error has both digests, so that either can be compared with a checksum file by eye.
func (e *DigestError) Error() string {
	return fmt.Sprintf("%v: want %s, got %s", ErrDigest, e.Want, e.Got)
}

// Unwrap returns [ErrDigest].
func (e *DigestError) Unwrap() error { return ErrDigest }

// Digest is the checksum of a file as it is published, that is before anything is decompressed. Make one with [ParseDigest].
// The zero Digest stands for none.
type Digest struct {
	Algorithm string // "sha256", "sha512", "sha1" or "md5", as hashlib and Ironic's os_hash_algo name them
	Hex       string // lower case
}

// ParseDigest checks an algorithm and a hexadecimal value, in either case of letters, against each other. Without algorithm the
// length of the value tells it. Which algorithms are good enough is for the caller to say.
func ParseDigest(algorithm, value string) (Digest, error) {
	d := Digest{strings.ToLower(strings.TrimSpace(algorithm)), strings.ToLower(strings.TrimSpace(value))}
	sum, err := hex.DecodeString(d.Hex)
	if err != nil {
		return Digest{}, fmt.Errorf("parse digest %.140q: not hexadecimal", value)
	}
	if d.Algorithm == "" {
		for name, size := range map[string]int{"md5": md5.Size, "sha1": sha1.Size, "sha256": sha256.Size, "sha512": sha512.Size} {
			if size == len(sum) {
				d.Algorithm = name
			}
		}
		if d.Algorithm == "" {
			return Digest{}, fmt.Errorf("parse digest %.140q: no known algorithm has %d digits", value, len(d.Hex))
		}
	}
	h := d.hash()
	if h == nil {
		return Digest{}, fmt.Errorf("parse digest: algorithm %.32q is not one of sha512, sha256, sha1, md5", algorithm)
	}
	if h.Size() != len(sum) {
		return Digest{}, fmt.Errorf("parse digest %.140q: %d digits, %s has %d", value, len(d.Hex), d.Algorithm, 2*h.Size())
	}
	return d, nil
}

// IsZero tells whether no digest is given.
func (d Digest) IsZero() bool { return d == Digest{} }

// String is algorithm and value with a colon between, "none" for the zero Digest.
func (d Digest) String() string {
	if d.IsZero() {
		return "none"
	}
	return d.Algorithm + ":" + d.Hex
}

// hash returns a new hash for the algorithm; nil if there is none of that name.
func (d Digest) hash() hash.Hash {
	switch d.Algorithm {
	case "sha512":
		return sha512.New()
	case "sha256":
		return sha256.New()
	case "sha1":
		return sha1.New()
	case "md5":
		return md5.New()
	}
	return nil
}

// DigestReader computes the digest of what is read through it.
type DigestReader struct {
	r    io.Reader
	want Digest
	hash hash.Hash
}

// Reader returns a reader of r that d is checked with in the end. d must not be the zero Digest.
func (d Digest) Reader(r io.Reader) *DigestReader { return &DigestReader{r, d, d.hash()} }

func (d *DigestReader) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	d.hash.Write(p[:n]) // never returns an error
	return n, err
}

// Verify reads what is left and compares the digest; the error for a wrong one wraps [ErrDigest].
func (d *DigestReader) Verify() error {
	if _, err := io.Copy(io.Discard, d); err != nil {
		return err
	}
	return d.want.check(d.hash)
}

// check compares the sum in h with the digest wanted.
func (d Digest) check(h hash.Hash) error {
	got := Digest{d.Algorithm, hex.EncodeToString(h.Sum(nil))}
	if want := (Digest{d.Algorithm, strings.ToLower(d.Hex)}); got != want {
		return &DigestError{Want: want, Got: got}
	}
	return nil
}
