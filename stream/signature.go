// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-crypt/x/blake2b"
)

// ErrSignature says that an image is not proven by a signature of one of the keys that are trusted.
var ErrSignature = errors.New("no valid signature")

const (
	maxKeys      = 16       // that one image may be signed by
	maxSignature = 16 << 10 // bytes of a file with a key or a signature
)

// PublicKey is a key that images are signed with: of minisign (Ed25519 with a number), or one in PEM as cosign and openssl make them (ECDSA with P-256, or Ed25519).
type PublicKey struct {
	minisign bool
	id       [8]byte // of minisign
	ed       ed25519.PublicKey
	ec       *ecdsa.PublicKey // if ed is nil
}

// ParsePublicKeys reads a file of public keys: blocks of PEM, or lines as of minisign.
func ParsePublicKeys(text []byte) ([]PublicKey, error) {
	if len(text) > maxSignature {
		return nil, fmt.Errorf("public key: it is longer than %d bytes", maxSignature)
	}
	var keys []PublicKey
	if bytes.Contains(text, []byte("-----BEGIN")) {
		for {
			var block *pem.Block
			if block, text = pem.Decode(text); block == nil {
				break
			}
			k, err := parsePEM(block)
			if err != nil {
				return nil, err
			}
			keys = append(keys, k)
		}
	} else {
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if line == "" || strings.HasPrefix(line, "untrusted comment:") {
				continue
			}
			b, err := base64.StdEncoding.DecodeString(line)
			if err != nil || len(b) != 2+8+ed25519.PublicKeySize || string(b[:2]) != "Ed" {
				return nil, errors.New("public key: it is neither one of minisign nor PEM")
			}
			if err := newCurve().checkKey(b[10:]); err != nil {
				return nil, fmt.Errorf("public key: %w", err)
			}
			keys = append(keys, PublicKey{minisign: true, id: [8]byte(b[2:10]), ed: b[10:]})
		}
	}
	switch {
	case len(keys) == 0:
		return nil, errors.New("public key: there is none in it")
	case len(keys) > maxKeys:
		return nil, fmt.Errorf("public key: more than %d", maxKeys)
	}
	return keys, nil
}

func parsePEM(block *pem.Block) (PublicKey, error) {
	if block.Type != "PUBLIC KEY" {
		return PublicKey{}, fmt.Errorf("public key: a %.40q is not one", block.Type)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return PublicKey{}, errors.New("public key: it does not make sense")
	}
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() {
			return PublicKey{ec: key}, nil
		}
	case ed25519.PublicKey:
		if err := newCurve().checkKey(key); err != nil {
			return PublicKey{}, fmt.Errorf("public key: %w", err)
		}
		return PublicKey{ed: key}, nil
	}
	return PublicKey{}, errors.New("public key: want ECDSA with P-256, or Ed25519")
}

// Suffix is what a signature's name has beyond its image's: ".minisig", or ".sig" as cosign's.
func (k PublicKey) Suffix() string {
	if k.minisign {
		return ".minisig"
	}
	return ".sig"
}

// Signature is what an image, as it is published, has to fit. Make one with [ParseSignature]; the zero Signature stands for none.
type Signature struct {
	// Comment is what the signer says of the image in a minisign signature, proven by the key; "" if there is none.
	Comment string
	checks  []check // any of which is enough
}

// check is a signature by one key.
type check struct {
	hash   func() hash.Hash       // what the image has to be put through
	verify func(h hash.Hash) bool // whether the signature is right for it
}

// ParseSignature reads a signature that may be by one of the keys: one of minisign, or what `cosign sign-blob --key` writes, which is base64 of a signature by ECDSA of the image's SHA-256, or
// by Ed25519 of the image. The errors for a signature that none of the keys can have made wrap [ErrSignature].
func ParseSignature(text []byte, keys []PublicKey) (Signature, error) {
	if len(text) > maxSignature {
		return Signature{}, fmt.Errorf("%w: it is longer than %d bytes", ErrSignature, maxSignature)
	}
	if bytes.HasPrefix(text, []byte("untrusted comment:")) {
		return parseMinisign(string(text), keys)
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(b) == 0 {
		return Signature{}, fmt.Errorf("%w: it is neither one of minisign nor base64", ErrSignature)
	}
	var s Signature
	for _, k := range keys {
		switch {
		case k.ec != nil:
			s.checks = append(s.checks, check{sha256.New, func(h hash.Hash) bool { return ecdsa.VerifyASN1(k.ec, h.Sum(nil), b) }})
		case !k.minisign && len(b) == ed25519.SignatureSize:
			s.checks = append(s.checks, k.plain(b))
		}
	}
	if len(s.checks) == 0 {
		return Signature{}, fmt.Errorf("%w: it is by none of the keys that are trusted", ErrSignature)
	}
	return s, nil
}

// plain is a signature of the image itself by Ed25519.
func (k PublicKey) plain(signature []byte) check {
	return check{func() hash.Hash { return ed25519Hash(k.ed, signature) }, func(h hash.Hash) bool { return ed25519Verify(k.ed, signature, h) }}
}

// parseMinisign reads four lines: a comment that proves nothing, algorithm and number of the key and signature, a comment, and a signature of signature and
// comment. Source: https://jedisct1.github.io/minisign/
func parseMinisign(text string, keys []PublicKey) (Signature, error) {
	lines := strings.Split(strings.TrimRight(text, "\r\n"), "\n")
	bad := fmt.Errorf("%w: it does not have the four lines of minisign", ErrSignature)
	if len(lines) != 4 {
		return Signature{}, bad
	}
	for i := range lines {
		lines[i] = strings.TrimSuffix(lines[i], "\r")
	}
	signed, err1 := base64.StdEncoding.DecodeString(lines[1])
	comment, isComment := strings.CutPrefix(lines[2], "trusted comment: ")
	global, err2 := base64.StdEncoding.DecodeString(lines[3])
	if err1 != nil || err2 != nil || !isComment || len(signed) != 2+8+ed25519.SignatureSize || len(global) != ed25519.SignatureSize {
		return Signature{}, bad
	}
	algorithm, id, signature := string(signed[:2]), [8]byte(signed[2:10]), signed[10:]
	for _, k := range keys {
		if !k.minisign || k.id != id {
			continue
		}
		if !ed25519.Verify(k.ed, append(bytes.Clone(signature), comment...), global) {
			return Signature{}, fmt.Errorf("%w: its trusted comment, or all of it, is not by the key", ErrSignature)
		}
		s := Signature{Comment: comment}
		switch algorithm {
		case "ED": // of the image's BLAKE2b
			s.checks = []check{{newBLAKE2b, func(h hash.Hash) bool { return ed25519.Verify(k.ed, h.Sum(nil), signature) }}}
		case "Ed":
			s.checks = []check{k.plain(signature)}
		default:
			return Signature{}, fmt.Errorf("%w: it is of the unknown kind %q", ErrSignature, algorithm)
		}
		return s, nil
	}
	return Signature{}, fmt.Errorf("%w: it is by key %X, which is not trusted", ErrSignature, reversed(id))
}

// reversed is how minisign prints the number of a key.
func reversed(id [8]byte) (out [8]byte) {
	for i, b := range id {
		out[7-i] = b
	}
	return out
}

func newBLAKE2b() hash.Hash {
	h, err := blake2b.New512(nil)
	if err != nil { // only for a key that is too long
		panic(err)
	}
	return h
}

// IsZero tells whether no signature is given.
func (s Signature) IsZero() bool { return len(s.checks) == 0 }

// signedHash is what an image goes through to be held against a signature.
type signedHash struct {
	checks []check
	hashes []hash.Hash
}

func (s Signature) hash() *signedHash {
	h := &signedHash{checks: s.checks}
	for _, c := range s.checks {
		h.hashes = append(h.hashes, c.hash())
	}
	return h
}

func (h *signedHash) write(b []byte) {
	for _, one := range h.hashes {
		one.Write(b) // never returns an error
	}
}

func (h *signedHash) verify() error {
	for i, c := range h.checks {
		if c.verify(h.hashes[i]) {
			return nil
		}
	}
	return fmt.Errorf("%w: the image is not the one that was signed", ErrSignature)
}

// FetchSignature reads a signature.
func FetchSignature(ctx context.Context, src Source, keys []PublicKey, o ReaderOptions) (Signature, error) {
	text, err := fetchText(ctx, src, Digest{}, maxSignature, o)
	if err != nil {
		return Signature{}, fmt.Errorf("signature: %w", err)
	}
	s, err := ParseSignature(text, keys)
	if err != nil {
		return Signature{}, fmt.Errorf("signature %v: %w", src, err)
	}
	return s, nil
}

// FetchSignatureBeside reads the signature of an image that one of the keys may have made. It is beside the image, at each place of it the name of which is given, with the suffix of such
// keys; open makes sources of names. If there is none, the error wraps [ErrSignature].
func FetchSignatureBeside(ctx context.Context, images []string, open func(name string) (Source, error), keys []PublicKey, o ReaderOptions) (Signature, error) {
	if len(images) == 0 || len(keys) == 0 {
		return Signature{}, fmt.Errorf("%w: there is no image, or no key, to look for one of", ErrSignature)
	}
	var errs []error
	for _, image := range images {
		tried := map[string]bool{}
		for _, k := range keys {
			suffix := k.Suffix()
			if tried[suffix] {
				continue
			}
			tried[suffix] = true
			src, err := open(Beside(image, suffix))
			if err != nil {
				errs = append(errs, err)
				continue
			}
			s, err := FetchSignature(ctx, src, keys, o)
			if err == nil {
				return s, nil
			}
			if ctx.Err() != nil {
				return s, err
			}
			if status, ok := errors.AsType[*StatusError](err); ok && status.Status == http.StatusNotFound {
				err = fmt.Errorf("%w: %w", ErrSignature, err)
			}
			errs = append(errs, err)
		}
	}
	return Signature{}, errors.Join(errs...)
}

// Beside is the name, which may be a URL, of a file beside the image, whose name has a suffix more.
func Beside(image, suffix string) string {
	if !strings.Contains(image, "://") {
		return image + suffix
	}
	u, err := url.Parse(image)
	if err != nil {
		return image // which is no URL for anybody else either
	}
	u.Path += suffix
	if u.RawPath != "" {
		u.RawPath += suffix
	}
	return u.String()
}
