package openapi

import (
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

func unpercent(s string) (string, error) { return url.PathUnescape(s) }

// Contract is what the gateway enforces of a document.
type Contract struct {
	Root       Node
	Version    string // of OpenAPI: 3.0, 3.1 or 3.2
	Bases      []string
	Operations []*Operation
	Security   [][]Scheme // of what the operations do not say otherwise; nil when nothing is said
}

// Operation is one operation as the document describes it.
type Operation struct {
	ID       string
	Method   string
	Path     string
	At       Node
	Params   []*Param
	Body     *Body
	Security [][]Scheme // any one of them; nil when nothing is said

	ACR    []string      // how the caller has to have shown who it is, any one of them
	MaxAge time.Duration // and how long ago at most; zero when nothing is said

	Deprecated, Sunset time.Time // since when, and until when; zero when nothing is said
}

// Response is one answer that an operation may give.
type Response struct {
	Status string // 200, 2XX or default
	Types  []MediaType
}

// Param is one parameter.
type Param struct {
	Name, In        string
	Required        bool
	Style           string
	Explode         bool
	AllowEmptyValue bool
	ContentType     string // when it is described by content, not by style
	Schema          Node
	HasSchema       bool
}

// Body is what an operation takes as its request body.
type Body struct {
	At       Node
	Required bool
	Types    []MediaType // in the order of how exactly they say what they take
}

// MediaType is one content type of a body.
type MediaType struct {
	Range     string // e.g. application/json, text/* or */*
	Schema    Node
	HasSchema bool
}

// Scheme is a security scheme with the scopes that are needed.
type Scheme struct {
	Name, Type, HTTP string
	Scopes           []string
}

var methods = []string{"get", "put", "post", "delete", "options", "head", "patch", "trace", "query"}

// Read finds the operations of a document.
func Read(main *File, files *Files) (*Contract, error) {
	root := Node{files, main, "", main.Root}
	if _, ok := root.Value.(map[string]any); !ok {
		return nil, root.Errorf("the document is not an object")
	}
	c := &Contract{Root: root}
	version := root.Text("openapi")
	switch {
	case strings.HasPrefix(version, "3.0."), version == "3.0":
		c.Version = "3.0"
	case strings.HasPrefix(version, "3.1"), strings.HasPrefix(version, "3.2"):
		c.Version = version[:3]
	case root.Text("swagger") != "":
		return nil, root.Errorf("Swagger %s is not supported; convert the document to OpenAPI 3", root.Text("swagger"))
	case version == "":
		return nil, root.Errorf("this is not an OpenAPI document: it has no member openapi")
	default:
		at, _ := root.Child("openapi")
		return nil, at.Errorf("OpenAPI %q is not supported; expected 3.0, 3.1 or 3.2", version)
	}
	var err error
	if c.Bases, err = bases(root); err != nil {
		return nil, err
	}
	r := &reader{root: root, ids: make(map[string]bool)}
	if r.security, err = r.readSecurity(root); err != nil {
		return nil, err
	}
	c.Security = r.security
	paths, ok := root.Child("paths")
	if !ok {
		return nil, root.Errorf("the document has no paths")
	}
	for _, path := range names(paths.Value) {
		if !strings.HasPrefix(path, "/") {
			continue // an extension
		}
		item, _, err := paths.Get(path)
		if err != nil {
			return nil, err
		}
		ops, err := r.readPath(path, item)
		if err != nil {
			return nil, err
		}
		c.Operations = append(c.Operations, ops...)
	}
	if len(c.Operations) == 0 {
		return nil, paths.Errorf("the document describes no operation")
	}
	return c, nil
}

// names lists members in order, so that two loads find the same faults first.
func names(v any) []string {
	m, _ := v.(map[string]any)
	list := make([]string, 0, len(m))
	for name := range m {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// bases are the paths of the servers' URLs, in front of every operation's.
func bases(root Node) ([]string, error) {
	servers, _ := root.Child("servers")
	list, _ := servers.Value.([]any)
	var out []string
	for i := range list {
		s, _ := servers.Child(strconv.Itoa(i))
		raw := s.Text("url")
		vars, _ := s.Child("variables")
		for _, name := range names(vars.Value) {
			v, _ := vars.Child(name)
			raw = strings.ReplaceAll(raw, "{"+name+"}", v.Text("default"))
		}
		base, err := basePath(raw)
		if err != nil {
			return nil, s.Errorf("server url %q: %w", raw, err)
		}
		if !slices.Contains(out, base) {
			out = append(out, base)
		}
	}
	if out == nil {
		out = []string{""}
	}
	return out, nil
}

// basePath is the path of a server's URL. The host in front of it does not
// matter here, and in real documents is often a template without an end.
func basePath(raw string) (string, error) {
	_, rest, found := strings.Cut(raw, "://")
	if !found {
		if rest, found = strings.CutPrefix(raw, "//"); !found {
			rest = raw
		}
	}
	path := rest
	if found {
		if slash := strings.IndexByte(rest, '/'); slash >= 0 {
			path = rest[slash:]
		} else {
			path = ""
		}
	}
	path, _, _ = strings.Cut(path, "?")
	path, _, _ = strings.Cut(path, "#")
	if strings.ContainsAny(path, "{}") {
		return "", errors.New("a variable in its path has no default; give the variable one, or set base_path")
	}
	u, err := url.Parse(path)
	if err != nil {
		return "", err
	}
	base := strings.TrimRight(u.EscapedPath(), "/")
	if base != "" && base[0] != '/' {
		base = "/" + base // relative to where the document is, which is here
	}
	return base, nil
}

type reader struct {
	root     Node
	security [][]Scheme
	ids      map[string]bool
}

func (r *reader) readPath(path string, item Node) ([]*Operation, error) {
	shared, err := readParams(item)
	if err != nil {
		return nil, err
	}
	var ops []*Operation
	for _, method := range methods {
		at, ok := item.Child(method)
		if !ok {
			continue
		}
		op := &Operation{ID: at.Text("operationId"), Method: strings.ToUpper(method), Path: path, At: at}
		if op.ID == "" {
			op.ID = op.Method + " " + path
		}
		if r.ids[op.ID] {
			return nil, at.Errorf("operationId %q stands twice", op.ID)
		}
		r.ids[op.ID] = true
		own, err := readParams(at)
		if err != nil {
			return nil, err
		}
		op.Params = own
		for _, p := range shared {
			if !slices.ContainsFunc(own, func(o *Param) bool { return o.Name == p.Name && o.In == p.In }) {
				op.Params = append(op.Params, p)
			}
		}
		if err := checkPathParams(op); err != nil {
			return nil, err
		}
		if op.Body, err = readBody(at); err != nil {
			return nil, err
		}
		op.Security = r.security
		if _, own := at.Child("security"); own {
			if op.Security, err = r.readSecurity(at); err != nil {
				return nil, err
			}
		}
		if err := readDates(op); err != nil {
			return nil, err
		}
		if err := readAuthentication(op); err != nil {
			return nil, err
		}
		ops = append(ops, op)
	}
	return ops, nil
}

// readDates reads since when an operation is deprecated (x-deprecated-since)
// and when it will stop (x-sunset).
func readDates(op *Operation) (err error) {
	if op.Deprecated, err = readDate(op.At, "x-deprecated-since"); err != nil {
		return err
	}
	if op.Sunset, err = readDate(op.At, "x-sunset"); err != nil {
		return err
	}
	if !op.Sunset.IsZero() && op.Sunset.Before(op.Deprecated) {
		at, _ := op.At.Child("x-sunset")
		return at.Errorf("x-sunset is before x-deprecated-since")
	}
	return nil
}

func readDate(at Node, word string) (time.Time, error) {
	n, ok := at.Child(word)
	if !ok {
		return time.Time{}, nil
	}
	text, _ := n.Value.(string)
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, n.Errorf("%s %v is no date such as 2027-01-31", word, n.Value)
}

// Responses reads what an operation may answer. They are read only for those
// who look at them.
func (o *Operation) Responses() ([]Response, error) {
	all, _ := o.At.Child("responses")
	var out []Response
	for _, status := range names(all.Value) {
		if strings.HasPrefix(status, "x-") {
			continue
		}
		n, _, err := all.Get(status)
		if err != nil {
			return nil, err
		}
		r := Response{Status: strings.ToUpper(status)}
		if r.Types, err = readContent(n); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// defaultStyles are what a parameter is written in when it does not say.
var defaultStyles = map[string]string{"path": "simple", "query": "form", "header": "simple", "cookie": "form"}

func readParams(at Node) ([]*Param, error) {
	params, _ := at.Child("parameters")
	list, _ := params.Value.([]any)
	var out []*Param
	for i := range list {
		n, _, err := params.Get(strconv.Itoa(i))
		if err != nil {
			return nil, err
		}
		p := &Param{Name: n.Text("name"), In: n.Text("in"), Required: n.Flag("required", false), Style: n.Text("style"), AllowEmptyValue: n.Flag("allowEmptyValue", false)}
		if _, named := n.Child("name"); named && p.Name == "" && !p.Required {
			continue // exported so by some tools; nobody can send it
		}
		if p.Name == "" || defaultStyles[p.In] == "" {
			if p.In == "querystring" { // OpenAPI 3.2
				continue
			}
			return nil, n.Errorf("a parameter needs a name, and in must be path, query, header or cookie")
		}
		if p.In == "header" && slices.Contains([]string{"accept", "content-type", "authorization"}, strings.ToLower(p.Name)) {
			continue // described elsewhere, says the specification
		}
		if p.In == "path" {
			p.Required = true
		}
		if p.Style == "" {
			p.Style = defaultStyles[p.In]
		}
		p.Explode = n.Flag("explode", p.Style == "form" || p.Style == "cookie")
		p.Schema, p.HasSchema = n.Child("schema")
		if content, ok := n.Child("content"); ok {
			for _, ct := range names(content.Value) {
				media, _ := content.Child(ct)
				p.ContentType = ct
				p.Schema, p.HasSchema = media.Child("schema")
			}
		}
		out = append(out, p)
	}
	return out, nil
}

// checkPathParams finds templates and parameters that do not fit together.
func checkPathParams(op *Operation) error {
	for _, p := range op.Params {
		if p.In == "path" && !strings.Contains(op.Path, "{"+p.Name+"}") {
			return op.At.Errorf("path parameter %q is not in the path %s", p.Name, op.Path)
		}
	}
	return nil
}

func readBody(at Node) (*Body, error) {
	n, ok, err := at.Get("requestBody")
	if err != nil || !ok {
		return nil, err
	}
	b := &Body{At: n, Required: n.Flag("required", false)}
	b.Types, err = readContent(n)
	return b, err
}

func readContent(n Node) ([]MediaType, error) {
	var out []MediaType
	content, _ := n.Child("content")
	for _, name := range names(content.Value) {
		media, _, err := content.Get(name)
		if err != nil {
			return nil, err
		}
		t := MediaType{Range: strings.ToLower(strings.TrimSpace(name))}
		t.Schema, t.HasSchema = media.Child("schema")
		out = append(out, t)
	}
	slices.SortStableFunc(out, func(x, y MediaType) int { return strings.Count(x.Range, "*") - strings.Count(y.Range, "*") })
	return out, nil
}

func (r *reader) readSecurity(at Node) ([][]Scheme, error) {
	n, ok := at.Child("security")
	if !ok {
		return nil, nil
	}
	list, _ := n.Value.([]any)
	out := make([][]Scheme, 0, len(list))
	for i := range list {
		alt, _ := n.Child(strconv.Itoa(i))
		var schemes []Scheme
		for _, name := range names(alt.Value) {
			s := Scheme{Name: name}
			scopes, _ := alt.Child(name)
			if words, ok := scopes.Value.([]any); ok {
				for _, w := range words {
					if text, ok := w.(string); ok {
						s.Scopes = append(s.Scopes, text)
					}
				}
			}
			components, _ := r.root.Child("components")
			all, _ := components.Child("securitySchemes")
			def, ok, err := all.Get(name)
			if err != nil {
				return nil, err
			}
			if !ok {
				return nil, alt.Errorf("security scheme %q is not defined", name)
			}
			s.Type, s.HTTP = def.Text("type"), strings.ToLower(def.Text("scheme"))
			schemes = append(schemes, s)
		}
		out = append(out, schemes)
	}
	return out, nil
}
