package integration

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

const contractDoc = `
openapi: %s
info: {title: t, version: "1"}
servers: [{url: https://api.test/v1}]
paths:
  /orders:
    get:
      operationId: list
      parameters:
        - {name: limit, in: query, required: true, schema: {type: integer, minimum: 1, maximum: 9}}
        - {name: ids, in: query, schema: {type: array, items: {type: integer}}}
        - {name: X-Trace, in: header, schema: {type: string, pattern: "^t"}}
        - {name: theme, in: cookie, schema: {type: string, enum: [dark, light]}}
      responses: {}
    post:
      operationId: create
      requestBody:
        required: true
        content:
          application/json: {schema: {$ref: "#/components/schemas/Order"}}
          application/x-www-form-urlencoded: {schema: {type: object, required: [sku], properties: {n: {type: integer}}}}
          text/*: {}
      responses: {}
  /orders/{id}:
    get:
      operationId: one
      parameters: [{name: id, in: path, required: true, schema: {type: integer}}]
      responses: {}
components:
  schemas:
    Order:
      type: object
      required: [sku]
      additionalProperties: false
      properties: {sku: {type: string}, n: {type: number, maximum: 5}, parent: {$ref: "#/components/schemas/Order"}}
`

// TestOneOperation: a request is not let through as an operation that a backend
// may take for another.
func TestOneOperation(t *testing.T) {
	b := newBackend(t, nil)
	gw := prepare(t)
	gw.write(t, "keys.json", `[{"id":"ci","sha256":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","scopes":["read"]}]`)
	gw.write(t, "api.yaml", `openapi: 3.1.0
info: {title: t, version: "1"}
paths:
  /orders/{id}: {get: {operationId: one, security: [{key: [read]}], responses: {}}}
  /orders/{id}/refund: {get: {operationId: refund, security: [{key: [admin]}], responses: {}}}
  /orders/export: {get: {operationId: export, security: [{key: [admin]}], responses: {}}}
components: {securitySchemes: {key: {type: apiKey, in: header, name: X-Api-Key}}}
`)
	for _, tc := range []struct {
		block, path string
		status      int
	}{
		{"", "/orders/1", 200},
		{"", "/orders/1/refund", 403},
		{"", "/orders/1%2frefund", 404},
		{"", "/orders/1%5Crefund", 404},
		{"encoded_slash", "/orders/1%2frefund", 200},
		{"", "/orders/export", 403},
		{"", "/orders/EXPORT", 404},
		{"", "/orders/export;x=1", 404},
		{"", "/orders/Export.json", 404},
		{"", "/orders/exported", 200},
		{"mode shadow", "/orders/EXPORT", 200},
	} {
		if err := gw.load("identity {\nkeys keys.json\n}", "api demo {\nidentity {\nkeys\n}\ncontract api.yaml {\n"+tc.block+"\n}\nreverse_proxy "+b.addr()+"\n}"); err != nil {
			t.Fatal(err)
		}
		if a := gw.get(t, tc.path, http.Header{"X-Api-Key": {"test"}}); a.status != tc.status || tc.status == 404 && a.reason() != "contract.unknown_path" {
			t.Errorf("%q %s: %d %s", tc.block, tc.path, a.status, a.body)
		}
	}
}

// TestUnknownQuery: what the contract does not name is refused where that is asked
// for, and passes otherwise.
func TestUnknownQuery(t *testing.T) {
	b := newBackend(t, nil)
	gw := prepare(t)
	gw.write(t, "api.yaml", `openapi: 3.1.0
info: {title: t, version: "1"}
paths:
  /list:
    get:
      operationId: list
      parameters:
        - {name: pageSize, in: query, schema: {type: integer, maximum: 9}}
        - {name: filter, in: query, style: deepObject, schema: {type: object}}
        - {name: page, in: query, schema: {type: object, properties: {from: {type: integer}, to: {type: integer}}}}
        - {name: X-Trace, in: header, schema: {type: string}}
      responses: {}
  /plain: {get: {operationId: plain, responses: {}}}
`)
	for _, tc := range []struct {
		block, target string
		status        int
		says          string
	}{
		{"", "/list?page_size=99", 200, ""},
		{"", "/plain?a=1", 200, ""},
		{"unknown_query pass", "/plain?a=1", 200, ""},
		{"unknown_query refuse", "/plain", 200, ""},
		{"unknown_query refuse", "/plain?a=1", 400, `{"in":"query","name":"a","detail":"is not documented"}`},
		{"unknown_query refuse", "/list?pageSize=9&filter[x]=1&from=2", 200, ""},
		{"unknown_query refuse", "/list?page_size=99", 400, `"name":"page_size"`},
		{"unknown_query refuse", "/list?X-Trace=1", 400, `"name":"X-Trace"`},
		{"unknown_query refuse", "/list?page=1", 400, `"name":"page"`},
		{"unknown_query refuse", "/list?filter=1", 400, `"name":"filter"`},
		{"unknown_query refuse", "/plain?a=1;b", 400, "cannot be read"},
		{"unknown_query refuse\ninput_mode shadow", "/plain?a=1", 200, ""},
	} {
		if err := gw.load("", "api demo {\ncontract api.yaml {\n"+tc.block+"\n}\nreverse_proxy "+b.addr()+"\n}"); err != nil {
			t.Fatal(err)
		}
		if a := gw.get(t, tc.target, nil); a.status != tc.status || !strings.Contains(a.body, tc.says) || tc.status == 400 && a.reason() != "input.parameters" {
			t.Errorf("%q %s: %d %s", tc.block, tc.target, a.status, a.body)
		}
	}
}

// TestContractInShadowKeepsSecurity: what the whole document asks for holds also
// for requests that it does not name and that pass because it is in shadow.
func TestContractInShadowKeepsSecurity(t *testing.T) {
	gw := prepare(t)
	gw.write(t, "keys.json", `[{"id":"ci","sha256":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","scopes":["a"]}]`)
	for security, want := range map[string]int{"security: [{key: [b]}]": 403, "security: [{key: [a]}]": 200, "security: [{token: []}]": 403, "security: []": 200, "": 200} {
		gw.write(t, "api.yaml", `openapi: 3.1.0
info: {title: t, version: "1"}
`+security+`
paths: {/a: {get: {operationId: a, security: [], responses: {}}}}
components: {securitySchemes: {key: {type: apiKey, in: header, name: X-Api-Key}, token: {type: http, scheme: bearer}}}
`)
		if err := gw.load("identity {\nkeys keys.json\n}", "api demo {\nidentity {\nkeys\n}\ncontract api.yaml {\nmode shadow\n}\nrespond ok\n}"); err != nil {
			t.Fatal(err)
		}
		if a := gw.get(t, "/unknown", http.Header{"X-Api-Key": {"test"}}); a.status != want {
			t.Errorf("%s: %d %s", security, a.status, a.body)
		}
	}
}

func TestContract(t *testing.T) {
	b := newBackend(t, nil)
	jsonBody, form := asJSON, asForm
	for _, version := range []string{"3.0.3", "3.1.0"} {
		for _, block := range []string{"api demo {\n%s\nreverse_proxy %s\n}", "%s\nreverse_proxy %s"} {
			inAPI := strings.HasPrefix(block, "api")
			gw := prepare(t)
			gw.write(t, "api.yaml", fmt.Sprintf(contractDoc, version))
			if err := gw.load("", fmt.Sprintf(block, "contract api.yaml {\nmax_body 1KiB\n}", b.addr())); err != nil {
				t.Fatal(err)
			}
			for _, tc := range []struct {
				method, path string
				header       http.Header
				body         string
				status       int
				reason, says string
			}{
				{"GET", "/v1/orders?limit=5&ids=1&ids=2", nil, "", 200, "", ""},
				{"HEAD", "/v1/orders?limit=5", nil, "", 200, "", ""},
				{"GET", "/orders?limit=5", nil, "", 404, "contract.unknown_path", ""},
				{"GET", "/v1/orders/", nil, "", 404, "contract.unknown_path", ""},
				{"GET", "/v1/orders/../orders?limit=5", nil, "", 404, "contract.unknown_path", ""},
				{"DELETE", "/v1/orders", nil, "", 405, "contract.unknown_method", ""},
				{"GET", "/v1/orders", nil, "", 400, "input.parameters", `"name":"limit","detail":"is missing"`},
				{"GET", "/v1/orders?limit=10", nil, "", 400, "input.parameters", "must be at most 9"},
				{"GET", "/v1/orders?limit=5&limit=6", nil, "", 400, "input.parameters", "twice"},
				{"GET", "/v1/orders?limit=5&ids=x", nil, "", 400, "input.parameters", "/0 must be of type integer"},
				{"GET", "/v1/orders?limit=1e99999999", nil, "", 400, "input.parameters", "integer"},
				{"GET", "/v1/orders?limit=5&%zz", nil, "", 400, "input.parameters", ""},
				{"GET", "/v1/orders?limit=5", http.Header{"X-Trace": {"x"}}, "", 400, "input.parameters", `"in":"header"`},
				{"GET", "/v1/orders?limit=5", http.Header{"Cookie": {"theme=pink"}}, "", 400, "input.parameters", `"in":"cookie"`},
				{"GET", "/v1/orders/7", nil, "", 200, "", ""},
				{"GET", "/v1/orders/x", nil, "", 400, "input.parameters", `"in":"path"`},
				{"POST", "/v1/orders", jsonBody, `{"sku":"a","n":5,"parent":{"sku":"b"}}`, 200, "", ""},
				{"POST", "/v1/orders", http.Header{"Content-Type": {"application/json; charset=UTF-8"}}, `{"sku":"a"}`, 200, "", ""},
				{"POST", "/v1/orders", http.Header{"Content-Type": {"application/json; charset=utf-16"}}, `{"sku":"a"}`, 415, "input.content_type", ""},
				{"POST", "/v1/orders", jsonBody, `{"sku":"a","parent":{"sku":1}}`, 400, "input.body", `"pointer":"#/parent/sku"`},
				{"POST", "/v1/orders", jsonBody, `{"sku":"a","n":1e10000000}`, 400, "input.malformed", "exponent"},
				{"POST", "/v1/orders", jsonBody, `{"sku":"a","sku":"b"}`, 400, "input.malformed", "twice"},
				{"POST", "/v1/orders", jsonBody, `{"sku":"a"} {}`, 400, "input.malformed", "after the value"},
				{"POST", "/v1/orders", jsonBody, "{\"sku\":\"\xff\"}", 400, "input.malformed", "UTF-8"},
				{"POST", "/v1/orders", jsonBody, ``, 400, "input.body_missing", ""},
				{"POST", "/v1/orders", jsonBody, `{"sku":"` + strings.Repeat("a", 2000) + `"}`, 413, "input.body_too_large", ""},
				{"POST", "/v1/orders", with(jsonBody, "Content-Encoding", "gzip"), `x`, 415, "input.content_encoding", ""},
				{"POST", "/v1/orders", http.Header{"Content-Type": {"application/xml"}}, `<a/>`, 415, "input.content_type", "application/json"},
				{"POST", "/v1/orders", http.Header{"Content-Type": {"application/json", "text/plain"}}, `{}`, 415, "input.content_type", ""},
				{"POST", "/v1/orders", http.Header{"Content-Type": {"text/csv"}}, strings.Repeat("x", 5000), 200, "", ""},
				{"POST", "/v1/orders", form, "sku=a&n=5", 200, "", ""},
				{"POST", "/v1/orders", form, "n=x", 400, "input.body", "#/n"},
				{"GET", "/v1/orders/7", jsonBody, `{"x":1}`, 415, "input.content_type", ""},
			} {
				a := gw.do(t, tc.method, tc.path, tc.header, tc.body)
				if a.status != tc.status || inAPI && (a.reason() != tc.reason || !strings.Contains(a.body, tc.says)) {
					t.Errorf("%s, in an api %v: %s %s: %d %s, want %d %s %s", version, inAPI, tc.method, tc.path, a.status, a.body, tc.status, tc.reason, tc.says)
				}
				if tc.status == 405 && a.header.Get("Allow") != "GET, HEAD, POST" {
					t.Errorf("Allow is %q", a.header.Get("Allow"))
				}
				if tc.status == 200 && tc.method == "POST" {
					if _, body := b.got(); body != tc.body {
						t.Errorf("the backend got %q", body)
					}
				}
			}
		}
	}
}

// TestContractUnasked: outside an api nobody looks at what a contract asks for,
// unless a require is written. Who forgets it is told.
func TestContractUnasked(t *testing.T) {
	const asking = `
openapi: 3.0.3
info: {title: t, version: "1"}
components: {securitySchemes: {o: {type: http, scheme: bearer}}}
paths:
  /open:
    get: {responses: {"200": {description: ok}}}
  /a:
    get:
      security: [{o: []}]
      responses: {"200": {description: ok}}
`
	for _, c := range []struct {
		name, site string
		want       int
	}{
		{"alone", "contract c.yaml\nrespond ok", 1},
		{"a require of its own", "contract c.yaml\n@w method POST\nrequire @w scope a\nrespond ok", 1},
		{"a require", "contract c.yaml\nrequire\nrespond ok", 0},
		{"switched off", "contract c.yaml {\nmode off\n}\nrespond ok", 0},
		{"in a route", "route {\ncontract c.yaml\nrequire\n}\nrespond ok", 0},
		{"in a route, alone", "route {\ncontract c.yaml\n}\nrespond ok", 1},
		{"an api", "api a {\ncontract c.yaml\nrespond ok\n}", 0},
		{"a contract that asks nobody", "contract open.yaml\nrespond ok", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			gw := prepare(t)
			gw.write(t, "c.yaml", asking)
			gw.write(t, "open.yaml", strings.Replace(asking, "security:", "x-security:", 1))
			if err := gw.load("", c.site); err != nil {
				t.Fatal(err)
			}
			told := regexp.MustCompile(`.*nothing here looks at that.*`).FindAllString(gw.log(t), -1)
			if len(told) != c.want || c.want == 1 && !strings.Contains(told[0], "c.yaml:9") {
				t.Errorf("told %v", told)
			}
		})
	}
}

// TestContractMisspelt: what a document says in words that nobody knows is not
// done. Who wrote them is told.
func TestContractMisspelt(t *testing.T) {
	gw := prepare(t)
	gw.write(t, "c.yaml", `
openapi: 3.0.3
info: {title: t, version: "1"}
securty: [{o: []}]
components: {securitySchemes: {o: {type: http, scheme: bearer}}}
paths:
  /a:
    get:
      respones: {"200": {description: ok}}
      x-ours: 1
`)
	if err := gw.load("", "api a {\ncontract c.yaml\nrespond ok\n}"); err != nil {
		t.Fatal(err)
	}
	log := gw.log(t)
	for _, want := range []string{`c.yaml:4","word":"securty","of":"document","did_you_mean":"security"`, `c.yaml:9","word":"respones","of":"operation","did_you_mean":"responses"`} {
		if !strings.Contains(log, want) {
			t.Errorf("%s is not in the log:\n%s", want, log)
		}
	}
	if n := strings.Count(log, "does not know"); n != 2 {
		t.Errorf("%d words told", n)
	}
}

// TestContractDisguised: what a lenient backend may take for an operation that asks
// for more is not let through as one that takes anything.
func TestContractDisguised(t *testing.T) {
	gw, b := prepare(t), newBackend(t, nil)
	gw.write(t, "c.yaml", `
openapi: 3.0.3
info: {title: t, version: "1"}
components: {securitySchemes: {o: {type: http, scheme: bearer}}}
paths:
  /users/{name}:
    get: {security: [], responses: {"200": {description: ok}}}
  /users/admin-{id}:
    get: {security: [{o: []}], responses: {"200": {description: ok}}}
  /users/{id}:purge:
    get: {security: [{o: []}], responses: {"200": {description: ok}}}
  /users/me:
    get: {security: [{o: []}], responses: {"200": {description: ok}}}
`)
	if err := gw.load("", "api users {\ncontract c.yaml\nreverse_proxy "+b.URL+"\n}"); err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]int{
		"/users/ann": 200, "/users/ann.json": 200, "/users/5:x": 200,
		"/users/admin-5": 401, "/users/5:purge": 401, "/users/me": 401,
		"/users/ADMIN-5": 404, "/users/5:PURGE": 404, "/users/5:purge.json": 404, "/users/5:purge.": 404, "/users/5%3apurge%20": 404, "/users/me.": 404, "/users/me%20": 404,
	} {
		if a := gw.get(t, target, nil); a.status != want {
			t.Errorf("%s: %d %s", target, a.status, a.body)
		}
	}
}

func TestContractSchemaForARoute(t *testing.T) {
	gw := prepare(t)
	for draft, uri := range map[string]string{"4": "http://json-schema.org/draft-04/schema#", "2020-12": "https://json-schema.org/draft/2020-12/schema"} {
		gw.write(t, "order.json", `{"$schema":"`+uri+`","type":"object","required":["a"]}`)
		if err := gw.load("", "api demo {\n@create method POST\ncontract @create schema order.json\nrespond ok\n}"); err != nil {
			t.Fatal(err)
		}
		for body, want := range map[string]string{`{"a":1}`: "", `{}`: "input.body", `{`: "input.malformed"} {
			if a := gw.do(t, "POST", "/", asJSON, body); a.reason() != want {
				t.Errorf("draft %s: %s: %d %s", draft, body, a.status, a.body)
			}
		}
		if a := gw.get(t, "/", nil); a.status != 200 {
			t.Errorf("a request the matcher leaves out: %d", a.status)
		}
	}
}

func TestContractShadow(t *testing.T) {
	gw := prepare(t)
	gw.write(t, "api.yaml", fmt.Sprintf(contractDoc, "3.1.0"))
	if err := gw.load("", "api demo {\ncontract api.yaml {\nmode shadow\ninput_mode shadow\n}\nrespond ok\n}"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/nowhere", "/v1/orders?limit=99"} {
		if a := gw.get(t, path, nil); a.status != 200 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if d := fmt.Sprint(gw.decisions(t)); !strings.Contains(d, "contract.unknown_path") || !strings.Contains(d, "input.parameters") {
		t.Errorf("recorded %s", d)
	}
}

// TestContractErrors: what is wrong with a document is said with file and line,
// and the configuration that ran runs on.
func TestContractErrors(t *testing.T) {
	gw := prepare(t)
	good := fmt.Sprintf(contractDoc, "3.1.0")
	gw.write(t, "api.yaml", good)
	site := "api demo {\ncontract api.yaml\nrespond ok\n}"
	if err := gw.load("", site); err != nil {
		t.Fatal(err)
	}
	for doc, want := range map[string]string{
		strings.Replace(good, "#/components/schemas/Order\"}}\n          application/x", "#/components/schemas/Odrer\"}}\n          application/x", 1): "api.yaml:20: reference \"#/components/schemas/Odrer\" leads nowhere",
		strings.Replace(good, "^t", "(t)\\\\1", 1):                              "api.yaml:12:",
		strings.Replace(good, "paths:", "paths: [", 1):                          "api.yaml",
		strings.Replace(good, "operationId: one", "operationId: list", 1):       "\"list\" stands twice",
		strings.Replace(good, "{sku: {type: string}", "{sku: {type: strin}", 1): "api.yaml",
	} {
		gw.write(t, "api.yaml", doc)
		if err := gw.load("", site); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := gw.load("", "api demo {\ncontract missing.yaml\nrespond ok\n}"); err == nil || !strings.Contains(err.Error(), "missing.yaml\" does not exist") {
		t.Errorf("%v", err)
	}
	if a := gw.get(t, "/v1/orders?limit=5", nil); a.status != 200 {
		t.Errorf("after refused reloads: %d", a.status)
	}
}

// TestMissingFile: the error of a file that is not there names it, and the log the
// line and the word of the Caddyfile, which whoever loads it does not know.
func TestMissingFile(t *testing.T) {
	gw := start(t, "", "respond ok")
	err := gw.load("", "api demo {\ncontract missing.yaml\nrespond ok\n}")
	if err == nil || !strings.Contains(err.Error(), "missing.yaml\" does not exist") {
		t.Errorf("%v", err)
	}
	if log := gw.log(t); !strings.Contains(log, `"word":"missing.yaml"`) || !strings.Contains(log, `Caddyfile:`) {
		t.Error(log)
	}
}
