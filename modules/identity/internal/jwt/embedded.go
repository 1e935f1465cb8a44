package jwt

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"slices"

	"github.com/lestrrat-go/jwx/v2/jwk"
)

// Embedded is a key that a token brings along (RFC 7515, section 4.1.3). It
// proves nothing but that whoever made the token holds it.
type Embedded struct {
	Thumbprint string // RFC 7638, with SHA-256

	key *Key
	alg string
}

// Embedded reads the key of the token's header.
func (t *Token) Embedded() (*Embedded, error) {
	members, ok := t.jwk.(map[string]any)
	if !ok {
		return nil, fault(BadProof, "the proof brings no key")
	}
	for _, secret := range []string{"d", "k", "p", "q", "dp", "dq", "qi", "oth"} {
		if _, there := members[secret]; there {
			return nil, fault(BadProof, "the proof brings a secret")
		}
	}
	data, err := json.Marshal(members)
	if err != nil {
		return nil, fault(BadProof, "the proof's key cannot be read")
	}
	parsed, err := jwk.ParseKey(data)
	if err != nil {
		return nil, fault(BadProof, "the proof's key cannot be read")
	}
	key, err := readKey(parsed)
	if err != nil || key == nil {
		return nil, fault(BadProof, "the proof's key is not accepted")
	}
	if _, known := algorithms[t.Alg]; !known || !slices.Contains(key.algs, t.Alg) {
		return nil, fault(BadProof, "the proof's algorithm does not fit its key")
	}
	sum, err := parsed.Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, fault(BadProof, "the proof's key cannot be read")
	}
	return &Embedded{base64.RawURLEncoding.EncodeToString(sum), key, t.Alg}, nil
}

// Verify reports whether the key has signed a token whose header is the one it
// was read from.
func (e *Embedded) Verify(t *Token) bool { return t.Alg == e.alg && e.key.verify(t) }
