// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"crypto/ed25519"
	"crypto/sha512"
	"errors"
	"hash"
	"math/big"
	"slices"
)

// Ed25519 signs the message itself and not a digest of it, and crypto/ed25519 wants it whole in memory. But all that it does with the message is to put it through
// SHA-512 behind R and the key (RFC 8032, 5.1.7), which can be done while it streams. What remains is arithmetic with public values only, once for an image, so it may
// be slow and need not hide anything.

// ed25519Hash returns the hash that a message of a signature by key has to be put through.
func ed25519Hash(key ed25519.PublicKey, signature []byte) hash.Hash {
	h := sha512.New()
	h.Write(signature[:32]) // never returns an error
	h.Write(key)
	return h
}

// ed25519Verify tells whether a signature is right for the message that h, of [ed25519Hash], has seen.
func ed25519Verify(key ed25519.PublicKey, signature []byte, h hash.Hash) bool {
	if len(key) != ed25519.PublicKeySize || len(signature) != ed25519.SignatureSize {
		return false
	}
	c := newCurve()
	a, err := c.decode(key)
	s := little(signature[32:])
	if err != nil || s.Cmp(c.order) >= 0 {
		return false
	}
	k := little(h.Sum(nil))
	k.Mod(k, c.order)
	a.x.Sub(c.p, a.x) // -A
	a.t.Sub(c.p, a.t)
	r := c.add(c.multiply(s, c.base), c.multiply(k, a))
	return slices.Equal(c.encode(r), signature[:32])
}

// curve is edwards25519 (RFC 8032, 5.1).
type curve struct {
	p, d, order *big.Int
	base        point
}

// point is one of the curve in extended coordinates: x = X/Z, y = Y/Z, xy = T/Z (RFC 8032, 5.1.4).
type point struct{ x, y, z, t *big.Int }

func newCurve() *curve {
	one := big.NewInt(1)
	c := &curve{p: new(big.Int).Lsh(one, 255), order: new(big.Int).Lsh(one, 252)}
	c.p.Sub(c.p, big.NewInt(19))
	rest, _ := new(big.Int).SetString("27742317777372353535851937790883648493", 10)
	c.order.Add(c.order, rest)
	c.d = c.mul(big.NewInt(-121665), new(big.Int).ModInverse(big.NewInt(121666), c.p))
	y := c.mul(big.NewInt(4), new(big.Int).ModInverse(big.NewInt(5), c.p))
	c.base, _ = c.decode(c.bytes(y))
	return c
}

func (c *curve) mul(a, b *big.Int) *big.Int {
	n := new(big.Int).Mul(a, b)
	return n.Mod(n, c.p)
}

// add is the addition of RFC 8032, 5.1.4, which is right for all pairs of points.
func (c *curve) add(p, q point) point {
	diff := func(a, b *big.Int) *big.Int { return new(big.Int).Sub(a, b) }
	sum := func(a, b *big.Int) *big.Int { return new(big.Int).Add(a, b) }
	a := c.mul(diff(p.y, p.x), diff(q.y, q.x))
	b := c.mul(sum(p.y, p.x), sum(q.y, q.x))
	t := c.mul(c.mul(p.t, q.t), sum(c.d, c.d))
	z := c.mul(p.z, sum(q.z, q.z))
	e, f, g, h := diff(b, a), diff(z, t), sum(z, t), sum(b, a)
	return point{c.mul(e, f), c.mul(g, h), c.mul(f, g), c.mul(e, h)}
}

func (c *curve) multiply(n *big.Int, p point) point {
	r := point{new(big.Int), big.NewInt(1), big.NewInt(1), new(big.Int)}
	for i := n.BitLen() - 1; i >= 0; i-- {
		r = c.add(r, r)
		if n.Bit(i) == 1 {
			r = c.add(r, p)
		}
	}
	return r
}

// decode is RFC 8032, 5.1.3.
func (c *curve) decode(b []byte) (point, error) {
	b = slices.Clone(b)
	odd := uint(b[31] >> 7)
	b[31] &= 0x7f
	y := little(b)
	if y.Cmp(c.p) >= 0 {
		return point{}, errors.New("not a point of edwards25519")
	}
	one := big.NewInt(1)
	yy := c.mul(y, y)
	xx := c.mul(new(big.Int).Sub(yy, one), new(big.Int).ModInverse(new(big.Int).Add(c.mul(c.d, yy), one), c.p)) // d is no square, so this is never 0
	x := new(big.Int).ModSqrt(xx, c.p)
	if x == nil || x.Sign() == 0 && odd == 1 {
		return point{}, errors.New("not a point of edwards25519")
	}
	if x.Bit(0) != odd {
		x.Sub(c.p, x)
	}
	return point{x, y, one, c.mul(x, y)}, nil
}

// checkKey refuses what is no key, and the few points for which anybody can sign anything, such as that of zeros: eight times such a point is the neutral one.
func (c *curve) checkKey(b []byte) error {
	a, err := c.decode(b)
	if err != nil {
		return err
	}
	if a = c.multiply(big.NewInt(8), a); a.x.Sign() == 0 && a.y.Cmp(a.z) == 0 {
		return errors.New("without a secret to it: anybody can sign for it")
	}
	return nil
}

func (c *curve) encode(p point) []byte {
	inverse := new(big.Int).ModInverse(p.z, c.p)
	b := c.bytes(c.mul(p.y, inverse))
	b[31] |= byte(c.mul(p.x, inverse).Bit(0) << 7)
	return b
}

// bytes is n, which is below p, in 32 bytes, the least first.
func (c *curve) bytes(n *big.Int) []byte {
	b := n.FillBytes(make([]byte, 32))
	slices.Reverse(b)
	return b
}

func little(b []byte) *big.Int {
	b = slices.Clone(b)
	slices.Reverse(b)
	return new(big.Int).SetBytes(b)
}
