package gate

import (
	"strings"
	"testing"
	"time"
)

func TestChallenges(t *testing.T) {
	bearer, proof, key := Challenge{"Bearer", `realm="api"`, true}, Challenge{"DPoP", `algs="ES256"`, true}, Challenge{"ApiKey", "", false}
	wrong := Parameter{"error", "invalid_token"}
	for _, tc := range []struct {
		name           string
		ways           []Challenge
		sent, metadata string
		wrong          []Parameter
		want           string
	}{
		{"nothing was sent", []Challenge{bearer, key}, "", "", nil, `Bearer realm="api"|ApiKey`},
		{"the error stands where it belongs", []Challenge{bearer, proof, key}, "DPoP", "", []Parameter{wrong}, `Bearer realm="api"|DPoP algs="ES256", error="invalid_token"|ApiKey`},
		{"a scheme that is not accepted", []Challenge{proof}, "Bearer", "", []Parameter{wrong}, `DPoP algs="ES256", error="invalid_token"`},
		{"no way that takes tokens", []Challenge{key}, "", "https://a", []Parameter{wrong}, `ApiKey`},
		{"metadata, for whoever asks for a token", []Challenge{bearer, key}, "", "https://a/x", nil, `Bearer realm="api", resource_metadata="https://a/x"|ApiKey`},
		{"no parameters", []Challenge{{"Bearer", "", true}}, "", "", []Parameter{{"scope", "a b"}}, `Bearer scope="a b"`},
		{"what would end the quotes", []Challenge{bearer}, "", "", []Parameter{{"scope", "a\"b\\c\r\nd é"}}, `Bearer realm="api", scope="abcd "`},
	} {
		if got := strings.Join(Challenges(tc.ways, tc.sent, tc.metadata, tc.wrong...), "|"); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
	if got := new(Exchange).Challenge(); len(got) != 1 || got[0] != "Bearer" {
		t.Errorf("where there is no identity: %q", got)
	}
}

func TestAuthenticationMet(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, tc := range []struct {
		name string
		ask  Authentication
		acr  string
		age  time.Duration // -1: the token does not say
		want bool
	}{
		{"nothing is asked", Authentication{}, "", -1, true},
		{"any of the values", Authentication{ACR: []string{"gold", "silver"}}, "silver", -1, true},
		{"another value", Authentication{ACR: []string{"gold"}}, "bronze", -1, false},
		{"no value", Authentication{ACR: []string{"gold"}}, "", -1, false},
		{"recent", Authentication{MaxAge: time.Minute}, "", time.Minute, true},
		{"too old", Authentication{MaxAge: time.Minute}, "", time.Minute + 1, false},
		{"a clock ahead of ours", Authentication{MaxAge: time.Minute}, "", -time.Minute, true},
		{"still to come", Authentication{MaxAge: time.Minute}, "", -time.Hour, false},
		{"nobody says when", Authentication{MaxAge: time.Minute}, "", -1, false},
		{"strong and old", Authentication{ACR: []string{"gold"}, MaxAge: time.Minute}, "gold", time.Hour, false},
	} {
		p := &Principal{ACR: tc.acr}
		if tc.age != -1 {
			p.AuthTime = now.Add(-tc.age)
		}
		if got := tc.ask.Met(p, now); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

// FuzzQuoted: what stands between the quotes cannot end them, and nothing of it
// is written twice.
func FuzzQuoted(f *testing.F) {
	f.Add(`a"b`)
	f.Add("a\r\nWWW-Authenticate: Bearer")
	f.Fuzz(func(t *testing.T, s string) {
		q := quoted(s)
		inner := q[1 : len(q)-1]
		if len(inner) > len(s) || strings.ContainsAny(inner, "\"\\") || strings.ContainsFunc(inner, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Fatalf("%q becomes %s", s, q)
		}
	})
}
