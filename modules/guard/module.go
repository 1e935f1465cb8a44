package guard

import (
	"errors"
	"fmt"
	"mime"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/gate/strictjson"
)

func init() { caddy.RegisterModule(new(Handler)) }

// Handler refuses requests that are not well formed.
type Handler struct {
	// What happens to a path that is not in its canonical form (RFC 3986,
	// section 6.2.2): `canonicalize` rewrites it, `refuse` answers 400. A path
	// that has no canonical form, because of an encoded slash or backslash, a
	// semicolon, a control character, an encoding inside an encoding, or bytes that are not
	// UTF-8, is refused by both. Default: `canonicalize`.
	Path string `json:"path,omitempty"`

	// Lets `%2F` stand for a slash that is data. Backends differ in what they
	// make of it. Default: false.
	EncodedSlash bool `json:"encoded_slash,omitempty"`

	// Lets a semicolon stand in a path. Some servers take what is behind it off
	// before they route (RFC 3986, section 3.3), others do not: with
	// `/admin;x/users`, matchers and backend may see two paths. Default: false.
	Semicolon bool `json:"semicolon,omitempty"`

	// The longest URL, path and query, in bytes. Default: 8192.
	MaxURL int `json:"max_url,omitempty"`

	// How many members a query may have. Default: 256.
	MaxQuery int `json:"max_query,omitempty"`

	// How many header fields a request may have. Their size is bounded by
	// Caddy's max_header_size. Default: 100.
	MaxHeaders int `json:"max_headers,omitempty"`

	// The longest request body in bytes, decoded. Default: 10 MiB.
	MaxBody int64 `json:"max_body,omitempty"`

	// The longest body of a content type, such as `application/json` or
	// `image/*`, in bytes. Default: max_body.
	MaxBodyOf map[string]int64 `json:"max_body_of,omitempty"`

	// The content types that request bodies may have, such as
	// `application/json` or `image/*`. Default: any.
	ContentTypes []string `json:"content_types,omitempty"`

	// What JSON bodies are held to.
	JSON JSON `json:"json,omitzero"`

	// The modes of single checks: path, url, query, headers, framing,
	// early_data, content_type, content_encoding, body, override or json.
	// Default: that of the stage.
	Modes map[string]gate.Mode `json:"modes,omitempty"`

	// Whether refusals are enforced: `enforce`, `shadow` or `off`.
	// Default: `enforce`.
	Mode gate.Mode `json:"mode,omitempty"`

	modes  [checkCount]*gate.Mode
	limits strictjson.Limits
	common bool // JSON that passes here passes the stricter of the defaults
}

// JSON says what JSON bodies are held to.
type JSON struct {
	// How deep arrays and objects may nest. Default: 64.
	Depth int `json:"depth,omitempty"`

	// How many values there may be, members and elements included.
	// Default: 100000.
	Values int `json:"values,omitempty"`

	// How many bytes a string or name may have. Default: 1 MiB.
	String int `json:"string,omitempty"`

	// How many characters a number may have. Default: 128.
	Number int `json:"number,omitempty"`

	// How great an exponent may be, either way. Default: 400.
	Exponent int `json:"exponent,omitempty"`
}

// A check is one thing the guard looks at.
type check uint8

const (
	pathCheck check = iota
	urlCheck
	queryCheck
	headersCheck
	framingCheck
	earlyDataCheck
	contentTypeCheck
	contentEncodingCheck
	bodyCheck
	overrideCheck
	jsonCheck
	checkCount
)

var checkNames = []string{"path", "url", "query", "headers", "framing", "early_data", "content_type", "content_encoding", "body", "override", "json"}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.gatehouse_guard",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision fills in defaults.
func (h *Handler) Provision(ctx caddy.Context) error {
	fill(&h.Path, "canonicalize")
	fill(&h.MaxURL, 8<<10)
	fill(&h.MaxQuery, 256)
	fill(&h.MaxHeaders, 100)
	fill(&h.MaxBody, 10<<20)
	fill(&h.JSON.Depth, 64)
	fill(&h.JSON.Values, 100_000)
	fill(&h.JSON.String, 1<<20)
	fill(&h.JSON.Number, 128)
	fill(&h.JSON.Exponent, 400)
	h.limits = strictjson.Limits(h.JSON)
	h.common = h.JSON.Depth <= 64 && h.JSON.Values <= 100_000 && h.JSON.Number <= 128 && h.JSON.Exponent <= 400
	for name, m := range h.Modes {
		i := slices.Index(checkNames, name)
		if i < 0 {
			return fmt.Errorf("guard: unrecognized check %q; expected %s", name, strings.Join(checkNames, ", "))
		}
		h.modes[i] = &m
	}
	return gate.RegisterMetrics(ctx)
}

func fill[T comparable](setting *T, usual T) {
	var zero T
	if *setting == zero {
		*setting = usual
	}
}

// Validate looks at the settings.
func (h *Handler) Validate() error {
	if h.Path != "canonicalize" && h.Path != "refuse" {
		return fmt.Errorf("guard: unrecognized path %q; expected canonicalize or refuse", h.Path)
	}
	for name, n := range map[string]int64{
		"max_url": int64(h.MaxURL), "max_query": int64(h.MaxQuery), "max_headers": int64(h.MaxHeaders), "max_body": h.MaxBody,
		"json depth": int64(h.JSON.Depth), "json values": int64(h.JSON.Values), "json string": int64(h.JSON.String),
		"json number": int64(h.JSON.Number), "json exponent": int64(h.JSON.Exponent),
	} {
		if n < 1 {
			return fmt.Errorf("guard: %s must be at least 1", name)
		}
	}
	if h.JSON.Depth > 1000 || h.JSON.Number > 1000 || h.JSON.Exponent > 10_000 {
		return errors.New("guard: json depth and number may be 1000 and exponent 10000 at most; more harms what reads it")
	}
	for _, t := range h.ContentTypes {
		if err := validType(t); err != nil {
			return err
		}
	}
	for t, n := range h.MaxBodyOf {
		if err := validType(t); err != nil {
			return err
		}
		if n < 1 {
			return fmt.Errorf("guard: max_body of %q must be at least 1", t)
		}
	}
	return nil
}

func validType(t string) error {
	parsed, params, err := mime.ParseMediaType(t)
	if err != nil || len(params) > 0 || parsed != t || !strings.Contains(t, "/") {
		return fmt.Errorf("guard: %q is not a content type such as application/json or image/*", t)
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
)
