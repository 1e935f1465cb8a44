package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"math/big"
)

// RSA keys below the lower bound can be broken (RFC 7518 asks for 2048 bits);
// those above the upper one make a signature check a way to burn our time.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

// Key is a public key with the algorithms it may be used with. It is
// immutable and may be used concurrently.
type Key struct {
	ID    string // the kid; may be empty
	fits  Algorithms
	rsa   *rsa.PublicKey
	ecdsa *ecdsa.PublicKey
	ed    ed25519.PublicKey
}

// NewKey makes a key usable. alg is what the key itself says it is for; when
// empty, its kind decides: an RSA key fits RS* and PS*, an elliptic one the
// algorithm of its curve.
func NewKey(id, alg string, public crypto.PublicKey) (*Key, error) {
	k := &Key{ID: id}
	switch pub := public.(type) {
	case *rsa.PublicKey:
		if n := pub.N.BitLen(); n < minRSABits || n > maxRSABits {
			return nil, fmt.Errorf("an RSA key of %d bits; only %d to %d are accepted", n, minRSABits, maxRSABits)
		}
		if pub.E < 3 || pub.E&1 == 0 {
			return nil, fmt.Errorf("an RSA key with exponent %d", pub.E)
		}
		k.rsa = pub
		for a := RS256; a <= PS512; a++ {
			k.fits = k.fits.With(a)
		}
	case *ecdsa.PublicKey:
		k.ecdsa = pub
		switch pub.Curve {
		case elliptic.P256():
			k.fits = k.fits.With(ES256)
		case elliptic.P384():
			k.fits = k.fits.With(ES384)
		case elliptic.P521():
			k.fits = k.fits.With(ES512)
		default:
			return nil, fmt.Errorf("an elliptic key on a curve that is not accepted")
		}
	case ed25519.PublicKey:
		if len(pub) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("an Ed25519 key of %d bytes", len(pub))
		}
		k.ed = pub
		k.fits = k.fits.With(EdDSA)
	default:
		return nil, fmt.Errorf("a key of kind %T", public)
	}
	if alg != "" {
		a, ok := ParseAlgorithm(alg)
		if !ok || !k.fits.Has(a) {
			return nil, fmt.Errorf("a key for algorithm %q, which its kind does not fit or which is not accepted", alg)
		}
		k.fits = Algorithms(0).With(a)
	}
	return k, nil
}

// Fits reports whether the key may be used with a.
func (k *Key) Fits(a Algorithm) bool { return k.fits.Has(a) }

// Verify checks the token's signature. It looks at no claim.
func (k *Key) Verify(t *Token) error {
	if !k.fits.Has(t.Algorithm) {
		return refuse(BadAlgorithm, "the token's algorithm does not fit the key")
	}
	if !k.verify(t.Algorithm, t.signed, t.signature) {
		return refuse(BadSignature, "the signature is wrong")
	}
	return nil
}

func (k *Key) verify(a Algorithm, signed, signature []byte) bool {
	if a == EdDSA {
		return ed25519.Verify(k.ed, signed, signature)
	}
	hash := algorithms[a].hash
	h := hash.New()
	h.Write(signed)
	var sum [64]byte
	digest := h.Sum(sum[:0])
	switch {
	case a <= RS512:
		return rsa.VerifyPKCS1v15(k.rsa, hash, digest, signature) == nil
	case a <= PS512:
		// RFC 7518, section 3.5: the salt is as long as the hash.
		return rsa.VerifyPSS(k.rsa, hash, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	}
	// r and s have the curve's length each, and nothing around them. Other
	// lengths are other encodings of the same signature, or attacks.
	size := (k.ecdsa.Curve.Params().BitSize + 7) / 8
	if len(signature) != 2*size {
		return false
	}
	r, s := new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])
	return ecdsa.Verify(k.ecdsa, digest, r, s)
}
