package dpop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	b64    = base64.RawURLEncoding.EncodeToString
	window = Window{Before: time.Minute, After: 10 * time.Second}
	now    = time.Unix(1_800_000_000, 0)
)

// maker is a client with a key.
type maker struct{ key *ecdsa.PrivateKey }

func newMaker(t testing.TB) maker {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return maker{key}
}

func (m maker) jwk() map[string]any {
	point, err := m.key.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	return map[string]any{"kty": "EC", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])}
}

func (m maker) thumbprint() string {
	k := m.jwk()
	sum := sha256.Sum256(fmt.Appendf(nil, `{"crv":"P-256","kty":"EC","x":%q,"y":%q}`, k["x"], k["y"]))
	return b64(sum[:])
}

func hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return b64(sum[:])
}

// proof makes a good proof, with parts of header and claims changed; nil takes
// one out.
func (m maker) proof(t testing.TB, header, claims map[string]any) string {
	t.Helper()
	h := map[string]any{"typ": "dpop+jwt", "alg": "ES256", "jwk": m.jwk()}
	c := map[string]any{"jti": "one", "htm": "GET", "htu": "https://api.test/orders", "iat": now.Unix(), "ath": hash("token")}
	part := func(base, change map[string]any) string {
		maps.Copy(base, change)
		maps.DeleteFunc(base, func(_ string, v any) bool { return v == nil })
		data, err := json.Marshal(base)
		if err != nil {
			t.Fatal(err)
		}
		return b64(data)
	}
	signed := part(h, header) + "." + part(c, claims)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, m.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return signed + "." + b64(sig)
}

type claims = map[string]any

func TestVerify(t *testing.T) {
	m, other := newMaker(t), newMaker(t)
	ask := Request{Method: "GET", URL: "https://api.test/orders", Token: "token", Key: m.thumbprint()}
	private := m.jwk()
	private["d"] = b64(make([]byte, 32))
	for _, c := range []struct {
		name, proof, wrong string // wrong is empty for a good proof
	}{
		{"a good one", m.proof(t, nil, nil), ""},
		{"the type in capitals", m.proof(t, claims{"typ": "DPoP+JWT"}, nil), ""},
		{"a query and a fragment do not count", m.proof(t, nil, claims{"htu": "https://api.test/orders?x=1#y"}), ""},
		{"the host in capitals, with its port", m.proof(t, nil, claims{"htu": "HTTPS://API.test:443/orders"}), ""},
		{"an encoding that need not be", m.proof(t, nil, claims{"htu": "https://api.test/%6frders"}), ""},
		{"a minute old", m.proof(t, nil, claims{"iat": now.Add(-59 * time.Second).Unix()}), ""},
		{"a clock that is ahead", m.proof(t, nil, claims{"iat": now.Add(9 * time.Second).Unix()}), ""},

		{"another's", other.proof(t, nil, nil), "another key"},
		{"another's with our key", other.proof(t, claims{"jwk": m.jwk()}, nil), "wrong signature"},
		{"no type", m.proof(t, claims{"typ": nil}, nil), "dpop+jwt"},
		{"an access token's type", m.proof(t, claims{"typ": "at+jwt"}, nil), "dpop+jwt"},
		{"no key", m.proof(t, claims{"jwk": nil}, nil), "brings no key"},
		{"a private key", m.proof(t, claims{"jwk": private}, nil), "secret"},
		{"a secret as the key", m.proof(t, claims{"alg": "HS256", "jwk": claims{"kty": "oct", "k": "AAAA"}}, nil), "secret"},
		{"a key of no bytes", m.proof(t, claims{"alg": "EdDSA", "jwk": claims{"kty": "OKP", "crv": "Ed25519", "x": ""}}, nil), "not accepted"},
		{"no algorithm", m.proof(t, claims{"alg": "none"}, nil), "does not fit"},
		{"another key's algorithm", m.proof(t, claims{"alg": "RS256"}, nil), "does not fit"},
		{"crit", m.proof(t, claims{"crit": []string{"exp"}}, nil), "crit"},
		{"another method", m.proof(t, nil, claims{"htm": "POST"}), "another method"},
		{"the method in small letters", m.proof(t, nil, claims{"htm": "get"}), "another method"},
		{"another path", m.proof(t, nil, claims{"htu": "https://api.test/orders/"}), "another URL"},
		{"a path encoded differently", m.proof(t, nil, claims{"htu": "https://api.test%2forders"}), "another URL"},
		{"another host", m.proof(t, nil, claims{"htu": "https://evil.test/orders"}), "another URL"},
		{"another scheme", m.proof(t, nil, claims{"htu": "http://api.test/orders"}), "another URL"},
		{"a user in the URL", m.proof(t, nil, claims{"htu": "https://a@api.test/orders"}), "another URL"},
		{"no URL", m.proof(t, nil, claims{"htu": nil}), "another URL"},
		{"another token", m.proof(t, nil, claims{"ath": hash("stolen")}), "another token"},
		{"no token", m.proof(t, nil, claims{"ath": nil}), "another token"},
		{"no id", m.proof(t, nil, claims{"jti": nil}), "no jti"},
		{"an empty id", m.proof(t, nil, claims{"jti": ""}), "no jti"},
		{"a long id", m.proof(t, nil, claims{"jti": strings.Repeat("a", 257)}), "no jti"},
		{"no time", m.proof(t, nil, claims{"iat": nil}), "no iat"},
		{"a time in words", m.proof(t, nil, claims{"iat": "now"}), "no iat"},
		{"old", m.proof(t, nil, claims{"iat": now.Add(-61 * time.Second).Unix()}), "too old"},
		{"from the future", m.proof(t, nil, claims{"iat": now.Add(11 * time.Second).Unix()}), "future"},
		{"long", strings.Repeat("a", MaxLength+1), "4 KiB"},
		{"nothing", "", "three parts"},
	} {
		v := NewVerifier(100)
		for range 2 { // the second time the key is known
			p, err := v.Verify(c.proof, ask, window, now)
			switch {
			case c.wrong == "" && (err != nil || p.ID != "one" || p.Key != ask.Key):
				t.Errorf("%s: %+v, %v", c.name, p, err)
			case c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)):
				t.Errorf("%s: %v, want %q", c.name, err, c.wrong)
			}
		}
	}
	if _, err := NewVerifier(1).Verify(m.proof(t, nil, nil), Request{Method: "GET", URL: ask.URL, Token: "token"}, window, now); err == nil {
		t.Error("a token that is bound to nothing has a proof")
	}
}

// FuzzVerify: no text makes it panic, and none that was not signed by the key
// is a proof.
func FuzzVerify(f *testing.F) {
	m := newMaker(f)
	good := m.proof(f, nil, nil)
	f.Add(good)
	f.Add(m.proof(f, claims{"jwk": nil}, nil))
	f.Add("..")
	ask := Request{Method: "GET", URL: "https://api.test/orders", Token: "token", Key: newMaker(f).thumbprint()}
	v := NewVerifier(100)
	f.Fuzz(func(t *testing.T, proof string) {
		if p, err := v.Verify(proof, ask, window, now); err == nil {
			t.Fatalf("%q is a proof: %+v", proof, p)
		}
	})
}

// FuzzURL: what is the same is so both ways round, and is the same as itself.
func FuzzURL(f *testing.F) {
	f.Add("https://api.test/a", "https://API.test:443/%61")
	f.Add("http://[::1]:80/%2f", "http://[::1]/%2F")
	f.Fuzz(func(t *testing.T, a, b string) {
		if sameURL(a, b) != sameURL(b, a) {
			t.Fatalf("%q and %q", a, b)
		}
		n, ok := normal(a)
		if again, ok2 := normal(n); ok && (!ok2 || again != n) {
			t.Fatalf("%q becomes %q and then %q", a, n, again)
		}
	})
}

func TestSeen(t *testing.T) {
	s := NewSeen(1<<14, 1<<14, time.Minute)
	at := now
	first := func(id string) bool {
		first, full := s.First(Proof{ID: id, Key: "k"}, at)
		if full {
			t.Fatal("full")
		}
		return first
	}
	if !first("a") || first("a") || !first("b") {
		t.Error("not each proof once")
	}
	if f, _ := s.First(Proof{ID: "a", Key: "other"}, at); !f {
		t.Error("another key's proof with the same id is refused")
	}
	// However the minutes fall, it is remembered for one.
	for offset := range 120 {
		at = now.Add(time.Hour + time.Duration(offset)*time.Second)
		id := strconv.Itoa(offset)
		if !first(id) {
			t.Fatal("not the first")
		}
		for _, later := range []time.Duration{time.Second, 30 * time.Second, 59 * time.Second, time.Minute} {
			at = now.Add(time.Hour + time.Duration(offset)*time.Second + later)
			if first(id) {
				t.Fatalf("forgotten after %v", later)
			}
		}
		at = at.Add(2 * time.Hour)
		s = NewSeen(1<<14, 1<<14, time.Minute)
	}
	// It is bounded, and says so.
	s = NewSeen(1000, 1000, time.Minute)
	held, full := 0, false
	for i := range 100_000 {
		f, no := s.First(Proof{ID: strconv.Itoa(i), Key: "k"}, now)
		if f {
			held++
		}
		full = full || no
	}
	if held > 1000 || !full {
		t.Errorf("%d are held, full is %v", held, full)
	}
}

// TestSeenShare: one key that makes very many proofs is refused first, keeps nobody
// else out, and is let in again after a while.
func TestSeenShare(t *testing.T) {
	const share = 1 << 12
	s := NewSeen(1<<16, share, time.Minute)
	at, held, full := now, 0, 0
	for i := range 1 << 16 {
		switch first, no := s.First(Proof{ID: strconv.Itoa(i), Key: "eve"}, at); {
		case first:
			held++
		case no:
			full++
		}
	}
	if held < share/4 || held > share || held+full != 1<<16 {
		t.Errorf("of one key %d are held, and %d refused", held, full)
	}
	for i := range 1000 {
		if first, _ := s.First(Proof{ID: strconv.Itoa(i), Key: "ann"}, at); !first {
			t.Fatalf("another key is refused after %d proofs", i)
		}
	}
	if first, full := s.First(Proof{ID: "0", Key: "eve"}, at); first || full {
		t.Error("a proof that is held is not known again")
	}
	at = at.Add(time.Minute)
	if first, _ := s.First(Proof{ID: "later", Key: "eve"}, at); !first {
		t.Error("the key is refused for ever")
	}
}

func BenchmarkVerify(b *testing.B) {
	m := newMaker(b)
	proof := m.proof(b, nil, nil)
	ask := Request{Method: "GET", URL: "https://api.test/orders", Token: "token", Key: m.thumbprint()}
	v := NewVerifier(100)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(proof, ask, window, now); err != nil {
			b.Fatal(err)
		}
	}
}
