package identity

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/registry"
)

func init() { caddy.RegisterModule(new(Handler)) }

// Handler finds out who asks, and refuses who cannot prove it.
type Handler struct {
	// The names of the issuers whose tokens are accepted.
	Issuers []string `json:"issuers,omitempty"`

	// Whether API keys are accepted. Default: false.
	Keys bool `json:"keys,omitempty"`

	// The header that carries an API key. Default: `X-API-Key`.
	KeyHeader string `json:"key_header,omitempty"`

	// Whether client certificates are accepted that were verified, and what is
	// asked of them. Default: they are not.
	MTLS *MTLS `json:"mtls,omitempty"`

	// Whether requests without any credential pass, without a principal.
	// A wrong credential is refused all the same. Default: false.
	Optional bool `json:"optional,omitempty"`

	// What the upstream is told about the principal, each in a header of its
	// own: `subject` in X-Gatehouse-Subject, and so `client`, `tenant`, `plan`,
	// `roles`, `scopes`, `issuer` and `method`. Default: subject, client,
	// tenant, roles and scopes, and, where there are several issuers or ways
	// to prove it, issuer and method. `none` alone tells nothing.
	Tell []string `json:"tell,omitempty"`

	// A token about the principal that the gateway signs for the upstream.
	// Default: none. With it, nothing else is told unless tell says so.
	TellJWT *TellJWT `json:"tell_jwt,omitempty"`

	// A token that the upstream is sent in place of the client's, for which it
	// is exchanged at the issuer. Default: the client's is passed on.
	TokenExchange *TokenExchange `json:"exchange,omitempty"`

	// What is asked of proofs of possession (RFC 9449). Default: those of tokens
	// that are bound to a key.
	DPoP *DPoP `json:"dpop,omitempty"`

	// Sessions of browsers that have logged in at an issuer. Default: none.
	Session *Session `json:"session,omitempty"`

	// Whether refusals are enforced: `enforce`, `shadow` or `off`.
	// Default: `enforce`.
	Mode gate.Mode `json:"mode,omitempty"`

	// What happens to tokens while their issuer's keys cannot be fetched:
	// `closed` or `open`. Default: what the issuer says.
	OnError *gate.OnError `json:"on_error,omitempty"`

	app     *App
	issuers map[string]*Issuer // by identifier
	opaque  *Issuer            // who is asked about tokens that cannot be read here; may be nil
	told    []int              // indexes of facts
	keys    registry.Live[hashes]
	revoked *revokedSet

	accepted [2][]gate.Challenge // how callers may prove who they are: usually, and to who holds a key
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.gatehouse_identity",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision finds the issuers.
func (h *Handler) Provision(ctx caddy.Context) error {
	if h.KeyHeader == "" {
		h.KeyHeader = "X-API-Key"
	}
	h.KeyHeader = http.CanonicalHeaderKey(h.KeyHeader)
	if err := gate.RegisterMetrics(ctx, proofsAlone, honeyKeys, sessionLogins, sessionRefreshes, sessionEvents); err != nil {
		return err
	}
	app, err := ctx.App("gatehouse_identity")
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	h.app = app.(*App)
	if h.DPoP != nil {
		if err := h.DPoP.ready(); err != nil {
			return fmt.Errorf("identity: %w", err)
		}
		h.app.nonces = h.app.nonces || h.DPoP.Nonce > 0
	}
	if err := h.openRevocations(ctx); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	if h.MTLS != nil {
		if err := h.MTLS.ready(); err != nil {
			return fmt.Errorf("identity: %w", err)
		}
		if err := h.MTLS.findRevocation(ctx, h.app); err != nil {
			return fmt.Errorf("identity: %w", err)
		}
		if h.MTLS.TrustPool != nil {
			if h.MTLS.trust, h.MTLS.trustKey, err = h.MTLS.TrustPool.open(ctx); err != nil {
				return fmt.Errorf("identity: %w", err)
			}
		}
	}
	h.issuers = make(map[string]*Issuer, len(h.Issuers))
	for _, name := range h.Issuers {
		i := h.app.byName[name]
		if i == nil {
			return fmt.Errorf("identity: issuer %q is not defined", name)
		}
		if i.noBearer() {
			return fmt.Errorf("identity: issuer %q has no audience, and so no tokens for this API; people log in at it by session", name)
		}
		if other := h.issuers[i.identifier]; other != nil {
			return fmt.Errorf("identity: issuers %q and %q have the same URL %q; a token could mean either", other.Name, name, i.identifier)
		}
		h.issuers[i.identifier] = i
		if i.asker != nil && h.opaque != nil {
			return fmt.Errorf("identity: issuers %q and %q are both asked about tokens that cannot be read; a token does not say whose it is", h.opaque.Name, name)
		}
		if i.asker != nil {
			h.opaque = i
		}
	}
	if h.Session != nil {
		if err := h.Session.provision(ctx, h.app); err != nil {
			return fmt.Errorf("identity: %w", err)
		}
	}
	h.accepted = [...][]gate.Challenge{h.ways(false), h.ways(true)}
	if h.Tell == nil && h.TellJWT == nil {
		h.Tell = h.usual()
	}
	for _, name := range h.Tell {
		if name == tellNone && len(h.Tell) == 1 {
			break
		}
		f := slices.Index(factNames(), name)
		if f < 0 {
			return fmt.Errorf("identity: tell %q is none of %s", name, strings.Join(factNames(), ", "))
		}
		h.told = append(h.told, f)
	}
	if err := h.upstreamReady(ctx); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	if h.Keys {
		if h.keys, err = keys.Open(ctx); err != nil {
			return fmt.Errorf("identity: %w", err)
		}
	}
	return nil
}

// Validate reports settings that would refuse everybody.
func (h *Handler) Validate() error {
	if len(h.Issuers) == 0 && !h.Keys && h.MTLS == nil && h.Session == nil {
		return errors.New("identity: name at least one issuer, keys, mtls or session")
	}
	if h.Keys && !isHeaderName(h.KeyHeader) {
		return fmt.Errorf("identity: keys %q is no name of a header", h.KeyHeader)
	}
	if h.KeyHeader == "Authorization" || slices.Contains([]string{"Cookie", "Host"}, h.KeyHeader) {
		return fmt.Errorf("identity: keys cannot travel in %s", h.KeyHeader)
	}
	return nil
}

// Cleanup gives back what is shared with other handlers.
func (h *Handler) Cleanup() error {
	h.Session.cleanup()
	h.TokenExchange.cleanup()
	return h.MTLS.close()
}

// Interface guards
var (
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
)
