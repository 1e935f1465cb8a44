package catalog

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// nasty is what somebody may write into a contract or a config.
const nasty = `</title><script>alert(1)</script>"'><img src=x onerror=alert(1)>`

func described() *gate.Description {
	return &gate.Description{
		API: "orders", Owner: nasty, Text: nasty, ProblemType: "https://example.com/problems/",
		Credentials: []gate.Credential{{Kind: "Bearer token", How: "Authorization", Issuer: nasty, Audience: []string{nasty}}},
		Limits:      []gate.Limit{{Plan: nasty, Rate: "60 per minute", Per: "tenant", Note: nasty}},
		Stages:      []gate.Stage{gate.API, gate.Quota},
		Scopes:      []string{nasty}, Roles: []string{nasty},
		Document: func(s gate.Selection) (*gate.Document, error) {
			return &gate.Document{
				JSON: []byte(`{"openapi":"3.1.0","info":{"title":"` + strings.Repeat("x", 2000) + `"}}`), Title: nasty, Version: nasty, Server: "/v1",
				Operations: []gate.PublishedOperation{{Operation: gate.Operation{ID: nasty, Method: "GET", Path: "/orders"}, Summary: nasty}},
			}, nil
		},
	}
}

func published(t *testing.T) *Handler {
	t.Helper()
	h := &Handler{Path: "/docs", Server: "https://api.example.com/v1"}
	h.site.path = h.Path
	if err := h.Publish(described()); err != nil {
		t.Fatal(err)
	}
	return h
}

func (s *site) ask(method, path string, header ...string) (*http.Response, bool) {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	_, answered := s.serve(w, r)
	return w.Result(), answered
}

func text(t *testing.T, res *http.Response) string {
	t.Helper()
	body := io.Reader(res.Body)
	if res.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(body)
		if err != nil {
			t.Fatal(err)
		}
		body = z
	}
	data, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestPage: whatever is described is text on the page and nothing else, and the
// page may load and call only what it needs.
func TestPage(t *testing.T) {
	h := published(t)
	res, ok := h.site.ask("GET", "/docs")
	if !ok || res.StatusCode != 200 {
		t.Fatalf("%v %d", ok, res.StatusCode)
	}
	body := text(t, res)
	if strings.Contains(body, "<script>alert") || strings.Contains(body, "<img") {
		t.Error("what a contract says became markup")
	}
	if n := strings.Count(body, "&lt;script&gt;alert(1)"); n < 10 {
		t.Errorf("only %d of the texts are on the page", n)
	}
	csp := res.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "connect-src 'self' https://api.example.com;", "frame-ancestors 'none'"} {
		if !strings.Contains(csp, want) {
			t.Errorf("%q is not in %q", want, csp)
		}
	}
	if strings.Contains(csp, "unsafe") || res.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%v", res.Header)
	}
	if !strings.Contains(body, "quota.exhausted") || strings.Contains(body, "identity.missing") {
		t.Error("the problems are not those of the stages that may refuse")
	}
}

func TestServe(t *testing.T) {
	s := &published(t).site
	page, _ := s.ask("GET", "/docs")
	etag := page.Header.Get("Etag")
	for _, c := range []struct {
		method, path     string
		header           []string
		status           int
		encoding, holder string // what the body must hold
	}{
		{"GET", "/docs", nil, 200, "", "<h1>"},
		{"GET", "/docs/", nil, 200, "", "<h1>"},
		{"GET", "/docs", []string{"Accept-Encoding", "br, gzip"}, 200, "gzip", "<h1>"},
		{"GET", "/docs", []string{"Accept-Encoding", "gzip;q=0.5"}, 200, "gzip", "<h1>"},
		{"GET", "/docs", []string{"Accept-Encoding", "gzip;q=0"}, 200, "", "<h1>"},
		{"GET", "/docs", []string{"Accept-Encoding", "gzip; q=0.0, br"}, 200, "", "<h1>"},
		{"GET", "/docs", []string{"Accept-Encoding", "xgzip"}, 200, "", "<h1>"},
		{"GET", "/docs", []string{"If-None-Match", etag}, 304, "", ""},
		{"GET", "/docs", []string{"If-None-Match", `"a", ` + etag[2:]}, 304, "", ""},
		{"GET", "/docs", []string{"If-None-Match", "*"}, 304, "", ""},
		{"GET", "/docs", []string{"If-None-Match", `"a"`}, 200, "", "<h1>"},
		{"HEAD", "/docs", nil, 200, "", ""},
		{"GET", "/docs/openapi.json", nil, 200, "", `"openapi":"3.1.0"`},
		{"GET", wellKnown, nil, 200, "", `"linkset"`},
		{"GET", "/docs/" + assetFolder + "/swagger-ui-bundle.js", []string{"Accept-Encoding", "gzip"}, 200, "gzip", "SwaggerUI"},
		{"GET", "/docs/" + assetFolder + "/page.css", nil, 200, "", "{"},
		{"GET", "/docs/" + assetFolder + "/nothing.js", nil, 0, "", ""},
		{"GET", "/docs/../openapi.json", nil, 0, "", ""},
		{"GET", "/docs/nothing", nil, 0, "", ""},
		{"GET", "/docs/assets-0/page.css", nil, 0, "", ""},
	} {
		res, answered := s.ask(c.method, c.path, c.header...)
		if !answered {
			res.StatusCode = 0
		}
		body := text(t, res)
		if res.StatusCode != c.status || res.Header.Get("Content-Encoding") != c.encoding || !strings.Contains(body, c.holder) || c.holder == "" && body != "" {
			t.Errorf("%s %s %v: %d %q, %.60q", c.method, c.path, c.header, res.StatusCode, res.Header.Get("Content-Encoding"), body)
		}
		if keep := strings.Contains(res.Header.Get("Cache-Control"), "immutable"); c.status == 200 && keep != strings.Contains(c.path, assetFolder) {
			t.Errorf("%s: %q", c.path, res.Header.Get("Cache-Control"))
		}
	}
}

// TestLinkset: RFC 9727 with relative addresses, so that they hold under every
// name of the gateway.
func TestLinkset(t *testing.T) {
	a := &about{Description: described(), Path: "/docs", Contract: &gate.Document{Server: "/v1"}}
	b := &about{Description: &gate.Description{API: "plain"}, Path: "/plain/docs"}
	res, err := linkset([]*about{a, b})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Linkset []struct {
			Anchor string `json:"anchor"`
			Item   []link `json:"item"`
			Doc    []link `json:"service-doc"`
			Desc   []link `json:"service-desc"`
		} `json:"linkset"`
	}
	if err := json.Unmarshal(res.data, &got); err != nil {
		t.Fatal(err)
	}
	l := got.Linkset
	if len(l) != 3 || l[0].Anchor != wellKnown || !slices.Equal(l[0].Item, []link{{Href: "/v1"}, {Href: "/"}}) {
		t.Fatalf("%+v", l)
	}
	if l[1].Anchor != "/v1" || l[1].Desc[0].Href != "/docs/openapi.json" || l[2].Doc[0].Href != "/plain/docs" || l[2].Desc != nil {
		t.Errorf("%+v", l[1:])
	}
	if !strings.HasPrefix(res.contentType, "application/linkset+json") || !strings.Contains(res.header.Get("Link"), `rel="api-catalog"`) {
		t.Errorf("%q %v", res.contentType, res.header)
	}
}

func TestAccess(t *testing.T) {
	scheme := func(name string, scopes ...string) gate.Scheme { return gate.Scheme{Name: name, Scopes: scopes} }
	with := &about{Description: &gate.Description{Credentials: []gate.Credential{{Kind: "API key"}}}}
	without := &about{Description: &gate.Description{}}
	for _, c := range []struct {
		about    *about
		security []gate.Alternative
		want     string
	}{
		{with, nil, "proven callers"},
		{without, nil, "anyone"},
		{with, []gate.Alternative{}, "anyone"},
		{with, []gate.Alternative{{scheme("oauth", "a")}, {}}, "anyone"},
		{with, []gate.Alternative{{scheme("oauth", "a", "b"), scheme("mtls")}, {scheme("key")}}, "oauth with a b and mtls, or key"},
	} {
		if got := c.about.Access(gate.PublishedOperation{Operation: gate.Operation{Security: c.security}}); got != c.want {
			t.Errorf("%v: %q, want %q", c.security, got, c.want)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		h    *Handler
		want string // in the error; empty for none
	}{
		{&Handler{Path: "/docs"}, ""},
		{&Handler{Path: "/docs", Server: "https://api.example.com/v1"}, ""},
		{&Handler{Path: "docs"}, "begin with a slash"},
		{&Handler{Path: "/"}, "have something behind it"},
		{&Handler{Path: "/docs/"}, "not end with one"},
		{&Handler{Path: "/a{b}"}, "catalog path"},
		{&Handler{Path: "/apis", Index: true, Hide: []string{"a"}}, "hide and server"},
		{&Handler{Path: "/docs", Server: "api.example.com"}, "is not an address"},
		{&Handler{Path: "/docs", Server: "ftp://api.example.com"}, "is not an address"},
		{&Handler{Path: "/docs", Server: "https://user:word@api.example.com"}, "is not an address"},
		{&Handler{Path: "/docs", Server: "https://api.example.com?a=b"}, "is not an address"},
	} {
		err := c.h.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.h, err, c.want)
		}
	}
}

func TestPublishRefuses(t *testing.T) {
	h := &Handler{Path: "/orders"}
	if err := h.Publish(described()); err == nil || !strings.Contains(err.Error(), "/orders") {
		t.Errorf("a page in the place of an operation: %v", err)
	}
	h = &Handler{Path: "/docs", Hide: []string{"a"}}
	if err := h.Publish(&gate.Description{API: "plain"}); err == nil || !strings.Contains(err.Error(), "no contract") {
		t.Errorf("hiding without a contract: %v", err)
	}
	h = &Handler{Path: "/apis", Index: true}
	if err := h.Publish(described()); err != nil || h.about != nil {
		t.Errorf("a list is a page of one: %v", err)
	}
}

// TestList: all pages of a site, or a word that there are none.
func TestList(t *testing.T) {
	pages, err := listPages("/apis", []*about{published(t).about})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{path: "/apis", pages: pages}
	res, _ := s.ask("GET", "/apis")
	if body := text(t, res); !strings.Contains(body, `href="/docs"`) || strings.Contains(body, "<script>alert") || !strings.Contains(body, "1 operations") {
		t.Errorf("%s", body)
	}
	if pages, err = listPages("/apis", nil); err != nil {
		t.Fatal(err)
	}
	s = &site{path: "/apis", pages: pages}
	res, _ = s.ask("GET", "/apis")
	if body := text(t, res); !strings.Contains(body, "No API is published here") {
		t.Errorf("%s", body)
	}
}
