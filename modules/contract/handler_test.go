package contract

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

const pollution = `
openapi: %s
paths:
  /form:
    post:
      requestBody:
        required: true
        content:
          application/x-www-form-urlencoded:
            schema: {type: object, properties: {role: {type: string, enum: [user]}, tags: {type: array, items: {type: string}}}}
      responses: {}
  /cookie:
    get:
      parameters: [{name: role, in: cookie, schema: {type: string, enum: [user]}}]
      responses: {}
  /query:
    get:
      parameters:
        - {name: role, in: query, allowEmptyValue: true, schema: {type: string, enum: [user]}}
        - {name: json, in: query, content: {application/json: {schema: {type: object, required: [a]}}}}
      responses: {}
  /header:
    get:
      parameters: [{name: X-Filter, in: header, content: {application/json: {schema: {type: object, required: [a]}}}}]
      responses: {}
    delete: {responses: {}}
`

// handler compiles a document as Provision does.
func handler(t testing.TB, doc string) *Handler {
	t.Helper()
	name := filepath.Join(t.TempDir(), "api.yaml")
	if err := os.WriteFile(name, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	c, key, err := acquire(name, "", false, false)
	if err != nil {
		t.Fatal(err)
	}
	h := &Handler{MaxBody: 1 << 20, contract: c, key: key}
	t.Cleanup(func() { _ = h.Cleanup() })
	return h
}

// reasonOf serves a request and returns why it was refused.
func reasonOf(t testing.TB, h *Handler, r *http.Request) gate.Reason {
	t.Helper()
	err := h.ServeHTTP(httptest.NewRecorder(), r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil }))
	if err == nil {
		return gate.None
	}
	he, ok := err.(caddyhttp.HandlerError) //nolint:errorlint // stages return it by value
	if !ok {
		t.Fatalf("%T is no HandlerError by value", err)
	}
	return he.Err.(*gate.Denial).Reason //nolint:errorlint // what gate.Deny makes
}

// TestPollution: of a value that is there twice, or that one parser sees and
// another does not, the contract never judges one while the backend takes the
// other.
func TestPollution(t *testing.T) {
	form := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	for _, version := range []string{"3.0.3", "3.1.0"} {
		h := handler(t, fmt.Sprintf(pollution, version))
		for _, tc := range []struct {
			method, path string
			header       http.Header
			body         string
			want         gate.Reason
		}{
			{"POST", "/form", form, "role=user", gate.None},
			{"POST", "/form", form, "role=user&role=admin", gate.InputBody},
			{"POST", "/form", form, "role=user&role=user", gate.InputBody},
			{"POST", "/form", form, "role=user;role=admin", gate.InputMalformed},
			{"POST", "/form", form, "tags=a&tags=b", gate.None},
			{"GET", "/cookie", http.Header{"Cookie": {"role=user"}}, "", gate.None},
			{"GET", "/cookie", http.Header{"Cookie": {"a=1; role=admin"}}, "", gate.InputParameters},
			{"GET", "/cookie", http.Header{"Cookie": {"role=user; role=admin"}}, "", gate.InputParameters},
			{"GET", "/cookie", http.Header{"Cookie": {"role=user", "role=admin"}}, "", gate.InputParameters},
			{"GET", "/cookie", http.Header{"Cookie": {`role=ad"min`}}, "", gate.InputParameters},
			{"GET", "/query?role=", nil, "", gate.None},
			{"GET", "/query?role=&role=admin", nil, "", gate.InputParameters},
			{"GET", "/query?role=user;role=admin", nil, "", gate.InputParameters},
			{"GET", `/query?json={"a":1}`, nil, "", gate.None},
			{"GET", `/query?json={"b":1}`, nil, "", gate.InputParameters},
			{"GET", `/query?json={"a":1}&json={}`, nil, "", gate.InputParameters},
			{"GET", "/header", http.Header{"X-Filter": {`{"a":1}`}}, "", gate.None},
			{"GET", "/header", http.Header{"X-Filter": {`{"b":1}`}}, "", gate.InputParameters},
			{"DELETE", "/header", nil, "", gate.None},
			{"DELETE", "/header", nil, "smuggled", gate.InputContentType},
			{"DELETE", "/header", http.Header{"Content-Type": {"text/plain"}}, "smuggled", gate.InputContentType},
		} {
			r := httptest.NewRequest(tc.method, tc.path, strings.NewReader(tc.body))
			maps.Copy(r.Header, tc.header)
			if got := reasonOf(t, h, r); got != tc.want {
				t.Errorf("%s: %s %s %v %q: %s, want %s", version, tc.method, tc.path, tc.header, tc.body, got, tc.want)
			}
			if rest, _ := io.ReadAll(r.Body); tc.want == gate.None && string(rest) != tc.body {
				t.Errorf("%s %s: the backend gets %q", tc.method, tc.path, rest)
			}
		}
		for body, want := range map[string]gate.Reason{"": gate.None, "x": gate.InputContentType} {
			r := httptest.NewRequest("DELETE", "/header", io.MultiReader(strings.NewReader(body)))
			r.ContentLength = -1 // chunked
			if got := reasonOf(t, h, r); got != want {
				t.Errorf("a chunked body of %d bytes where there is none: %s", len(body), got)
			}
		}
	}
}

// TestFaultIsClosed: what panics behind the seam is a 500 and lets nothing through.
func TestFaultIsClosed(t *testing.T) {
	h := handler(t, fmt.Sprintf(pollution, "3.1.0"))
	r := httptest.NewRequest("POST", "/form", strings.NewReader("role=user"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	op, _, _ := h.match(r)
	op.body.types[0].schema = nil
	op.params = []*parameter{nil} // a fault of ours stands for one of a library
	if got := reasonOf(t, h, r); got != gate.InputUnavailable {
		t.Errorf("%s, want %s", got, gate.InputUnavailable)
	}
}

// TestSharing: the same files and settings are compiled once, other content
// anew, and what one handler gives back the others keep.
func TestSharing(t *testing.T) {
	name := filepath.Join(t.TempDir(), "api.yaml")
	write := func(text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("openapi: 3.1.0\npaths: {/a: {get: {responses: {}}}}")
	first, key1, err1 := acquire(name, "", false, false)
	second, key2, err2 := acquire(name, "", false, false)
	based, key3, err3 := acquire(name, "/v1", false, false)
	write("openapi: 3.1.0\npaths: {/b: {get: {responses: {}}}}")
	edited, key4, err4 := acquire(name, "", false, false)
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil {
		t.Fatal(err1, err2, err3, err4)
	}
	if first != second || first == based || first == edited {
		t.Error("sharing goes by something else than content and settings")
	}
	for _, key := range []string{key1, key2, key3, key4} {
		h := &Handler{key: key}
		if err := h.Cleanup(); err != nil {
			t.Error(err)
		}
		if err := h.Cleanup(); err != nil {
			t.Error("a second Cleanup:", err)
		}
	}
	if n, ok := contracts.References(key1); ok || n != 0 {
		t.Errorf("%d references are left", n)
	}
}

// BenchmarkInput holds an order of one kilobyte to its contract, from path to
// last member, once for each library.
func BenchmarkInput(b *testing.B) {
	doc, err := os.ReadFile("../../bench/orders.openapi.yaml")
	if err != nil {
		b.Fatal(err)
	}
	order, err := os.ReadFile("../../bench/order1k.json")
	if err != nil {
		b.Fatal(err)
	}
	for _, version := range []string{"3.0.3", "3.1.0"} {
		b.Run("openapi-"+version, func(b *testing.B) {
			_, rest, _ := strings.Cut(string(doc), "\n")
			h := handler(b, "openapi: "+version+"\n"+rest)
			b.ReportAllocs()
			b.SetBytes(int64(len(order)))
			for b.Loop() {
				r := httptest.NewRequest("POST", "/orders", strings.NewReader(string(order)))
				r.Header.Set("Content-Type", "application/json")
				if got := reasonOf(b, h, r); got != gate.None {
					b.Fatal(got)
				}
			}
		})
	}
	b.Run("request-alone", func(b *testing.B) { // what of this is httptest
		b.ReportAllocs()
		for b.Loop() {
			r := httptest.NewRequest("POST", "/orders", strings.NewReader(string(order)))
			r.Header.Set("Content-Type", "application/json")
			_, _ = io.Copy(io.Discard, r.Body)
		}
	})
}

// BenchmarkLoad compiles a document of a thousand operations that share a few
// schemas and have one each.
func BenchmarkLoad(b *testing.B) {
	for _, version := range []string{"3.0.3", "3.1.0"} {
		b.Run("operations-1000/openapi-"+version, func(b *testing.B) {
			var doc strings.Builder
			doc.WriteString("openapi: " + version + "\ncomponents: {schemas: {Page: {type: integer, minimum: 1}, Node: {type: object, properties: {next: {$ref: '#/components/schemas/Node'}, name: {type: string, maxLength: 9}}}}}\npaths:\n")
			for i := range 1000 {
				fmt.Fprintf(&doc, "  /things%d/{id}:\n    put:\n      parameters: [{name: id, in: path, required: true, schema: {type: string, pattern: '^[a-z]+$'}}, {name: page, in: query, schema: {$ref: '#/components/schemas/Page'}}]\n      requestBody: {content: {application/json: {schema: {type: object, required: [a], properties: {a: {type: string}, n%d: {$ref: '#/components/schemas/Node'}}}}}}\n      responses: {}\n", i, i)
			}
			name := filepath.Join(b.TempDir(), "api.yaml")
			if err := os.WriteFile(name, []byte(doc.String()), 0o600); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				_, key, err := acquire(name, "", false, false)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := contracts.Delete(key); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
