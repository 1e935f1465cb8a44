package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/gate/fetch"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
)

func init() {
	caddy.RegisterModule(new(Resource))
	parse.Handler("resource", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		m := new(Resource)
		if _, inAPI := h.BlockState[parse.APIName]; !inAPI {
			h.Next()
			return nil, h.Err("resource stands in an api, which it describes")
		}
		return m, m.UnmarshalCaddyfile(h.Dispenser)
	})
}

// Resource tells clients that have no token yet who gives tokens for the API it
// stands in (RFC 9728): as a document under `/.well-known/`, and with the
// document's address in every challenge.
//
// The address is the one that is written here, never one that a request
// brings: a client must not be told by a stranger whom to trust.
type Resource struct {
	// The API as its clients know it, e.g. `https://api.example.com/v1`. What is
	// behind the host goes behind `/.well-known/oauth-protected-resource`, which
	// the API's matcher must cover. Required.
	URL string `json:"url,omitempty"`

	// What people call it. Default: the title of the contract, or the API's name.
	Name string `json:"name,omitempty"`

	// Where people read about it. Default: the page of catalog, if there is one.
	Documentation string `json:"documentation,omitempty"`

	// The scopes that clients may ask for. Default: those of the contract's
	// published operations, and those that require names.
	Scopes []string `json:"scopes,omitempty"`

	// Whether tokens that are bound to client certificates can be used, which
	// takes a site whose `client_auth` asks for one. Default: whether identity
	// has `mtls`.
	CertificateBound bool `json:"certificate_bound,omitempty"`

	api, path, address string
	document           []byte // nil: it stands in no api
}

const wellKnownResource = "/.well-known/oauth-protected-resource"

// CaddyModule returns the Caddy module information.
func (*Resource) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.gatehouse_resource",
		New: func() caddy.Module { return new(Resource) },
	}
}

// Provision finds out where the document is.
func (h *Resource) Provision(ctx caddy.Context) error {
	u, err := h.parse()
	if err != nil {
		return err
	}
	h.path = wellKnownResource + u.Path
	if u.Path == "/" { // the one that only ends the host goes (RFC 9728, section 3.1)
		h.path = wellKnownResource
	}
	h.address = (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: h.path}).String()
	return gate.RegisterMetrics(ctx, metadataRead)
}

// parse reads the resource's identifier (RFC 9728, section 1.2).
func (h *Resource) parse() (*url.URL, error) {
	if h.URL == "" {
		return nil, errors.New("resource needs the URL that clients know the API by, e.g. https://api.example.com")
	}
	if err := fetch.CheckURL(h.URL); err != nil {
		return nil, fmt.Errorf("resource %w", err)
	}
	u, err := url.Parse(h.URL)
	if err != nil || u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(h.URL, "#") {
		return nil, fmt.Errorf("resource %q must have no user, query and fragment", h.URL)
	}
	if h.Documentation != "" {
		if doc, err := url.Parse(h.Documentation); err != nil || doc.Scheme != "https" && doc.Scheme != "http" || doc.Host == "" {
			return nil, fmt.Errorf("documentation %q is not an address such as https://docs.example.com", h.Documentation)
		}
	}
	return u, nil
}

// ServeHTTP answers with the document, and tells the stages behind it where it is.
func (h *Resource) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if h.document == nil {
		return next.ServeHTTP(w, r)
	}
	if r.URL.Path != h.path || r.Method != http.MethodGet && r.Method != http.MethodHead {
		gate.Of(r).Metadata = h.address
		return next.ServeHTTP(w, r)
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "public, max-age=300")
	header.Set("Access-Control-Allow-Origin", "*") // it is public, and clients in browsers need it as well
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodGet {
		_, _ = w.Write(h.document) // a client that went away is no error of ours
	}
	metadataRead.WithLabelValues(h.api).Inc()
	return nil
}

// metadata is the document (RFC 9728, section 2).
type metadata struct {
	Resource         string   `json:"resource"`
	Servers          []string `json:"authorization_servers,omitempty"`
	Scopes           []string `json:"scopes_supported,omitempty"`
	Methods          []string `json:"bearer_methods_supported"`
	Name             string   `json:"resource_name,omitempty"`
	Documentation    string   `json:"resource_documentation,omitempty"`
	CertificateBound bool     `json:"tls_client_certificate_bound_access_tokens,omitempty"`
	ProofAlgorithms  []string `json:"dpop_signing_alg_values_supported,omitempty"`
	ProofRequired    bool     `json:"dpop_bound_access_tokens_required,omitempty"`
}

// Publish makes the document.
func (h *Resource) Publish(d *gate.Description) error {
	if d.Tokens == nil {
		return errors.New("resource: nothing in the api accepts tokens of an issuer")
	}
	m := metadata{
		Resource: h.URL, Servers: d.Tokens.Issuers, Methods: []string{"header"},
		Name: h.Name, Documentation: h.Documentation, Scopes: h.Scopes,
		CertificateBound: h.CertificateBound || d.Tokens.Certificates,
		ProofAlgorithms:  d.Tokens.ProofAlgorithms, ProofRequired: d.Tokens.ProofRequired,
	}
	title := d.API
	scopes := slices.Clone(d.Scopes)
	if d.Document != nil {
		doc, err := d.Document(gate.Selection{Hide: d.Hidden})
		if err != nil {
			return fmt.Errorf("resource: %w", err)
		}
		if doc.Title != "" {
			title = doc.Title
		}
		for _, o := range doc.Operations {
			for _, alternative := range o.Security {
				for _, s := range alternative {
					scopes = append(scopes, s.Scopes...)
				}
			}
		}
	}
	if m.Name == "" {
		m.Name = title
	}
	if m.Scopes == nil {
		slices.Sort(scopes)
		m.Scopes = slices.Compact(scopes)
	}
	if m.Documentation == "" && d.Page != "" {
		u, err := url.Parse(h.URL)
		if err != nil {
			return fmt.Errorf("resource: %w", err)
		}
		m.Documentation = (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: d.Page}).String()
	}
	var err error
	h.api = d.API
	h.document, err = json.Marshal(m)
	return err
}

// describeTokens adds what this handler accepts to what others do.
func (h *Handler) describeTokens(d *gate.Description) {
	if h.Mode == gate.Off || len(h.Issuers) == 0 {
		return
	}
	t := gate.Tokens{ProofRequired: true}
	if d.Tokens != nil {
		t = *d.Tokens
	}
	for _, name := range h.Issuers {
		if i := h.app.byName[name]; !i.Dev && !slices.Contains(t.Issuers, i.URL) {
			t.Issuers = append(t.Issuers, i.URL)
		}
	}
	t.ProofAlgorithms = jwt.Algorithms()
	t.ProofRequired = t.ProofRequired && h.DPoP != nil && h.DPoP.Required && h.Mode == gate.Enforce
	t.Certificates = t.Certificates || h.MTLS != nil
	d.Tokens = &t
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	resource [<matcher>] <url> {
//	    name              <text>
//	    documentation     <url>
//	    scopes            <value...>
//	    certificate_bound
//	}
func (h *Resource) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive's name
	if !d.AllArgs(&h.URL) {
		return d.ArgErr()
	}
	line := *d // for errors of the URL
	if _, err := h.parse(); err != nil {
		return line.Err(err.Error())
	}
	for d.NextBlock(0) {
		var err error
		switch opt := d.Val(); opt {
		case "name":
			err = parse.Text(d, &h.Name)
		case "documentation":
			if err = parse.Text(d, &h.Documentation); err == nil {
				if _, err = h.parse(); err != nil {
					err = d.Err(err.Error())
				}
			}
		case "scopes":
			err = parse.Words(d, &h.Scopes)
		case "certificate_bound":
			err = parse.Flag(d, &h.CertificateBound)
		default:
			err = parse.Unknown(d, "resource option", opt, "name", "documentation", "scopes", "certificate_bound")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var metadataRead = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "gatehouse_identity_metadata_total",
	Help: "Requests for the metadata of a protected resource that were answered.",
}, []string{"api"})

// Interface guards
var (
	_ caddy.Provisioner           = (*Resource)(nil)
	_ caddyhttp.MiddlewareHandler = (*Resource)(nil)
	_ caddyfile.Unmarshaler       = (*Resource)(nil)
	_ gate.Publisher              = (*Resource)(nil)
)
