package identity

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/apikey"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
)

// TestCame: the operator of a gateway that says "no credential" learns what came
// instead, and no part of any credential.
func TestCame(t *testing.T) {
	key, token := apikey.New(), "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"
	ann := &x509.Certificate{Raw: []byte("ann"), Subject: pkix.Name{CommonName: "ann"}, Issuer: pkix.Name{CommonName: "ca"}}
	unverified := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{ann}}
	verified := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{ann}, VerifiedChains: [][]*x509.Certificate{{ann}}}
	for _, c := range []struct {
		name    string
		h       Handler
		url     string
		header  http.Header
		cookies []string
		tls     *tls.ConnectionState
		want    string
	}{
		{name: "nothing", h: Handler{Keys: true}, want: "there came nothing that could be a credential; accepted here: API keys in X-Api-Key"},
		{name: "a password", h: Handler{Keys: true}, header: http.Header{"Authorization": {"basic c2VjcmV0OnNlY3JldA=="}}, want: "an Authorization with the scheme Basic"},
		{name: "a key as a token", h: Handler{Keys: true}, header: http.Header{"Authorization": {"Bearer " + key}}, want: "an API key as a bearer token: it goes into X-Api-Key"},
		{name: "a key as a token, where there are no keys", h: Handler{MTLS: new(MTLS)}, header: http.Header{"Authorization": {"Bearer " + key}}, want: "an API key as a bearer token: no keys are accepted here"},
		{name: "a token where there is no issuer", h: Handler{Keys: true}, header: http.Header{"Authorization": {"Bearer " + token}}, want: "a bearer token, and no issuer is accepted here"},
		{name: "a key by a scheme", h: Handler{Keys: true}, header: http.Header{"Authorization": {"ApiKey " + key}}, want: "an API key in Authorization, as ApiKey: it goes into X-Api-Key"},
		{name: "a key alone", h: Handler{Keys: true}, header: http.Header{"Authorization": {key}}, want: "an API key in Authorization: it goes"},
		{name: "a token alone", header: http.Header{"Authorization": {token}}, want: "a token in Authorization without the word Bearer"},
		{name: "a secret that looks like a scheme", header: http.Header{"Authorization": {"hunter2 secret"}}, want: "an Authorization of another scheme, or of none"},
		{name: "nothing in it", header: http.Header{"Authorization": {""}}, want: "an Authorization that is empty"},
		{name: "a key where none is read", header: http.Header{"X-Api-Key": {key}}, want: "a field X-Api-Key, which is not read"},
		{name: "a token in the query", url: "/?a=b&access_token=" + token, want: "access_token in the query, where nothing is read"},
		{name: "a key in the query by another name", url: "/?secret=" + key, want: "an API key in the query, where nothing is read"},
		{name: "a token in a cookie", header: http.Header{"Cookie": {"theme=dark; session=" + token}}, want: "a token in a cookie, where nothing is read"},
		{name: "a session where there are none", cookies: []string{"gatehouse_session_portal=secret"}, want: "a cookie of a session, and no session is set here"},
		{name: "a proof alone", header: http.Header{"Dpop": {token}}, want: "a proof in DPoP without a token"},
		{name: "a certificate that nobody asks for", h: Handler{Keys: true}, tls: verified, want: `the certificate of "CN=ann", issued by "CN=ca", and mtls is not set here`},
		{name: "a certificate that nobody has verified", h: Handler{MTLS: new(MTLS)}, tls: unverified, want: `the certificate of "CN=ann", issued by "CN=ca", which was not verified: mode request and require`},
		{name: "no certificate", h: Handler{MTLS: new(MTLS)}, tls: new(tls.ConnectionState), want: "a connection without a client certificate"},
		{name: "no TLS", h: Handler{MTLS: new(MTLS)}, want: "a connection without TLS"},
		{name: "several", h: Handler{Keys: true}, url: "/?key=" + key, header: http.Header{"Authorization": {"Basic c2VjcmV0"}}, want: "the scheme Basic; and key in the query"},
	} {
		if c.url == "" {
			c.url = "/"
		}
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url, nil)
		r.TLS = c.tls
		if c.header != nil {
			r.Header = c.header
		}
		c.h.KeyHeader = "X-Api-Key"
		got := c.h.came(r, &gate.Exchange{Cookies: c.cookies}).Error()
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %s; want %s", c.name, got, c.want)
		}
		for _, secret := range []string{key, key[3:20], token, token[:12], "c2VjcmV0", "hunter2", "secret"} {
			if strings.Contains(got, secret) {
				t.Errorf("%s: %s repeats %s", c.name, got, secret)
			}
		}
	}
}

// TestCameIsBounded: whatever came, the log gets a line of it.
func TestCameIsBounded(t *testing.T) {
	h := Handler{KeyHeader: "X-Api-Key"}
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "/?"+strings.Repeat("token=x&gh=y&", 1<<12), nil)
	r.Header["Cookie"] = []string{strings.Repeat("token=x; ", 1<<12)}
	huge := &x509.Certificate{Subject: pkix.Name{CommonName: strings.Repeat("\u202e\n", 1<<10)}}
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{huge}}
	if got := h.came(r, new(gate.Exchange)).Error(); len(got) > 2<<10 || strings.ContainsAny(got, "\n\u202e") {
		t.Errorf("%d bytes: %.200s", len(got), got)
	}
}

// TestWhyIssuer: a token of an issuer that is not accepted says whose it is, and
// the configuration whose it may be.
func TestWhyIssuer(t *testing.T) {
	main := &Issuer{Name: "main", identifier: "https://id.example.com"}
	billing := &Issuer{Name: "billing", identifier: "https://billing.example.com"}
	h := &Handler{app: &App{Issuers: []*Issuer{main, billing}}, issuers: map[string]*Issuer{main.identifier: main}}
	for iss, want := range map[string]string{
		"":                                    "the token has no iss; accepted here: main (https://id.example.com)",
		"https://evil.example":                `the token's iss is "https://evil.example"; accepted here: main (https://id.example.com)`,
		"https://id.example.com/":             "that of main is another only by the slash at its end",
		"https://billing.example.com":         "it is issuer billing, which this identity does not name",
		"a\x1b[2J\n":                          `"a\x1b[2J\n"`,
		"https://" + strings.Repeat("x", 300): strings.Repeat("x", 192) + `"; accepted`,
	} {
		if got := h.whyIssuer(&jwt.Token{Issuer: iss}).Error(); !strings.Contains(got, want) {
			t.Errorf("%q: %s; want %s", iss, got, want)
		}
	}
	for n := range 9 {
		i := &Issuer{Name: "i" + string(rune('0'+n)), identifier: "https://" + string(rune('a'+n))}
		h.issuers[i.identifier] = i
	}
	if got := h.issuersHere(); !strings.HasSuffix(got, "i3 (https://d), 6 more") {
		t.Error(got)
	}
}

// TestWhy: each refusal of a credential says what an operator would have to find
// out otherwise.
func TestWhy(t *testing.T) {
	h, token := testHandler(t)
	now := time.Now()
	identify := func(header http.Header, at time.Time) string {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Header = header
		_, _, d := h.identify(r, at)
		if d == nil || d.Err == nil {
			return ""
		}
		if d.Detail != "" {
			t.Errorf("the caller is told %q", d.Detail)
		}
		return d.Err.Error()
	}
	bearer := func(t string) http.Header { return http.Header{"Authorization": {"Bearer " + t}} }
	made := apikey.New()
	for _, c := range []struct {
		name   string
		header http.Header
		at     time.Time
		want   string
	}{
		{"expired", bearer(token), now.Add(3 * time.Hour), " ago by this clock, with a leeway of 30s"},
		{"of tomorrow", bearer(token), now.Add(-24 * time.Hour), "s ahead of this clock"},
		{"a key as a token", bearer(made), now, "it is written like an API key: it goes into X-Api-Key"},
		{"an opaque token", bearer("abcdef"), now, "the issuer needs introspect"},
		{"nothing behind the scheme", bearer(""), now, "nothing stands behind the scheme"},
		{"two tokens", http.Header{"Authorization": {"Bearer a", "Bearer b"}}, now, "2 fields Authorization"},
		{"two keys", http.Header{"X-Api-Key": {"a", "b"}}, now, "2 fields X-Api-Key"},
		{"a key that is cut off", http.Header{"X-Api-Key": {made[:20]}}, now, "its checksum is wrong"},
		{"a key of another gateway", http.Header{"X-Api-Key": {made}}, now, "of another gateway"},
		{"a token as a key", http.Header{"X-Api-Key": {token}}, now, "tokens go into Authorization"},
		{"an empty key", http.Header{"X-Api-Key": {""}}, now, "X-Api-Key is empty"},
		{"a key in quotes", http.Header{"X-Api-Key": {`"a"`}}, now, "a space or a quote"},
	} {
		got := identify(c.header, c.at)
		if !strings.Contains(got, c.want) || strings.Contains(got, made[:20]) || strings.Contains(got, token[:20]) {
			t.Errorf("%s: %q; want %q", c.name, got, c.want)
		}
	}
}

// TestShadowKeepsTheCause: where nothing is refused, the rule says why it would be.
func TestShadowKeepsTheCause(t *testing.T) {
	cause := &gate.Denial{Reason: gate.IdentityWrongAudience, Err: errors.New("token is for another audience")}
	certificate := &gate.Denial{Err: &refusal{"mtls ca", errors.New("x")}}
	for _, c := range []struct {
		rule string
		d    *gate.Denial
		want string
	}{
		{"main", nil, "main"},
		{"main", &gate.Denial{}, "main"},
		{"main", cause, "main: token is for another audience"},
		{"", cause, "token is for another audience"},
		{"mtls ca", certificate, "mtls ca: x"},
	} {
		if got := withCause(c.rule, c.d); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// FuzzCame: wherever a secret stands in a request, the operator's log has none of it.
func FuzzCame(f *testing.F) {
	f.Add("Basic ", "", "a=", ";b=c")
	f.Add("Bearer gh_", ".x.y", "access_token=eyJ", "&")
	f.Add("", " ", "gh_", "")
	f.Fuzz(func(t *testing.T, scheme, behind, before, after string) {
		const secret = "n0b0dy-m4y-s33-th1s"
		h := &Handler{Keys: true, KeyHeader: "X-Key", MTLS: new(MTLS)}
		r := &http.Request{URL: &url.URL{RawQuery: before + secret + after}, Header: http.Header{
			"Authorization": {scheme + secret + behind}, "Cookie": {before + secret + after}, "X-Api-Key": {secret}, "Dpop": {secret},
		}}
		got := h.came(r, &gate.Exchange{Cookies: []string{before + secret}}).Error()
		if strings.Contains(got, secret) || strings.ContainsAny(got, "\n\r\x1b") || len(got) > 2<<10 {
			t.Errorf("%d bytes: %s", len(got), got)
		}
	})
}

// BenchmarkCame is what a refusal for want of a credential costs on top, with a
// request that has something of everything. Only who is refused pays it.
func BenchmarkCame(b *testing.B) {
	h := &Handler{Keys: true, KeyHeader: "X-Key"}
	r, _ := http.NewRequestWithContext(b.Context(), http.MethodGet, "/?page=2&access_token=x&sort=asc", nil)
	r.Header.Set("Authorization", "Basic c2VjcmV0")
	r.Header.Set("Cookie", "theme=dark; lang=en; token=x")
	ex := new(gate.Exchange)
	b.ReportAllocs()
	for b.Loop() {
		if h.came(r, ex) == nil {
			b.Fatal("nothing is said")
		}
	}
}
