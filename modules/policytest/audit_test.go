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
		{name: "GH001: the contract says that it is meant", from: "identity main", to: "", inDoc: "paths:", becomes: "security: []\npaths:"},
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
		{name: "GH008: an open admin endpoint", from: "{\n\tidentity", to: "{\n\tadmin :2019\n\tidentity", want: []string{"Caddyfile:2: error GH008: the admin endpoint listens on :2019"}},
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
