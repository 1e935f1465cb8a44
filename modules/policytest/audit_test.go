package policytest_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-caddy/gatehouse/modules/policytest"
)

// sound is a configuration in which nothing is found.
const sound = `{
	identity {
		issuer main https://id.example.com {
			audience orders-api
		}
	}
	quota {
		plan free 60/m
	}
	servers {
		trusted_proxies static private_ranges
		trusted_proxies_strict
	}
}

api.example.com {
	api orders {
		contract orders.openapi.yaml
		identity main
		quota per tenant
		firewall
		reverse_proxy orders:8080 {
			header_up Authorization {env.TOKEN}
		}
		guard
	}
}
`

const soundContract = `openapi: 3.1.0
info: { title: Orders, version: 1.0.0 }
paths:
  /orders:
    get:
      operationId: listOrders
      responses: { "200": { description: Orders. } }
    post:
      operationId: createOrder
      requestBody:
        content:
          application/json:
            schema: { $ref: "#/components/schemas/Order" }
      responses: { "201": { description: Made. } }
components:
  schemas:
    Order:
      type: object
      additionalProperties: false
      properties:
        note: { type: string, maxLength: 10 }
        parent: { $ref: "#/components/schemas/Order" }
        tags: { type: array, maxItems: 3, items: { enum: [a, b] } }
`

func TestAudit(t *testing.T) {
	for _, c := range []struct {
		name           string
		from, to       string // a change of the Caddyfile
		inDoc, becomes string // a change of the contract
		want           []string
	}{
		{name: "sound"},
		{
			name: "GH001: an operation that anybody may call", from: "identity main", to: "identity main {\n\t\t\toptional\n\t\t}",
			want: []string{"orders.openapi.yaml:5: error GH001: listOrders can be called by anybody", "orders.openapi.yaml:8: error GH001: createOrder"},
		},
		{name: "GH001: the contract says that it is meant", from: "identity main\n\t\tquota per tenant", to: "quota per address 60/m", inDoc: "paths:", becomes: "security: []\npaths:"},
		{name: "GH002: no contract", from: "contract orders.openapi.yaml", to: "", want: []string{"Caddyfile:17: warning GH002: api orders has no contract"}},
		{name: "GH003: no quota", from: "quota per tenant", to: "", want: []string{"Caddyfile:17: warning GH003: api orders has no quota: one caller may take all there is (1 writing operations)"}},
		{name: "GH003: a quota around the api", from: "\tapi orders {", to: "\tquota per address 10/s\n\tapi orders {", want: nil},
		{name: "GH004: no firewall", from: "firewall", to: "", want: []string{"Caddyfile:17: note GH004: api orders has no firewall"}},
		{name: "GH005: a stage in shadow", from: "firewall", to: "firewall {\n\t\t\tmode shadow\n\t\t}", want: []string{"Caddyfile:22: warning GH005: firewall is in mode shadow"}},
		{name: "GH005: a stage that is off", from: "quota per tenant", to: "quota per tenant {\n\t\t\tmode off\n\t\t}", want: []string{"warning GH005: quota is in mode off"}},
		{name: "GH006: members that nobody described", inDoc: "additionalProperties: false", becomes: "description: x", want: []string{"orders.openapi.yaml:17: note GH006: createOrder takes members that nobody described at #;"}},
		{name: "GH006: a text of any length", inDoc: ", maxLength: 10", becomes: "", want: []string{"orders.openapi.yaml:21: note GH006: createOrder takes a text of any length at #/note"}},
		{name: "GH006: a list of any length", inDoc: " maxItems: 3,", becomes: "", want: []string{"orders.openapi.yaml:23: note GH006: createOrder takes a list of any length at #/tags"}},
		{name: "GH007: an address elsewhere", from: "orders:8080", to: "198.51.100.7:8080", want: []string{"Caddyfile:22: warning GH007: 198.51.100.7:8080 is not known to be in a private network"}},
		{name: "GH007: a name elsewhere", from: "orders:8080", to: "orders.example.net:8080", want: []string{"warning GH007: orders.example.net:8080"}},
		{name: "GH007: with TLS", from: "orders:8080", to: "https://orders.example.net"},
		{name: "GH007: in a private network", from: "orders:8080", to: "10.0.0.1:8080 [fd00::1]:8080 orders.internal:8080"},
		{name: "GH008: an open admin endpoint", from: "{\n\tidentity", to: "{\n\tadmin :2019\n\tregistry {\n\t\tlocal none\n\t}\n\tidentity", want: []string{"Caddyfile:2: error GH008: the admin endpoint listens on :2019"}},
		{name: "GH008: a local one", from: "{\n\tidentity", to: "{\n\tadmin localhost:2020\n\tidentity"},
		{name: "GH008: a socket", from: "{\n\tidentity", to: "{\n\tadmin unix//run/caddy.sock\n\tidentity"},
		{name: "GH009: proxies that are trusted too far", from: "trusted_proxies_strict", to: "", want: []string{"Caddyfile:11: warning GH009"}},
		{name: "GH010: a secret in a header", from: "{env.TOKEN}", to: "hunter2", want: []string{"error GH010: a value of Authorization is written out"}},
		{name: "GH010: a key for certificates", from: "\tapi orders", to: "\ttls {\n\t\tissuer acme {\n\t\t\teab id hunter2\n\t\t}\n\t}\n\tapi orders", want: []string{"Caddyfile:19: error GH010: mac_key is written out"}},
		{name: "GH010: what is matched is no secret", from: "api orders {", to: "@bearer header Authorization Bearer*\n\tapi @bearer orders {"},
		{
			name: "GH011: an issuer for development", from: "issuer main https://id.example.com {\n\t\t\taudience orders-api\n\t\t}", to: "issuer main dev",
			want: []string{"Caddyfile:3: error GH011: issuer main is for development, and api.example.com accepts its tokens"},
		},
		{
			name: "GH012: keys that no operation accepts", from: "identity main", to: "identity main {\n\t\t\tkeys\n\t\t}", inDoc: "components:",
			becomes: "security: [{login: []}]\ncomponents:\n  securitySchemes: {login: {type: openIdConnect, openIdConnectUrl: 'https://id.example.com'}}",
			want:    []string{"Caddyfile:17: warning GH012: api orders knows callers by API keys, and the contract has no security scheme for that (apiKey)"},
		},
		{
			name: "GH013: a scope of nobody", from: "api orders {", to: "@write method POST\n\trequire @write scope orders:write\n\tapi orders {",
			want: []string{"Caddyfile:18: error GH013: require scope orders:write stands where no identity has proven anybody"},
		},
		{name: "GH013: a role before the identity", from: "identity main\n\t\tquota per tenant", to: "quota per address 60/m\n\t\troute {\n\t\t\trequire role admin\n\t\t\tidentity main\n\t\t}", want: []string{"Caddyfile:21: error GH013: require role admin"}},
		{name: "GH018: before the identity, since route comes last", from: "identity main", to: "route {\n\t\t\tidentity main\n\t\t\trequire role admin\n\t\t}", want: []string{"Caddyfile:23: error GH018: quota per tenant stands where no identity has proven anybody"}},
		{name: "GH013: behind it", from: "identity main\n\t\tquota per tenant", to: "route {\n\t\t\tidentity main\n\t\t\trequire role admin\n\t\t\tquota per tenant\n\t\t}"},
		{name: "GH013: behind one that is optional", from: "api orders {", to: "identity main {\n\t\toptional\n\t}\n\trequire scope a\n\tapi orders {"},
		{name: "GH013: behind Caddy's own handler with ours in it", from: "api orders {", to: "route {\n\t\tauthentication {\n\t\t\tgatehouse main\n\t\t}\n\t\trequire acr gold\n\t}\n\tapi orders {"},
		{
			name: "GH013: in another handle than the identity", from: "api orders {", to: "handle /a* {\n\t\tidentity main\n\t}\n\thandle /b* {\n\t\trequire max_age 5m\n\t}\n\tapi orders {",
			want: []string{"Caddyfile:21: error GH013: require max_age"},
		},
		{name: "GH013: an expression may be about anybody", from: "api orders {", to: "require cel `request.method == \"GET\"`\n\tapi orders {"},
		{name: "GH013: in another site", from: "api.example.com {", to: "other.example.com {\n\trequire role admin\n\trespond ok\n}\n\napi.example.com {", want: []string{"error GH013: require role admin"}},
		{name: "GH013: in a named route behind the identity", from: "api.example.com {", to: "&(admins) {\n\trequire role admin\n}\n\napi.example.com {\n\troute {\n\t\tidentity main\n\t\tinvoke admins\n\t}"},
		{name: "GH013: in a named route alone", from: "api.example.com {", to: "&(admins) {\n\trequire role admin\n}\n\napi.example.com {\n\tinvoke admins", want: []string{"Caddyfile:17: error GH013: require role admin"}},
		{
			name: "GH017: credentials of which nobody can have any", from: "identity main\n\t\tquota per tenant", to: "quota per address 60/m", inDoc: "components:",
			becomes: "security: [{login: []}]\ncomponents:\n  securitySchemes: {login: {type: openIdConnect, openIdConnectUrl: 'https://id.example.com'}}",
			want:    []string{"Caddyfile:17: error GH017: listOrders asks for credentials, and api orders proves nobody: each request for it is refused"},
		},
		{
			name: "GH017: an identity around the api", from: "api orders {\n\t\tcontract orders.openapi.yaml\n\t\tidentity main", to: "identity main\n\tapi orders {\n\t\tcontract orders.openapi.yaml", inDoc: "components:",
			becomes: "security: [{login: []}]\ncomponents:\n  securitySchemes: {login: {type: openIdConnect, openIdConnectUrl: 'https://id.example.com'}}",
		},
		{
			name: "GH005: the backend asks for what the contract says", from: "identity main\n\t\tquota per tenant", to: "require {\n\t\t\tmode off\n\t\t}\n\t\tquota per address 60/m", inDoc: "components:",
			becomes: "security: [{login: []}]\ncomponents:\n  securitySchemes: {login: {type: openIdConnect, openIdConnectUrl: 'https://id.example.com'}}",
			want:    []string{"warning GH005: require is in mode off"},
		},
		{
			name: "GH017: a contract that stands around the api", from: "api orders {\n\t\tcontract orders.openapi.yaml", to: "contract orders.openapi.yaml\n\tapi orders {", inDoc: "components:",
			becomes: "security: [{login: []}]\ncomponents:\n  securitySchemes: {login: {type: openIdConnect, openIdConnectUrl: 'https://id.example.com'}}",
			want:    []string{"error GH017: nothing in api orders looks at the security of its contract, such as that of listOrders"},
		},
		{name: "GH018: a quota around the identity", from: "api orders {", to: "quota per key 10/s\n\tapi orders {", want: []string{"Caddyfile:17: error GH018: quota per key stands where no identity"}},
		{name: "GH019: one name twice", from: "api.example.com {", to: "www.example.com {\n\tapi orders {\n\t\tcontract orders.openapi.yaml\n\t\tidentity main\n\t\tquota per tenant\n\t\tfirewall\n\t\tguard\n\t\trespond ok\n\t}\n}\n\napi.example.com {", want: []string{"note GH019: api orders stands in several places"}},
		{name: "GH020: behind one that answers all", from: "api.example.com {", to: "api.example.com {\n\tapi first {\n\t\tcontract orders.openapi.yaml\n\t\tidentity main\n\t\tquota per tenant\n\t\tfirewall\n\t\tguard\n\t\trespond ok\n\t}", want: []string{"Caddyfile:25: error GH020: api orders gets no request: api first"}},
		{name: "GH020: with a path", from: "api.example.com {", to: "api.example.com {\n\tapi /first/* first {\n\t\tcontract orders.openapi.yaml\n\t\tidentity main\n\t\tquota per tenant\n\t\tfirewall\n\t\tguard\n\t\trespond ok\n\t}"},
		{name: "GH016: no guard", from: "\t\tguard\n", to: "", want: []string{"Caddyfile:17: warning GH016: api orders has no guard"}},
		{name: "GH016: one in front", from: "\tapi orders {", to: "\tguard\n\tapi orders {"},
		{
			name: "GH014: nobody is asked for a certificate", from: "identity main", to: "identity main {\n\t\t\tmtls\n\t\t}",
			want: []string{"Caddyfile:20: error GH014: mtls is to prove callers of api.example.com, and its site has no client_auth"},
		},
		{
			name: "GH014: certificates that nobody verifies", from: "api orders {", to: "tls {\n\t\tclient_auth {\n\t\t\tmode request\n\t\t}\n\t}\n\tidentity {\n\t\tmtls\n\t}\n\tapi orders {",
			want: []string{"Caddyfile:23: error GH014: mtls is to prove callers of api.example.com, and the mode of its client_auth is request: "},
		},
		{
			name: "GH014: the default without a trust pool", from: "api orders {", to: "tls {\n\t\tclient_auth {\n\t\t\tmode require\n\t\t}\n\t}\n\tidentity {\n\t\tmtls\n\t}\n\tapi orders {",
			want: []string{"error GH014: mtls is to prove callers of api.example.com, and the mode of its client_auth is require"},
		},
		{name: "GH014: authorities of its own", from: "api orders {", to: "tls {\n\t\tclient_auth {\n\t\t\tmode request\n\t\t}\n\t}\n\tidentity {\n\t\tmtls {\n\t\t\ttrust_pool file ca.pem\n\t\t}\n\t}\n\tapi orders {"},
		{name: "GH005: mtls in an identity that is off", from: "api orders {", to: "identity {\n\t\tmtls\n\t\tmode off\n\t}\n\tapi orders {", want: []string{"warning GH005: identity is in mode off"}},
		{name: "GH014: verified", from: "api orders {", to: "tls {\n\t\tclient_auth {\n\t\t\tmode verify_if_given\n\t\t\ttrust_pool file ca.pem\n\t\t}\n\t}\n\tidentity {\n\t\tmtls\n\t}\n\tapi orders {"},
		{
			name: "GH014: verified at another site", from: "api.example.com {", to: "other.example.com {\n\ttls {\n\t\tclient_auth {\n\t\t\ttrust_pool file ca.pem\n\t\t}\n\t}\n\trespond ok\n}\n\napi.example.com {\n\tidentity {\n\t\tmtls\n\t}",
			want: []string{"error GH014: mtls is to prove callers of api.example.com, and its site has no client_auth"},
		},
		{
			name: "GH015: browsers from elsewhere", from: "{\n\tidentity", to: "{\n\tadmin localhost:2019 {\n\t\torigins localhost:2019 https://ops.example.com\n\t}\n\tidentity",
			want: []string{"Caddyfile:2: warning GH015: the admin endpoint answers to the origin https://ops.example.com"},
		},
		{name: "GH015: browsers of this machine", from: "{\n\tidentity", to: "{\n\tadmin localhost:2019 {\n\t\torigins localhost:2019 127.0.0.1:2019 [::1]:2019 \"\"\n\t}\n\tidentity"},
		{name: "GH015: who comes has to be somebody", from: "{\n\tidentity", to: "{\n\tadmin localhost:2019 {\n\t\torigins ops.example.com\n\t}\n\tregistry {\n\t\tlocal none\n\t}\n\tidentity"},
	} {
		t.Run(c.name, func(t *testing.T) {
			change := func(s, from, to string) string {
				if !strings.Contains(s, from) {
					t.Fatalf("there is no %q", from)
				}
				return strings.Replace(s, from, to, 1)
			}
			dir := folder(t, "Caddyfile", change(sound, c.from, c.to), "orders.openapi.yaml", change(soundContract, c.inDoc, c.becomes))
			t.Chdir(dir)
			var out bytes.Buffer
			status := policytest.Audit(&out, policytest.AuditOptions{Config: "Caddyfile", FailOn: "note"})
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if found := len(lines) - 1; found != len(c.want) || (status == 0) != (len(c.want) == 0) || status == 2 {
				t.Fatalf("status %d and %d findings, want %d:\n%s", status, found, len(c.want), &out)
			}
			for _, w := range c.want {
				if !strings.Contains(out.String(), w) {
					t.Errorf("no %q in:\n%s", w, &out)
				}
			}
			if id, _, ok := strings.Cut(c.name, ":"); ok && len(c.want) > 0 {
				out.Reset()
				if status := policytest.Audit(&out, policytest.AuditOptions{Config: "Caddyfile", FailOn: "note", Skip: []string{id}}); status != 0 {
					t.Errorf("with --skip %s: status %d\n%s", id, status, &out)
				}
			}
		})
	}
}

// TestAuditAsCaddyLoads: the flags are those of Caddy's own commands.
func TestAuditAsCaddyLoads(t *testing.T) {
	dir := folder(t, "gate.conf", strings.Replace(sound, "issuer main https://id.example.com {", "issuer main {$GATEHOUSE_TEST_ISSUER} {", 1),
		"orders.openapi.yaml", soundContract, "one.env", "# of this gateway\nexport GATEHOUSE_TEST_ISSUER=\"https://id.example.com\" # ours\n", "two.env", "GATEHOUSE_TEST_ISSUER=nonsense", "wrong.env", "A=b\nhunter2\n")
	one, two := filepath.Join(dir, "one.env"), filepath.Join(dir, "two.env")
	audit := func(o policytest.AuditOptions) (int, string) {
		var out bytes.Buffer
		o.Config = filepath.Join(dir, "gate.conf")
		status := policytest.Audit(&out, o)
		if _, there := os.LookupEnv("GATEHOUSE_TEST_ISSUER"); there {
			t.Error("the environment keeps what was for one audit")
		}
		return status, out.String()
	}
	for _, c := range []struct {
		o      policytest.AuditOptions
		status int
		says   string
	}{
		{policytest.AuditOptions{Adapter: "caddyfile", EnvFiles: []string{one, two}}, 0, "20 checks: 0 errors"},
		{policytest.AuditOptions{EnvFiles: []string{two, one}}, 2, "nonsense"},
		{policytest.AuditOptions{Adapter: "nginx"}, 2, `--adapter: there is no adapter "nginx"`},
		{policytest.AuditOptions{EnvFiles: []string{filepath.Join(dir, "wrong.env")}}, 2, "wrong.env:2: NAME=value is expected"},
		{policytest.AuditOptions{EnvFiles: []string{filepath.Join(dir, "none.env")}}, 2, "--envfile: open "},
	} {
		if status, out := audit(c.o); status != c.status || !strings.Contains(out, c.says) || strings.Contains(out, "hunter2") {
			t.Errorf("%+v: status %d\n%s", c.o, status, out)
		}
	}
}

// TestAuditLevels holds that what counts is what was asked for.
func TestAuditLevels(t *testing.T) {
	dir := folder(t, "Caddyfile", strings.Replace(sound, "contract orders.openapi.yaml", "", 1))
	for failOn, want := range map[string]int{"error": 0, "warning": 1, "note": 1, "never": 0, "": 1, "eror": 2} {
		var out bytes.Buffer
		if got := policytest.Audit(&out, policytest.AuditOptions{Config: dir + "/Caddyfile", FailOn: failOn}); got != want {
			t.Errorf("--fail-on %q: status %d, want %d\n%s", failOn, got, want, &out)
		}
	}
	var out bytes.Buffer
	if got := policytest.Audit(&out, policytest.AuditOptions{Config: dir + "/Caddyfile", Skip: []string{"GH02"}}); got != 2 || !strings.Contains(out.String(), `did you mean "GH002"?`) {
		t.Errorf("a misspelt check: status %d\n%s", got, &out)
	}
}

func TestSARIF(t *testing.T) {
	dir := folder(t, "Caddyfile", strings.Replace(sound, "contract orders.openapi.yaml", "", 1))
	t.Chdir(dir)
	file := filepath.Join(dir, "findings.sarif")
	if status := policytest.Audit(new(bytes.Buffer), policytest.AuditOptions{Config: "Caddyfile", SARIF: file}); status != 1 {
		t.Fatalf("status %d", status)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var log struct {
		Version string
		Runs    []struct {
			Tool struct {
				Driver struct {
					Rules []struct{ ID string }
				}
			}
			Results []struct {
				RuleID    string
				RuleIndex int
				Level     string
				Locations []struct {
					PhysicalLocation struct {
						ArtifactLocation struct{ URI string }
						Region           struct{ StartLine int }
					}
				}
			}
		}
	}
	if err := json.Unmarshal(data, &log); err != nil {
		t.Fatal(err)
	}
	if log.Version != "2.1.0" || len(log.Runs) != 1 || len(log.Runs[0].Results) != 1 {
		t.Fatalf("%s", data)
	}
	r, rules := log.Runs[0].Results[0], log.Runs[0].Tool.Driver.Rules
	at := r.Locations[0].PhysicalLocation
	if r.RuleID != "GH002" || rules[r.RuleIndex].ID != r.RuleID || r.Level != "warning" || at.ArtifactLocation.URI != "Caddyfile" || at.Region.StartLine != 17 {
		t.Errorf("%s", data)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs/audit.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range rules {
		if !strings.Contains(string(page), "| "+rule.ID+" |") {
			t.Errorf("docs/audit.md has no row for %s", rule.ID)
		}
	}
}

// root is the checkout, also while a test is in another folder.
var root = func() string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	return dir
}()
