package require

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

func TestByContract(t *testing.T) {
	oauth := func(scopes ...string) gate.Scheme { return gate.Scheme{Type: "oauth2", Scopes: scopes} }
	key := gate.Scheme{Type: "apiKey"}
	bearer := func(scopes ...string) *gate.Principal {
		return &gate.Principal{Method: gate.Bearer, Scopes: scopes}
	}
	keyed := &gate.Principal{Method: gate.APIKey}

	for _, tc := range []struct {
		name     string
		security []gate.Alternative
		who      *gate.Principal
		want     gate.Reason
	}{
		{"a contract that says nothing asks for nothing", nil, nil, gate.None},
		{"an empty security lets anonymous callers pass", []gate.Alternative{}, nil, gate.None},
		{"an empty alternative lets anonymous callers pass", []gate.Alternative{{oauth("a")}, {}}, nil, gate.None},
		{"nobody is not somebody", []gate.Alternative{{oauth()}}, nil, gate.RequireAnonymous},
		{"the scope is there", []gate.Alternative{{oauth("a")}}, bearer("b", "a"), gate.None},
		{"all scopes of a scheme are needed", []gate.Alternative{{oauth("a", "b")}}, bearer("a"), gate.RequireScope},
		{"any alternative will do", []gate.Alternative{{oauth("a")}, {oauth("b")}}, bearer("b"), gate.None},
		{"all schemes of an alternative are needed", []gate.Alternative{{oauth("a"), key}}, bearer("a"), gate.RequireScheme},
		{"a key is no token", []gate.Alternative{{oauth("a")}}, keyed, gate.RequireScheme},
		{"a key is a key", []gate.Alternative{{oauth("a")}, {key}}, keyed, gate.None},
		{"a scope is no substring", []gate.Alternative{{oauth("orders:read")}}, bearer("orders:read2"), gate.RequireScope},
		{"basic proves nothing to us", []gate.Alternative{{gate.Scheme{Type: "http", HTTP: "basic"}}}, bearer(), gate.RequireScheme},
	} {
		t.Run(tc.name, func(t *testing.T) {
			op := &gate.Operation{Security: tc.security}
			for _, ex := range []*gate.Exchange{{Operation: op, Principal: tc.who}, {Otherwise: op, Principal: tc.who}} {
				d := byContract(ex)
				got := gate.None
				if d != nil {
					got = d.Reason
				}
				if got != tc.want {
					t.Errorf("got %q, want %q", got, tc.want)
				}
			}
		})
	}
}

// TestTwoReadings: an expression is not true of a request that its backend may
// read in another way.
func TestTwoReadings(t *testing.T) {
	for target, want := range map[string]bool{
		"/public/a": true, "/public/a/": true, "/public/a?b=1": true, "/public/a%2Fb": true,
		"/public/../admin": false, "/public/./a": false, "/public//a": false, "/public/%2e%2e/admin": false, `/public/a%5Cb`: false,
		"/public/a?role=user;role=admin": false, "/public/a?b=%zz": false,
	} {
		for _, expr := range []string{`request.path.startsWith("/public/") && !("role" in request.query)`, `!(!request.path.startsWith("/public/") || "role" in request.query)`} {
			p, err := compile(expr)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := p.eval(&gate.Exchange{}, httptest.NewRequest(http.MethodGet, target, nil)); got != want || got != (err == nil) {
				t.Errorf("%s of %s: %v, %v", expr, target, got, err)
			}
		}
	}
}

func TestExpression(t *testing.T) {
	ex := &gate.Exchange{Principal: &gate.Principal{
		Subject: "ann", Tenant: "acme", Roles: []string{"clerk"}, Scopes: []string{"orders:read"},
		Claims: map[string]any{"org": map[string]any{"level": int64(3)}},
	}, Operation: &gate.Operation{ID: "getOrder"}, Params: []gate.Param{{Name: "id", Value: "7"}}}
	r := httptest.NewRequest(http.MethodGet, "http://a.test/orders/7?q=1", nil)
	r.Header.Set("X-Region", "eu")

	for expr, want := range map[string]bool{
		`principal.tenant == "acme"`:                                        true,
		`"admin" in principal.roles || "clerk" in principal.roles`:          true,
		`principal.claims.org.level >= 3`:                                   true,
		`principal.claims.nothing == 3`:                                     false,
		`has(principal.claims.nothing) && principal.claims.nothing`:         false,
		`request.headers["x-region"] == "eu" && request.query["q"][0]=="1"`: true,
		`operation.id == "getOrder" && operation.params.id == "7"`:          true,
		`request.method == "POST"`:                                          false,
	} {
		p, err := compile(expr)
		if err != nil {
			t.Errorf("%s: %v", expr, err)
			continue
		}
		if got, err := p.eval(ex, r); got != want {
			t.Errorf("%s is %v (%v), want %v", expr, got, err, want)
		}
	}
	for _, expr := range []string{`principal.subjct == "x"`, `principal.tenant`, `1 +`, `nobody`} {
		if _, err := compile(expr); err == nil {
			t.Errorf("%s compiles", expr)
		}
	}
	p, _ := compile(`principal.tenant == "acme"`)
	if ok, err := p.eval(&gate.Exchange{}, r); ok || err != nil {
		t.Errorf("an anonymous caller: %v, %v", ok, err)
	}
}

func BenchmarkScopes(b *testing.B) {
	h := &Handler{Scopes: []string{"orders:read"}}
	ex := &gate.Exchange{Principal: &gate.Principal{Scopes: []string{"a", "b", "orders:read"}}}
	b.ReportAllocs()
	for b.Loop() {
		if _, d := h.decide(ex, nil); d != nil {
			b.Fatal(d)
		}
	}
}

func BenchmarkExpression(b *testing.B) {
	p, err := compile(`"clerk" in principal.roles && request.path.startsWith("/orders")`)
	if err != nil {
		b.Fatal(err)
	}
	ex := &gate.Exchange{Principal: &gate.Principal{Roles: []string{"reader", "clerk"}}}
	r := httptest.NewRequest(http.MethodGet, "http://a.test/orders/7", nil)
	b.ReportAllocs()
	for b.Loop() {
		if ok, err := p.eval(ex, r); !ok {
			b.Fatal(err)
		}
	}
}

// TestRuleIsWhole: a decision shows the rule as it is written, on one line and

// TestMisspeltExpression: the error says what there is, and not only that there
// is no principal.
func TestMisspeltExpression(t *testing.T) {
	for expression, says := range map[string]string{
		"principal.tennant == 'a'": "an expression knows principal.acr, ",
		"tenant == 'a'":            "principal.tenant, ",
		"request.pth == '/'":       "request.path",
	} {
		if _, err := compile(expression); err == nil || !strings.Contains(err.Error(), says) || strings.HasPrefix(expression, "request") && strings.Contains(err.Error(), "principal.") {
			t.Errorf("%s: %v", expression, err)
		}
	}
}

// bounded, and not only its first word.
func TestRuleIsWhole(t *testing.T) {
	for want, h := range map[string]*Handler{
		"scope orders:read orders:write": {Scopes: []string{"orders:read", "orders:write"}},
		"role clerk admin":               {Roles: []string{"clerk", "admin"}},
		"cel principal.tenant == \"acme\" && request.method == \"GET\"": {Expression: "principal.tenant == \"acme\" &&\n\t\trequest.method == \"GET\"\n"},
		"acr gold silver max_age 5m0s":                                  {StepUp: StepUp{ACR: []string{"gold", "silver"}, MaxAge: caddy.Duration(5 * time.Minute)}},
		"contract":                                                      {},
	} {
		if got := h.written(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	long := (&Handler{Roles: []string{strings.Repeat("ä", 400)}}).written()
	if len(long) > maxRule || !strings.HasSuffix(long, "ä…") {
		t.Errorf("%d bytes: %q", len(long), long)
	}
}

// TestCausesAreTheOperators: what a refusal says of the caller is in its cause, and
// the caller's own sentence has none of it.
func TestCausesAreTheOperators(t *testing.T) {
	ann := &gate.Principal{Issuer: "main", Method: gate.Bearer, Roles: []string{"clerk", "a\nb"}, Scopes: []string{"orders:read"}}
	keyed := &gate.Principal{Method: gate.APIKey}
	many := &gate.Principal{Method: gate.Bearer, Roles: strings.Fields(strings.Repeat("r ", 1000))}
	shadowed, open := new(gate.Exchange), new(gate.Exchange)
	if err := shadowed.Decide(gate.Identity, gate.Shadow, "", &gate.Denial{Reason: gate.IdentityExpired}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := open.Decide(gate.Identity, gate.Enforce, "", nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		h    Handler
		ex   *gate.Exchange
		want string
	}{
		{"a scope", Handler{Scopes: []string{"orders:read", "orders:write"}}, &gate.Exchange{Principal: ann}, `a bearer token of "main", and has the scopes "orders:read"`},
		{"a role", Handler{Roles: []string{"admin"}}, &gate.Exchange{Principal: ann}, `has the roles "clerk" "a\nb"`},
		{"no role at all", Handler{Roles: []string{"admin"}}, &gate.Exchange{Principal: keyed}, "known by an API key, and has no roles"},
		{"too many", Handler{Roles: []string{"admin"}}, &gate.Exchange{Principal: many}, "and 992 more"},
		{"no identity", Handler{Roles: []string{"admin"}}, new(gate.Exchange), "no identity stands before"},
		{"identity in shadow", Handler{Roles: []string{"admin"}}, shadowed, "shadow mode, and would have refused the request: identity.expired"},
		{"identity that is optional", Handler{Scopes: []string{"a"}}, open, "it is optional there"},
		{"a key, where a token is asked for", Handler{StepUp: StepUp{ACR: []string{"gold"}}}, &gate.Exchange{Principal: keyed}, "known by an API key"},
		{"a weak token", Handler{StepUp: StepUp{ACR: []string{"gold"}, MaxAge: caddy.Duration(time.Minute)}}, &gate.Exchange{Principal: ann}, `the acr "" and has no auth_time; asked for is acr gold max_age 1m0s`},
	} {
		_, d := c.h.decide(c.ex, nil)
		if d == nil || d.Err == nil || !strings.Contains(d.Err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", c.name, d, c.want)
		} else if strings.Contains(d.Detail, "known by") || strings.Contains(d.Detail, "clerk") {
			t.Errorf("%s: the caller is told %q", c.name, d.Detail)
		}
	}
}
