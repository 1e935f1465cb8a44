package jwt

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"
)

// Expect is what an issuer's tokens must be like. It is immutable in use.
type Expect struct {
	Audience   []string      // any one of them must be named; nil accepts every audience
	Algorithms Algorithms    // zero accepts what the key fits
	Types      []string      // accepted typ headers; nil accepts those of DefaultType
	Leeway     time.Duration // how far clocks may differ
}

// Issuer is who the token says it is from. It is not proven yet: it only
// chooses whose keys must prove it.
func (t *Token) Issuer() (string, error) {
	iss, there, ok := text(t.Claims, "iss")
	if !there {
		return "", refuse(MissingClaim, "the token has no iss claim")
	}
	if !ok {
		return "", refuse(Malformed, "the iss claim is not text")
	}
	return iss, nil
}

// Check looks at everything but the signature, and reports until when the
// token is good, without leeway. It costs far less than a signature check and
// so may come first.
func (e *Expect) Check(t *Token, now time.Time) (until time.Time, err error) {
	if e.Algorithms != 0 && !e.Algorithms.Has(t.Algorithm) {
		return until, refuse(BadAlgorithm, "the token's algorithm is not accepted from its issuer")
	}
	if !e.accepts(t) {
		return until, refuse(WrongType, "the token's typ is not accepted")
	}
	exp, there, ok := date(t.Claims, "exp")
	switch {
	case !there:
		return until, refuse(MissingClaim, "the token has no exp claim")
	case !ok:
		return until, refuse(Malformed, "the exp claim is not a date")
	case !now.Before(exp.Add(e.Leeway)):
		return until, refuse(Expired, "the token has expired")
	}
	for _, name := range [...]string{"nbf", "iat"} {
		at, there, ok := date(t.Claims, name)
		if !there {
			continue
		}
		if !ok {
			return until, refuse(Malformed, "the "+name+" claim is not a date")
		}
		if now.Add(e.Leeway).Before(at) {
			return until, refuse(NotYetValid, "the token's "+name+" lies in the future")
		}
	}
	return exp, e.audience(t.Claims)
}

func (e *Expect) audience(claims map[string]any) error {
	if e.Audience == nil {
		return nil
	}
	switch aud := claims["aud"].(type) {
	case string:
		if slices.Contains(e.Audience, aud) {
			return nil
		}
	case []any:
		meant := false
		for _, v := range aud {
			s, ok := v.(string)
			if !ok {
				return refuse(Malformed, "the aud claim is not text")
			}
			meant = meant || slices.Contains(e.Audience, s)
		}
		if meant {
			return nil
		}
	default:
		if _, there := claims["aud"]; there {
			return refuse(Malformed, "the aud claim is not text")
		}
		return refuse(MissingClaim, "the token has no aud claim")
	}
	return refuse(WrongAudience, "the token is for another audience")
}

// accepts compares typ as media types, as RFC 7515 says: without regard to
// case, and with "application/" implied.
func (e *Expect) accepts(t *Token) bool {
	if e.Types == nil {
		return DefaultType(t.Type, t.HasType)
	}
	return slices.ContainsFunc(e.Types, func(s string) bool { return strings.EqualFold(mediaType(s), mediaType(t.Type)) })
}

// DefaultType accepts access tokens with a typ of their own (RFC 9068), those
// that say no more than JWT, and those that say nothing. Any other typ names a
// token for another purpose, such as a logout token or a proof of possession.
func DefaultType(typ string, there bool) bool {
	return !there || strings.EqualFold(typ, "JWT") || strings.EqualFold(mediaType(typ), "at+jwt")
}

func mediaType(typ string) string {
	const implied = "application/"
	if len(typ) > len(implied) && strings.EqualFold(typ[:len(implied)], implied) && strings.IndexByte(typ[len(implied):], '/') < 0 {
		return typ[len(implied):]
	}
	return typ
}

// latest is the end of the year 9999, beyond which times cannot be written.
const latest = 253402300799

// date reads a NumericDate: seconds, perhaps with a fraction.
func date(claims map[string]any, name string) (at time.Time, there, ok bool) {
	v, there := claims[name]
	if !there {
		return at, false, true
	}
	n, isNumber := v.(json.Number)
	if !isNumber {
		return at, true, false
	}
	f, err := n.Float64()
	if err != nil || !(f >= 0 && f <= latest) {
		return at, true, false
	}
	whole, fraction := math.Modf(f)
	return time.Unix(int64(whole), int64(fraction*1e9)), true, true
}
