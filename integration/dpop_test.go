package integration

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"
)

// holder is a client with a key that its tokens are bound to.
type holder struct{ *issuer }

func (h holder) jwk() map[string]any {
	point, err := h.key.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	return map[string]any{"kty": "EC", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])}
}

func (h holder) thumbprint() string {
	k := h.jwk()
	sum := sha256.Sum256(fmt.Appendf(nil, `{"crv":"P-256","kty":"EC","x":%q,"y":%q}`, k["x"], k["y"]))
	return b64(sum[:])
}

var proofID int

// with is a request's header: the token and a proof for it, with some claims
// changed.
func (h holder) with(t testing.TB, token, url string, change map[string]any) http.Header {
	t.Helper()
	proofID++
	sum := sha256.Sum256([]byte(token))
	claims := map[string]any{"jti": fmt.Sprint("proof-", proofID), "htm": "GET", "htu": url, "iat": time.Now().Unix(), "ath": b64(sum[:])}
	maps.Copy(claims, change)
	proof := h.sign(t, map[string]any{"typ": "dpop+jwt", "alg": "ES256", "jwk": h.jwk()}, claims)
	return http.Header{"Authorization": {"DPoP " + token}, "Dpop": {proof}}
}

func bound(to string) map[string]any { return map[string]any{"cnf": map[string]any{"jkt": to}} }

// TestDPoP: a token that is bound to a key is good with a fresh proof of that
// key, and with nothing else.
func TestDPoP(t *testing.T) {
	b := newBackend(t, nil)
	iss, ann, eve := newIssuer(t, "k1"), holder{newIssuer(t, "")}, holder{newIssuer(t, "")}
	gw := prepare(t)
	gw.write(t, "jwks.json", iss.jwks())
	site := "api demo {\nidentity main {\n%s\n}\nreverse_proxy " + b.addr() + "\n}"
	if err := gw.load(fmt.Sprintf(identityGlobals, "jwks.json"), fmt.Sprintf(site, "")); err != nil {
		t.Fatal(err)
	}
	const url = "http://localhost/orders"
	token, free := iss.token(t, bound(ann.thumbprint())), iss.token(t, nil)
	used := ann.with(t, token, url, nil)
	two := ann.with(t, token, url, nil)
	two["Dpop"] = append(two["Dpop"], two["Dpop"][0])

	for _, c := range []struct {
		name      string
		header    http.Header
		reason    string
		challenge string
	}{
		{"with its proof", used, "", ""},
		{"with the same proof again", used, "identity.replayed", `error="invalid_dpop_proof"`},
		{"with a new proof", ann.with(t, token, url, nil), "", ""},
		{"a token that is bound to nothing", bearer(free), "", ""},

		{"stolen, as a bearer token", bearer(token), "identity.unbound", "DPoP algs="},
		{"with another field beside", with(ann.with(t, token, url, nil), "X", "y"), "", ""},
		{"stolen, with another's proof", eve.with(t, token, url, nil), "identity.bad_proof", `error="invalid_dpop_proof"`},
		{"without a proof", http.Header{"Authorization": {"DPoP " + token}}, "identity.bad_proof", `error="invalid_dpop_proof"`},
		{"with two proofs", two, "identity.bad_proof", ""},
		{"with a proof for another URL", ann.with(t, token, "http://localhost/others", nil), "identity.bad_proof", ""},
		{"with a proof for another method", ann.with(t, token, url, map[string]any{"htm": "POST"}), "identity.bad_proof", ""},
		{"with an old proof", ann.with(t, token, url, map[string]any{"iat": time.Now().Unix() - 120}), "identity.bad_proof", ""},
		{"with a proof for another token", ann.with(t, token, url, map[string]any{"ath": "AAAA"}), "identity.bad_proof", ""},
		{"a free token, sent as bound", ann.with(t, free, url, nil), "identity.unbound", ""},
		{"bound to what nobody can check", bearer(iss.token(t, map[string]any{"cnf": map[string]any{"kid": "x"}})), "identity.unbound", ""},
		{"bound to nothing in particular", bearer(iss.token(t, map[string]any{"cnf": map[string]any{}})), "identity.unbound", ""},
		{"bound to a certificate that is not there", bearer(iss.token(t, map[string]any{"cnf": map[string]any{"x5t#S256": "AAAA"}})), "identity.unbound", ""},
		{"bound to both, with one proven", ann.with(t, iss.token(t, map[string]any{"cnf": map[string]any{"jkt": ann.thumbprint(), "x5t#S256": "AAAA"}}), url, nil), "identity.unbound", ""},
	} {
		before := b.count()
		a := gw.get(t, "/orders?page=2", c.header)
		if a.reason() != c.reason || (a.status == 200) != (c.reason == "") || b.count()-before != map[bool]int{true: 1}[c.reason == ""] {
			t.Errorf("%s: %d %s, want %q", c.name, a.status, a.body, c.reason)
		}
		if all := strings.Join(a.header.Values("Www-Authenticate"), ", "); !strings.Contains(all, c.challenge) {
			t.Errorf("%s: challenge %s", c.name, all)
		}
	}

	// What was used before a reload stays used, also under a new configuration.
	if err := gw.load(fmt.Sprintf(identityGlobals, "jwks.json"), fmt.Sprintf(site, "dpop {\nrequired\nmax_age 30s\n}")); err != nil {
		t.Fatal(err)
	}
	if a := gw.get(t, "/orders", used); a.reason() != "identity.replayed" {
		t.Errorf("after a reload: %d %s", a.status, a.body)
	}
	a := gw.get(t, "/orders", bearer(free))
	if all := a.header.Values("Www-Authenticate"); a.reason() != "identity.unbound" || len(all) != 1 || !strings.HasPrefix(all[0], "DPoP ") {
		t.Errorf("where proofs are required: %d %s, %q", a.status, a.body, all)
	}
	if a := gw.get(t, "/orders", ann.with(t, token, url, map[string]any{"iat": time.Now().Unix() - 40})); a.reason() != "identity.bad_proof" {
		t.Errorf("older than may be: %d %s", a.status, a.body)
	}
}

// TestKeyOfNoLength: a key that is none, in a proof or among an issuer's, proves
// nothing and costs nobody else anything.
func TestKeyOfNoLength(t *testing.T) {
	iss, ann := newIssuer(t, "k1"), holder{newIssuer(t, "")}
	short := map[string]any{"kty": "OKP", "crv": "Ed25519", "x": ""}
	gw := prepare(t)
	gw.write(t, "jwks.json", strings.Replace(iss.jwks(), `{"keys":[`, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"short","x":""},`, 1))
	if err := gw.load(fmt.Sprintf(identityGlobals, "jwks.json"), "api demo {\nidentity main\nrespond ok\n}"); err != nil {
		t.Fatal(err)
	}
	token := iss.token(t, bound(ann.thumbprint()))
	h := ann.with(t, token, "http://localhost/", nil)
	h["Dpop"] = []string{iss.sign(t, map[string]any{"typ": "dpop+jwt", "alg": "EdDSA", "jwk": short}, map[string]any{})}
	if a := gw.get(t, "/", h); a.reason() != "identity.bad_proof" {
		t.Errorf("in a proof: %d %s", a.status, a.body)
	}
	claims := map[string]any{"iss": "https://id.test", "aud": "orders-api", "exp": time.Now().Unix() + 60}
	if a := gw.get(t, "/", bearer(iss.sign(t, map[string]any{"alg": "EdDSA", "kid": "short"}, claims))); a.reason() != "identity.unknown_key" {
		t.Errorf("of the issuer: %d %s", a.status, a.body)
	}
	if a := gw.get(t, "/", ann.with(t, token, "http://localhost/", nil)); a.status != 200 {
		t.Errorf("another: %d %s", a.status, a.body)
	}
}

// TestDPoPSeenByOthers: a proof that one gateway has seen is no good at another.
func TestDPoPSeenByOthers(t *testing.T) {
	r := startRedis(t)
	iss, ann := newIssuer(t, "k1"), holder{newIssuer(t, "")}
	token := iss.token(t, bound(ann.thumbprint()))
	var nodes []*gateway
	for range 2 {
		gw := nodeWith(t, map[string]string{"jwks.json": iss.jwks()}, "cluster unix://"+r.sock+fmt.Sprintf(identityGlobals, "jwks.json"), "api demo {\nidentity main\nrespond ok\n}")
		gw.up(t, 1)
		nodes = append(nodes, gw)
	}
	h := ann.with(t, token, "http://localhost/", nil)
	if a := nodes[0].get(t, "/", h); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := nodes[1].get(t, "/", h); a.reason() != "identity.replayed" {
		t.Errorf("the other gateway: %d %s", a.status, a.body)
	}
	r.kill()
	for _, n := range nodes {
		n.up(t, 0)
		h := ann.with(t, token, "http://localhost/", nil)
		if a := n.get(t, "/", h); a.status != 200 {
			t.Errorf("without the server: %d %s", a.status, a.body)
		}
		if a := n.get(t, "/", h); a.reason() != "identity.replayed" {
			t.Errorf("without the server, again: %d %s", a.status, a.body)
		}
	}
}

// TestDPoPClosed: what happens while an issuer's keys cannot be had says nothing
// about proofs that cannot be asked about.
func TestDPoPClosed(t *testing.T) {
	r := startRedis(t)
	r.kill()
	iss, ann := newIssuer(t, "k1"), holder{newIssuer(t, "")}
	gw := nodeWith(t, map[string]string{"jwks.json": iss.jwks()}, "cluster unix://"+r.sock+fmt.Sprintf(identityGlobals, "jwks.json"),
		"api demo {\nidentity main {\non_error open\ndpop {\non_error closed\n}\n}\nrespond ok\n}")
	h := ann.with(t, iss.token(t, bound(ann.thumbprint())), "http://localhost/", nil)
	if a := gw.get(t, "/", h); a.status != 503 || a.reason() != "identity.unavailable" {
		t.Errorf("%d %s", a.status, a.body)
	}
}
