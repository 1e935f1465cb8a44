package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// ValidateTokenExchangeRequest is the provider's say in who may have a token
// for whom.
func (p *provider) ValidateTokenExchangeRequest(_ context.Context, r op.TokenExchangeRequest) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.issued[r.GetExchangeSubjectTokenIDOrToken()] == nil {
		return oidc.ErrInvalidRequest().WithDescription("revoked")
	}
	if !slices.Equal(r.GetAudience(), []string{"orders-backend"}) {
		return oidc.ErrInvalidTarget()
	}
	return nil
}

// exchangedFor counts the tokens that were given for an audience.
func (p *provider) exchangedFor(audience string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.issued {
		if x, ok := r.(op.TokenExchangeRequest); ok && slices.Contains(x.GetAudience(), audience) {
			n++
		}
	}
	return n
}

// about is what an upstream hears when it asks the provider.
func (p *provider) about(t *testing.T, token string) (said map[string]any) {
	t.Helper()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, p.URL+"/oauth/introspect", strings.NewReader(url.Values{"token": {token}}.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("gateway", url.QueryEscape("s3cr%t: +"))
	resp, err := p.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, _ := io.ReadAll(resp.Body)
	if err := json.Unmarshal(data, &said); err != nil {
		t.Fatalf("%s: %s", resp.Status, data)
	}
	return said
}

// exchanged is a gateway whose tokens are exchanged somewhere.
func exchanged(at string, header http.Header) provoked {
	return provoked{
		global: "identity {\nissuer main https://id.test {\njwks jwks.json\naudience orders-api\nexchange " + at + " {\nclient_id gateway\nclient_secret {env.INTROSPECTION_SECRET}\n}\n}\n}",
		site:   "identity main {\nexchange orders-backend\n}\nrespond ok", header: header,
	}
}

// TestTokenExchange: a real provider gives the upstream's own token for the
// client's, once for all requests that carry it; the client's goes nowhere.
func TestTokenExchange(t *testing.T) {
	p := newProvider(t)
	b := newBackend(t, nil)
	t.Setenv("INTROSPECTION_SECRET", "s3cr%t: +")
	t.Setenv("WRONG_SECRET", "hunter2")
	client := "client_id gateway\nclient_secret {env.INTROSPECTION_SECRET}\n"
	globals := func(secret string) string {
		return fmt.Sprintf("identity {\nissuer main %s {\naudience orders-api\nintrospect {\n%s}\nexchange {\nclient_id gateway\nclient_secret {env.%s}\n}\n}\n}", p.URL, client, secret)
	}
	site := func(what string) string {
		return "api demo {\nidentity main {\noptional\nexchange " + what + "\n}\nreverse_proxy " + b.addr() + "\n}"
	}
	gw := start(t, globals("INTROSPECTION_SECRET"), site("orders-backend"))
	sent := func() string {
		r, _ := b.got()
		return strings.Join(r.Header["Authorization"], ",")
	}

	mine := p.token(t, "orders:read")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if a := gw.get(t, "/", bearer(mine)); a.status != 200 {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	wg.Wait()
	if n := p.exchangedFor("orders-backend"); n != 1 {
		t.Errorf("20 requests with one token exchanged %d times", n)
	}
	theirs, ok := strings.CutPrefix(sent(), "Bearer ")
	if said := p.about(t, theirs); !ok || theirs == mine || said["active"] != true || said["sub"] != "sid1" {
		t.Errorf("the upstream has %q, of which the provider says %v", sent(), said)
	}
	if a := gw.get(t, "/", http.Header{"Authorization": {"Basic YTpi"}}); a.status != 200 || sent() != "" {
		t.Errorf("an anonymous client's Authorization: %d, %q", a.status, sent())
	}
	// It outlives a reload, and is another for another audience, which the
	// provider may refuse.
	if err := gw.load(globals("INTROSPECTION_SECRET")+"\ndebug", site("orders-backend")); err != nil {
		t.Fatal(err)
	}
	if gw.get(t, "/", bearer(mine)); sent() != "Bearer "+theirs {
		t.Error("after a reload it was exchanged again")
	}
	if err := gw.load(globals("INTROSPECTION_SECRET"), site("vault {\non_error open\n}")); err != nil {
		t.Fatal(err)
	}
	hits := b.count()
	if a := gw.get(t, "/", bearer(mine)); a.status != 403 || a.reason() != "identity.exchange_refused" || b.count() != hits {
		t.Errorf("for somebody else: %d %s", a.status, a.body)
	}

	// Our own credential is wrong: that is no verdict on the caller.
	if err := gw.load(globals("WRONG_SECRET"), site("orders-backend")); err != nil {
		t.Fatal(err)
	}
	if a := gw.get(t, "/", bearer(mine)); a.status != 503 || a.reason() != "identity.exchange_unavailable" || a.header.Get("Retry-After") == "" {
		t.Errorf("a wrong secret: %d %s", a.status, a.body)
	}
	if err := gw.load(globals("WRONG_SECRET"), site("orders-backend {\non_error open\n}")); err != nil {
		t.Fatal(err)
	}
	if a := gw.get(t, "/", bearer(mine)); a.status != 200 || sent() != "" {
		t.Errorf("where that is let pass: %d, and the upstream has %q", a.status, sent())
	}
	for name, text := range map[string]string{"/config": gw.ask(t, "/config/"), "the log": gw.log(t)} {
		for _, secret := range []string{"s3cr%t", "s3cr%25t", "hunter2", mine, theirs} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %.6q in it", name, secret)
			}
		}
	}
}

// TestExchangeBound: what binds a token to its holder is proven to the gateway
// first; the upstream's token is bound to nothing, and the proof stays here.
func TestExchangeBound(t *testing.T) {
	iss, ann := newIssuer(t, "k1"), holder{newIssuer(t, "")}
	b := newBackend(t, nil)
	t.Setenv("INTROSPECTION_SECRET", "s")
	at := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"theirs","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer","expires_in":60}`)
	})
	gw := prepare(t)
	gw.write(t, "jwks.json", iss.jwks())
	how := exchanged(at.URL, nil)
	if err := gw.load(how.global, "api demo {\n"+strings.Replace(how.site, "respond ok", "reverse_proxy "+b.addr(), 1)+"\n}"); err != nil {
		t.Fatal(err)
	}
	token := iss.token(t, bound(ann.thumbprint()))
	if a := gw.get(t, "/", bearer(token)); a.reason() != "identity.unbound" || at.count() != 0 {
		t.Errorf("without a proof: %d %s, and the issuer was asked %d times", a.status, a.body, at.count())
	}
	if a := gw.get(t, "/", ann.with(t, token, "http://localhost/", nil)); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if r, _ := b.got(); r.Header.Get("Authorization") != "Bearer theirs" || r.Header["Dpop"] != nil {
		t.Errorf("the upstream has %v", r.Header)
	}
	if _, form := at.got(); !strings.Contains(form, "subject_token="+token) {
		t.Errorf("the issuer was asked with %s", form)
	}
}
