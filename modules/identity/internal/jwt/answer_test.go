package jwt

import (
	"encoding/json"
	"maps"
	"testing"
	"time"
)

// sealed signs a header and claims.
func (s signer) sealed(header, claims map[string]any) string {
	head, _ := json.Marshal(header)
	body, _ := json.Marshal(claims)
	signed := b64(head) + "." + b64(body)
	return signed + "." + b64(s.sign([]byte(signed)))
}

func answerSet(tb testing.TB, s signer) *Set {
	tb.Helper()
	key := maps.Clone(s.jwk)
	key["kid"] = "k1"
	data, _ := json.Marshal(map[string]any{"keys": []any{key}})
	set, _, err := ParseSet(data)
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

// TestVerifyAnswer: an answer is the issuer's, for this client, of just now, and
// nothing else that the issuer signs.
func TestVerifyAnswer(t *testing.T) {
	all := signers(t)
	s, other := all[1], all[0]
	set := answerSet(t, s)
	x := &Expect{Audience: []string{"orders-api"}, Leeway: 30 * time.Second}
	at := func(d time.Duration) int64 { return t0.Add(d).Unix() }
	for _, c := range []struct {
		name   string
		change func(header, claims map[string]any)
		want   Kind // 0: accepted
	}{
		{"as it should be", func(_, _ map[string]any) {}, 0},
		{"the long name of its type", func(h, _ map[string]any) { h["typ"] = "application/token-introspection+jwt" }, 0},
		{"for several", func(_, c map[string]any) { c["aud"] = []string{"billing", "gateway"} }, 0},
		{"a while on its way", func(_, c map[string]any) { c["iat"] = at(-89 * time.Second) }, 0},
		{"with an end", func(_, c map[string]any) { c["exp"] = at(time.Minute) }, 0},
		{"a clock that is ahead", func(_, c map[string]any) { c["iat"] = at(29 * time.Second) }, 0},
		{"too old", func(_, c map[string]any) { c["iat"] = at(-90 * time.Second) }, Expired},
		{"of the future", func(_, c map[string]any) { c["iat"] = at(31 * time.Second) }, NotYetValid},
		{"without a time", func(_, c map[string]any) { delete(c, "iat") }, MissingClaim},
		{"with a time that is none", func(_, c map[string]any) { c["iat"] = "now" }, Malformed},
		{"ended", func(_, c map[string]any) { c["exp"] = at(-31 * time.Second) }, Expired},
		{"a token's type", func(h, _ map[string]any) { h["typ"] = "at+jwt" }, WrongType},
		{"no type", func(h, _ map[string]any) { delete(h, "typ") }, WrongType},
		{"another issuer's", func(_, c map[string]any) { c["iss"] = "https://other.test" }, WrongIssuer},
		{"nobody's", func(_, c map[string]any) { delete(c, "iss") }, WrongIssuer},
		{"for the tokens' audience", func(_, c map[string]any) { c["aud"] = "orders-api" }, WrongAudience},
		{"for nobody", func(_, c map[string]any) { delete(c, "aud") }, WrongAudience},
		{"by another algorithm", func(h, _ map[string]any) { h["alg"] = "RS256" }, BadAlgorithm},
		{"by none", func(h, _ map[string]any) { h["alg"] = "none" }, BadAlgorithm},
		{"by another key", func(h, _ map[string]any) { h["kid"] = "k2" }, UnknownKey},
		{"about nothing", func(_, c map[string]any) { delete(c, "token_introspection") }, MissingClaim},
		{"about a text", func(_, c map[string]any) { c["token_introspection"] = "active" }, MissingClaim},
	} {
		header := map[string]any{"alg": s.alg, "kid": "k1", "typ": "token-introspection+jwt"}
		claims := map[string]any{
			"iss": "https://id.test", "aud": "gateway", "iat": at(0),
			"token_introspection": map[string]any{"active": true, "sub": "ann"},
		}
		c.change(header, claims)
		answer, err := Parse(s.sealed(header, claims))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		about, err := answer.VerifyAnswer(set, "https://id.test", "gateway", x, t0)
		var got Kind
		if f, ok := err.(*Fault); ok { //nolint:errorlint // as it is returned
			got = f.Kind
		}
		if got != c.want || (err == nil) != (about["sub"] == "ann") {
			t.Errorf("%s: %v, %v; want kind %d", c.name, about, err, c.want)
		}
	}

	// Signed by somebody else, and an answer that is shown as a token.
	header := map[string]any{"alg": other.alg, "typ": "token-introspection+jwt"}
	claims := map[string]any{"iss": "https://id.test", "aud": []string{"gateway", "orders-api"}, "iat": at(0), "exp": at(time.Minute), "token_introspection": map[string]any{"active": true}}
	forged, _ := Parse(other.sealed(header, claims))
	if _, err := forged.VerifyAnswer(set, "https://id.test", "gateway", x, t0); err == nil {
		t.Error("an answer of another signer is accepted")
	}
	header["alg"] = s.alg
	answer, _ := Parse(s.sealed(header, claims))
	if _, err := answer.VerifyAnswer(set, "https://id.test", "gateway", &Expect{Algorithms: []string{"PS256"}}, t0); err == nil {
		t.Error("an algorithm that is not accepted")
	}
	if _, err := answer.Verify(set, x, t0); err == nil || err.(*Fault).Kind != WrongType { //nolint:errorlint // as it is returned
		t.Errorf("an answer is a token: %v", err)
	}
}

// FuzzVerifyAnswer: whatever is sent, it is accepted only if the issuer signed it,
// which the fuzzer cannot.
func FuzzVerifyAnswer(f *testing.F) {
	s := signers(f)[1]
	set := answerSet(f, s)
	good := s.sealed(
		map[string]any{"alg": s.alg, "typ": "token-introspection+jwt"},
		map[string]any{"iss": "https://id.test", "aud": "gateway", "iat": t0.Unix(), "token_introspection": map[string]any{"active": true}},
	)
	f.Add(good)
	f.Add(good + "A")
	f.Add(`{"active":true}`)
	f.Fuzz(func(t *testing.T, in string) {
		answer, err := Parse(in)
		if err != nil {
			return
		}
		about, err := answer.VerifyAnswer(set, "https://id.test", "gateway", &Expect{}, t0)
		if err == nil && answer.signed != good[:len(answer.signed)] { // an ECDSA signature has two spellings
			t.Fatalf("%q is accepted", in)
		}
		if (err == nil) != (about != nil) {
			t.Fatalf("%q is %v, %v", in, about, err)
		}
	})
}
