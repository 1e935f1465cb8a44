package identity

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/signer"
)

// Signer says as whom, and with what keys, the gateway signs. The keys are kept
// in Caddy's storage, where all gateways that share it find them; they are made
// when they are first needed, and each is published before it signs and until
// its last token has ended.
type Signer struct {
	// What tokens say in `iss`. Default: `gatehouse`.
	Issuer string `json:"issuer,omitempty"`

	// How tokens are signed: `ES256`, or `EdDSA` with Ed25519, which is faster
	// and which some libraries cannot verify. Default: `ES256`.
	Algorithm string `json:"algorithm,omitempty"`

	// How long a key signs before the next does, from 1h to 365d. The next one
	// is published a quarter of it before, a day at most. Default: 30d.
	Rotate caddy.Duration `json:"rotate,omitempty"`
}

func (s *Signer) validate() error {
	if s.Algorithm != "" && !slices.Contains(signer.Algorithms(), s.Algorithm) {
		return errors.New(parse.Misspelt("signer algorithm", s.Algorithm, signer.Algorithms()...))
	}
	if s.Rotate != 0 && (s.Rotate < caddy.Duration(signer.MinRotate) || s.Rotate > caddy.Duration(signer.MaxRotate)) {
		return errors.New("signer rotate must be between 1h and 365d")
	}
	return nil
}

// rings keep the keys over reloads, by the storage they are in.
var rings = caddy.NewUsagePool()

// signs makes the app's signer when the first handler asks for it, in Provision.
// Nothing is read yet.
func (a *App) signs(ctx caddy.Context) (*signer.Signer, string, error) {
	if a.signing != nil {
		return a.signing, a.Signer.Issuer, nil
	}
	if a.Signer == nil {
		a.Signer = new(Signer)
	}
	if err := a.Signer.validate(); err != nil {
		return nil, "", err
	}
	if a.Signer.Issuer == "" {
		a.Signer.Issuer = "gatehouse"
	}
	if a.Signer.Algorithm == "" {
		a.Signer.Algorithm = signer.Algorithms()[0]
	}
	if a.Signer.Rotate == 0 {
		a.Signer.Rotate = caddy.Duration(30 * 24 * time.Hour)
	}
	storage := ctx.Storage()
	kept := new(signer.Kept)
	if named, ok := storage.(fmt.Stringer); ok { // otherwise one could be taken for another
		a.ring = fmt.Sprintf("%T %s", storage, named)
		v, _, err := rings.LoadOrNew(a.ring, func() (caddy.Destructor, error) { return kept, nil })
		if err != nil {
			return nil, "", err
		}
		kept = v.(*signer.Kept)
	}
	a.signing = &signer.Signer{Store: storage, Alg: a.Signer.Algorithm, Rotate: time.Duration(a.Signer.Rotate), Kept: kept}
	return a.signing, a.Signer.Issuer, nil
}

// cleanupSigner gives the keys back.
func (a *App) cleanupSigner() {
	if a.ring != "" {
		_, _ = rings.Delete(a.ring) // Destruct cannot fail
		a.ring = ""
	}
}

// unmarshal reads the option. Syntax:
//
//	signer {
//	    issuer    <url|name>
//	    algorithm ES256|EdDSA
//	    rotate    <duration>
//	}
func (s *Signer) unmarshal(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch opt := d.Val(); opt {
		case "issuer":
			err = parse.Text(d, &s.Issuer)
		case "algorithm":
			err = parse.Text(d, &s.Algorithm)
		case "rotate":
			err = parse.Duration(d, &s.Rotate)
		default:
			err = parse.Unknown(d, "signer option", opt, "issuer", "algorithm", "rotate")
		}
		if err != nil {
			return err
		}
		if err := s.validate(); err != nil {
			return d.Err(err.Error())
		}
	}
	return nil
}

func init() {
	caddy.RegisterModule(new(JWKS))
	parse.Handler("jwks", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		m := new(JWKS)
		return m, m.UnmarshalCaddyfile(h.Dispenser)
	})
}

// JWKS publishes the keys that the gateway signs with, for upstreams to verify
// what `tell jwt` sends them. They are public; nothing else is shown.
type JWKS struct {
	// Where they are. Default: `/.well-known/jwks.json`.
	Path string `json:"path,omitempty"`

	signer *signer.Signer
}

// CaddyModule returns the Caddy module information.
func (*JWKS) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.gatehouse_jwks",
		New: func() caddy.Module { return new(JWKS) },
	}
}

// Provision finds the signer. No key is made yet.
func (j *JWKS) Provision(ctx caddy.Context) error {
	if j.Path == "" {
		j.Path = "/.well-known/jwks.json"
	}
	app, err := ctx.App("gatehouse_identity")
	if err != nil {
		return fmt.Errorf("jwks: %w", err)
	}
	j.signer, _, err = app.(*App).signs(ctx)
	return err
}

// Validate reports a path that no request has.
func (j *JWKS) Validate() error {
	if j.Path != "" && j.Path[0] != '/' {
		return fmt.Errorf("jwks path %q must begin with a slash", j.Path)
	}
	return nil
}

// ServeHTTP answers with the keys, and lets all else pass.
func (j *JWKS) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if r.URL.Path != j.Path || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return next.ServeHTTP(w, r)
	}
	began := gate.Now()
	doc, etag, err := j.signer.Published(r.Context(), began)
	if err != nil {
		d := &gate.Denial{Reason: gate.IdentityUnsigned, Err: err, Header: http.Header{"Retry-After": {"5"}}}
		return gate.Of(r).Conclude(w, r, gate.Identity, gate.Enforce, "jwks", d, began)
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(signer.MaxAge.Seconds())))
	w.Header().Set("Etag", etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(doc))
	return nil
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	jwks [<path>]
func (j *JWKS) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive's name
	if d.NextArg() {
		j.Path = d.Val()
		if err := j.Validate(); err != nil {
			return d.Err(err.Error())
		}
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		return d.Errf("jwks has no options; found %q", d.Val())
	}
	return nil
}

var tokensSigned = prometheus.NewCounter(prometheus.CounterOpts{
	Name: "gatehouse_identity_signed_total",
	Help: "Tokens that were signed for upstreams.",
})

// Interface guards
var (
	_ caddy.Provisioner           = (*JWKS)(nil)
	_ caddy.Validator             = (*JWKS)(nil)
	_ caddyhttp.MiddlewareHandler = (*JWKS)(nil)
	_ caddyfile.Unmarshaler       = (*JWKS)(nil)
)
