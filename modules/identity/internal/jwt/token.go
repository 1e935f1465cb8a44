package jwt

import (
	"encoding/base64"
	"strings"

	"github.com/gatehouse-caddy/gatehouse/modules/gate/strictjson"
)

// MaxLength is how long a token may be. It is looked at before anything else.
const MaxLength = 16 << 10

// Token is a token as it was read. Nothing in it is proven before Key.Verify.
type Token struct {
	Algorithm Algorithm
	KeyID     string
	HasKeyID  bool
	Type      string // the typ header; empty when absent
	HasType   bool
	Claims    map[string]any

	signed    []byte
	signature []byte
}

// Limits keep what a stranger's JSON may cost far below what its signature
// check does.
var (
	headerLimits = strictjson.Limits{Depth: 4, Values: 64, String: 4096, Number: 32}
	claimsLimits = strictjson.Limits{Depth: 16, Values: 4096, Number: 64}
)

// tokenChars are base64url's characters and the dot. Go's decoder skips line
// breaks, so that they must be refused before it.
var tokenChars = func() (ok [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.") {
		ok[c] = true
	}
	return ok
}()

var encoding = base64.RawURLEncoding.Strict()

// Parse reads the compact serialization. Errors are of type *Error.
func Parse(token string) (*Token, error) {
	t, payload, err := parse(token)
	if err != nil {
		return nil, err
	}
	claims, jsonErr := strictjson.Decode(payload, claimsLimits)
	if jsonErr != nil {
		return nil, &Error{Malformed, "the claims cannot be read", jsonErr}
	}
	var ok bool
	if t.Claims, ok = claims.(map[string]any); !ok {
		return nil, refuse(Malformed, "the claims are no object")
	}
	return t, nil
}

// parse reads everything but the meaning of the payload.
func parse(token string) (*Token, []byte, error) {
	if len(token) > MaxLength {
		return nil, nil, refuse(Malformed, "the token is longer than 16 KiB")
	}
	for i := range len(token) {
		if !tokenChars[token[i]] {
			return nil, nil, refuse(Malformed, "the token has characters that no token has")
		}
	}
	first := strings.IndexByte(token, '.')
	last := strings.LastIndexByte(token, '.')
	if first < 1 || last == first || last == len(token)-1 || strings.IndexByte(token[first+1:last], '.') >= 0 {
		return nil, nil, refuse(Malformed, "the token does not have three parts")
	}

	// One buffer for all three parts and the signed text.
	buf := make([]byte, 0, last+encoding.DecodedLen(len(token)))
	buf = append(buf, token[:last]...)
	t := &Token{signed: buf[:last:last]}
	part := func(s string) ([]byte, bool) {
		at := len(buf)
		var err error
		buf, err = encoding.AppendDecode(buf, []byte(s))
		return buf[at:len(buf):len(buf)], err == nil
	}
	header, ok1 := part(token[:first])
	payload, ok2 := part(token[first+1 : last])
	signature, ok3 := part(token[last+1:])
	if !ok1 || !ok2 || !ok3 {
		return nil, nil, refuse(Malformed, "a part of the token is not base64url")
	}
	t.signature = signature
	if err := t.readHeader(header); err != nil {
		return nil, nil, err
	}
	return t, payload, nil
}

// readHeader takes the few members that matter. Those that carry a key or say
// where one is (jwk, jku, x5c, x5u) are not looked at: keys come from the
// issuer.
func (t *Token) readHeader(data []byte) error {
	v, err := strictjson.Decode(data, headerLimits)
	if err != nil {
		return &Error{Malformed, "the header cannot be read", err}
	}
	header, ok := v.(map[string]any)
	if !ok {
		return refuse(Malformed, "the header is no object")
	}
	// An extension that must be understood is one we do not understand, and
	// an unencoded payload (RFC 7797) is one of them even when not declared.
	if _, ok := header["crit"]; ok {
		return refuse(Malformed, "the header has critical extensions")
	}
	if _, ok := header["b64"]; ok {
		return refuse(Malformed, "the header changes how the payload is encoded")
	}
	alg, ok := header["alg"].(string)
	if !ok {
		return refuse(Malformed, "the header names no algorithm")
	}
	if t.Algorithm, ok = ParseAlgorithm(alg); !ok {
		return refuse(BadAlgorithm, "the token's algorithm is not accepted")
	}
	if t.KeyID, t.HasKeyID, ok = text(header, "kid"); !ok {
		return refuse(Malformed, "the header's kid is not text")
	}
	if t.Type, t.HasType, ok = text(header, "typ"); !ok {
		return refuse(Malformed, "the header's typ is not text")
	}
	return nil
}

// text reads a member that may be absent but must be a string.
func text(m map[string]any, name string) (s string, there, ok bool) {
	v, there := m[name]
	if !there {
		return "", false, true
	}
	s, ok = v.(string)
	return s, true, ok
}
