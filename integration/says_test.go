package integration

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestRefusalsSayWhy: the operator's log has what came and what is accepted, and
// neither the caller nor the log has a credential.
func TestRefusalsSayWhy(t *testing.T) {
	iss := newIssuer(t, "k1")
	gw := prepare(t)
	gw.write(t, "jwks.json", iss.jwks())
	if err := gw.load(fmt.Sprintf(identityGlobals, "jwks.json"), `
	@keyed path /keyed
	api @keyed keyed {
		identity {
			keys
		}
		respond ok
	}
	@shadow path /shadow
	api @shadow shadow {
		identity main {
			mode shadow
		}
		require role admin {
			mode shadow
		}
		respond ok
	}
	@lost path /lost
	api @lost lost {
		require scope orders:read orders:write
		respond ok
	}
	api demo {
		identity main
		require role admin chief
		respond ok
	}`); err != nil {
		t.Fatal(err)
	}
	good := iss.token(t, map[string]any{"realm_access": map[string]any{"roles": []string{"clerk"}}})
	other := iss.token(t, map[string]any{"iss": "https://id.test/"})
	billing := iss.token(t, map[string]any{"aud": "billing"})
	for _, c := range []struct {
		name, path   string
		header       http.Header
		status       int
		want, inRule string
		secret       string
	}{
		{"another issuer", "/", bearer(other), 401, `the token's iss is "https://id.test/"; accepted here: main (https://id.test); that of main is another only by the slash`, "", other},
		{"another audience", "/", bearer(billing), 401, `aud is "billing"; accepted is "orders-api"`, "main", billing},
		{"a token in the query", "/?access_token=" + good, nil, 401, "access_token in the query, where nothing is read; accepted here: bearer tokens of main (https://id.test)", "", good},
		{"a token where keys are", "/keyed", bearer(good), 401, "a bearer token, and no issuer is accepted here; accepted here: API keys in X-Api-Key", "", good},
		{"a role", "/", bearer(good), 403, `a bearer token of "main", and has the roles "clerk"`, "role admin chief", good},
		{"nobody before it", "/lost", nil, 401, "no identity stands before this require", "scope orders:read orders:write", "-"},
		{"shadow", "/shadow", bearer(billing), 200, "", `main: token is for another audience: aud is "billing"; accepted is "orders-api"`, billing},
	} {
		a := gw.get(t, c.path, c.header)
		last := gw.decisions(t)
		d := last[len(last)-1]
		if a.status != c.status || !strings.Contains(fmt.Sprint(d["error"]), c.want) || c.inRule != "" && !strings.Contains(fmt.Sprint(d["stages"]), "rule:"+c.inRule) {
			t.Errorf("%s: %d %v", c.name, a.status, d)
		}
		for _, what := range []string{"id.test", "billing", "clerk", "nothing is read", "no identity"} {
			if strings.Contains(a.body, what) {
				t.Errorf("%s: the caller is told %s", c.name, a.body)
			}
		}
		if strings.Contains(fmt.Sprint(d), c.secret) && c.secret != "-" {
			t.Errorf("%s: the log repeats what came: %v", c.name, d)
		}
	}
}

// TestUnverifiedCertificateIsTold: a certificate that came and was not verified is
// no missing one, for who has to find out.
func TestUnverifiedCertificateIsTold(t *testing.T) {
	stranger := newCA(t, "stranger", nil)
	mallory := stranger.sign(t, func(c *x509.Certificate) { c.Subject.CommonName = "mallory" })
	gw := startMTLS(t, "request", "", route("cn", "subject cn"))
	a := gw.as(t, mallory).ask(t, "/cn")
	last := gw.decisions(t)
	if got := fmt.Sprint(last[len(last)-1]["error"]); a.reason() != "identity.missing" || !strings.Contains(got, `the certificate of "CN=mallory"`) || !strings.Contains(got, "was not verified: mode request and require") {
		t.Errorf("%d %s: %s", a.status, a.body, got)
	}
	if strings.Contains(a.body, "mallory") {
		t.Errorf("the caller is told %s", a.body)
	}
}
