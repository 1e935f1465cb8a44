package signer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Algorithms lists what can be signed with, the default first.
func Algorithms() []string { return []string{"ES256", "EdDSA"} }

// maxKeys bounds what is read; there are seldom more than three.
const maxKeys = 64

// key is one key of a ring. It is immutable.
type key struct {
	alg     string
	from    time.Time
	private crypto.Signer
	id      string            // its thumbprint (RFC 7638)
	jwk     map[string]string // as it is published
	head    string            // the first part of its tokens
}

// stored is a key as the storage has it.
type stored struct {
	Algorithm string    `json:"alg"`
	From      time.Time `json:"from"`
	Key       string    `json:"key"` // PKCS #8, in PEM
}

type document struct {
	Keys []stored `json:"keys"`
}

func newKey(alg string, from time.Time) (*key, error) {
	var private crypto.Signer
	var err error
	switch alg {
	case "ES256":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "EdDSA":
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = fmt.Errorf("nothing is signed with %q", alg)
	}
	if err != nil {
		return nil, err
	}
	return prepare(private, from)
}

// prepare works out what follows from a key, its algorithm included.
func prepare(private crypto.Signer, from time.Time) (*key, error) {
	k := &key{private: private, from: from}
	var members string // those that make the thumbprint, in its order (RFC 7638, section 3.2; RFC 8037, appendix A.3)
	switch public := private.Public().(type) {
	case *ecdsa.PublicKey:
		point, err := public.Bytes()
		if err != nil || public.Curve != elliptic.P256() {
			return nil, errors.New("an EC key that is not of P-256")
		}
		x, y := b64(point[1:33]), b64(point[33:])
		k.alg = "ES256"
		k.jwk = map[string]string{"kty": "EC", "crv": "P-256", "x": x, "y": y}
		members = `{"crv":"P-256","kty":"EC","x":"` + x + `","y":"` + y + `"}`
	case ed25519.PublicKey:
		x := b64(public)
		k.alg = "EdDSA"
		k.jwk = map[string]string{"kty": "OKP", "crv": "Ed25519", "x": x}
		members = `{"crv":"Ed25519","kty":"OKP","x":"` + x + `"}`
	default:
		return nil, errors.New("a key of a kind that nothing is signed with")
	}
	sum := sha256.Sum256([]byte(members))
	k.id = b64(sum[:])
	k.jwk["kid"], k.jwk["alg"], k.jwk["use"] = k.id, k.alg, "sig"
	k.head = b64([]byte(`{"alg":"`+k.alg+`","kid":"`+k.id+`","typ":"JWT"}`)) + "."
	return k, nil
}

// sign makes a token (RFC 7515, section 7.1).
func (k *key) sign(claims []byte) (string, error) {
	signed := k.head + b64(claims)
	var sig []byte
	switch private := k.private.(type) {
	case *ecdsa.PrivateKey:
		sum := sha256.Sum256([]byte(signed))
		r, s, err := ecdsa.Sign(rand.Reader, private, sum[:])
		if err != nil {
			return "", err
		}
		sig = make([]byte, 64)
		r.FillBytes(sig[:32])
		s.FillBytes(sig[32:])
	case ed25519.PrivateKey:
		sig = ed25519.Sign(private, []byte(signed))
	}
	return signed + "." + b64(sig), nil
}

func encode(keys []*key) ([]byte, error) {
	var d document
	for _, k := range keys {
		der, err := x509.MarshalPKCS8PrivateKey(k.private)
		if err != nil {
			return nil, err
		}
		block := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		d.Keys = append(d.Keys, stored{k.alg, k.from.UTC(), string(block)})
	}
	return json.MarshalIndent(d, "", "\t")
}

// decode reads what encode wrote. Its errors say nothing of what stands there.
func decode(data []byte) ([]*key, error) {
	var d document
	dec := json.NewDecoder(strings.NewReader(string(data)))
	if err := dec.Decode(&d); err != nil || dec.More() {
		return nil, errors.New("not a document of keys")
	}
	if len(d.Keys) == 0 || len(d.Keys) > maxKeys {
		return nil, fmt.Errorf("%d keys", len(d.Keys))
	}
	keys := make([]*key, 0, len(d.Keys))
	for n, s := range d.Keys {
		block, rest := pem.Decode([]byte(s.Key))
		if block == nil || len(strings.TrimSpace(string(rest))) > 0 {
			return nil, fmt.Errorf("key %d is none", n+1)
		}
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("key %d cannot be read", n+1)
		}
		private, ok := parsed.(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("key %d cannot sign", n+1)
		}
		k, err := prepare(private, s.From)
		if err != nil {
			return nil, fmt.Errorf("key %d is %w", n+1, err)
		}
		if s.Algorithm != k.alg {
			return nil, fmt.Errorf("key %d is not for the algorithm it names", n+1)
		}
		keys = append(keys, k)
	}
	slices.SortStableFunc(keys, func(a, b *key) int { return a.from.Compare(b.from) })
	return keys, nil
}
