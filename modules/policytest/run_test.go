package policytest_test

import (
	"bytes"
	"encoding/xml"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/spf13/cobra"

	_ "github.com/gatehouse-caddy/gatehouse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/policytest"
)

// folder makes one out of pairs of a name and a content.
func folder(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		if err := os.WriteFile(filepath.Join(dir, files[i]), []byte(files[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func run(t *testing.T, want int, o policytest.TestOptions) string {
	t.Helper()
	var out bytes.Buffer
	if got := policytest.Test(&out, o); got != want {
		t.Fatalf("status %d, want %d:\n%s", got, want, &out)
	}
	return out.String()
}

// cases runs cases that must pass against a Caddyfile.
func cases(t *testing.T, caddyfile, cases string) {
	t.Helper()
	run(t, 0, policytest.TestOptions{Dir: folder(t, "Caddyfile", caddyfile, "a.test.yaml", cases)})
}

const small = `{
	identity {
		issuer main https://id.example.com {
			audience orders-api
		}
	}
	quota {
		plan free 2/m
		plan pro 10/m
	}
}
api.example.com {
	api orders {
		contract orders.openapi.yaml
		identity main
		quota per tenant
		reverse_proxy orders:8080
	}
}
`

const smallContract = `
openapi: 3.1.0
info: { title: Orders, version: 1.0.0 }
paths:
  /orders:
    get: { operationId: listOrders, security: [{ login: [] }], responses: { "200": { description: Orders. } } }
  /health:
    get: { security: [], responses: { "200": { description: Fine. } } }
components: { securitySchemes: { login: { type: http, scheme: bearer } } }
`

func TestReport(t *testing.T) {
	dir := folder(t, "Caddyfile", small, "orders.openapi.yaml", smallContract, "orders.test.yaml", `
as: { subject: ann, tenant: acme }
request: GET /orders
upstream: { status: 201, headers: { X-Shop: here }, json: { a: [1, 2] } }
cases:
  - name: all is well
    expect: { status: 201 }
  - name: much is not
    expect:
      status: 200
      reason: quota.exhausted
      operation: GET /health
      headers: { X-Shop: /there/, X-Absent: x }
      json: { a: [1, 3] }
      caller: { tenant: initech }
      upstream: { calls: 2 }
  - name: three are too many
    steps:
      - times: 3
        expect: { status: 201 }
`)
	junit := filepath.Join(t.TempDir(), "results.xml")
	out := run(t, 1, policytest.TestOptions{Dir: dir, JUnit: junit})
	for _, want := range []string{
		"orders.test.yaml:8: much is not\n",
		"GET /orders as ann\n",
		"status: expected 200, got 201\n",
		"reason: expected quota.exhausted, got none\n",
		"operation: expected GET /health, got listOrders\n",
		"X-Shop: expected /there/, got here\n",
		"X-Absent: expected x, got none\n",
		"json.a[1]: expected 3, got 2\n",
		"caller tenant: expected initech, got acme\n",
		"upstream calls: expected 2, got 1\n",
		"decided: contract allow (listOrders), identity allow (main), require allow (contract), quota allow (free), input allow, resilience allow (orders:8080), api allow\n",
		"orders.test.yaml:19: three are too many\n",
		"GET /orders as ann, request 3 of 3\n",
		"status: expected 201, got 429\n",
		"answered: The allowance of this caller is spent for now.\n",
		"3 cases in 1 files, 1 passed, 2 failed",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the report has no %q:\n%s", want, out)
		}
	}
	data, err := os.ReadFile(junit)
	if err != nil {
		t.Fatal(err)
	}
	var results struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Suites   []struct {
			Cases []struct {
				Name    string `xml:"name,attr"`
				Failure *struct {
					Message string `xml:"message,attr"`
					Text    string `xml:",chardata"`
				} `xml:"failure"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(data, &results); err != nil {
		t.Fatal(err)
	}
	if c := results.Suites[0].Cases; results.Tests != 3 || results.Failures != 2 || c[0].Failure != nil || c[1].Failure == nil ||
		c[1].Failure.Message != "status: expected 200, got 201" || !strings.Contains(c[2].Failure.Text, "request 3 of 3") {
		t.Errorf("JUnit has %s", data)
	}
	if out := run(t, 0, policytest.TestOptions{Dir: dir, Run: "^all"}); !strings.Contains(out, "1 cases in 1 files, 1 passed") {
		t.Errorf("with --run: %s", out)
	}
}

// TestCertificatesAskNobody: a certificate that a test makes is of no authority,
// and no list and no responder knows of it.
func TestCertificatesAskNobody(t *testing.T) {
	const caddyfile = `{
	identity {
		revocation partners ocsp http://127.0.0.1:1
	}
}
https://api.example.com {
	tls internal
	api orders {
		identity {
			mtls {
				revocation partners
				trust_pool storage partners.pem
			}
		}
		reverse_proxy orders:8080
	}
}
`
	cases(t, caddyfile, `
cases:
  - { name: a partner, as: { certificate: { dns: partner.example.org } }, request: GET /, expect: { status: 200 } }
  - { name: nobody, as: nobody, request: GET /, expect: { status: 401 } }
`)
}

// TestWrong holds that what cannot be run is neither passed nor failed.
func TestWrong(t *testing.T) {
	const good = "cases: [{ name: a, as: nobody, request: GET /orders, expect: { status: 401 } }]"
	for _, c := range []struct{ name, caddyfile, cases, want string }{
		{"an unknown operation", small, "cases:\n  - name: a\n    request: GET /orders\n    expect: { operation: listOrder }", `a.test.yaml:4: unrecognized operation "listOrder"; did you mean "listOrders"? Expected GET /health, listOrders or none`},
		{"an unknown plan", small, "as: { subject: ann, plan: por }\n" + good[:len(good)-1] + ", { name: b, request: GET /orders, expect: { status: 200 } }]", `a.test.yaml:1: unrecognized plan "por"; did you mean "pro"? Expected free or pro`},
		{"an unknown issuer", small, "cases: [{ name: a, as: { issuer: mian }, request: GET /orders, expect: { status: 200 } }]", `a.test.yaml:1: unrecognized issuer "mian"; did you mean "main"?`},
		{"an unknown key", small, "cases: [{ name: a, as: { key: ci }, request: GET /orders, expect: { status: 200 } }]", `key "ci" is not in the file of keys`},
		{"a certificate without TLS", strings.Replace(small, "api.example.com", "http://api.example.com", 1), "cases: [{ name: a, as: { certificate: { dns: x } }, request: GET /orders, expect: { status: 200 } }]", "the site has no TLS"},
		{"an unknown site", small, "site: www.example.com\n" + good, `no site answers to "www.example.com"; there is api.example.com`},
		{"several sites", small + "other.example.com {\n\tapi other {\n\t\trespond ok\n\t}\n}\n", good, "site is needed, to say which of api.example.com, other.example.com is asked"},
		{"a misspelt Caddyfile", strings.Replace(small, "quota per", "qouta per", 1), good, `did you mean "quota"?`},
		{"a contract that is missing", strings.Replace(small, "orders.openapi", "order.openapi", 1), good, "order.openapi.yaml: no such file"},
		{"a transport that dials by itself", "example.com {\n\treverse_proxy localhost:9000 {\n\t\ttransport fastcgi\n\t}\n}\n", good, `has the transport "fastcgi", which a test cannot answer for`},
		{"a message of no method", small, "cases: [{ name: a, as: { subject: ann }, request: GET /orders, upstream: { message: {} }, expect: { status: 200 } }]", "no transcode describes the method"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folder(t, "Caddyfile", c.caddyfile, "orders.openapi.yaml", smallContract, "a.test.yaml", c.cases)
			if out := run(t, 2, policytest.TestOptions{Dir: dir}); !strings.Contains(out, c.want) {
				t.Errorf("got:\n%s\nwant: %s", out, c.want)
			}
		})
	}
	t.Run("a folder without cases", func(t *testing.T) {
		if out := run(t, 2, policytest.TestOptions{Dir: folder(t, "Caddyfile", small)}); !strings.Contains(out, "there is no *.test.yaml in ") {
			t.Error(out)
		}
	})
	t.Run("no case of that name", func(t *testing.T) {
		dir := folder(t, "Caddyfile", small, "orders.openapi.yaml", smallContract, "a.test.yaml", good)
		if out := run(t, 2, policytest.TestOptions{Dir: dir, Run: "b"}); !strings.Contains(out, `no case's name matches --run "b"`) {
			t.Error(out)
		}
	})
	t.Run("one file that is wrong does not hide another", func(t *testing.T) {
		dir := folder(t, "Caddyfile", small, "orders.openapi.yaml", smallContract, "a.test.yaml", "cases: 1", "b.test.yaml", good)
		if out := run(t, 2, policytest.TestOptions{Dir: dir}); !strings.Contains(out, "cases must be a list") || !strings.Contains(out, "1 cases in 2 files, 1 passed") {
			t.Error(out)
		}
	})
}

// TestClock holds that policy sees the time of the case, which passes at once.
func TestClock(t *testing.T) {
	began := time.Now()
	cases(t, `{
	quota {
		plan day 2/h {
			when hours 22:00-06:00 rate 1/h
		}
	}
}
http://localhost {
	api clock {
		quota per address
		quota per {http.request.host} 1/m leaky 2
		respond ok
	}
}
`, `
request: GET /
cases:
  - name: by day
    steps:
      - { times: 2, expect: { status: 200 } }
      - { expect: { status: 429 } }
  - name: by night
    clock: 2026-01-01T23:00:00Z
    steps:
      - { expect: { status: 200 } }
      - { expect: { status: 429 } }
      - { advance: 1h, expect: { status: 200 } }
`)
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("a minute that a leaky quota waits for took %v", took)
	}
	if d := gate.Since(time.Now()); d < -time.Minute || d > time.Minute {
		t.Errorf("the time is still held, %v away", d)
	}
}

func TestCanary(t *testing.T) {
	cases(t, `http://localhost {
	api orders {
		canary next {
			weight 0%
			force X-Canary
			reverse_proxy next:8080
		}
		firewall {
			mode shadow
		}
		reverse_proxy orders:8080
	}
}
`, `
cases:
  - name: nobody is on it
    request: GET /
    expect: { release: stable, upstream: { to: "orders:8080" }, would_deny: [] }
  - name: who asks for it is
    request: { path: /, headers: { X-Canary: next } }
    expect: { release: next, upstream: { to: "next:8080" } }
  - name: an attack in shadow
    request: GET /?id=1%27%20OR%20%271%27=%271
    expect: { status: 200, would_deny: [firewall.attack] }
`)
}

// TestPlainSite holds that a stage without an api, and the site's own answers to
// refusals, can be tested too.
func TestPlainSite(t *testing.T) {
	cases(t, `http://localhost:8080 {
	quota per address 1/m
	respond "hello {client_ip}"
	handle_errors {
		respond "sorry: {gatehouse.reason}"
	}
}
https://secure.example.com {
	respond {http.request.tls.server_name}
}
`, `
cases:
  - name: the site that has a stage of ours is meant
    request: GET /
    steps:
      - { from: 203.0.113.7, expect: { status: 200, body: hello 203.0.113.7 } }
      - { from: 203.0.113.7, expect: { status: 429, reason: quota.exhausted, body: "sorry: quota.exhausted" } }
  - name: another is named
    site: https://secure.example.com
    request: GET /
    expect: { body: secure.example.com }
`)
}

// TestNothingIsDialled gives a configuration every reason to connect to
// somebody, and listens.
func TestNothingIsDialled(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var dialled atomic.Int64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			dialled.Add(1)
			_ = c.Close()
		}
	}()
	at := l.Addr().String()
	cases(t, strings.ReplaceAll(`{
	cluster redis://ADDRESS
	identity {
		issuer main https://ADDRESS {
			audience a
			introspect {
				client_id gateway
				client_secret {env.HOME}
			}
			login {
				client_id portal
			}
		}
		issuer other https://id.example.com {
			audience a
			jwks https://ADDRESS/keys
		}
	}
	reputation {
		list bad https://ADDRESS/list
	}
}
http://localhost {
	tracing
	api orders {
		reputation {
			deny bad
		}
		identity main other {
			session main
		}
		quota per address 10/m
		handle /dynamic {
			reverse_proxy {
				dynamic a ADDRESS-x 80
			}
		}
		handle /secure {
			reverse_proxy https://ADDRESS
		}
		handle {
			reverse_proxy ADDRESS {
				health_uri /
				health_interval 1ms
			}
		}
	}
}
`, "ADDRESS", at), `
as: { issuer: main, subject: ann }
cases:
  - name: by discovery
    request: GET /
    expect: { status: 200, caller: { subject: ann, issuer: main }, upstream: { to: "`+at+`" } }
  - name: by a URL
    as: { issuer: other, subject: ann }
    request: GET /secure
    expect: { status: 200, caller: { issuer: other } }
  - name: an upstream that is looked up
    request: GET /dynamic
    expect: { status: 200, upstream: { calls: 1 } }
  - name: a token that only its issuer can read
    as: nobody
    request: { path: /, headers: { Authorization: Bearer opaque } }
    expect: { status: 401, reason: identity.inactive }
  - name: a cookie of a session
    as: nobody
    request: { path: /, headers: { Cookie: gatehouse_session_orders=1.x } }
    expect: { status: 401, reason: identity.bad_session }
  - name: a login
    as: nobody
    request: GET /.gatehouse/login
    expect: { status: 503, reason: identity.unavailable }
  - name: one that is not there
    request: GET /
    upstream: unreachable
    expect: { status: 502 }
`)
	if n := dialled.Load(); n > 0 {
		t.Errorf("%d connections were made", n)
	}
}

// TestNothingIsLeft holds that a case takes its gateway away with it.
func TestNothingIsLeft(t *testing.T) {
	dir := folder(t, "Caddyfile", small, "orders.openapi.yaml", smallContract, "a.test.yaml", `
as: { subject: ann, plan: pro }
cases: [{ name: a, request: GET /orders, times: 5, expect: { status: 200 } }]`)
	o := policytest.TestOptions{Dir: dir}
	run(t, 0, o) // Caddy keeps some things for the life of a process
	before := runtime.NumGoroutine()
	for range 3 {
		run(t, 0, o)
	}
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "gatehouse-test-*/*")); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
}

// TestCommand holds that the commands end as they say.
func TestCommand(t *testing.T) {
	const failing = "cases: [{ name: a, as: nobody, request: GET /orders, expect: { status: 200 } }]"
	passing := strings.Replace(failing, "200", "401", 1)
	for _, c := range []struct {
		name string
		args func(dir string) []string
		with string
		want string // the error, which Caddy makes a status of; empty: none
	}{
		{"cases that pass", func(dir string) []string { return []string{"test", dir} }, passing, ""},
		{"a case that fails", func(dir string) []string { return []string{"test", dir} }, failing, "failed"},
		{"the configuration alone", func(dir string) []string { return []string{"test", "--config", dir + "/Caddyfile"} }, passing, ""},
		{"no folder", func(dir string) []string { return []string{"test", dir + "/x"} }, passing, "exiting with status 2"},
		{"a wrong expression", func(dir string) []string { return []string{"test", "--run", "(", dir} }, passing, "exiting with status 2"},
		{"an audit without findings", func(dir string) []string { return []string{"audit", "-c", dir + "/Caddyfile", "--skip", "GH016"} }, passing, ""},
		{"an audit with some", func(dir string) []string { return []string{"audit", "-c", dir + "/Caddyfile", "--fail-on", "note"} }, passing, "failed"},
		{"an audit of nothing", func(dir string) []string { return []string{"audit", "-c", dir + "/x"} }, passing, "exiting with status 2"},
		{"a misspelt level", func(dir string) []string { return []string{"audit", "-c", dir + "/Caddyfile", "--fail-on", "eror"} }, passing, "exiting with status 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folder(t, "Caddyfile", small, "orders.openapi.yaml", smallContract, "a.test.yaml", c.with)
			root := &cobra.Command{Use: "gatehouse"}
			caddycmd.Commands()["gatehouse"].CobraFunc(root)
			root.SetArgs(c.args(dir))
			root.SetOut(new(bytes.Buffer))
			got := ""
			if err := root.Execute(); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("ended with %q, want %q", got, c.want)
			}
		})
	}
}
