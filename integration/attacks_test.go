package integration

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// raw signs a token whose JSON is written out.
func (i *issuer) raw(t testing.TB, header, claims string) string {
	t.Helper()
	signed := b64([]byte(header)) + "." + b64([]byte(claims))
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, i.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return signed + "." + b64(sig)
}

// TestTokenAttacks sends what has broken gateways before: each is refused, for a
// reason of its own that the decision log has, and none makes the gateway fetch
// what a token names.
func TestTokenAttacks(t *testing.T) {
	iss, eve := newIssuer(t, "k1"), newIssuer(t, "k1")
	var fetched atomic.Int64
	trap := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fetched.Add(1)
		fmt.Fprint(w, eve.jwks())
	}))
	t.Cleanup(trap.Close)
	b := newBackend(t, nil)
	gw := prepare(t)
	gw.write(t, "jwks.json", iss.jwks())
	// Caddy itself answers 431 to header fields that are long; what it lets
	// through is refused all the same.
	if err := gw.load("servers {\nmax_header_size 2MB\n}"+fmt.Sprintf(identityGlobals, "jwks.json"), "api demo {\nidentity main\nreverse_proxy "+b.addr()+"\n}"); err != nil {
		t.Fatal(err)
	}
	until := time.Now().Unix() + 600
	claims := fmt.Sprintf(`{"iss":"https://id.test","aud":"orders-api","sub":"ann","exp":%d}`, until)
	header := func(more string) string { return `{"alg":"ES256","kid":"k1"` + more + `}` }
	many := func(n int) string {
		var s strings.Builder
		for i := range n {
			fmt.Fprintf(&s, `"c%d":%d,`, i, i)
		}
		return strings.Replace(claims, "{", "{"+s.String(), 1)
	}
	good := iss.raw(t, header(""), claims)

	for _, tc := range []struct {
		name   string
		header http.Header
		reason string // empty: it passes
		why    string // what the decision log says
	}{
		{"a good token", bearer(good), "", ""},
		{"the scheme in mixed case", http.Header{"Authorization": {"bEARER " + good}}, "", ""},
		{"the scheme in capitals", http.Header{"Authorization": {"BEARER " + good}}, "", ""},
		{"two Authorization fields", http.Header{"Authorization": {"Bearer " + good, "Bearer " + good}}, "identity.ambiguous", ""},
		{"a megabyte", bearer(strings.Repeat("a", 1_000_000)), "identity.malformed", "longer than 16 KiB"},
		{"10,000 claims", bearer(iss.raw(t, header(""), many(10_000))), "identity.malformed", "longer than 16 KiB"},
		{"more values than fit a mind, in 16 KiB", bearer(iss.raw(t, header(""), strings.Replace(claims, "{", `{"roles":[`+strings.Repeat("0,", 4000)+`0],`, 1))), "identity.malformed", "token claims"},
		{"claims that nest", bearer(iss.raw(t, header(""), strings.Replace(claims, "{", `{"a":`+strings.Repeat("[", 100)+strings.Repeat("]", 100)+`,`, 1))), "identity.malformed", "token claims"},
		{"a claim that stands twice", bearer(iss.raw(t, header(""), strings.Replace(claims, "{", `{"sub":"eve",`, 1))), "identity.malformed", "token claims"},
		{"alg that stands twice", bearer(iss.raw(t, header(`,"alg":"none"`), claims)), "identity.malformed", "token header"},
		{"a claim that stands twice, once escaped", bearer(iss.raw(t, header(""), strings.Replace(claims, "{", `{"s\u0075b":"eve",`, 1))), "identity.malformed", "token claims"},
		{"something behind the claims", bearer(iss.raw(t, header(""), claims+"{}")), "identity.malformed", "token claims"},
		{"crit", bearer(iss.raw(t, header(`,"crit":["exp"]`), claims)), "identity.malformed", "header has crit"},
		{"crit of nothing", bearer(iss.raw(t, header(`,"crit":[]`), claims)), "identity.malformed", "header has crit"},
		{"b64 false", bearer(iss.raw(t, header(`,"b64":false`), claims)), "identity.malformed", "header has b64"},
		{"b64 false, and critical", bearer(iss.raw(t, header(`,"b64":false,"crit":["b64"]`), claims)), "identity.malformed", "header has crit"},
		{"a kid that is no text", bearer(iss.raw(t, `{"alg":"ES256","kid":["k1"]}`, claims)), "identity.malformed", "kid is not a text"},
		{"jku", bearer(eve.raw(t, header(`,"jku":"`+trap.URL+`"`), claims)), "identity.bad_signature", "signature is wrong"},
		{"jku and a kid of its own", bearer(eve.raw(t, `{"alg":"ES256","kid":"evil","jku":"`+trap.URL+`"}`, claims)), "identity.unknown_key", "no key has the token's kid"},
		{"x5u", bearer(eve.raw(t, header(`,"x5u":"`+trap.URL+`"`), claims)), "identity.bad_signature", "signature is wrong"},
		{"an embedded key", bearer(eve.raw(t, `{"alg":"ES256","jwk":`+strings.TrimSuffix(strings.TrimPrefix(eve.jwks(), `{"keys":[`), `]}`)+`}`, claims)), "identity.bad_signature", "signature is wrong"},
		{"an embedded key with its kid", bearer(eve.raw(t, header(`,"jwk":`+strings.TrimSuffix(strings.TrimPrefix(eve.jwks(), `{"keys":[`), `]}`)), claims)), "identity.bad_signature", "signature is wrong"},
		{"a kid that is a path", bearer(eve.raw(t, `{"alg":"ES256","kid":"../../dev/null"}`, claims)), "identity.unknown_key", "no key has the token's kid"},
		{"a signature of nothing but zeros", bearer(good[:strings.LastIndexByte(good, '.')+1] + b64(make([]byte, 64))), "identity.bad_signature", "signature is wrong"},
		{"the JSON serialization", bearer(`{"payload":"` + strings.Split(good, ".")[1] + `"}`), "identity.malformed", "three parts"},
	} {
		before, logged := b.count(), len(gw.decisions(t))
		a := gw.get(t, "/", tc.header)
		if a.reason() != tc.reason || (a.status == 200) != (tc.reason == "") || b.count()-before != map[bool]int{true: 1}[tc.reason == ""] {
			t.Errorf("%s: %d %s, want %q", tc.name, a.status, a.body, tc.reason)
			continue
		}
		d := gw.decisions(t)[logged:]
		if tc.reason != "" && (len(d) != 1 || d[0]["reason"] != tc.reason || !strings.Contains(fmt.Sprint(d[0]["error"]), tc.why)) {
			t.Errorf("%s: recorded as %v, want %q", tc.name, d, tc.why)
		}
	}
	if a := gw.get(t, "/?access_token="+url.QueryEscape(good), nil); a.reason() != "identity.missing" {
		t.Errorf("a token in the query: %d %s", a.status, a.body)
	}
	if a := gw.do(t, "POST", "/", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, "access_token="+url.QueryEscape(good)); a.reason() != "identity.missing" {
		t.Errorf("a token in a form: %d %s", a.status, a.body)
	}
	if n := fetched.Load(); n != 0 {
		t.Errorf("%d fetches of what a token named", n)
	}
}

// TestKeySetAttacks: nothing is accepted that was signed by a key which is weak
// or ambiguous, or found by the metadata of somebody else.
func TestKeySetAttacks(t *testing.T) {
	iss := newIssuer(t, "k1")
	own := strings.TrimSuffix(strings.TrimPrefix(iss.jwks(), `{"keys":[`), `]}`)
	t.Setenv("GODEBUG", "rsa1024min=0") // this Go would make none
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey := fmt.Sprintf(`{"kty":"RSA","kid":"weak","n":%q,"e":"AQAB"}`, b64(weak.N.Bytes()))
	signed := b64([]byte(`{"alg":"RS256","kid":"weak"}`)) + "." + b64(fmt.Appendf(nil, `{"iss":"https://id.test","aud":"orders-api","sub":"ann","exp":%d}`, time.Now().Unix()+600))
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, weak, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	byWeak := bearer(signed + "." + b64(signature))
	other := strings.TrimSuffix(strings.TrimPrefix(newIssuer(t, "k1").jwks(), `{"keys":[`), `]}`)

	var says atomic.Pointer[string]
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, ".well-known") {
			fmt.Fprintf(w, `{"issuer":"https://somebody.else","jwks_uri":"http://%s/keys"}`, r.Host)
			return
		}
		fmt.Fprint(w, *says.Load())
	}))
	t.Cleanup(srv.Close)
	gw := prepare(t)
	for i, tc := range []struct {
		name, keys string
		token      http.Header
		reason     string
		why        string // in the record, or the log
	}{
		{"a good set", own, bearer(iss.token(t, nil)), "", ""},
		{"a weak key alone", rsaKey, byWeak, "identity.unavailable", "no key that can verify"},
		{"a weak key beside a good one", own + "," + rsaKey, byWeak, "identity.unknown_key", "RSA key of 1024 bits"},
		{"a weak key beside a good one, which is still good", own + "," + rsaKey, bearer(iss.token(t, nil)), "", ""},
		{"two keys of one name", own + "," + other, bearer(iss.token(t, nil)), "identity.unavailable", "no key that can verify"},
		{"two keys of one name, beside another", own + "," + other + "," + strings.Replace(own, `"k1"`, `"k2"`, 1), bearer(iss.token(t, nil)), "identity.unknown_key", "occurs twice"},
		{"a secret", `{"kty":"oct","kid":"k1","k":"c2VjcmV0"}`, bearer(iss.token(t, nil)), "identity.unavailable", "no key that can verify"},
		{"no list", `"a"`, bearer(iss.token(t, nil)), "identity.unavailable", ""},
	} {
		set := `{"keys":[` + tc.keys + `]}`
		says.Store(&set)
		// Each has an address of its own, so that no keys are remembered.
		if err := gw.load(fmt.Sprintf("identity {\nissuer main https://id.test {\njwks %s/keys/%d\naudience orders-api\n}\n}", srv.URL, i), "api demo {\nidentity main\nrespond ok\n}"); err != nil {
			t.Fatal(err)
		}
		a := gw.get(t, "/", tc.token)
		if a.reason() != tc.reason || (a.status == 200) != (tc.reason == "") || !strings.Contains(gw.log(t), tc.why) {
			t.Errorf("%s: %d %s, want %q for %q", tc.name, a.status, a.body, tc.reason, tc.why)
		}
	}
	if err := gw.load("identity {\nissuer main "+srv.URL+" {\naudience orders-api\n}\n}", "api demo {\nidentity main\nrespond ok\n}"); err != nil {
		t.Fatal(err)
	}
	a := gw.get(t, "/", bearer(iss.token(t, map[string]any{"iss": srv.URL})))
	d := gw.decisions(t)
	if a.reason() != "identity.unavailable" || !strings.Contains(fmt.Sprint(d[len(d)-1]["error"]), "names another issuer") || strings.Contains(a.body, "somebody") {
		t.Errorf("metadata of another issuer: %d %s, %v", a.status, a.body, d[len(d)-1])
	}
}
