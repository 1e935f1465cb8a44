package jwt

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes of the algorithms
	_ "crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/lestrrat-go/jwx/v2/jwk"
)

// algorithm is one way to sign.
type algorithm struct {
	hash crypto.Hash
	pss  bool
}

var algorithms = map[string]algorithm{
	"RS256": {crypto.SHA256, false}, "RS384": {crypto.SHA384, false}, "RS512": {crypto.SHA512, false},
	"PS256": {crypto.SHA256, true}, "PS384": {crypto.SHA384, true}, "PS512": {crypto.SHA512, true},
	"ES256": {crypto.SHA256, false}, "ES384": {crypto.SHA384, false}, "ES512": {crypto.SHA512, false},
	"EdDSA": {}, "Ed25519": {},
}

// Algorithms lists what can be verified. There is no HMAC among them, and no
// none: a key that is published proves nothing by a shared secret.
func Algorithms() []string {
	return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
}

// Key is one public key with the algorithms it may be used by.
type Key struct {
	id     string
	algs   []string
	public crypto.PublicKey
}

// Set is what an issuer publishes. It is immutable.
type Set struct {
	keys []*Key
	byID map[string]*Key
}

// Len is the number of usable keys.
func (s *Set) Len() int { return len(s.keys) }

// ParseSet reads a JSON Web Key Set (RFC 7517) by our key policy. Keys that are
// not for verifying signatures are left out; keys that are weak, ambiguous or
// cannot be read are named in skipped, and nothing they signed is accepted.
func ParseSet(data []byte) (set *Set, skipped []string, err error) {
	written, err := split(data)
	if err != nil {
		return nil, nil, fmt.Errorf("reading key set: %w", err)
	}
	set = &Set{byID: make(map[string]*Key)}
	twice := map[string]bool{}
	others := 0
	for i, w := range written {
		name := fmt.Sprintf("key %d", i+1)
		if w.line > 0 {
			name += fmt.Sprintf(" in line %d", w.line)
		}
		k, err := jwk.ParseKey(w.raw)
		if err != nil {
			skipped = append(skipped, fmt.Sprintf("%s: %.200s", name, printable(err)))
			continue
		}
		key, err := readKey(k)
		if err != nil {
			skipped = append(skipped, fmt.Sprintf("%s (kid %.64q): %v", name, k.KeyID(), err))
			continue
		}
		if key == nil {
			others++
			continue
		}
		if key.id != "" {
			if set.byID[key.id] != nil || twice[key.id] {
				twice[key.id] = true
				skipped = append(skipped, fmt.Sprintf("%s: kid %.64q occurs twice", name, key.id))
				continue
			}
			set.byID[key.id] = key
		}
		set.keys = append(set.keys, key)
	}
	for id := range twice { // which of them would be meant?
		delete(set.byID, id)
		set.keys = slices.DeleteFunc(set.keys, func(k *Key) bool { return k.id == id })
	}
	if len(set.keys) == 0 {
		return nil, skipped, errors.New("key set has no key that can verify a signature" + why(skipped, others, len(written)))
	}
	return set, skipped, nil
}

// why says what became of the keys of a set of which none is left.
func why(skipped []string, others, all int) string {
	if all == 0 {
		return ": it is empty"
	}
	parts := slices.Clone(skipped[:min(len(skipped), maxMany)])
	if more := len(skipped) - len(parts); more > 0 {
		parts = append(parts, fmt.Sprintf("%d more", more))
	}
	if others > 0 {
		parts = append(parts, fmt.Sprintf("%d keys are not for verifying signatures, by use or key_ops", others))
	}
	return ": " + strings.Join(parts, "; ")
}

// writtenKey is a key as it stands in a set.
type writtenKey struct {
	raw  json.RawMessage
	line int // where it begins, in a set of several lines
}

// split finds the keys of a set, or takes a document as the one key that it is.
// Its errors name the line.
func split(data []byte) (keys []writtenKey, err error) {
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN")) {
		return nil, errors.New("this is PEM; a JSON Web Key Set is expected")
	}
	lineAt := func(offset int64) int {
		return 1 + bytes.Count(data[:min(max(int(offset), 0), len(data))], []byte("\n"))
	}
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(data, &doc); err != nil {
		if bad, ok := errors.AsType[*json.SyntaxError](err); ok {
			return nil, fmt.Errorf("line %d: %w", lineAt(bad.Offset), err)
		}
		return nil, errors.New("an object with the member keys is expected")
	}
	member, there := doc["keys"]
	if !there {
		return []writtenKey{{raw: data}}, nil
	}
	several := bytes.Contains(bytes.TrimSpace(data), []byte("\n"))
	base := int64(bytes.LastIndex(data, member)) // of members of one name the last counts
	dec := json.NewDecoder(bytes.NewReader(member))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('[') {
		return nil, fmt.Errorf("line %d: keys is not a list", lineAt(base))
	}
	for dec.More() {
		var w writtenKey
		if err := dec.Decode(&w.raw); err != nil {
			return nil, err
		}
		if several {
			w.line = lineAt(base + dec.InputOffset() - int64(len(w.raw)))
		}
		keys = append(keys, w)
	}
	return keys, nil
}

// printable is an error of the library on one line.
func printable(err error) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return ' '
		}
		return r
	}, err.Error())
}

func readKey(k jwk.Key) (*Key, error) {
	if use := k.KeyUsage(); use != "" && use != "sig" {
		return nil, nil
	}
	if ops := k.KeyOps(); len(ops) > 0 && !slices.Contains(ops, jwk.KeyOpVerify) {
		return nil, nil
	}
	public, err := k.PublicKey()
	if err != nil {
		return nil, err
	}
	var raw any
	if err := public.Raw(&raw); err != nil {
		return nil, err
	}
	key := &Key{id: k.KeyID(), public: raw}
	switch p := raw.(type) {
	case *rsa.PublicKey:
		if p.N.BitLen() < 2048 || p.N.BitLen() > 8192 || p.E < 3 || p.E%2 == 0 {
			return nil, fmt.Errorf("RSA key of %d bits and exponent %d is not accepted", p.N.BitLen(), p.E)
		}
		if p.N.Bit(0) == 0 {
			return nil, errors.New("RSA key has an even modulus")
		}
		if guessable(p.N) {
			return nil, errors.New("RSA key can be factored (CVE-2017-15361)")
		}
		key.algs = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	case *ecdsa.PublicKey:
		switch p.Curve {
		case elliptic.P256():
			key.algs = []string{"ES256"}
		case elliptic.P384():
			key.algs = []string{"ES384"}
		case elliptic.P521():
			key.algs = []string{"ES512"}
		default:
			return nil, errors.New("curve is not accepted")
		}
		if _, err := p.ECDH(); err != nil { // checks that the point is on the curve
			return nil, fmt.Errorf("EC key: %w", err)
		}
	case ed25519.PublicKey:
		if len(p) != ed25519.PublicKeySize { // which the library takes, and ed25519.Verify panics at
			return nil, fmt.Errorf("Ed25519 key of %d bytes is not accepted", len(p))
		}
		key.algs = []string{"EdDSA", "Ed25519"}
	default:
		return nil, fmt.Errorf("%s keys are not accepted", k.KeyType())
	}
	if alg := k.Algorithm().String(); alg != "" {
		if alg == "Ed25519" {
			alg = "EdDSA"
		}
		if !slices.Contains(key.algs, alg) {
			return nil, fmt.Errorf("alg %.32q does not fit the key", alg)
		}
		if alg != "EdDSA" { // which has two names
			key.algs = []string{alg}
		}
	}
	return key, nil
}

// NewSet makes a set of one key, for issuers whose keys we hold.
func NewSet(id string, public *ecdsa.PublicKey) *Set {
	k := &Key{id: id, algs: []string{"ES256"}, public: public}
	return &Set{keys: []*Key{k}, byID: map[string]*Key{id: k}}
}

// Equal reports whether both sets have the same keys for the same uses, in the
// same order.
func (s *Set) Equal(other *Set) bool {
	return slices.EqualFunc(s.keys, other.keys, func(a, b *Key) bool {
		public, ok := a.public.(interface{ Equal(crypto.PublicKey) bool })
		return a.id == b.id && slices.Equal(a.algs, b.algs) && ok && public.Equal(b.public)
	})
}

// find picks the key by the token's kid, or the only one that fits. The key
// says which algorithms it takes; the token does not.
func (s *Set) find(t *Token) (*Key, error) {
	if _, known := algorithms[t.Alg]; !known {
		return nil, fault(BadAlgorithm, "algorithm is not accepted: "+shown(t.Alg))
	}
	if t.Kid != "" {
		key := s.byID[t.Kid]
		if key == nil {
			return nil, fault(UnknownKey, "no key has the token's kid "+shown(t.Kid)+"; the issuer's are "+s.ids())
		}
		if !slices.Contains(key.algs, t.Alg) {
			return nil, fault(BadAlgorithm, "algorithm does not fit the key: alg is "+shown(t.Alg)+", and the key "+shown(t.Kid)+" is for "+strings.Join(key.algs, ", "))
		}
		return key, nil
	}
	var only *Key
	for _, key := range s.keys {
		if slices.Contains(key.algs, t.Alg) {
			if only != nil {
				return nil, fault(UnknownKey, "token has no kid, and several keys would fit")
			}
			only = key
		}
	}
	if only == nil {
		return nil, fault(BadAlgorithm, "no key fits the token's algorithm "+shown(t.Alg))
	}
	return only, nil
}

// ids names the keys for the operator.
func (s *Set) ids() string {
	all := make([]string, len(s.keys))
	for i, k := range s.keys {
		all[i] = k.id
	}
	return Shown(all)
}

// verify checks the signature by the algorithm that find has allowed.
func (k *Key) verify(t *Token) bool {
	alg := algorithms[t.Alg]
	if public, ok := k.public.(ed25519.PublicKey); ok {
		return ed25519.Verify(public, []byte(t.signed), t.sig)
	}
	h := alg.hash.New()
	_, _ = h.Write([]byte(t.signed))
	sum := h.Sum(nil)
	switch public := k.public.(type) {
	case *rsa.PublicKey:
		if alg.pss {
			return rsa.VerifyPSS(public, alg.hash, sum, t.sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		return rsa.VerifyPKCS1v15(public, alg.hash, sum, t.sig) == nil
	case *ecdsa.PublicKey:
		size := (public.Curve.Params().BitSize + 7) / 8
		if len(t.sig) != 2*size {
			return false
		}
		return ecdsa.Verify(public, sum, new(big.Int).SetBytes(t.sig[:size]), new(big.Int).SetBytes(t.sig[size:]))
	}
	return false
}
