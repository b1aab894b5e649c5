// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"errors"
	"strings"
	"testing"
)

func TestParseDigest(t *testing.T) {
	// Of the empty file, as md5sum, sha1sum, sha256sum and sha512sum print them.
	const (
		md5    = "d41d8cd98f00b204e9800998ecf8427e"
		sha1   = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
		sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
		sha512 = "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
	)
	for _, tt := range []struct {
		name, algorithm, value string
		want                   string // what String returns
		err                    string
	}{
		{name: "sha512", algorithm: "sha512", value: sha512, want: "sha512:" + sha512},
		{name: "capitals", algorithm: "SHA256", value: strings.ToUpper(sha256), want: "sha256:" + sha256},
		{name: "spaces", algorithm: "md5", value: md5 + "\n", want: "md5:" + md5},
		{name: "length tells sha512", value: sha512, want: "sha512:" + sha512},
		{name: "length tells sha256", value: sha256, want: "sha256:" + sha256},
		{name: "length tells sha1", value: sha1, want: "sha1:" + sha1},
		{name: "length tells md5", value: md5, want: "md5:" + md5},
		{name: "wrong length", algorithm: "sha512", value: sha256, err: "64 digits, sha512 has 128"},
		{name: "no such length", value: "abcd", err: "no known algorithm has 4 digits"},
		{name: "no such algorithm", algorithm: "crc32", value: "abcdef01", err: `algorithm "crc32" is not one of`},
		{name: "not hexadecimal", algorithm: "md5", value: "g41d8cd98f00b204e9800998ecf8427e", err: "not hexadecimal"},
		{name: "odd digits", algorithm: "md5", value: md5[1:], err: "not hexadecimal"},
		{name: "nothing", err: "no known algorithm has 0 digits"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := ParseDigest(tt.algorithm, tt.value)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("ParseDigest(...) = %v, %v; want an error with %q", d, err, tt.err)
				}
				return
			}
			if err != nil || d.String() != tt.want {
				t.Fatalf("ParseDigest(...) = %v, %v; want %s", d, err, tt.want)
			}
			if err := d.check(d.hash()); err != nil {
				t.Errorf("check of the empty file: %v", err)
			}
			h := d.hash()
			h.Write([]byte("x"))
			if err := d.check(h); !errors.Is(err, ErrDigest) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("check of another file = %v, want ErrDigest with %s", err, tt.want)
			}
		})
	}
}
