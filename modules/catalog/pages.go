package catalog

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"html/template"
	"io"
	"maps"
	"net/http"
	"strings"

	viewer "github.com/swaggest/swgui/v5/static"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// site answers under one path. It is made once and does not change.
type site struct {
	path  string
	pages map[string]*resource // by what follows path, or the whole path of well-known ones
}

// resource is one answer, made ahead.
type resource struct {
	kind, contentType string
	data              []byte // as it is kept: gzip where zipped says so
	zipped            bool
	etag              string
	header            http.Header
}

func newResource(kind, contentType string, data []byte) *resource {
	sum := sha256.Sum256(data)
	r := &resource{kind: kind, contentType: contentType, data: data, etag: `W/"` + hex.EncodeToString(sum[:8]) + `"`, header: make(http.Header)}
	if len(data) > 1024 {
		var buf bytes.Buffer
		z, _ := gzip.NewWriterLevel(&buf, gzip.BestCompression) // the level is one that exists
		_, _ = z.Write(data)
		_ = z.Close() // a buffer takes everything
		r.data, r.zipped = buf.Bytes(), true
	}
	return r
}

// serve answers a request that is for the site, if there is such a thing.
func (s *site) serve(w http.ResponseWriter, r *http.Request) (kind string, answered bool) {
	res := s.pages[wellKnown]
	if path := r.URL.Path; path != wellKnown {
		rest := strings.TrimPrefix(path, s.path)
		if name, ok := strings.CutPrefix(rest, "/"+assetFolder+"/"); ok {
			res = assets[name]
		} else {
			res = s.pages[strings.TrimSuffix(rest, "/")]
		}
	}
	if res == nil || s.pages == nil {
		return "", false
	}
	res.serve(w, r)
	return res.kind, true
}

func (res *resource) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	maps.Copy(h, res.header)
	h.Set("Content-Type", res.contentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Etag", res.etag)
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-cache")
	}
	if res.zipped {
		h.Set("Vary", "Accept-Encoding")
	}
	if res.matches(r.Header.Get("If-None-Match")) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	data := res.data
	if res.zipped {
		if takesGzip(r.Header.Get("Accept-Encoding")) {
			h.Set("Content-Encoding", "gzip")
		} else if z, err := gzip.NewReader(bytes.NewReader(data)); err == nil {
			data, _ = io.ReadAll(z) // our own data, which is whole
		}
	}
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(data)
	}
}

// matches compares as RFC 9110, section 8.8.3.2, has it for weak tags: what is
// sent may be encoded or not.
func (res *resource) matches(tags string) bool {
	for tag := range strings.SplitSeq(tags, ",") {
		if tag = strings.TrimSpace(tag); tag == "*" || strings.TrimPrefix(tag, "W/") == strings.TrimPrefix(res.etag, "W/") {
			return true
		}
	}
	return false
}

func takesGzip(accept string) bool {
	for coding := range strings.SplitSeq(accept, ",") {
		name, weight, _ := strings.Cut(coding, ";")
		if strings.TrimSpace(name) == "gzip" {
			_, q, _ := strings.Cut(weight, "=")
			return strings.Trim(q, " 0.") != "" || weight == ""
		}
	}
	return false
}

// What the pages need besides themselves: our own files, and Swagger UI.
var (
	//go:embed static/page.html static/list.html static/page.css static/page.js
	files       embed.FS
	templates   = template.Must(template.New("").ParseFS(files, "static/*.html"))
	assets      = make(map[string]*resource)
	assetFolder string // changes with the content, so that browsers may keep it
)

func init() {
	sum := sha256.New()
	add := func(name, contentType string, data []byte, zipped bool) {
		_, _ = sum.Write(data)
		res := newResource("asset", contentType, data)
		if zipped {
			res.data, res.zipped = data, true
		}
		res.header.Set("Cache-Control", "public, max-age=31536000, immutable")
		assets[name] = res
	}
	read := func(fs embed.FS, name string) []byte {
		data, err := fs.ReadFile(name)
		if err != nil {
			panic(err) // it is compiled in
		}
		return data
	}
	add("page.css", "text/css; charset=utf-8", read(files, "static/page.css"), false)
	add("page.js", "text/javascript; charset=utf-8", read(files, "static/page.js"), false)
	add("swagger-ui.css", "text/css; charset=utf-8", read(viewer.FS, "swagger-ui.css.gz"), true)
	add("swagger-ui-bundle.js", "text/javascript; charset=utf-8", read(viewer.FS, "swagger-ui-bundle.js.gz"), true)
	assetFolder = "assets-" + hex.EncodeToString(sum.Sum(nil)[:6])
}

// about is an API as it is published.
type about struct {
	*gate.Description
	Contract *gate.Document
	Path     string
	Endpoint string // what links call the API
}

// Title is what the page is headed by.
func (a *about) Title() string {
	if a.Contract != nil && a.Contract.Title != "" {
		return a.Contract.Title
	}
	return a.API
}

// Reasons are the problems that a client may meet.
func (a *about) Reasons() (list []gate.Reason) {
	for _, r := range gate.Reasons() {
		for _, s := range a.Stages {
			if r.Stage() == s.String() {
				list = append(list, r)
			}
		}
	}
	return list
}

// Assets is the folder of scripts and styles.
func (a *about) Assets() string { return a.Path + "/" + assetFolder }

// Access says which credential an operation asks for.
func (a *about) Access(o gate.PublishedOperation) string {
	if o.Anonymous() {
		return "anyone"
	}
	if o.Security == nil && len(a.Credentials) == 0 {
		return "anyone"
	}
	var ways []string
	for _, alt := range o.Security {
		var parts []string
		for _, s := range alt {
			text := s.Name
			if len(s.Scopes) > 0 {
				text += " with " + strings.Join(s.Scopes, " ")
			}
			parts = append(parts, text)
		}
		if len(parts) > 0 {
			ways = append(ways, strings.Join(parts, " and "))
		}
	}
	if ways == nil {
		return "proven callers"
	}
	return strings.Join(ways, ", or ")
}

// policy lets the page load its own files, ask the API, and nothing else: what
// a contract says is shown, whatever it is.
func policy(connect string) string {
	return "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'" + connect +
		"; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
}

func page(kind string, data []byte, connect string) *resource {
	res := newResource(kind, "text/html; charset=utf-8", data)
	res.header.Set("Content-Security-Policy", policy(connect))
	res.header.Set("Referrer-Policy", "no-referrer")
	res.header.Set("Cross-Origin-Opener-Policy", "same-origin")
	res.header.Set("Link", "<"+wellKnown+`>; rel="api-catalog"`)
	return res
}

// pages makes everything that the page of an API consists of.
func (a *about) pages() (map[string]*resource, error) {
	var buf bytes.Buffer
	if err := templates.ExecuteTemplate(&buf, "page.html", a); err != nil {
		return nil, err
	}
	connect := ""
	if u, err := parseServer(a.Endpoint); err == nil && u.Host != "" {
		connect = " " + u.Scheme + "://" + u.Host
	}
	out := map[string]*resource{"": page("page", buf.Bytes(), connect)}
	if a.Contract != nil {
		out["/openapi.json"] = newResource("document", "application/json", a.Contract.JSON)
	}
	var err error
	out[wellKnown], err = linkset([]*about{a})
	return out, err
}

// listPages makes the list of several APIs.
func listPages(path string, all []*about) (map[string]*resource, error) {
	var buf bytes.Buffer
	err := templates.ExecuteTemplate(&buf, "list.html", map[string]any{"All": all, "Assets": path + "/" + assetFolder})
	if err != nil {
		return nil, err
	}
	links, err := linkset(all)
	return map[string]*resource{"": page("page", buf.Bytes(), ""), wellKnown: links}, err
}

// link is one link of a linkset (RFC 9264, section 4.2).
type link struct {
	Href string `json:"href"`
	Type string `json:"type,omitempty"`
}

// linkset is the catalog for machines (RFC 9727). Links are relative, so that
// they hold under whatever name the gateway is reached.
func linkset(all []*about) (*resource, error) {
	sets := make([]map[string]any, 0, len(all)+1)
	items := make([]link, 0, len(all))
	for _, a := range all {
		endpoint := a.Endpoint
		if endpoint == "" {
			endpoint = a.base()
		}
		items = append(items, link{Href: endpoint})
		set := map[string]any{"anchor": endpoint, "service-doc": []link{{a.Path, "text/html"}}}
		if a.Contract != nil {
			set["service-desc"] = []link{{a.Path + "/openapi.json", "application/json"}}
		}
		sets = append(sets, set)
	}
	sets = append([]map[string]any{{"anchor": wellKnown, "item": items}}, sets...)
	data, err := json.Marshal(map[string]any{"linkset": sets})
	if err != nil {
		return nil, err
	}
	res := newResource("links", `application/linkset+json; profile="https://www.rfc-editor.org/info/rfc9727"`, data)
	res.header.Set("Link", "<"+wellKnown+`>; rel="api-catalog"`)
	return res, nil
}

// base is the address of the API in its document, relative to the gateway.
func (a *about) base() string {
	if a.Contract == nil {
		return "/"
	}
	return a.Contract.Server
}
