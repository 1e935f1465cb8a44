package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"strings"
	"testing"
	"time"
)

var (
	t0  = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	b64 = base64.RawURLEncoding.EncodeToString
)

// signer makes tokens of one algorithm.
type signer struct {
	alg  string
	jwk  map[string]any
	sign func([]byte) []byte
}

func signers(tb testing.TB) []signer {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		tb.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	edPublic, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	point, err := ecKey.PublicKey.Bytes()
	if err != nil {
		tb.Fatal(err)
	}
	return []signer{
		{"RS256", map[string]any{"kty": "RSA", "n": b64(rsaKey.N.Bytes()), "e": b64(big.NewInt(int64(rsaKey.E)).Bytes())}, func(m []byte) []byte {
			sum := sha256.Sum256(m)
			sig, _ := rsa.SignPKCS1v15(rand.Reader, rsaKey, crypto.SHA256, sum[:])
			return sig
		}},
		{"ES256", map[string]any{"kty": "EC", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])}, func(m []byte) []byte {
			sum := sha256.Sum256(m)
			r, s, _ := ecdsa.Sign(rand.Reader, ecKey, sum[:])
			return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		}},
		{"EdDSA", map[string]any{"kty": "OKP", "crv": "Ed25519", "x": b64(edPublic)}, func(m []byte) []byte { return ed25519.Sign(edKey, m) }},
	}
}

func (s signer) set(tb testing.TB, more map[string]any) *Set {
	tb.Helper()
	k := maps.Clone(s.jwk)
	maps.Copy(k, map[string]any{"kid": "k1"})
	maps.Copy(k, more)
	data, err := json.Marshal(map[string]any{"keys": []any{k}})
	if err != nil {
		tb.Fatal(err)
	}
	set, skipped, err := ParseSet(data)
	if err != nil {
		tb.Fatalf("%v %v", err, skipped)
	}
	return set
}

func (s signer) token(alg string) string {
	head := b64([]byte(`{"alg":"` + alg + `","kid":"k1","typ":"JWT"}`))
	body := b64(fmt.Appendf(nil, `{"iss":"https://id.test","aud":["orders-api"],"sub":"user-8f14e45f","tenant":"acme","exp":%d,"nbf":%d,"iat":%d,"jti":"6d1f2f52-6b2e-4f2e-9a37-7f1f4a6a2c11","roles":["user","admin"],"scope":"orders:read orders:write"}`,
		t0.Unix()+60, t0.Unix()-60, t0.Unix()-60))
	return head + "." + body + "." + b64(s.sign([]byte(head+"."+body)))
}

var expect = &Expect{Audience: []string{"orders-api"}, Leeway: 30 * time.Second}

func TestVerify(t *testing.T) {
	for _, s := range signers(t) {
		for _, published := range []map[string]any{{}, {"alg": s.alg}, {"use": "sig"}, {"key_ops": []string{"verify"}}} {
			set := s.set(t, published)
			tok, err := Parse(s.token(s.alg))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tok.Verify(set, expect, t0); err != nil {
				t.Errorf("%s, published with %v: %v", s.alg, published, err)
			}
			for _, alg := range []string{"none", "HS256", "RS256", "PS256", "ES256", "ES384", "EdDSA", "RS1"} {
				if alg == s.alg {
					continue
				}
				tok, err := Parse(s.token(alg))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := tok.Verify(set, expect, t0); err == nil {
					t.Errorf("a %s key verifies a token that says %s", s.alg, alg)
				}
			}
		}
		// Any bit of the token that changes makes it wrong.
		good, set := s.token(s.alg), s.set(t, nil)
		for i := range good {
			bad := []byte(good)
			bad[i] ^= 1
			if tok, err := Parse(string(bad)); err == nil {
				if _, err := tok.Verify(set, expect, t0); err == nil {
					t.Fatalf("%s: the token with byte %d changed is accepted", s.alg, i)
				}
			}
		}
	}
}

func TestParseSetPolicy(t *testing.T) {
	all := signers(t)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skip("this Go makes no 1024-bit keys, which is the point")
	}
	key := func(base, more map[string]any) map[string]any {
		k := maps.Clone(base)
		maps.Copy(k, more)
		return k
	}
	ec := all[1].jwk
	for _, tc := range []struct {
		name string
		keys []any
		want int
	}{
		{"a good key", []any{ec}, 1},
		{"an RSA key of 1024 bits", []any{map[string]any{"kty": "RSA", "n": b64(weak.N.Bytes()), "e": "AQAB"}}, 0},
		{"a symmetric key", []any{map[string]any{"kty": "oct", "k": "c2VjcmV0"}}, 0},
		{"a symmetric key beside a good one", []any{map[string]any{"kty": "oct", "k": "c2VjcmV0"}, ec}, 1},
		{"a key for encryption", []any{key(ec, map[string]any{"use": "enc"})}, 0},
		{"a key that may only sign", []any{key(ec, map[string]any{"key_ops": []string{"sign"}})}, 0},
		{"an algorithm that does not fit", []any{key(ec, map[string]any{"alg": "ES384"})}, 0},
		{"an algorithm that is a secret's", []any{key(ec, map[string]any{"alg": "HS256"})}, 0},
		{"a kid that stands twice", []any{key(ec, map[string]any{"kid": "a"}), key(all[2].jwk, map[string]any{"kid": "a"})}, 0},
		{"a point that is not on the curve", []any{key(ec, map[string]any{"x": ec["y"], "y": ec["x"]})}, 0},
		{"an Ed25519 key of no bytes", []any{key(all[2].jwk, map[string]any{"x": ""})}, 0},
		{"an Ed25519 key of 31 bytes beside a good one", []any{key(all[2].jwk, map[string]any{"x": b64(make([]byte, 31))}), ec}, 1},
		{"an Ed25519 key of 33 bytes", []any{key(all[2].jwk, map[string]any{"x": b64(make([]byte, 33))})}, 0},
		{"an RSA key whose modulus is even", []any{key(all[0].jwk, map[string]any{"n": b64(append([]byte{0x80}, make([]byte, 255)...))})}, 0},
		{"an RSA key whose exponent is 1", []any{key(all[0].jwk, map[string]any{"e": "AQ"})}, 0},
		{"an RSA key without an exponent", []any{key(all[0].jwk, map[string]any{"e": ""})}, 0},
		{"an RSA key whose exponent is of 80 bits", []any{key(all[0].jwk, map[string]any{"e": "AQAAAAAAAAAAAQ"})}, 0},
	} {
		data, err := json.Marshal(map[string]any{"keys": tc.keys})
		if err != nil {
			t.Fatal(err)
		}
		set, _, err := ParseSet(data)
		got := 0
		if err == nil {
			got = set.Len()
		}
		if got != tc.want {
			t.Errorf("%s: %d keys are used (%v), want %d", tc.name, got, err, tc.want)
		}
	}
}

// TestWycheproof runs the JSON Web Signature vectors for public keys.
func TestWycheproof(t *testing.T) {
	var vectors struct {
		TestGroups []struct {
			Comment string
			Public  json.RawMessage
			Tests   []struct {
				TcID    int
				Comment string
				Jws     json.RawMessage
				Result  string
			}
		}
	}
	suite(t, "json_web_signature_test.json", &vectors)
	// Valid by the suite, and refused here for good reason.
	exceptions := map[int]string{
		346: "the key is for PS256, the token says PS384",
		347: "the key is for ES521, which is no registered algorithm",
		350: "the key is for PS256, the token says PS384",
		351: "the key is for ES521, which is no registered algorithm",
	}
	ran, accepted := 0, 0
	for _, g := range vectors.TestGroups {
		if g.Public == nil {
			continue // secrets, which we have no use for
		}
		set, _, setErr := ParseSet([]byte(`{"keys":[` + string(g.Public) + `]}`))
		for _, c := range g.Tests {
			ran++
			var token string
			if json.Unmarshal(c.Jws, &token) != nil {
				token = string(c.Jws)
			}
			ok := false
			if setErr == nil {
				if tok, err := parseSigned(token); err == nil {
					if key, err := set.find(tok); err == nil {
						ok = key.verify(tok)
					}
				}
			}
			switch {
			case ok && c.Result == "invalid":
				t.Errorf("%s %d (%s): an invalid signature is accepted", g.Comment, c.TcID, c.Comment)
			case ok:
				accepted++
				if exceptions[c.TcID] != "" {
					t.Errorf("%d is accepted now; take it off the list of exceptions", c.TcID)
				}
			case c.Result == "valid" && exceptions[c.TcID] == "":
				t.Errorf("%s %d (%s): a valid one is refused (%v)", g.Comment, c.TcID, c.Comment, setErr)
			}
		}
	}
	if ran < 350 || accepted < 20 {
		t.Fatalf("%d vectors ran, %d were accepted", ran, accepted)
	}
	t.Logf("%d vectors, %d accepted, %d exceptions", ran, accepted, len(exceptions))
}

// TestLineBreaks: Go's base64 skips them, which would give one token many
// spellings.
func TestLineBreaks(t *testing.T) {
	s := signers(t)[1]
	good := s.token(s.alg)
	for i := range len(good) + 1 {
		for _, c := range []string{"\r", "\n", " ", "="} {
			if _, err := Parse(good[:i] + c + good[i:]); err == nil {
				t.Fatalf("%q at %d is read over", c, i)
			}
		}
	}
}

// parseSigned is Parse for vectors whose payload is no set of claims.
func parseSigned(token string) (*Token, error) {
	if tok, err := Parse(token); err == nil {
		return tok, nil
	}
	head, rest, _ := strings.Cut(token, ".")
	body, sig, ok := strings.Cut(rest, ".")
	if !ok {
		return nil, fault(Malformed, "not compact")
	}
	tok, err := Parse(head + ".e30." + sig)
	if err != nil {
		return nil, err
	}
	if _, err := encoding.DecodeString(body); err != nil {
		return nil, err
	}
	tok.signed = head + "." + body
	return tok, nil
}

// FuzzVerify: no text that we did not sign is accepted, and none panics.
func FuzzVerify(f *testing.F) {
	all := signers(f)
	var sets []*Set
	good := map[string]bool{}
	for _, s := range all {
		sets = append(sets, s.set(f, nil))
		tok := s.token(s.alg)
		good[tok] = true
		f.Add(tok)
		f.Add(tok[:len(tok)-2])
	}
	f.Add("e30.e30.AAAA")
	f.Fuzz(func(t *testing.T, token string) {
		tok, err := Parse(token)
		if err != nil {
			return
		}
		for _, set := range sets {
			if _, err := tok.Verify(set, expect, t0); err == nil && !good[token] {
				t.Fatalf("accepted: %q", token)
			}
		}
	})
}

// FuzzKey: whatever comes as a key, in a set or in a proof, nothing is verified by
// one that we do not hold, and nothing panics.
func FuzzKey(f *testing.F) {
	for _, s := range signers(f) {
		data, err := json.Marshal(s.jwk)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, s.alg, make([]byte, 64))
	}
	f.Add([]byte(`{"kty":"OKP","crv":"Ed25519","x":""}`), "EdDSA", make([]byte, 64))
	f.Add([]byte(`{"kty":"OKP","crv":"Ed25519","x":"AAAA"}`), "Ed25519", make([]byte, 64))
	f.Add([]byte(`{"kty":"OKP","crv":"X25519","x":""}`), "EdDSA", make([]byte, 64))
	f.Add([]byte(`{"kty":"EC","crv":"P-256","x":"","y":""}`), "ES256", make([]byte, 64))
	f.Add([]byte(`{"kty":"RSA","n":"`+strings.Repeat("_", 342)+`","e":"AQ"}`), "RS256", make([]byte, 256))
	f.Add([]byte(`{"kty":"RSA","n":"`+strings.Repeat("g", 342)+`","e":"AQAB"}`), "PS256", make([]byte, 256))
	f.Fuzz(func(t *testing.T, raw []byte, alg string, sig []byte) {
		var header map[string]any
		_ = json.Unmarshal(raw, &header) // nil is a proof without a key
		proof := &Token{Alg: alg, signed: "a.b", sig: sig, jwk: header}
		if key, err := proof.Embedded(); err == nil && key.Verify(proof) && alg != "EdDSA" && alg != "Ed25519" {
			t.Errorf("%s verifies as a proof's key", raw)
		}
		set, _, err := ParseSet(raw)
		if err != nil {
			return
		}
		for _, key := range set.keys {
			for _, name := range key.algs {
				if key.verify(&Token{Alg: name, signed: "a.b", sig: sig}) && name != "EdDSA" && name != "Ed25519" {
					t.Errorf("%s verifies as %s", raw, name)
				}
			}
		}
	})
}

// BenchmarkFirstSight is a token that was not seen before, beside the bare
// signature check. A stranger can cause the first, by sending new tokens.
func BenchmarkFirstSight(b *testing.B) {
	for _, s := range signers(b) {
		set, token := s.set(b, nil), s.token(s.alg)
		b.Run(s.alg, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				tok, err := Parse(token)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := tok.Verify(set, expect, t0); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(s.alg+"/bare", func(b *testing.B) {
			tok, _ := Parse(token)
			key, _ := set.find(tok)
			b.ReportAllocs()
			for b.Loop() {
				if !key.verify(tok) {
					b.Fatal("wrong")
				}
			}
		})
	}
}

// TestParseSetSaysWhere: a file of keys that is of no use is told by line and key.
func TestParseSetSaysWhere(t *testing.T) {
	for _, c := range []struct{ name, file, says string }{
		{"a comma too many", "{\n  \"keys\": [\n    {\"kty\": \"EC\",}\n  ]\n}", "reading key set: line 3: "},
		{"PEM", "\n-----BEGIN PUBLIC KEY-----\n", "this is PEM; a JSON Web Key Set is expected"},
		{"a list", "[]", "an object with the member keys is expected"},
		{"no list of keys", "{\n\"keys\": {}}", "line 2: keys is not a list"},
		{"no keys", `{"keys": []}`, ": it is empty"},
		{"a key of a kind that nobody knows", "{\n\"keys\": [\n\n{\"kty\": \"XX\"}]}", "key 1 in line 4: "},
		{"a key that lacks something", "{\"keys\": [\n{\"kty\": \"oct\", \"k\": \"aHVudGVyMg\", \"kid\": \"a\"},\n{\"kty\": \"EC\", \"crv\": \"P-256\"}]}", "key 1 in line 2 (kid \"a\"): "},
		{"the second of them", "{\"keys\": [\n{\"kty\": \"oct\", \"k\": \"aHVudGVyMg\"},\n{\"kty\": \"EC\", \"crv\": \"P-256\"}]}", "key 2 in line 3: "},
		{"keys for something else", `{"keys": [{"kty": "OKP", "crv": "Ed25519", "use": "enc", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`, "1 keys are not for verifying signatures"},
		{"many of them", `{"keys": [` + strings.Repeat(`{"kty":"XX"},`, 9) + `{"kty":"XX"}]}`, "6 more"},
	} {
		_, _, err := ParseSet([]byte(c.file))
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "aHVudGVyMg") || strings.ContainsAny(err.Error(), "\n\t") {
			t.Errorf("%s: %v; want %q", c.name, err, c.says)
		}
	}
}

// TestFaultsSayWhatIsThere: the operator sees both sides of what does not fit, as
// far as it is printable and short.
func TestFaultsSayWhatIsThere(t *testing.T) {
	s := signers(t)[1]
	set := s.set(t, nil)
	many := []any{"a", "b", "c", "d", "e", "f"}
	for _, c := range []struct {
		name   string
		change func(*Token)
		expect Expect
		want   string
	}{
		{"one audience", func(t *Token) { t.Claims["aud"] = "billing" }, *expect, `token is for another audience: aud is "billing"; accepted is "orders-api"`},
		{"several", func(t *Token) { t.Claims["aud"] = many }, *expect, `aud is "a", "b", "c", "d" and 2 more; accepted`},
		{"none", func(t *Token) { delete(t.Claims, "aud") }, *expect, "it has no aud; accepted"},
		{"numbers", func(t *Token) { t.Claims["aud"] = []any{json.Number("1")} }, *expect, "its aud names nobody"},
		{"a long one with escapes", func(t *Token) { t.Claims["aud"] = "\x1b[2J\n" + strings.Repeat("x", 1000) }, *expect, `"\x1b[2J\n` + strings.Repeat("x", 59) + `"; accepted`},
		{"a type", func(t *Token) { t.Typ = "id+jwt" }, *expect, `typ is "id+jwt"; accepted are "", "jwt", "at+jwt"`},
		{"a key", func(t *Token) { t.Kid = "k2" }, *expect, `no key has the token's kid "k2"; the issuer's are "k1"`},
		{"an algorithm", func(t *Token) { t.Alg = "HS256" }, *expect, `algorithm is not accepted: "HS256"`},
		{"an algorithm that is not the key's", func(t *Token) { t.Alg = "RS256" }, *expect, `alg is "RS256", and the key "k1" is for ES256`},
		{"an algorithm that is not the issuer's", func(*Token) {}, Expect{Algorithms: []string{"RS256", "PS256"}}, `"ES256"; accepted are RS256, PS256`},
	} {
		tok, err := Parse(s.token(s.alg))
		if err != nil {
			t.Fatal(err)
		}
		c.change(tok)
		if _, err = tok.Verify(set, &c.expect, t0); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %s", c.name, err, c.want)
		}
	}
}
