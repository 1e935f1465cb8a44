// Package jwt verifies signed tokens (RFC 7515, RFC 7519) against published
// keys. It is strict where leniency has been exploited: one serialization, one
// reading of the JSON, algorithms fixed by the key and never by the token.
package jwt

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/gate/strictjson"
)

// Fault says what is wrong with a token. Its text is for the operator.
type Fault struct {
	Kind Kind
	Text string
}

func (f *Fault) Error() string { return f.Text }

// Kind sorts faults by what a client or an operator would do about them.
type Kind uint8

// The kinds.
const (
	Malformed Kind = iota + 1
	BadAlgorithm
	UnknownKey
	BadSignature
	Expired
	NotYetValid
	WrongIssuer
	WrongAudience
	WrongType
	MissingClaim
	BadProof
)

func fault(k Kind, text string) error { return &Fault{k, text} }

// What a token says is shown to the operator, who has to compare it: no more
// than this of it, and printable.
const (
	maxShown = 64 // characters of a text
	maxMany  = 4  // texts of a list
)

// shown writes a text that came with a token.
func shown(s string) string { return fmt.Sprintf("%.*q", maxShown, s) }

// Shown writes the texts of a list, as far as there is room.
func Shown(list []string) string {
	var b strings.Builder
	for i, s := range list {
		if i == maxMany {
			fmt.Fprintf(&b, " and %d more", len(list)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(shown(s))
	}
	return b.String()
}

// MaxLength bounds a token before anything is read of it.
const MaxLength = 16 << 10

// Token is a token as it was read, proven by nothing yet.
type Token struct {
	Alg, Kid, Typ string
	HasTyp        bool
	Issuer        string
	Claims        map[string]any

	jwk    any // a key that the header brings; nobody's until something vouches for it
	signed string
	sig    []byte
}

var (
	encoding     = base64.RawURLEncoding.Strict()
	headerLimits = strictjson.Limits{Depth: 4, Values: 64}
	claimLimits  = strictjson.Limits{Depth: 16, Values: 2048}
)

// Parse reads the compact serialization.
func Parse(token string) (*Token, error) {
	if len(token) > MaxLength {
		return nil, fault(Malformed, "token is longer than 16 KiB")
	}
	head, rest, ok := strings.Cut(token, ".")
	body, sig, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || head == "" || body == "" || sig == "" || strings.Contains(sig, ".") {
		return nil, fault(Malformed, "token does not have three parts")
	}
	t := &Token{signed: token[:len(head)+1+len(body)]}
	header, err := object(head, headerLimits)
	if err != nil {
		return nil, fault(Malformed, "token header: "+err.Error())
	}
	if t.Claims, err = object(body, claimLimits); err != nil {
		return nil, fault(Malformed, "token claims: "+err.Error())
	}
	if t.sig, err = encoding.DecodeString(sig); err != nil || strings.ContainsAny(sig, "\r\n") {
		return nil, fault(Malformed, "token signature is not base64url")
	}
	return t, t.readHeader(header)
}

func object(part string, limits strictjson.Limits) (map[string]any, error) {
	// A decoder that skips line breaks would give one token many spellings.
	if strings.ContainsAny(part, "\r\n") {
		return nil, fault(Malformed, "line break")
	}
	raw, err := encoding.DecodeString(part)
	if err != nil {
		return nil, fault(Malformed, "not base64url")
	}
	v, err := strictjson.Decode(raw, limits)
	if err != nil {
		return nil, err
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, fault(Malformed, "not an object")
	}
	return m, nil
}

func (t *Token) readHeader(header map[string]any) error {
	var ok bool
	if t.Alg, ok = header["alg"].(string); !ok || t.Alg == "" {
		return fault(Malformed, "token header has no alg")
	}
	// What crit names must be understood, and we understand none of it; b64
	// changes what is signed (RFC 7797).
	for _, name := range []string{"crit", "b64", "zip", "enc"} {
		if _, there := header[name]; there {
			return fault(Malformed, "token header has "+name)
		}
	}
	if v, there := header["kid"]; there {
		if t.Kid, ok = v.(string); !ok || t.Kid == "" {
			return fault(Malformed, "token header's kid is not a text")
		}
	}
	if v, there := header["typ"]; there {
		if t.Typ, t.HasTyp = v.(string); !t.HasTyp {
			return fault(Malformed, "token header's typ is not a text")
		}
	}
	t.jwk = header["jwk"]
	t.Issuer, _ = t.Claims["iss"].(string)
	return nil
}

// Expect is what a token must say beside being signed.
type Expect struct {
	Audience   []string // any one of them; nil means any
	Algorithms []string // those of the keys when nil
	Types      []string // in lower case; defaultTypes when nil
	Leeway     time.Duration
}

// defaultTypes are what issuers put on access tokens. Tokens made for another
// purpose carry another type (RFC 8725, section 3.11).
var defaultTypes = []string{"", "jwt", "at+jwt", "application/at+jwt", "application/jwt"}

// Verify checks signature and claims, and returns when the token expires.
func (t *Token) Verify(keys *Set, x *Expect, now time.Time) (expires time.Time, err error) {
	if x.Algorithms != nil && !slices.Contains(x.Algorithms, t.Alg) {
		return expires, fault(BadAlgorithm, "the issuer's algorithms do not include the token's: "+shown(t.Alg)+"; accepted are "+strings.Join(x.Algorithms, ", "))
	}
	key, err := keys.find(t)
	if err != nil {
		return expires, err
	}
	if !key.verify(t) {
		return expires, fault(BadSignature, "signature is wrong: not made by the issuer's key "+shown(key.id)+", or the token was changed")
	}
	return t.check(x, now)
}

func (t *Token) check(x *Expect, now time.Time) (expires time.Time, err error) {
	types := x.Types
	if types == nil {
		types = defaultTypes
	}
	if !slices.Contains(types, strings.ToLower(t.Typ)) {
		return expires, fault(WrongType, "token has a type that is not accepted: typ is "+shown(t.Typ)+"; accepted are "+Shown(types))
	}
	expires, there, ok := t.Date("exp")
	switch {
	case !ok:
		return expires, fault(Malformed, "exp is not a date")
	case !there:
		return expires, fault(MissingClaim, "token has no exp")
	case !now.Before(expires.Add(x.Leeway)):
		return expires, fault(Expired, "token has expired: exp is "+dated(expires, now)+", with a leeway of "+x.Leeway.String())
	}
	for _, claim := range []string{"nbf", "iat"} {
		at, there, ok := t.Date(claim)
		if !ok {
			return expires, fault(Malformed, claim+" is not a date")
		}
		if there && now.Add(x.Leeway).Before(at) {
			return expires, fault(NotYetValid, claim+" is in the future: "+dated(at, now)+", with a leeway of "+x.Leeway.String())
		}
	}
	if x.Audience != nil && !t.meantFor(x.Audience) {
		return expires, fault(WrongAudience, "token is for another audience: "+t.audience()+"; accepted is "+Shown(x.Audience))
	}
	return expires, nil
}

// dated writes a date of a token, and how far that is from now: most often it is
// a clock that is wrong.
func dated(at, now time.Time) string {
	away, word := at.Sub(now), "ahead of this clock"
	if away < 0 {
		away, word = -away, "ago by this clock"
	}
	return at.UTC().Format(time.RFC3339) + ", " + away.Round(time.Second).String() + " " + word
}

// CheckAnswer checks what an issuer says of a token that it was asked about (RFC
// 7662), as Verify checks a token. An answer may leave out who issued the token
// and when it expires, which is then the zero time.
func CheckAnswer(claims map[string]any, issuer string, x *Expect, now time.Time) (expires time.Time, err error) {
	if iss, there := claims["iss"]; there && iss != issuer {
		return expires, fault(WrongIssuer, "the token is another issuer's: the answer says "+shown(fmt.Sprint(iss))+", and not "+shown(issuer))
	}
	if isNoAccess(claims) {
		return expires, fault(WrongType, "the token is no access token")
	}
	x2 := *x
	x2.Types = []string{""}
	t := &Token{Claims: claims}
	if _, there := claims["exp"]; there {
		return t.check(&x2, now)
	}
	t.Claims = withEnd(claims, now)
	_, err = t.check(&x2, now)
	return expires, err
}

// isNoAccess reports whether an issuer answers about a refresh or an ID token, as
// some do, and say so in one of these.
func isNoAccess(claims map[string]any) bool {
	for _, name := range []string{"token_use", "token_type", "typ"} {
		word, _ := claims[name].(string)
		word = strings.ToLower(word)
		if strings.Contains(word, "refresh") || word == "offline" || word == "id" || strings.HasSuffix(word, "id_token") {
			return true
		}
	}
	return false
}

// Date reads a NumericDate (RFC 7519, section 2).
func (t *Token) Date(claim string) (at time.Time, there, ok bool) {
	v, there := t.Claims[claim]
	if !there {
		return at, false, true
	}
	n, isNumber := v.(json.Number)
	if !isNumber {
		return at, true, false
	}
	f, err := n.Float64()
	if err != nil || math.Abs(f) > 253402300799 { // the year 9999
		return at, true, false
	}
	whole, part := math.Modf(f)
	return time.Unix(int64(whole), int64(part*1e9)), true, true
}

// audience writes aud for the operator.
func (t *Token) audience() string {
	switch aud := t.Claims["aud"].(type) {
	case nil:
		return "it has no aud"
	case string:
		return "aud is " + shown(aud)
	case []any:
		texts := make([]string, 0, len(aud))
		for _, a := range aud {
			if s, ok := a.(string); ok {
				texts = append(texts, s)
			}
		}
		if len(texts) > 0 {
			return "aud is " + Shown(texts)
		}
	}
	return "its aud names nobody"
}

// meantFor reads aud, which is one text or a list of them.
func (t *Token) meantFor(audience []string) bool {
	switch aud := t.Claims["aud"].(type) {
	case string:
		return slices.Contains(audience, aud)
	case []any:
		for _, a := range aud {
			if s, ok := a.(string); ok && slices.Contains(audience, s) {
				return true
			}
		}
	}
	return false
}
