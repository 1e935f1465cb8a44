package integration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/transcode/transcodetest"
)

// provoked is a gateway and a request to it that gives one reason.
type provoked struct {
	global string
	site   string // what stands in the api
	method string // GET
	path   string // /
	header http.Header
	body   string
	status int                                    // if it is not the reason's own
	ask    func(t *testing.T, gw *gateway) answer // in place of the request
}

// fromInside are reasons that no request can give: something of ours has to
// fail first. The named test makes it fail.
var fromInside = map[gate.Reason]string{
	gate.InputUnavailable: "TestPanicInValidation",
	gate.FirewallFailed:   "TestFirewallFails",
	gate.FirewallBusy:     "TestFirewallUnderLoad", // takes a crowd
	gate.QuotaUnusual:     "TestUnusual",           // takes a day to learn

	// A client certificate needs a port with TLS.
	gate.IdentityCertificateName:   "TestCertificatePrincipals",
	gate.IdentityCertificatePolicy: "TestCertificatePolicy",

	gate.IdentityCertificateRevoked: "TestRevocationList",
	gate.IdentityRevocationUnknown:  "TestRevocationList",

	// The service's own answer, which is none of our decisions.
	gate.TranscodeUpstream: "TestTranscodeREST",
	// Told in the protocols that have bidirectional streams only.
	gate.TranscodeHTTPVersion: "TestTranscodeNeedsHTTP2",
}

// provocations gives every reason once. What a reason is missing is a failure of
// TestEveryReason.
func provocations(t *testing.T, gw *gateway, iss *issuer) map[gate.Reason]provoked {
	back := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		status := http.StatusOK
		_, _ = fmt.Sscanf(r.URL.Path, "/status/%d", &status)
		w.WriteHeader(status)
	})
	stuck := newUpstream(t)
	stuck.hang.Store(true)
	failing := newUpstream(t)
	failing.status.Store(500)

	now := time.Now().Unix()
	proxy := "reverse_proxy " + back.addr()
	login := fmt.Sprintf(identityGlobals, "jwks.json")
	token := func(change map[string]any) http.Header { return bearer(iss.token(t, change)) }
	signed := func(header map[string]any) http.Header {
		return bearer(iss.sign(t, header, map[string]any{"iss": "https://id.test", "aud": "orders-api", "sub": "ann", "exp": now + 60}))
	}
	identity := func(h http.Header) provoked {
		return provoked{global: login, site: "identity main\nrespond ok", header: h}
	}
	requires := func(what string) provoked {
		return provoked{global: login, site: "identity main\n" + what + "\nrespond ok", header: token(nil)}
	}
	guard := func(options string, p provoked) provoked {
		p.site = "guard {\n" + options + "\n}\n" + proxy
		return p
	}
	contract := func(p provoked) provoked {
		p.site = "contract orders.yaml {\nmax_body 1KiB\n}\nrequire {\nmode off\n}\n" + proxy
		return p
	}
	firewall := func(p provoked) provoked {
		p.site = "firewall {\nmax_body 20KiB\n}\n" + proxy
		return p
	}
	shop := transcodetest.New(t).Serve(t)
	gw.write(t, "shop.binpb", string(shop.Set))
	transcode := func(options string, p provoked) provoked {
		p.site = "transcode shop.binpb {\n" + options + "\n}\nreverse_proxy h2c://" + shop.Addr
		return p
	}
	op := newProvider(t)
	t.Setenv("INTROSPECTION_SECRET", "s3cr%t: +")
	ann := holder{newIssuer(t, "")}
	jsonType := http.Header{"Content-Type": {"application/json"}}
	long := strings.Repeat("a", 30<<10)

	return map[gate.Reason]provoked{
		gate.APIUnmatched:           {site: "@a path /a\nrespond @a ok"},
		gate.APIRejected:            {site: "error 418", status: 418},
		gate.APIPanic:               {site: "test_panic"},
		gate.APIFailed:              {site: "error 500"},
		gate.APIUpstreamFailed:      {site: proxy, path: "/status/500", status: 500},
		gate.APIUpstreamUnavailable: {site: proxy, path: "/status/503"},
		gate.APIUpstreamTimeout:     {site: proxy, path: "/status/504"},

		gate.ReputationDenied:      {global: behindProxy, site: "reputation {\ndeny 192.0.2.0/24\n}\nrespond ok", header: http.Header{"X-Forwarded-For": {"192.0.2.1"}}},
		gate.ReputationUnavailable: {global: "reputation {\nlist far https://127.0.0.1:9/list\n}", site: "reputation {\ndeny far\non_error closed\n}\nrespond ok"},
		gate.ReputationCountry: {
			global: behindProxy + "reputation {\ncountry_db country.mmdb\n}", site: "reputation {\ndeny_countries GB\n}\nrespond ok",
			header: http.Header{"X-Forwarded-For": {"81.2.69.142"}},
		},

		gate.GuardPath:            guard("", provoked{path: "/a%2fb"}),
		gate.GuardURL:             guard("max_url 100B", provoked{path: "/?q=" + long[:200]}),
		gate.GuardQuery:           guard("max_query 2", provoked{path: "/?a=1&b=2&c=3"}),
		gate.GuardHeaders:         guard("max_headers 3", provoked{header: http.Header{"A": {"1"}, "B": {"2"}, "C": {"3"}}}),
		gate.GuardEarlyData:       guard("", provoked{method: "POST", header: http.Header{"Early-Data": {"1"}}}),
		gate.GuardOverride:        guard("", provoked{header: http.Header{"X-Http-Method-Override": {"DELETE"}}}),
		gate.GuardFraming:         guard("", provoked{header: http.Header{"Origin": {"https://a", "https://b"}}}),
		gate.GuardContentType:     guard("content_types application/json", provoked{method: "POST", header: http.Header{"Content-Type": {"text/csv"}}, body: "a"}),
		gate.GuardContentEncoding: guard("", provoked{method: "POST", header: http.Header{"Content-Encoding": {"compress"}}, body: "a"}),
		gate.GuardBodyTooLarge:    guard("max_body 1KiB", provoked{method: "POST", body: long}),
		gate.GuardJSON:            guard("", provoked{method: "POST", header: jsonType, body: `{"a":1,"a":2}`}),
		gate.GuardBodyUnreadable:  guard("", provoked{ask: brokenOrder}),

		gate.ContractUnknownPath:   contract(provoked{path: "/nowhere"}),
		gate.ContractUnknownMethod: contract(provoked{method: "PUT", path: "/orders"}),

		gate.IdentityMissing:       identity(nil),
		gate.IdentityAmbiguous:     identity(http.Header{"Authorization": {"Bearer a", "Bearer b"}}),
		gate.IdentityMalformed:     identity(bearer("hello")),
		gate.IdentityUnknownIssuer: identity(token(map[string]any{"iss": "https://else.test"})),
		gate.IdentityUnknownKey:    identity(signed(map[string]any{"alg": "ES256", "kid": "k9"})),
		gate.IdentityBadAlgorithm:  identity(signed(map[string]any{"alg": "RS256", "kid": "k1"})),
		gate.IdentityBadSignature:  identity(bearer(newIssuer(t, "k1").token(t, nil))),
		gate.IdentityExpired:       identity(token(map[string]any{"exp": now - 100})),
		gate.IdentityNotYetValid:   identity(token(map[string]any{"nbf": now + 100})),
		gate.IdentityWrongAudience: identity(token(map[string]any{"aud": "billing"})),
		gate.IdentityWrongType:     identity(signed(map[string]any{"alg": "ES256", "kid": "k1", "typ": "logout+jwt"})),
		gate.IdentityMissingClaim:  identity(token(map[string]any{"exp": nil})),
		gate.IdentityInvalidAPIKey: {global: "identity {\nkeys keys.json\n}", site: "identity {\nkeys\n}\nrespond ok", header: http.Header{"X-Api-Key": {"guess"}}},
		gate.IdentityInactive: {
			global: "identity {\nissuer main " + op.URL + " {\naudience orders-api\nintrospect {\nclient_id gateway\nclient_secret {env.INTROSPECTION_SECRET}\n}\n}\n}",
			site:   "identity main\nrespond ok", header: bearer("guess"),
		},
		gate.IdentityRevoked: {global: login, site: "identity main\nrespond ok", ask: func(t *testing.T, gw *gateway) answer {
			gw.revoke(t, `{"jti":"stolen","issuer":"https://id.test"`)
			return gw.get(t, "/", token(map[string]any{"jti": "stolen"}))
		}},
		gate.IdentityUnbound:  identity(token(bound(ann.thumbprint()))),
		gate.IdentityBadProof: identity(http.Header{"Authorization": {"DPoP " + iss.token(t, bound(ann.thumbprint()))}, "Dpop": {"hello"}}),
		gate.IdentityReplayed: {global: login, site: "identity main\nrespond ok", ask: func(t *testing.T, gw *gateway) answer {
			proof := ann.with(t, iss.token(t, bound(ann.thumbprint())), "http://localhost/", nil)
			gw.get(t, "/", proof)
			return gw.get(t, "/", proof)
		}},
		gate.IdentityNonce: {
			global: login, site: "identity main {\ndpop {\nnonce\n}\n}\nrespond ok",
			header: ann.with(t, iss.token(t, bound(ann.thumbprint())), "http://localhost/", nil),
		},
		gate.IdentityUnavailable: {
			global: "identity {\nissuer main https://id.test {\njwks http://127.0.0.1:9/keys\naudience orders-api\n}\n}",
			site:   "identity main\nrespond ok", header: token(nil),
		},
		gate.IdentityUnsigned: {global: login, site: "identity main {\ntell jwt {\naudience a\n}\n}\nrespond ok", ask: func(t *testing.T, gw *gateway) answer {
			gw.withoutSigner(t)
			return gw.get(t, "/", token(nil))
		}},
		gate.IdentityExchangeRefused:     exchanged(op.URL+"/oauth/token", token(nil)),
		gate.IdentityExchangeUnavailable: exchanged("http://127.0.0.1:9/token", token(nil)),

		gate.RequireAnonymous:      {site: "require role admin\nrespond ok"},
		gate.RequireScope:          requires("require scope orders:admin"),
		gate.RequireRole:           requires("require role admin"),
		gate.RequireExpression:     requires("require cel `principal.tenant == \"other\"`"),
		gate.RequireAuthentication: requires("require acr gold"),
		gate.RequireScheme: {
			global: login, site: "contract keyed.yaml\nidentity main\nrespond ok", path: "/keyed", header: token(nil),
		},

		gate.QuotaExhausted: {site: "quota per address 1/h\nrespond ok", ask: second},
		gate.QuotaQueueFull: {site: "quota per address 1/2h leaky 1\nrespond ok", ask: third},

		gate.InputBodyTooLarge:    contract(provoked{method: "POST", path: "/orders", header: jsonType, body: `"` + long + `"`}),
		gate.InputBodyMissing:     contract(provoked{method: "POST", path: "/orders", header: jsonType}),
		gate.InputContentType:     contract(provoked{method: "POST", path: "/orders", header: http.Header{"Content-Type": {"text/csv"}}, body: "a"}),
		gate.InputContentEncoding: contract(provoked{method: "POST", path: "/orders", header: with(jsonType, "Content-Encoding", "gzip"), body: "a"}),
		gate.InputMalformed:       contract(provoked{method: "POST", path: "/orders", header: jsonType, body: "{"}),
		gate.InputParameters:      contract(provoked{path: "/orders?limit=1000"}),
		gate.InputBody:            contract(provoked{method: "POST", path: "/orders", header: jsonType, body: `{"quantity":0}`}),
		gate.InputBodyUnreadable:  contract(provoked{ask: brokenOrder}),

		gate.FirewallAttack:         firewall(provoked{path: "/?q=1%27%20UNION%20SELECT%20password%20FROM%20users--"}),
		gate.FirewallArgumentLimit:  firewall(provoked{method: "POST", header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, body: flood(1100, true)}),
		gate.FirewallBodyTooLarge:   firewall(provoked{method: "POST", header: jsonType, body: `"` + long + `"`}),
		gate.FirewallBodyUnreadable: firewall(provoked{method: "POST", header: jsonType, body: `{"a":`}),

		gate.TranscodeUnmatched:      transcode("unmatched refuse", provoked{path: "/nowhere"}),
		gate.TranscodeUnknownMethod:  transcode("", provoked{method: "DELETE", path: "/v1/orders/7"}),
		gate.TranscodeContentType:    transcode("", provoked{path: "/v1/orders/7:watch"}),
		gate.TranscodeMalformed:      transcode("", provoked{path: "/v1/orders/7?what=1"}),
		gate.TranscodeTooLarge:       transcode("max_message 1KiB", provoked{method: "POST", path: "/v1/orders/7:cancel", header: jsonType, body: `{"why":"` + long + `"}`}),
		gate.TranscodeBodyUnreadable: transcode("", provoked{ask: func(t *testing.T, gw *gateway) answer { return brokenBody(t, gw, "/v1/orders/7:cancel") }}),
		gate.TranscodeTimeout:        transcode("", provoked{path: "/v1/orders/slow", header: http.Header{"X-Server-Timeout": {"0.01"}}}),
		gate.TranscodeAnswer:         transcode("max_message 1KiB", provoked{path: "/v1/orders/large?size=70000"}),

		gate.ResilienceBreakerOpen: {site: "reverse_proxy " + failing.addr() + " {\ntransport gatehouse {\nbreaker {\nsamples 1\nall_open refuse\n}\n}\n}", ask: second},
		gate.ResilienceUnreachable: {site: "reverse_proxy " + dead(t)},
		gate.ResilienceTimeout:     {site: "reverse_proxy " + stuck.addr() + " {\ntransport gatehouse {\ntimeout 50ms\n}\n}"},
	}
}

// TestEveryReason gives every reason once through a running gateway, and reads
// it back from the answer, the log, the metrics and `caddy gatehouse explain`.
func TestEveryReason(t *testing.T) {
	gw, iss := prepare(t), newIssuer(t, "k1")
	gw.mmdb(t, "GeoLite2-Country-Test.mmdb", "country.mmdb")
	gw.write(t, "jwks.json", iss.jwks())
	gw.write(t, "keys.json", `[{"id":"ci","sha256":"`+strings.Repeat("0", 64)+`"}]`)
	gw.write(t, "orders.yaml", walkContract)
	gw.write(t, "keyed.yaml", `{"openapi":"3.1.0","info":{"title":"k","version":"1"},"paths":{"/keyed":{"get":{"security":[{"key":[]}],"responses":{"200":{"description":"ok"}}}}},
		"components":{"securitySchemes":{"key":{"type":"apiKey","in":"header","name":"X-Api-Key"}}}}`)
	all := provocations(t, gw, iss)
	maps.Copy(all, sessionProvocations(t))

	for _, reason := range gate.Reasons() {
		t.Run(reason.String(), func(t *testing.T) {
			p, ok := all[reason]
			if test, inside := fromInside[reason]; inside {
				if out, err := exec.CommandContext(t.Context(), "grep", "-rlw", "func "+test, "..").Output(); ok || err != nil || len(out) == 0 {
					t.Fatalf("%s, which gives it, is not there: %v", test, err)
				}
				return
			}
			if !ok {
				t.Fatal("nothing gives this reason")
			}
			if err := gw.load(p.global, "api reasons {\n"+p.site+"\n}"); err != nil {
				t.Fatal(err)
			}
			series := []string{`api="reasons"`, `verdict="deny"`, `reason="` + reason.String() + `"`}
			before, logged := gw.metric(t, "gatehouse_decisions_total", series...), len(gw.decisions(t))
			var a answer
			if p.ask != nil {
				a = p.ask(t, gw)
			} else {
				method, path := "GET", "/"
				if p.method != "" {
					method = p.method
				}
				if p.path != "" {
					path = p.path
				}
				a = gw.do(t, method, path, p.header, p.body)
			}
			status := reason.Status()
			if p.status != 0 {
				status = p.status
			}
			if problem := a.problem(t); a.status != status || problem["reason"] != reason.String() || problem["title"] != reason.Title() {
				t.Errorf("answered with %d %s", a.status, a.body)
			}
			id := a.header.Get("X-Request-Id")
			found := false
			for _, d := range gw.decisions(t)[logged:] {
				found = found || d["request_id"] == id && d["verdict"] == "deny" && d["reason"] == reason.String()
			}
			if !found {
				t.Errorf("the log does not have it: %v", gw.decisions(t)[logged:])
			}
			if n := gw.metric(t, "gatehouse_decisions_total", series...) - before; n != 1 {
				t.Errorf("counted %v times", n)
			}
			told, err := gw.command(t, "explain", id)
			if err != nil || !strings.Contains(told, reason.String()+": "+reason.Title()) || !strings.Contains(told, fmt.Sprintf("%d after", status)) {
				t.Errorf("explained as %v\n%s", err, told)
			}
		})
	}
}

func second(t *testing.T, gw *gateway) answer {
	gw.get(t, "/", nil)
	return gw.get(t, "/", nil)
}

// third is refused while the second waits for its turn.
func third(t *testing.T, gw *gateway) answer {
	gw.get(t, "/", nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/", nil)
	go func() {
		if resp, err := gw.client.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}()
	eventually(t, "the second to wait", func() bool { return gw.metric(t, "gatehouse_quota_waiting") == 1 })
	a := gw.get(t, "/", nil)
	cancel()
	eventually(t, "the second to give up", func() bool { return gw.metric(t, "gatehouse_quota_waiting") == 0 })
	return a
}

func brokenOrder(t *testing.T, gw *gateway) answer { return brokenBody(t, gw, "/orders") }

// brokenBody sends a body whose chunks are none.
func brokenBody(t *testing.T, gw *gateway, path string) answer {
	conn, err := new(net.Dialer).DialContext(t.Context(), "unix", gw.sock)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, resp.Trailer, string(body)}
}

// panicking is a handler of somebody else's that has a fault.
type panicking struct{}

func (panicking) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.test_panic", New: func() caddy.Module { return new(panicking) }}
}

func (panicking) ServeHTTP(http.ResponseWriter, *http.Request, caddyhttp.Handler) error {
	panic(errors.New("a fault"))
}

func init() {
	caddy.RegisterModule(panicking{})
	httpcaddyfile.RegisterHandlerDirective("test_panic", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return new(panicking), nil
	})
	httpcaddyfile.RegisterDirectiveOrder("test_panic", httpcaddyfile.Before, "respond")
}
