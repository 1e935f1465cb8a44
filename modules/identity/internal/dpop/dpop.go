// Package dpop verifies proofs of possession (RFC 9449): that who sends a token
// holds the key that the token is bound to.
package dpop

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/memory"
)

// MaxLength bounds a proof before anything is read of it.
const MaxLength = 4 << 10

// Verifier checks proofs. It remembers the keys of callers, whose proofs all
// begin alike, in bounded memory. It may be used concurrently.
type Verifier struct {
	heads *memory.Memory[*jwt.Embedded]
}

// NewVerifier makes a verifier that remembers at least keys keys.
func NewVerifier(keys int) *Verifier { return &Verifier{memory.New[*jwt.Embedded](keys)} }

// Request is what a proof must be for.
type Request struct {
	Method string
	URL    string // as the client knows it, without query and fragment
	Token  string // the access token beside it
	Key    string // the thumbprint that the token is bound to (RFC 7638)
}

// Proof is what a good proof says of itself.
type Proof struct {
	ID    string // no other proof of the key has it
	Nonce string // empty if it has none
	Key   string // thumbprint of the key that made it
}

// Window is when a proof may be made, seen from now.
type Window struct{ Before, After time.Duration }

// Verify checks everything but that the proof was not used before. Its errors
// are faults whose texts are for the operator.
func (v *Verifier) Verify(proof string, r Request, w Window, now time.Time) (Proof, error) {
	if len(proof) > MaxLength {
		return Proof{}, fault("is longer than 4 KiB")
	}
	t, err := jwt.Parse(proof)
	if err != nil {
		return Proof{}, err
	}
	if !strings.EqualFold(t.Typ, "dpop+jwt") {
		return Proof{}, fault(fmt.Sprintf("is not of type dpop+jwt, but of %.32q", t.Typ))
	}
	head, _, _ := strings.Cut(proof, ".")
	key, known := v.heads.Get(head)
	if !known {
		if key, err = t.Embedded(); err != nil {
			return Proof{}, err
		}
	}
	if !key.Verify(t) {
		return Proof{}, fault("has a wrong signature")
	}
	if !known {
		v.heads.Put(head, key)
	}
	p := Proof{Key: key.Thumbprint}
	if !same(p.Key, r.Key) {
		return Proof{}, fault("is made with another key than the token is bound to")
	}
	method, _ := t.Claims["htm"].(string)
	target, _ := t.Claims["htu"].(string)
	hash, _ := t.Claims["ath"].(string)
	p.ID, _ = t.Claims["jti"].(string)
	p.Nonce, _ = t.Claims["nonce"].(string)
	at, there, ok := t.Date("iat")
	sum := sha256.Sum256([]byte(r.Token))
	switch {
	case method != r.Method:
		return Proof{}, fault(fmt.Sprintf("is for another method: htm is %.16q, and the request is a %.16s", method, r.Method))
	case !sameURL(target, r.URL):
		return Proof{}, fault(fmt.Sprintf("is for another URL: htu is %.128q, and what was asked for is %.128q; behind a proxy, see trusted_proxies", withoutQuery(target), r.URL))
	case !same(hash, base64.RawURLEncoding.EncodeToString(sum[:])):
		return Proof{}, fault("is for another token")
	case p.ID == "" || len(p.ID) > 256:
		return Proof{}, fault("has no jti of at most 256 characters")
	case !there || !ok:
		return Proof{}, fault("has no iat")
	case at.Before(now.Add(-w.Before)):
		return Proof{}, fault(fmt.Sprintf("is too old: made %v ago, and %v are allowed", now.Sub(at).Round(time.Second), w.Before))
	case at.After(now.Add(w.After)):
		return Proof{}, fault(fmt.Sprintf("is from the future: the client's clock is %v ahead, and %v are allowed", at.Sub(now).Round(time.Second), w.After))
	}
	return p, nil
}

func fault(text string) error { return &jwt.Fault{Kind: jwt.BadProof, Text: "the proof " + text} }

// withoutQuery leaves out where tokens and passwords travel.
func withoutQuery(target string) string {
	u, err := url.Parse(target)
	if err != nil {
		return "no URL"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

func same(a, b string) bool { return a != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
