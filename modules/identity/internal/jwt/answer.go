package jwt

import (
	"encoding/json"
	"maps"
	"strconv"
	"time"
)

// answerAge is how old a signed answer may be: it was asked for just now.
const answerAge = time.Minute

// answerTypes keep signed answers apart from every token (RFC 9701, section 5).
var answerTypes = []string{"token-introspection+jwt", "application/token-introspection+jwt"}

// VerifyAnswer checks an issuer's signed answer about a token, which must be the
// issuer's, for this client and of just now, and returns what it says of the
// token. x says by which algorithms, and how far clocks may be apart.
func (t *Token) VerifyAnswer(keys *Set, issuer, client string, x *Expect, now time.Time) (map[string]any, error) {
	if t.Issuer != issuer {
		return nil, fault(WrongIssuer, "the answer is another issuer's: iss is "+shown(t.Issuer))
	}
	made, there, ok := t.Date("iat")
	switch {
	case !ok:
		return nil, fault(Malformed, "the answer's iat is not a date")
	case !there:
		return nil, fault(MissingClaim, "the answer has no iat")
	case !now.Before(made.Add(answerAge + x.Leeway)):
		return nil, fault(Expired, "the answer is of another time: its iat is more than a minute ago")
	}
	answer := *t
	if _, there := t.Claims["exp"]; !there { // it should have none, so that it is never taken for a token
		answer.Claims = withEnd(t.Claims, now)
	}
	y := &Expect{Audience: []string{client}, Algorithms: x.Algorithms, Types: answerTypes, Leeway: x.Leeway}
	if _, err := answer.Verify(keys, y, now); err != nil {
		return nil, err
	}
	about, ok := t.Claims["token_introspection"].(map[string]any)
	if !ok {
		return nil, fault(MissingClaim, "the answer has no token_introspection")
	}
	return about, nil
}

// withEnd gives claims an end, in a copy.
func withEnd(claims map[string]any, now time.Time) map[string]any {
	claims = maps.Clone(claims)
	claims["exp"] = json.Number(strconv.FormatInt(now.Add(time.Hour).Unix(), 10))
	return claims
}
