package identity

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

func init() {
	caddy.RegisterModule(new(Provider))
	parse.Handler("authentication", parseAuthentication)
}

// Provider proves callers for Caddy's own authentication handler, beside its
// other providers. Any one of them is enough there, in no order, and a caller
// whom none proves is a 401, even if that is because an issuer is away. Where
// that is not meant, the identity handler is the better choice. Outside of an
// api, an identity handler with mode off has to stand before it, which the
// Caddyfile sees to: only it takes off what clients say in the gateway's name.
type Provider struct {
	// The names of the issuers whose tokens are accepted.
	Issuers []string `json:"issuers,omitempty"`

	// Whether API keys are accepted. Default: false.
	Keys bool `json:"keys,omitempty"`

	// The header that carries an API key. Default: `X-API-Key`.
	KeyHeader string `json:"key_header,omitempty"`

	// Which client certificates are accepted, and who they prove. Default: none.
	MTLS *MTLS `json:"mtls,omitempty"`

	// What the upstream is told, as by the identity handler.
	Tell []string `json:"tell,omitempty"`

	// What is asked of proofs of possession (RFC 9449). Default: those of tokens
	// that are bound to a key.
	DPoP *DPoP `json:"dpop,omitempty"`

	h *Handler
}

// CaddyModule returns the Caddy module information.
func (*Provider) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.authentication.providers.gatehouse",
		New: func() caddy.Module { return new(Provider) },
	}
}

// Provision finds the issuers.
func (p *Provider) Provision(ctx caddy.Context) error {
	p.h = &Handler{Issuers: p.Issuers, Keys: p.Keys, KeyHeader: p.KeyHeader, MTLS: p.MTLS, Tell: p.Tell, DPoP: p.DPoP}
	if err := p.h.Provision(ctx); err != nil {
		return err
	}
	return p.h.Validate()
}

// Cleanup gives back what is shared with other handlers.
func (p *Provider) Cleanup() error {
	if p.h == nil {
		return nil
	}
	return p.h.Cleanup()
}

// Authenticate finds out who asks. An error means that it could not be found
// out; beside it there must be no user, whom Caddy would let in.
func (p *Provider) Authenticate(w http.ResponseWriter, r *http.Request) (caddyauth.User, bool, error) {
	ex, began := gate.Of(r), gate.Now()
	who, _, denial := p.h.identify(r, began)
	if denial == nil {
		denial = p.h.revocation(who, r, began)
	}
	switch {
	case denial == nil:
	case denial.Reason == gate.IdentityUnavailable:
		return caddyauth.User{}, false, denial
	default: // another provider may know the caller; so this is no decision
		maps.Copy(w.Header(), denial.Header)
		return caddyauth.User{}, false, nil
	}
	who.become(ex, r.Header, p.h.told)
	if err := ex.Decide(gate.Identity, gate.Enforce, who.principal.Issuer, nil, began); err != nil {
		return caddyauth.User{}, false, err
	}
	return caddyauth.User{ID: who.principal.Subject, Metadata: said(who.principal)}, true, nil
}

// parseAuthentication sets up Caddy's authentication handler with several
// providers, any one of which is enough. Syntax:
//
//	authentication [<matcher>] {
//	    gatehouse <issuer...> {
//	        keys [<header>]
//	        mtls
//	        tell <fact...>
//	        dpop { … }
//	    }
//	    basic_auth [<hash_algorithm> [<realm>]] {
//	        <username> <hashed_password>
//	    }
//	}
//
// Any directive may stand in it that makes an authentication handler by itself.
func parseAuthentication(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	h.Next() // consume the directive's name
	if h.NextArg() {
		return nil, h.ArgErr()
	}
	m := caddyauth.Authentication{ProvidersRaw: caddy.ModuleMap{}}
	for nesting := h.Nesting(); h.NextBlock(nesting); {
		word := *h.Dispenser // for errors of this provider
		segment := h.NextSegment()
		var found caddy.ModuleMap
		var err error
		if segment.Directive() == "gatehouse" {
			found, err = ourProvider(h.WithDispenser(caddyfile.NewDispenser(segment)))
		} else {
			found, err = othersProviders(h, &word, segment)
		}
		if err != nil {
			return nil, err
		}
		for name, raw := range found {
			if m.ProvidersRaw[name] != nil {
				return nil, word.Errf("the provider %s stands twice", name)
			}
			m.ProvidersRaw[name] = raw
		}
	}
	if len(m.ProvidersRaw) == 0 {
		return nil, h.Err("authentication needs providers: gatehouse, basic_auth or others")
	}
	if _, inAPI := h.BlockState[parse.APIName]; inAPI || m.ProvidersRaw["gatehouse"] == nil {
		return m, nil
	}
	return guarded(m)
}

// guarded puts an identity that is off before Caddy's handler, which asks
// providers in no order: when another one knows the caller, ours may never have
// seen the request, and nobody has taken off what only the gateway may say. An
// api does so itself.
func guarded(m caddyauth.Authentication) (caddyhttp.MiddlewareHandler, error) {
	var p Provider
	if err := json.Unmarshal(m.ProvidersRaw["gatehouse"], &p); err != nil {
		return nil, err
	}
	off := &Handler{Issuers: p.Issuers, Keys: p.Keys, KeyHeader: p.KeyHeader, Mode: gate.Off}
	if p.MTLS != nil {
		off.MTLS = new(MTLS)
	}
	return &caddyhttp.Subroute{Routes: caddyhttp.RouteList{{HandlersRaw: []json.RawMessage{
		caddyconfig.JSONModuleObject(off, "handler", "gatehouse_identity", nil),
		caddyconfig.JSONModuleObject(m, "handler", "authentication", nil),
	}}}}, nil
}

func ourProvider(h httpcaddyfile.Helper) (caddy.ModuleMap, error) {
	var i Handler
	if err := i.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	if i.Optional || i.Mode != gate.Enforce || i.OnError != nil || i.TellJWT != nil || i.TokenExchange != nil {
		return nil, h.Err("optional, mode, on_error, tell jwt and exchange are of the identity directive; authentication does not know them")
	}
	if err := i.checkNames(h); err != nil {
		return nil, err
	}
	return caddy.ModuleMap{"gatehouse": caddyconfig.JSON(Provider{
		Issuers: i.Issuers, Keys: i.Keys, KeyHeader: i.KeyHeader, MTLS: i.MTLS, Tell: i.Tell, DPoP: i.DPoP,
	}, nil)}, nil
}

// othersProviders lets Caddy read a directive and takes the providers out of
// the authentication handler that it becomes.
func othersProviders(h httpcaddyfile.Helper, word *caddyfile.Dispenser, segment caddyfile.Segment) (caddy.ModuleMap, error) {
	first, last := segment[0], segment[len(segment)-1]
	tokens := append([]caddyfile.Token{
		{File: first.File, Line: first.Line, Text: "authentication"},
		{File: first.File, Line: first.Line, Text: "{"},
	}, segment...)
	tokens = append(tokens, caddyfile.Token{File: last.File, Line: last.Line + 1, Text: "}"})
	name := segment.Directive()
	sub, err := httpcaddyfile.ParseSegmentAsSubroute(h.WithDispenser(caddyfile.NewDispenser(tokens)))
	if err != nil {
		return nil, parse.Directive(err, []caddyfile.Segment{segment}, "provider", "gatehouse", "basic_auth")
	}
	list, ok := sub.(*caddyhttp.Subroute)
	if !ok || len(list.Routes) != 1 || len(list.Routes[0].HandlersRaw) != 1 || len(list.Routes[0].MatcherSetsRaw) > 0 {
		return nil, word.Errf("%s is no provider", name)
	}
	var made struct {
		Handler   string          `json:"handler"`
		Providers caddy.ModuleMap `json:"providers"`
	}
	if err := json.Unmarshal(list.Routes[0].HandlersRaw[0], &made); err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if made.Handler != "authentication" {
		return nil, word.Errf("%s does not authenticate; expected gatehouse, basic_auth or another that does", name)
	}
	return made.Providers, nil
}

// Interface guards
var (
	_ caddy.Provisioner       = (*Provider)(nil)
	_ caddyauth.Authenticator = (*Provider)(nil)
)
