// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// signed reads a file of testdata/signature, which minisign and openssl have made.
func signed(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/signature", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// swap replaces what is there once.
func swap(t testing.TB, text []byte, old, new string) []byte {
	t.Helper()
	if bytes.Count(text, []byte(old)) != 1 {
		t.Fatalf("%q is not once in %q", old, text)
	}
	return bytes.Replace(text, []byte(old), []byte(new), 1)
}

func TestSignature(t *testing.T) {
	image := signed(t, "image")
	other := append(bytes.Clone(image), 'x')
	mini, legacy := signed(t, "image.minisig"), signed(t, "legacy.minisig")
	allKeys := bytes.Join([][]byte{signed(t, "ed25519.pub"), signed(t, "ecdsa.pub")}, nil)
	anotherKey := []byte("RWRsM5oL1PKk2dMqiPI0lpFbLcsvmc3RWo7GY9zkzvwnKMHsFHVldjqR\n") // of the same number
	for _, test := range []struct {
		name      string
		keys      []byte
		signature []byte
		image     []byte
		comment   string
		err       string // "" if the image is proven
	}{
		{"minisign", signed(t, "minisign.pub"), mini, image, "debian 12, made for a test", ""},
		{"minisign, legacy", signed(t, "minisign.pub"), legacy, image, "legacy", ""},
		{"minisign, the key alone", []byte("RWRsM5oL1PKk2WRAm+gTDh+DhRC63OJOJ91OHPzJCTFSt+T6eVBIzc1P"), mini, image, "debian 12, made for a test", ""},
		{"minisign, other ends of lines", signed(t, "minisign.pub"), bytes.ReplaceAll(mini, []byte("\n"), []byte("\r\n")), image, "debian 12, made for a test", ""},
		{"ECDSA", signed(t, "ecdsa.pub"), signed(t, "ecdsa.sig"), image, "", ""},
		{"ECDSA, a line", signed(t, "ecdsa.pub"), append(signed(t, "ecdsa.sig"), '\n'), image, "", ""},
		{"Ed25519", signed(t, "ed25519.pub"), signed(t, "ed25519.sig"), image, "", ""},
		{"one key of several", allKeys, signed(t, "ecdsa.sig"), image, "", ""},
		{"the other key of several", allKeys, signed(t, "ed25519.sig"), image, "", ""},

		{"minisign, other image", signed(t, "minisign.pub"), mini, other, "", "not the one that was signed"},
		{"minisign, legacy, other image", signed(t, "minisign.pub"), legacy, other, "", "not the one that was signed"},
		{"minisign, short image", signed(t, "minisign.pub"), mini, image[:5], "", "not the one that was signed"},
		{"minisign, other comment", signed(t, "minisign.pub"), swap(t, mini, "debian 12,", "debian 13,"), image, "", "trusted comment"},
		{"minisign, no comment", signed(t, "minisign.pub"), swap(t, mini, "trusted comment: d", "trusted comment d"), image, "", "four lines"},
		{"minisign, signature of the comment of another", signed(t, "minisign.pub"), swap(t, mini, "J7KU", "J7KV"), image, "", "trusted comment"},
		{"minisign, said to be legacy", signed(t, "minisign.pub"), swap(t, mini, "RURsM5oL1P", "RWRsM5oL1P"), image, "", "not the one that was signed"},
		{"minisign, of an unknown kind", signed(t, "minisign.pub"), swap(t, mini, "RURsM5oL1P", "RVhsM5oL1P"), image, "", "unknown kind"},
		{"minisign, another key", anotherKey, mini, image, "", "trusted comment"},
		{"minisign, a key of another number", []byte("RWRsM5oL1PKkAdMqiPI0lpFbLcsvmc3RWo7GY9zkzvwnKMHsFHVldjqR"), mini, image, "", "by key D9A4F2D40B9A336C, which is not trusted"},
		{"minisign, three lines", signed(t, "minisign.pub"), mini[:bytes.LastIndexByte(mini[:len(mini)-1], '\n')], image, "", "four lines"},
		{"minisign, five lines", signed(t, "minisign.pub"), append(bytes.Clone(mini), "more\n"...), image, "", "four lines"},
		{"minisign by a key in PEM", signed(t, "ed25519.pub"), mini, image, "", "not trusted"},
		{"ECDSA, other image", signed(t, "ecdsa.pub"), signed(t, "ecdsa.sig"), other, "", "not the one that was signed"},
		{"ECDSA, not a signature", signed(t, "ecdsa.pub"), []byte("AAAA"), image, "", "not the one that was signed"},
		{"ECDSA by another key", signed(t, "ed25519.pub"), signed(t, "ecdsa.sig"), image, "", "none of the keys"},
		{"ECDSA by a key of minisign", signed(t, "minisign.pub"), signed(t, "ecdsa.sig"), image, "", "none of the keys"},
		{"Ed25519, other image", signed(t, "ed25519.pub"), signed(t, "ed25519.sig"), other, "", "not the one that was signed"},
		{"Ed25519 by a key of minisign", signed(t, "minisign.pub"), signed(t, "ed25519.sig"), image, "", "none of the keys"},
		{"several keys, other image", allKeys, signed(t, "ed25519.sig"), other, "", "not the one that was signed"},
		{"nothing", signed(t, "ecdsa.pub"), nil, image, "", "neither"},
		{"web page", signed(t, "ecdsa.pub"), []byte("<html>log in</html>"), image, "", "neither"},
		{"too long", signed(t, "ecdsa.pub"), bytes.Repeat([]byte("A"), maxSignature+1), image, "", "longer than"},
	} {
		t.Run(test.name, func(t *testing.T) {
			keys, err := ParsePublicKeys(test.keys)
			if err != nil {
				t.Fatal(err)
			}
			s, err := ParseSignature(test.signature, keys)
			if err == nil {
				h := s.hash()
				for b := range test.image { // in many parts
					h.write(test.image[b : b+1])
				}
				err = h.verify()
			}
			if test.err == "" && err != nil || test.err != "" && (!errors.Is(err, ErrSignature) || !strings.Contains(err.Error(), test.err)) {
				t.Fatalf("%v, want an ErrSignature with %q", err, test.err)
			}
			if err == nil && s.Comment != test.comment {
				t.Errorf("comment %q, want %q", s.Comment, test.comment)
			}
		})
	}
}

func TestPublicKeys(t *testing.T) {
	const p384 = `-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEqo7xBfE1oMGFqv7YcR6dmaDA5xSg+9Rr
-----END PUBLIC KEY-----
`
	secret := "-----BEGIN " + "EC PRIVATE KEY-----\nAAAA\n-----END " + "EC PRIVATE KEY-----\n"
	for _, test := range []struct{ name, text, err string }{
		{"nothing", "", "there is none"},
		{"only a comment", "untrusted comment: x\n", "there is none"},
		{"a word", "hello\n", "neither one of minisign nor PEM"},
		{"a secret key", secret, `"EC PRIVATE KEY" is not one`},
		{"broken", p384, "does not make sense"},
		{"signature for key", string(signed(t, "image.minisig")), "neither"},
		{"not a point", "RWRsM5oL1PKk2f//////////////////////////////////////////", "not a point"},
		{"too many", strings.Repeat(string(signed(t, "ecdsa.pub")), maxKeys+1), "more than 16"},
		{"too long", strings.Repeat("\n", maxSignature+1), "longer than"},
	} {
		if _, err := ParsePublicKeys([]byte(test.text)); err == nil || !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %v, want %q", test.name, err, test.err)
		}
	}
}

// For a key of small order anybody can sign, so none is taken.
func TestWeakKeys(t *testing.T) {
	for _, hex := range []string{
		"0100000000000000000000000000000000000000000000000000000000000000",
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0000000000000000000000000000000000000000000000000000000000000080",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	} {
		t.Run(hex, func(t *testing.T) {
			key := make([]byte, 32)
			if _, err := fmt.Sscanf(hex, "%x", &key); err != nil {
				t.Fatal(err)
			}
			// The signature is a point of the same few, and 0; for one message in eight at the least it is right.
			forged := false
			for i := range 200 {
				message := fmt.Appendf(nil, "%d", i)
				signature := append(bytes.Clone(key), make([]byte, 32)...)
				if forged = ed25519.Verify(key, message, signature); forged {
					break
				}
			}
			if !forged {
				t.Error("this key is not weak")
			}
			der := append([]byte("\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"), key...)
			for kind, text := range map[string][]byte{
				"minisign": []byte(base64.StdEncoding.EncodeToString(append([]byte("Ed12345678"), key...))),
				"PEM":      pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
			} {
				if _, err := ParsePublicKeys(text); err == nil || !strings.Contains(err.Error(), "anybody can sign") {
					t.Errorf("ParsePublicKeys(%s) = %v", kind, err)
				}
			}
		})
	}
}

// What comes as a stream is judged as crypto/ed25519 judges it.
func TestEd25519(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	bytesOf := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	for i := range 100 {
		private := ed25519.NewKeyFromSeed(bytesOf(32))
		message := bytesOf(random.IntN(300))
		key, signature := private.Public().(ed25519.PublicKey), ed25519.Sign(private, message)
		switch i % 5 {
		case 1:
			signature[random.IntN(64)] ^= 1 << random.IntN(8)
		case 2:
			key[random.IntN(32)] ^= 1 << random.IntN(8)
		case 3:
			message = append(message, 0)
		}
		h := ed25519Hash(key, signature)
		h.Write(message)
		if got, want := ed25519Verify(key, signature, h), ed25519.Verify(key, message, signature); got != want || want != (i%5 == 0 || i%5 == 4) {
			t.Fatalf("%d: key %x signature %x message %x: %v, want %v", i, key, signature, message, got, want)
		}
		// S + L is another number for the same, and refused (RFC 8032, 8.4).
		if i%5 == 0 {
			c := newCurve()
			s := little(signature[32:])
			copy(signature[32:], c.bytes(s.Add(s, c.order)))
			h := ed25519Hash(key, signature)
			h.Write(message)
			if ed25519Verify(key, signature, h) {
				t.Fatalf("%d: S is not reduced, and taken", i)
			}
		}
	}
}

// A signature proves an image whose parts come from several sources, over several connections or one, as a digest does.
func TestReaderSignature(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 20<<16)
	private := ed25519.NewKeyFromSeed(make([]byte, 32))
	keys := []PublicKey{{ed: private.Public().(ed25519.PublicKey)}}
	s := Signature{checks: []check{keys[0].plain(ed25519.Sign(private, content))}}
	wrong := bytes.Clone(content)
	wrong[len(wrong)-1]++
	for _, test := range []struct {
		name    string
		content []byte
		digest  bool
		want    error
	}{
		{"right", content, false, nil},
		{"right, digest too", content, true, nil},
		{"wrong", wrong, false, ErrSignature},
		{"wrong, digest right", wrong, true, ErrSignature},
	} {
		t.Run(test.name, func(t *testing.T) {
			var digest Digest
			if test.digest {
				digest = Digest{"sha256", fmt.Sprintf("%x", sha256.Sum256(test.content))}
			}
			broken := &flaky{name: "a", content: test.content, answers: []answer{{bytes: 5 << 20, err: Final(errors.New("gone"))}}}
			r := NewReader(t.Context(), []Source{broken, &flaky{name: "b", content: test.content}}, digest, ReaderOptions{Signature: s, Connections: 4})
			defer r.Close()
			if _, err := io.CopyN(io.Discard, r, 1000); err != nil {
				t.Fatal(err)
			}
			if err := r.Verify(); !errors.Is(err, test.want) {
				t.Errorf("Verify() = %v, want %v", err, test.want)
			}
		})
	}
}

// To look nowhere is to find none, and not that none is needed.
func TestSignatureBesideNothing(t *testing.T) {
	keys := []PublicKey{{minisign: true}}
	open := func(string) (Source, error) { return nil, errors.New("nothing is to be opened") }
	for _, test := range []struct {
		name   string
		images []string
		keys   []PublicKey
	}{
		{"no image", nil, keys},
		{"no key", []string{"/image"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			if s, err := FetchSignatureBeside(t.Context(), test.images, open, test.keys, ReaderOptions{}); !errors.Is(err, ErrSignature) {
				t.Errorf("FetchSignatureBeside() = %v, %v, want an ErrSignature", s, err)
			}
		})
	}
}

func TestBeside(t *testing.T) {
	for _, test := range []struct{ image, want string }{
		{"/images/a.img", "/images/a.img.sig"},
		{"http://u:p@h/a%2Fb.img?token=x#y", "http://u:p@h/a%2Fb.img.sig?token=x#y"},
		{"https://h/a b", "https://h/a%20b.sig"},
	} {
		if got := Beside(test.image, ".sig"); got != test.want {
			t.Errorf("Beside(%s) = %s, want %s", test.image, got, test.want)
		}
	}
}

func FuzzSignature(f *testing.F) {
	var keys []PublicKey
	for _, name := range []string{"minisign.pub", "ecdsa.pub", "ed25519.pub"} {
		found, err := ParsePublicKeys(signed(f, name))
		if err != nil {
			f.Fatal(err)
		}
		keys = append(keys, found...)
	}
	for _, name := range []string{"image.minisig", "legacy.minisig", "ecdsa.sig", "ed25519.sig"} {
		f.Add(signed(f, name), signed(f, "image"))
	}
	f.Fuzz(func(t *testing.T, text, image []byte) {
		s, err := ParseSignature(text, keys)
		if err != nil {
			if !errors.Is(err, ErrSignature) || !s.IsZero() {
				t.Errorf("ParseSignature(%q) = %v, %v", text, s, err)
			}
			return
		}
		h := s.hash()
		h.write(image)
		if err := h.verify(); err == nil && !bytes.Equal(image, signed(t, "image")) {
			t.Errorf("signature %q of image %q is taken", text, image)
		}
	})
}

func FuzzPublicKeys(f *testing.F) {
	for _, name := range []string{"minisign.pub", "ecdsa.pub", "ed25519.pub", "image.minisig"} {
		f.Add(signed(f, name))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := ParsePublicKeys(text)
		if (err == nil) == (len(keys) == 0) {
			t.Fatalf("ParsePublicKeys(%q) = %v, %v", text, keys, err)
		}
		if err == nil {
			ParseSignature(signed(t, "image.minisig"), keys)
		}
	})
}
