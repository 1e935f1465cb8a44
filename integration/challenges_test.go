package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	clock "github.com/gatehouse-caddy/gatehouse/modules/gate/rehearsal"
)

const algs = `algs="RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA Ed25519"`

// wrong is an error as it stands in a challenge, with the sentence that people
// read.
func wrong(code, sentence string) string {
	return fmt.Sprintf(`error=%q, error_description=%q`, code, sentence)
}

// TestChallenges: every refusal tells the client how it could have proven who it
// is, each way in a challenge of its own, and what was wrong in the one that the
// credential was sent by.
func TestChallenges(t *testing.T) {
	iss, ann := newIssuer(t, "k1"), holder{newIssuer(t, "")}
	gw := prepare(t)
	gw.write(t, "jwks.json", iss.jwks())
	gw.write(t, "keys.json", `[{"id":"ci","sha256":"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"}]`) // of "secret"
	globals := strings.Replace(fmt.Sprintf(identityGlobals, "jwks.json"), "identity {", "identity {\nkeys keys.json", 1)
	if err := gw.load(globals, `
	@both path /both
	api @both both {
		identity main {
			keys
			dpop {
				max_age 60s
			}
		}
		require scope orders:admin
		respond ok
	}
	@proofs path /proofs
	api @proofs proofs {
		identity main {
			dpop {
				required
			}
		}
		require scope orders:admin
		respond ok
	}
	@keyed path /keyed
	api @keyed keyed {
		identity {
			keys
			optional
		}
		require scope orders:admin
		respond ok
	}
	@certificates path /certificates
	api @certificates certificates {
		identity {
			mtls
		}
		respond ok
	}
	@role path /role
	api @role role {
		identity main {
			optional
		}
		require role admin
		respond ok
	}
	api tokens {
		identity main
		require scope "orders:\"admin\""
		respond ok
	}`); err != nil {
		t.Fatal(err)
	}
	const realm = `realm="api"`
	const keyed = realm + `, header="X-Api-Key"`
	const unbound = "The token is bound to a key or certificate that the request does not prove."
	const lacks = `error="insufficient_scope", scope="orders:admin"`
	good, held := iss.token(t, nil), iss.token(t, bound(ann.thumbprint()))
	proof := func(path string) http.Header { return ann.with(t, held, "http://localhost"+path, nil) }
	for _, tc := range []struct {
		name, path string
		header     http.Header
		status     int
		want       []string
	}{
		{"nothing", "/both", nil, 401, []string{"Bearer " + realm, "DPoP " + algs, "ApiKey " + keyed}},
		{"somebody else's scheme", "/both", http.Header{"Authorization": {"Basic YTpi"}}, 401, []string{"Bearer " + realm, "DPoP " + algs, "ApiKey " + keyed}},
		{"a wrong token", "/both", bearer("x"), 401, []string{"Bearer " + realm + ", " + wrong("invalid_token", "The credential cannot be read."), "DPoP " + algs, "ApiKey " + keyed}},
		{"an expired one", "/both", bearer(iss.token(t, map[string]any{"exp": 1})), 401, []string{"Bearer " + realm + ", " + wrong("invalid_token", "The credential has expired."), "DPoP " + algs, "ApiKey " + keyed}},
		{"two tokens", "/both", http.Header{"Authorization": {"Bearer a", "Bearer b"}}, 400, []string{"Bearer " + realm + ", " + wrong("invalid_request", "The request carries more than one credential of a kind."), "DPoP " + algs, "ApiKey " + keyed}},
		{"two keys", "/both", http.Header{"X-Api-Key": {"a", "b"}}, 400, nil},
		{"a wrong key", "/both", http.Header{"X-Api-Key": {"a"}}, 401, []string{"Bearer " + realm, "DPoP " + algs, "ApiKey " + keyed}},
		{"no proof", "/both", http.Header{"Authorization": {"DPoP " + held}}, 401, []string{"Bearer " + realm, "DPoP " + algs + ", " + wrong("invalid_dpop_proof", "The proof of possession is wrong."), "ApiKey " + keyed}},
		{"a bound token without its scheme", "/both", bearer(held), 401, []string{"Bearer " + realm + ", " + wrong("invalid_token", unbound), "DPoP " + algs, "ApiKey " + keyed}},
		{"a scope that is missing", "/both", bearer(good), 403, []string{"Bearer " + realm + ", " + lacks, "DPoP " + algs, "ApiKey " + keyed}},
		{"the same, with a proof", "/both", proof("/both"), 403, []string{"Bearer " + realm, "DPoP " + algs + ", " + lacks, "ApiKey " + keyed}},
		{"the same, with a key", "/both", http.Header{"X-Api-Key": {"secret"}}, 403, nil},

		{"a token where proofs are required", "/proofs", bearer(good), 401, []string{"DPoP " + algs + ", " + wrong("invalid_token", unbound)}},
		{"nothing where proofs are required", "/proofs", nil, 401, []string{"DPoP " + algs}},

		{"nobody, where only keys count", "/keyed", nil, 401, []string{"ApiKey " + keyed}},
		{"certificates have no scheme", "/certificates", nil, 401, []string{"ClientCertificate " + realm}},
		{"nobody, where a role is asked for", "/role", nil, 401, []string{"Bearer " + realm}},
		{"another role", "/role", bearer(good), 403, nil},
		{"a scope that would end the quotes", "/", bearer(good), 403, []string{"Bearer " + realm + `, error="insufficient_scope", scope="orders:admin"`}},
		{"a bound token, whose client knows proofs", "/", bearer(held), 401, []string{"Bearer " + realm + ", " + wrong("invalid_token", unbound), "DPoP " + algs}},
		{"a scope, with a proof nobody asked for", "/", proof("/"), 403, []string{"Bearer " + realm, "DPoP " + algs + ", " + lacks}},
	} {
		a := gw.get(t, tc.path, tc.header)
		if got := a.header["Www-Authenticate"]; a.status != tc.status || !slices.Equal(got, tc.want) {
			t.Errorf("%s: %d %s\n got %q\nwant %q", tc.name, a.status, a.reason(), got, tc.want)
		}
	}
}

// TestStepUp: an operation asks for a stronger or more recent authentication
// than the token comes from, by the route and by the contract (RFC 9470).
func TestStepUp(t *testing.T) {
	iss := newIssuer(t, "k1")
	gw := prepare(t)
	gw.write(t, "jwks.json", iss.jwks())
	gw.write(t, "bank.yaml", `{"openapi":"3.1.0","info":{"title":"Bank","version":"1"},"paths":{
		"/balance":{"get":{"responses":{"200":{"description":"ok"}}}},
		"/transfer":{"get":{"operationId":"transfer","x-gatehouse-authentication":{"acr":["gold"],"max_age":"5m"},"responses":{"200":{"description":"ok"}}}},
		"/routed":{"get":{"responses":{"200":{"description":"ok"}}}}}}`)
	if err := gw.load(fmt.Sprintf(identityGlobals, "jwks.json"), `
	api bank {
		contract bank.yaml
		identity main
		@routed path /routed
		require @routed acr gold silver {
			max_age 1m
		}
		respond ok
	}`); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	t.Cleanup(clock.Release)
	clock.Hold(now)
	said := func(acr any, age time.Duration) http.Header {
		return bearer(iss.token(t, map[string]any{"acr": acr, "auth_time": now.Add(-age).Unix()}))
	}
	const challenge = `Bearer realm="api", error="insufficient_user_authentication", error_description="This operation needs a stronger or more recent authentication.", `
	fresh := said("gold", 0)
	for _, tc := range []struct {
		name, path string
		header     http.Header
		challenge  string // of a refusal
	}{
		{"an operation that asks for nothing", "/balance", bearer(iss.token(t, nil)), ""},
		{"strong and recent", "/transfer", fresh, ""},
		{"weak", "/transfer", said("bronze", 0), challenge + `acr_values="gold", max_age="300"`},
		{"strong, and too long ago", "/transfer", said("gold", 6*time.Minute), challenge + `acr_values="gold", max_age="300"`},
		{"nothing is said", "/transfer", bearer(iss.token(t, nil)), challenge + `acr_values="gold", max_age="300"`},
		{"a number for a name", "/transfer", said(3, 0), challenge + `acr_values="gold", max_age="300"`},
		{"by the route, the second of two", "/routed", said("silver", 0), ""},
		{"by the route, too long ago", "/routed", said("gold", 2*time.Minute), challenge + `acr_values="gold silver", max_age="60"`},
	} {
		a := gw.get(t, tc.path, tc.header)
		reason, status := "require.authentication", 401
		if tc.challenge == "" {
			reason, status = "", 200
		}
		if a.status != status || a.reason() != reason || a.header.Get("Www-Authenticate") != tc.challenge {
			t.Errorf("%s: %d %s\n got %s\nwant %s", tc.name, a.status, a.body, a.header.Get("Www-Authenticate"), tc.challenge)
		}
	}
	// A token that is remembered grows old all the same.
	clock.Advance(5*time.Minute + time.Second)
	if a := gw.get(t, "/transfer", fresh); a.reason() != "require.authentication" {
		t.Errorf("five minutes later: %d %s", a.status, a.body)
	}
	if a := gw.get(t, "/balance", fresh); a.status != 200 {
		t.Errorf("five minutes later, where nothing is asked: %d %s", a.status, a.body)
	}
}

// TestResourceMetadata: a client that knows the API's address only finds out who
// gives tokens for it (RFC 9728).
func TestResourceMetadata(t *testing.T) {
	iss := newIssuer(t, "k1")
	gw := prepare(t)
	gw.write(t, "jwks.json", iss.jwks())
	gw.write(t, "orders.yaml", catalogDoc)
	globals := fmt.Sprintf(identityGlobals, "jwks.json")
	site := `
	@v1 path /v1* /.well-known/oauth-protected-resource/v1
	api @v1 orders {
		resource https://api.example.com/v1
		catalog /v1/docs {
			hide admin
		}
		contract orders.yaml {
			base_path /v1
		}
		identity main {
			mtls
			dpop {
				required
			}
		}
		require role clerk
		respond ok
	}
	api small {
		resource https://small.example.com {
			name "Small things"
			documentation https://docs.example.com
			scopes a b
			certificate_bound
		}
		identity main
		require scope small
		respond ok
	}`
	if err := gw.load(globals, site); err != nil {
		t.Fatal(err)
	}
	read := func(path string) map[string]any {
		a := gw.do(t, "GET", path, http.Header{"X-Forwarded-Host": {"evil.test"}}, "")
		var doc map[string]any
		if err := json.Unmarshal([]byte(a.body), &doc); err != nil || a.status != 200 || a.header.Get("Content-Type") != "application/json" || a.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Fatalf("%s: %d %v %s: %v", path, a.status, a.header, a.body, err)
		}
		return doc
	}
	doc := read("/.well-known/oauth-protected-resource/v1")
	delete(doc, "dpop_signing_alg_values_supported")
	if got, want := fmt.Sprint(doc), `map[authorization_servers:[https://id.test] bearer_methods_supported:[header] dpop_bound_access_tokens_required:true `+
		`resource:https://api.example.com/v1 resource_documentation:https://api.example.com/v1/docs resource_name:Orders <script>document.title="taken"</script> `+
		`scopes_supported:[orders:read orders:write] tls_client_certificate_bound_access_tokens:true]`; got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	doc = read("/.well-known/oauth-protected-resource")
	if got, want := fmt.Sprintf("%v %v %v %v %v %v", doc["resource"], doc["resource_name"], doc["scopes_supported"], doc["resource_documentation"], doc["dpop_bound_access_tokens_required"], doc["tls_client_certificate_bound_access_tokens"]),
		"https://small.example.com Small things [a b] https://docs.example.com <nil> true"; got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}

	// Whoever is refused is told where it is, whatever the request says of the host.
	for path, want := range map[string]string{
		"/v1/orders": "https://api.example.com/.well-known/oauth-protected-resource/v1",
		"/":          "https://small.example.com/.well-known/oauth-protected-resource",
	} {
		for _, header := range []http.Header{nil, bearer("x"), {"X-Forwarded-Host": {"evil.test"}}} {
			if a := gw.get(t, path, header); a.status != 401 || !strings.Contains(a.header.Get("Www-Authenticate"), `resource_metadata="`+want+`"`) {
				t.Errorf("%s: %d %q", path, a.status, a.header["Www-Authenticate"])
			}
		}
	}
	if a := gw.get(t, "/", bearer(iss.token(t, nil))); a.status != 403 || !strings.Contains(a.header.Get("Www-Authenticate"), `scope="small", resource_metadata=`) {
		t.Errorf("a scope that is missing: %d %q", a.status, a.header["Www-Authenticate"])
	}
	if a := gw.do(t, "POST", "/.well-known/oauth-protected-resource", nil, ""); a.status != 401 {
		t.Errorf("written to: %d %s", a.status, a.body)
	}
	if n := gw.metric(t, "gatehouse_identity_metadata_total"); n < 2 {
		t.Errorf("%v were counted", n)
	}
	if err := gw.load("", "api demo {\nresource https://api.example.com\nrespond ok\n}"); err == nil || !strings.Contains(err.Error(), "nothing in the api accepts tokens") {
		t.Errorf("without identity: %v", err)
	}
	if err := gw.load(globals, "api demo {\nidentity main\nrespond ok\n}"); err != nil {
		t.Fatal(err)
	}
	if a := gw.get(t, "/.well-known/oauth-protected-resource", nil); a.reason() != "identity.missing" || strings.Contains(a.header.Get("Www-Authenticate"), "resource_metadata") {
		t.Errorf("not asked for: %d %s", a.status, a.body)
	}
}
