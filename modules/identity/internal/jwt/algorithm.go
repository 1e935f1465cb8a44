package jwt

import (
	"crypto"
	_ "crypto/sha256" // crypto.SHA256.New
	_ "crypto/sha512" // crypto.SHA384.New, crypto.SHA512.New
)

// Algorithm is a way of signing that is accepted at all. HMAC and "none" have
// no Algorithm, so that no mistake elsewhere can let them in.
type Algorithm uint8

// The algorithms of RFC 7518 and RFC 8037 with asymmetric keys.
const (
	RS256 Algorithm = iota + 1
	RS384
	RS512
	PS256
	PS384
	PS512
	ES256
	ES384
	ES512
	EdDSA
)

var algorithms = [...]struct {
	name string
	hash crypto.Hash
}{
	RS256: {"RS256", crypto.SHA256},
	RS384: {"RS384", crypto.SHA384},
	RS512: {"RS512", crypto.SHA512},
	PS256: {"PS256", crypto.SHA256},
	PS384: {"PS384", crypto.SHA384},
	PS512: {"PS512", crypto.SHA512},
	ES256: {"ES256", crypto.SHA256},
	ES384: {"ES384", crypto.SHA384},
	ES512: {"ES512", crypto.SHA512},
	EdDSA: {"EdDSA", 0},
}

// String is the algorithm's registered name.
func (a Algorithm) String() string { return algorithms[a].name }

// ParseAlgorithm reads a registered name, in its exact spelling. Ed25519 is
// the fully specified name of what EdDSA is here (RFC 9864).
func ParseAlgorithm(name string) (Algorithm, bool) {
	if name == "Ed25519" {
		return EdDSA, true
	}
	for a := RS256; a <= EdDSA; a++ {
		if algorithms[a].name == name {
			return a, true
		}
	}
	return 0, false
}

// AlgorithmNames lists the names that ParseAlgorithm knows.
func AlgorithmNames() []string {
	names := make([]string, 0, len(algorithms))
	for a := RS256; a <= EdDSA; a++ {
		names = append(names, a.String())
	}
	return append(names, "Ed25519")
}

// Algorithms is a set of them; the zero value is the empty set.
type Algorithms uint16

// With returns the set with a in it.
func (s Algorithms) With(a Algorithm) Algorithms { return s | 1<<a }

// Has reports whether a is in the set.
func (s Algorithms) Has(a Algorithm) bool { return s&(1<<a) != 0 }
