package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

const catalogDoc = `
openapi: 3.0.3
info:
  title: Orders <script>document.title="taken"</script>
  version: "2.1"
  description: |
    Places and finds orders. <img src="https://outside.test/x.png" onerror="document.title='taken'">
    ![pixel](https://outside.test/pixel.png) [link](javascript:alert(1))
    <style>@import url("https://outside.test/x.css")</style><iframe src="https://outside.test/"></iframe>
servers: [{url: "http://backend.internal:9000/v1"}]
tags: [{name: orders, description: "<b onclick='x()'>All</b> about orders"}]
security: [{bearer: []}]
paths:
  /orders:
    get:
      operationId: listOrders
      summary: Lists orders <script>document.title="taken"</script>
      tags: [orders]
      security: [{bearer: ["orders:read"]}]
      x-amazon-apigateway-integration: {uri: "http://backend.internal"}
      parameters: [{name: limit, in: query, schema: {type: integer, minimum: 1, maximum: 100}}]
      responses:
        "200": {description: The orders, content: {application/json: {schema: {type: array, items: {$ref: "#/components/schemas/Order"}}}}}
    post:
      operationId: placeOrder
      summary: Places an order
      tags: [orders]
      security: [{bearer: ["orders:write"]}]
      requestBody: {required: true, content: {application/json: {schema: {$ref: "#/components/schemas/Order"}}}}
      responses: {"201": {description: The order}}
  /orders/{id}:
    get:
      operationId: findOrder
      summary: Finds one order
      tags: [orders]
      deprecated: true
      parameters: [{name: id, in: path, required: true, schema: {type: string}}]
      responses: {"200": {description: The order}}
  /status:
    get: {operationId: status, summary: Says whether it is up, security: [], responses: {"200": {description: ok}}}
  /purge:
    post: {operationId: purgeEverything, x-internal: true, responses: {"204": {description: ok}}}
  /admin/users:
    get: {operationId: listUsers, tags: [admin], responses: {"200": {description: ok}}}
components:
  securitySchemes: {bearer: {type: http, scheme: bearer}}
  schemas:
    Order:
      type: object
      required: [sku]
      properties: {sku: {type: string, example: SKU-1}, quantity: {type: integer, minimum: 1}, margin: {type: number, x-internal: true}}
`

const catalogGlobal = `
identity {
	issuer main https://id.example.com {
		jwks jwks.json
		audience orders-api
	}
}
quota {
	plan free 60/m
	plan pro 600/m burst 100
}`

const catalogSite = `
api orders {
	owner team-orders
	description "Places and finds orders."
	catalog {
		hide admin
	}
	contract orders.yaml
	identity main
	quota per tenant
	firewall
	reverse_proxy secret-backend:9000
}`

func startCatalog(t *testing.T, site string) *gateway {
	t.Helper()
	gw := prepare(t)
	gw.write(t, "orders.yaml", catalogDoc)
	gw.write(t, "jwks.json", `{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`) // of RFC 8037
	if err := gw.load(catalogGlobal, site); err != nil {
		t.Fatal(err)
	}
	return gw
}

func TestCatalog(t *testing.T) {
	gw := startCatalog(t, catalogSite)
	page := gw.get(t, "/docs", nil)
	if page.status != 200 || page.header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%d %v: %s", page.status, page.header, page.body)
	}
	for _, want := range []string{
		"Orders &lt;script&gt;", "team-orders", "Places and finds orders.", "https://id.example.com", "orders-api",
		"60 per minute", "600 per minute, up to 100 at once", "for callers without a plan", "bearer with orders:write",
		"quota.exhausted", "firewall.attack", "input.body", "resilience.breaker_open", "api.unmatched",
	} {
		if !strings.Contains(page.body, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if strings.Contains(page.body, "reputation.denied") {
		t.Error("the page lists problems of a stage that is not there")
	}
	csp := page.header.Get("Content-Security-Policy")
	if strings.Contains(csp, "unsafe") || !strings.Contains(csp, "default-src 'none'") {
		t.Errorf("policy %q", csp)
	}

	doc := gw.get(t, "/docs/openapi.json", nil)
	var parsed struct {
		Servers []struct{ URL string }
		Paths   map[string]map[string]any
	}
	if err := json.Unmarshal([]byte(doc.body), &parsed); err != nil || doc.header.Get("Content-Type") != "application/json" {
		t.Fatalf("%v: %v", err, doc.header)
	}
	if len(parsed.Servers) != 1 || parsed.Servers[0].URL != "/v1" || len(parsed.Paths) != 3 {
		t.Errorf("%+v", parsed)
	}
	links := gw.get(t, "/.well-known/api-catalog", nil)
	if want := `{"linkset":[{"anchor":"/.well-known/api-catalog","item":[{"href":"/v1"}]},{"anchor":"/v1","service-desc":[{"href":"/docs/openapi.json","type":"application/json"}],"service-doc":[{"href":"/docs","type":"text/html"}]}]}`; links.body != want {
		t.Errorf("%s", links.body)
	}
	if links.header.Get("Content-Type") != `application/linkset+json; profile="https://www.rfc-editor.org/info/rfc9727"` {
		t.Errorf("%v", links.header)
	}
	head := gw.do(t, "HEAD", "/.well-known/api-catalog", nil, "")
	if head.status != 200 || !strings.Contains(head.header.Get("Link"), `rel="api-catalog"`) || head.body != "" {
		t.Errorf("HEAD: %d %v", head.status, head.header)
	}
	for _, a := range []answer{page, doc, links} {
		for _, secret := range []string{"internal", "secret-backend", "9000", "purge", "listUsers", "margin", "x-amazon", "jwks", gw.dir} {
			if strings.Contains(a.body, secret) {
				t.Errorf("%s is published", secret)
			}
		}
	}
	if a := gw.get(t, "/docs", http.Header{"If-None-Match": {page.header.Get("Etag")}}); a.status != 304 || a.body != "" {
		t.Errorf("again: %d", a.status)
	}
	// What is not the catalog's meets the stages behind it.
	if a := gw.get(t, "/v1/orders", nil); a.status != 401 {
		t.Errorf("an operation: %d", a.status)
	}
	for _, path := range []string{"/docs/x", "/docsx", "/docs/assets-0/page.js", "/docs/../docs/openapi.json/x"} {
		if a := gw.get(t, path, nil); a.reason() != "contract.unknown_path" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := gw.do(t, "POST", "/docs", nil, ""); a.reason() != "contract.unknown_path" {
		t.Errorf("POST: %d", a.status)
	}
}

// TestCatalogUnasked: without the word, nothing is published.
func TestCatalogUnasked(t *testing.T) {
	gw := startCatalog(t, "api orders {\ncontract orders.yaml\nreverse_proxy localhost:1\n}")
	for _, path := range []string{"/docs", "/docs/openapi.json", "/.well-known/api-catalog", "/apis"} {
		if a := gw.get(t, path, nil); a.status != 404 {
			t.Errorf("%s: %d", path, a.status)
		}
	}
}

// TestCatalogList: a site lists the APIs that are published in it, and no others.
func TestCatalogList(t *testing.T) {
	gw := startCatalog(t, `
	catalog
	api /v1* orders {
		owner team-orders
		catalog /v1docs {
			server https://api.example.com/v1
			hide admin listOrders "GET /status"
		}
		contract orders.yaml
		reverse_proxy localhost:1
	}
	api /secret* hidden {
		respond ok
	}
	handle /plain* {
		api plain {
			catalog /plain/docs
			respond ok
		}
	}
}
http://other.test {
	bind unix/other.sock
	api elsewhere {
		catalog
		respond ok
	}`)
	list := gw.get(t, "/apis", nil)
	for _, want := range []string{`href="/v1docs"`, "team-orders", "2 operations", `href="/plain/docs"`} {
		if !strings.Contains(list.body, want) {
			t.Errorf("the list does not say %q: %s", want, list.body)
		}
	}
	links := gw.get(t, "/.well-known/api-catalog", nil)
	if !strings.Contains(links.body, `{"href":"https://api.example.com/v1"}`) || !strings.Contains(links.body, `"/plain/docs"`) {
		t.Error(links.body)
	}
	for _, a := range []answer{list, links} {
		if strings.Contains(a.body, "hidden") || strings.Contains(a.body, "elsewhere") {
			t.Errorf("listed: %s", a.body)
		}
	}
	if a := gw.get(t, "/v1docs", nil); a.status != 200 || !strings.Contains(a.header.Get("Content-Security-Policy"), "connect-src 'self' https://api.example.com;") {
		t.Errorf("%d %v", a.status, a.header)
	}
	if a := gw.get(t, "/plain/docs", nil); a.status != 200 || !strings.Contains(a.body, "No credential is asked for") || strings.Contains(a.body, "<script") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestCatalogErrors(t *testing.T) {
	for site, want := range map[string]string{
		"api a {\ncatalog {\nhide listorders\n}\ncontract orders.yaml\nrespond ok\n}": `hide "listorders" is neither an operation nor a tag`,
		"api a {\ncatalog /orders\ncontract orders.yaml\nrespond ok\n}":               "the contract has an operation at /orders",
		"api a {\ncatalog {\nhide x\n}\nrespond ok\n}":                                "no contract to hide operations of",
	} {
		gw := prepare(t)
		gw.write(t, "orders.yaml", catalogDoc)
		if err := gw.load("", site); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", site, err, want)
		}
	}
}

// browser opens pages of a gateway in Chromium and keeps what they ask for and
// complain about.
type browser struct {
	ctx        context.Context
	base       string
	mu         sync.Mutex
	requests   []string
	complaints []string
}

func newBrowser(t *testing.T, gw *gateway) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("GATEHOUSE_SUITES_REQUIRED") != "" {
			t.Fatal("chromium is not installed, and GATEHOUSE_SUITES_REQUIRED says all tests must run")
		}
		t.Skip("chromium is not installed")
	}
	// A browser cannot open a unix socket: what it sends goes there through a port.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	proxy := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, err := http.NewRequestWithContext(r.Context(), r.Method, "http://localhost"+r.URL.RequestURI(), r.Body)
		if err != nil {
			return
		}
		req.Header = r.Header.Clone()
		resp, err := gw.client.Do(req)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		maps.Copy(w.Header(), resp.Header)
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	})}
	go func() { _ = proxy.Serve(l) }()
	t.Cleanup(func() { _ = proxy.Close() })

	opts := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()))
	for _, flag := range []string{"no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking", "disable-component-update", "disable-sync"} {
		opts = append(opts, chromedp.Flag(flag, true))
	}
	alloc, stop := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(cancel)
	ctx, cancelTime := context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancelTime)
	b := &browser{ctx: ctx, base: "http://" + l.Addr().String()}
	err = chromedp.Listen(ctx, func(ev any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch ev := ev.(type) {
		case *network.EventRequestWillBeSent:
			b.requests = append(b.requests, ev.Request.URL)
		case *log.EventEntryAdded:
			b.complaints = append(b.complaints, ev.Entry.Text)
		case *runtime.EventExceptionThrown:
			b.complaints = append(b.complaints, ev.ExceptionDetails.Text)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	tell(t, b, network.Enable, network.EnableParams{})
	tell(t, b, log.Enable, cdp.Empty{})
	tell(t, b, runtime.Enable, cdp.Empty{})
	return b
}

func tell[P, R any](t *testing.T, b *browser, cmd cdp.Command[P, R], params P) {
	t.Helper()
	if _, err := chromedp.Call(b.ctx, cmd, params); err != nil {
		t.Fatal(err)
	}
}

// see runs something in the page and returns what it finds.
func see[T any](t *testing.T, b *browser, a chromedp.Action[T]) T {
	t.Helper()
	v, err := chromedp.Run(b.ctx, a)
	if err != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		t.Fatalf("%v; asked for %v; %v", err, b.requests, b.complaints)
	}
	return v
}

// shot keeps a picture where GATEHOUSE_SCREENSHOTS names a folder, for people.
func (b *browser) shot(t *testing.T, name string) {
	t.Helper()
	png := see(t, b, chromedp.FullScreenshot(100))
	if !bytes.HasPrefix(png, []byte("\x89PNG")) {
		t.Errorf("no picture of %s", name)
	}
	if dir := os.Getenv("GATEHOUSE_SCREENSHOTS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600); err != nil {
			t.Error(err)
		}
	}
}

// TestCatalogInBrowser opens the page as consumers do: it shows the operations,
// asks nobody but the gateway, breaks no policy, and takes the contract's words
// for words.
func TestCatalogInBrowser(t *testing.T) {
	gw := startCatalog(t, "catalog\n"+catalogSite)
	b := newBrowser(t, gw)
	var title, text string
	for _, look := range []struct {
		name          string
		width, height int64
		scheme        string
	}{{"desktop", 1280, 900, "light"}, {"phone", 390, 844, "light"}, {"dark", 1280, 900, "dark"}} {
		tell(t, b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: look.width, Height: look.height, DeviceScaleFactor: 1, Mobile: look.width < 500})
		tell(t, b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: look.scheme}}})
		see(t, b, chromedp.Navigate(b.base+"/docs"))
		see(t, b, chromedp.WaitVisible("#viewer .opblock"))
		see(t, b, chromedp.Click("#viewer .opblock-post .opblock-summary-control"))
		see(t, b, chromedp.WaitVisible("#viewer .opblock-body"))
		title, text = see(t, b, chromedp.Title()), see(t, b, chromedp.Text("body"))
		if see(t, b, chromedp.Evaluate[bool]("document.documentElement.scrollWidth > document.documentElement.clientWidth")) {
			t.Errorf("%s: the page is wider than the screen", look.name)
		}
		b.shot(t, "catalog-"+look.name)
	}
	if title != `Orders <script>document.title="taken"</script>` {
		t.Errorf("title %q", title)
	}
	for _, want := range []string{"/orders/{id}", "Places an order", "Try it out", "onerror=", "pixel", "Lists orders <script>"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not show %q", want)
		}
	}
	see(t, b, chromedp.Navigate(b.base+"/apis"))
	see(t, b, chromedp.WaitVisible("h2 a"))
	b.shot(t, "catalog-list")
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.requests) < 6 {
		t.Errorf("only %v was asked for", b.requests)
	}
	for _, url := range b.requests {
		if !strings.HasPrefix(url, b.base+"/") && !strings.HasPrefix(url, "data:") {
			t.Errorf("a request left for %s", url)
		}
	}
	for _, c := range b.complaints {
		t.Errorf("the browser complains: %s", c)
	}
}
