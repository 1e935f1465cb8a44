package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"
)

const driftDoc = `
openapi: %s
info: {title: t, version: "1"}
paths:
  /orders/{id}:
    get:
      operationId: findOrder
      parameters: [{name: id, in: path, required: true, schema: {type: string}}]
      responses:
        "200":
          description: ok
          content:
            application/json:
              schema:
                type: object
                required: [sku, secret]
                properties:
                  sku: {type: string, pattern: "^SKU-"}
                  secret: {type: string, writeOnly: true}
                  lines: {type: array, items: {type: object, properties: {n: {type: integer, minimum: 1}}}}
            text/plain: {}
        4XX: {description: no, content: {application/problem+json: {}}}
  /old:
    get:
      operationId: old
      deprecated: true
      x-deprecated-since: 2026-01-31
      x-sunset: 2027-01-31T12:00:00Z
      responses: {"200": {description: ok}}
  /events: {get: {operationId: events, responses: {"200": {description: ok, content: {text/event-stream: {}}}}}}
`

type driftAnswer struct {
	Findings []struct {
		API, Operation, Kind, Where, Detail string
		Status, Count                       int
	}
	NotListed int `json:"not_listed"`
}

func (g *gateway) drift(t *testing.T) driftAnswer {
	t.Helper()
	a := g.change(t, http.MethodGet, "/gatehouse/drift?api=demo", "", nil).body
	var d driftAnswer
	if err := json.Unmarshal([]byte(a), &d); err != nil {
		t.Fatalf("%v: %s", err, a)
	}
	return d
}

// TestDrift: what the backend answers is compared with the contract, told
// without its values, and never changed.
func TestDrift(t *testing.T) {
	var status int
	var header http.Header
	var body string
	b := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		maps.Copy(w.Header(), header)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
	for _, version := range []string{"3.0.3", "3.1.0"} {
		gw := prepare(t)
		gw.write(t, "api.yaml", fmt.Sprintf(driftDoc, version))
		if err := gw.load("", "api demo {\nupstream_errors pass\ncontract api.yaml {\nmode shadow\nmax_body 1KiB\nresponses shadow\n}\nreverse_proxy "+b.addr()+"\n}"); err != nil {
			t.Fatal(err)
		}
		js := http.Header{"Content-Type": {"application/json"}}
		for name, c := range map[string]struct {
			path   string
			status int
			header http.Header
			body   string
			want   string // kind, place and what is wrong
		}{
			"as described":          {"/orders/1", 200, js, `{"sku":"SKU-1","lines":[{"n":1}]}`, ""},
			"a wrong value":         {"/orders/1", 200, js, `{"sku":"topsecret"}`, "schema /sku must match the pattern ^SKU-"},
			"in a list":             {"/orders/1", 200, js, `{"sku":"SKU-1","lines":[{"n":1},{"n":0},{"n":0}]}`, "schema /lines/*/n must be at least 1"},
			"a member more":         {"/orders/1", 200, js, `{"sku":"SKU-1","lines":[{"margin":"topsecret"}]}`, "undocumented_member /lines/*/margin"},
			"no JSON":               {"/orders/1", 200, js, `topsecret`, "malformed  is not acceptable JSON"},
			"another status":        {"/orders/1", 503, js, `{"topsecret":1}`, "undocumented_status"},
			"a class of them":       {"/orders/1", 404, http.Header{"Content-Type": {"application/problem+json"}}, `{"topsecret":1}`, ""},
			"another type":          {"/orders/1", 200, http.Header{"Content-Type": {"text/csv; x=topsecret"}}, `a,b`, "undocumented_content_type  text/csv"},
			"a type without schema": {"/orders/1", 200, http.Header{"Content-Type": {"text/plain"}}, `topsecret`, ""},
			"too large":             {"/orders/1", 200, js, `{"sku":"` + strings.Repeat("x", 2000) + `"}`, ""},
			"compressed":            {"/orders/1", 200, http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"br"}}, `topsecret`, ""},
			"another path":          {"/orders/1234/items", 200, js, `{}`, "undocumented_path GET /orders/*/items"},
			"what is not there":     {"/wp-login.php", 404, js, `{}`, ""},
		} {
			gw.change(t, http.MethodDelete, "/gatehouse/drift", "", nil)
			status, header, body = c.status, c.header, c.body
			a := gw.get(t, c.path, http.Header{"Accept-Encoding": {"identity"}})
			if a.status != c.status || a.body != c.body {
				t.Errorf("%s: the client gets %d %.100q", name, a.status, a.body)
			}
			var got driftAnswer
			for range 100 { // it is looked at once the client has it
				// What has not been counted yet would be found by the next case.
				if got = gw.drift(t); len(got.Findings) > 0 && got.Findings[0].Count == 1+strings.Count(c.body, `"n":0`)/2 {
					break
				}
				if c.want == "" {
					time.Sleep(20 * time.Millisecond)
					got = gw.drift(t)
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			var told []string
			for _, f := range got.Findings {
				told = append(told, strings.TrimSpace(f.Kind+" "+f.Where+" "+f.Detail))
				if f.Status != c.status || f.API != "demo" {
					t.Errorf("%s: %+v", name, f)
				}
			}
			text := strings.Join(told, "\n")
			if text != c.want {
				t.Errorf("%s with %s: found %q, want %q", name, version, text, c.want)
			}
			if strings.Contains(text, "topsecret") {
				t.Errorf("%s: a value is told: %s", name, text)
			}
		}
		metrics := gw.ask(t, "/metrics")
		for _, want := range []string{
			`gatehouse_contract_drift_total{api="demo",kind="schema",operation="findOrder"}`, `gatehouse_contract_drift_total{api="demo",kind="undocumented_path",operation=""}`,
			`gatehouse_contract_responses_total{api="demo",result="checked"}`, `result="too_large"`, `result="encoded"`,
		} {
			if !strings.Contains(metrics, want) {
				t.Errorf("no metric %s", want)
			}
		}
	}
}

// TestDriftStreams: an answer that comes in parts passes part by part.
func TestDriftStreams(t *testing.T) {
	more := make(chan bool)
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if w.Header().Set("Content-Type", "text/event-stream"); r.URL.Path != "/events" {
			w.Header().Set("Content-Type", "application/json")
		}
		_, _ = io.WriteString(w, "[1,\n")
		_ = http.NewResponseController(w).Flush()
		<-more
		_, _ = io.WriteString(w, "2]\n")
	})
	gw := prepare(t)
	gw.write(t, "api.yaml", fmt.Sprintf(driftDoc, "3.1.0"))
	if err := gw.load("", "api demo {\ncontract api.yaml {\nresponses shadow\n}\nreverse_proxy "+b.addr()+" {\nflush_interval -1\n}\n}"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/events", "/orders/1"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := gw.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(resp.Body)
		if line, err := lines.ReadString('\n'); err != nil || line != "[1,\n" {
			t.Errorf("%s: %q, %v", path, line, err)
		}
		more <- true // the first part was here before the second was written
		if line, err := lines.ReadString('\n'); err != nil || line != "2]\n" {
			t.Errorf("%s: %q, %v", path, line, err)
		}
		_ = resp.Body.Close()
	}
}

// TestDeprecated: consumers are told when an operation ends.
func TestDeprecated(t *testing.T) {
	said := http.Header{}
	b := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		maps.Copy(w.Header(), said)
	})
	gw := prepare(t)
	gw.write(t, "api.yaml", fmt.Sprintf(driftDoc, "3.0.3"))
	if err := gw.load("", "api demo {\ncontract api.yaml\nreverse_proxy "+b.addr()+"\n}"); err != nil {
		t.Fatal(err)
	}
	a := gw.get(t, "/old", nil)
	if a.header.Get("Deprecation") != "@1769817600" || a.header.Get("Sunset") != "Sun, 31 Jan 2027 12:00:00 GMT" {
		t.Errorf("%v", a.header)
	}
	if a := gw.get(t, "/orders/1", nil); a.header.Get("Deprecation") != "" || a.header.Get("Sunset") != "" {
		t.Errorf("%v", a.header)
	}
	said = http.Header{"Sunset": {"Mon, 01 Feb 2027 00:00:00 GMT"}}
	if a := gw.get(t, "/old", nil); len(a.header["Sunset"]) != 1 || a.header.Get("Sunset") != said.Get("Sunset") {
		t.Errorf("%v", a.header["Sunset"])
	}
}
