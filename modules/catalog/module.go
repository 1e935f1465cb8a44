package catalog

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

func init() { caddy.RegisterModule(new(Handler)) }

// Handler publishes the API it stands in, or lists those of its site.
type Handler struct {
	// Where the page is. Default: `/docs`, or `/apis` for the list.
	Path string `json:"path,omitempty"`

	// Operations that are not published, by operationId, `METHOD /path` or tag,
	// besides those that the contract marks `x-internal: true`. Default: none.
	Hide []string `json:"hide,omitempty"`

	// The address of the API as consumers reach it, e.g.
	// `https://api.example.com/v1`. Default: the gateway's own, with the base
	// path of the contract.
	Server string `json:"server,omitempty"`

	// Lists the APIs beside this handler that have a page, instead of being the
	// page of one. Default: false.
	Index bool `json:"index,omitempty"`

	ctx   caddy.Context
	site  site
	about *about    // nil: not published, or a list
	once  sync.Once // a list is made by the first request, when all pages stand
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.gatehouse_catalog",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision fills in defaults.
func (h *Handler) Provision(ctx caddy.Context) error {
	if h.Path == "" {
		if h.Path = "/docs"; h.Index {
			h.Path = "/apis"
		}
	}
	h.ctx = ctx
	h.site.path = h.Path
	return gate.RegisterMetrics(ctx, requests)
}

// Validate reports the first setting that makes no sense.
func (h *Handler) Validate() error {
	if !strings.HasPrefix(h.Path, "/") || h.Path == "/" || strings.HasSuffix(h.Path, "/") || strings.ContainsAny(h.Path, "?#%{} ") {
		return fmt.Errorf("catalog path %q must begin with a slash, have something behind it and not end with one", h.Path)
	}
	if h.Index && (len(h.Hide) > 0 || h.Server != "") {
		return errors.New("catalog: hide and server belong to the page of an API, not to the list")
	}
	if _, err := parseServer(h.Server); err != nil {
		return err
	}
	return nil
}

// parseServer reads a public address.
func parseServer(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || text != "" && (u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "") {
		return nil, fmt.Errorf("catalog server %q is not an address such as https://api.example.com/v1", text)
	}
	return u, nil
}

// Publish makes the page of the API.
func (h *Handler) Publish(d *gate.Description) error {
	if h.Index {
		return nil
	}
	a := &about{Description: d, Path: h.Path, Endpoint: h.Server}
	if d.Document != nil {
		doc, err := d.Document(gate.Selection{Hide: h.Hide, Server: h.Server})
		if err != nil {
			return fmt.Errorf("catalog: %w", err)
		}
		for _, o := range doc.Operations {
			if o.Path == h.Path {
				return fmt.Errorf("catalog: the contract has an operation at %s, where the page is; give catalog another path", h.Path)
			}
		}
		a.Contract = doc
	} else if len(h.Hide) > 0 {
		return errors.New("catalog: there is no contract to hide operations of")
	}
	pages, err := a.pages()
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	h.about = a
	h.site.pages = pages
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
	_ gate.Publisher              = (*Handler)(nil)
)
