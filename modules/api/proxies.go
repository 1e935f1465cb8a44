package api

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// Proxies says what the proxies in front of Caddy, its trusted_proxies, say of
// clients. A proxy sends on what it does not know, so that a client could have it
// say anything; who it is and where it comes from are believed in the fields
// named here only. X-Forwarded-For, -Proto and -Host are Caddy's own business.
type Proxies struct {
	// The fields that every trusted proxy sets itself or takes off, such as
	// X-Real-IP, Forwarded, X-Forwarded-User or Client-Cert. Default: none.
	Headers []string `json:"headers,omitempty"`

	undo func()
}

// CaddyModule returns the Caddy module information.
func (*Proxies) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "gatehouse_proxies",
		New: func() caddy.Module { return new(Proxies) },
	}
}

// Validate looks at the settings.
func (p *Proxies) Validate() error {
	for _, name := range p.Headers {
		if err := believable(name); err != nil {
			return err
		}
	}
	return nil
}

// believable refuses names that would change nothing.
func believable(name string) error {
	if !gate.Hearsay(name) || strings.IndexByte(name, '_') >= 0 {
		return fmt.Errorf("proxy_headers: %q is no field by which proxies say who a client is, such as X-Real-IP or Forwarded; others pass anyway", name)
	}
	return nil
}

// Start has them believed.
func (p *Proxies) Start() error {
	p.undo = gate.Believe(p.Headers)
	return nil
}

// Stop takes that back, unless another configuration has taken the place.
func (p *Proxies) Stop() error {
	if p.undo != nil {
		p.undo()
	}
	return nil
}

// spotProxy tells the operator, once, of a proxy that nobody has said to be trusted:
// all of its clients are one address then.
func (h *Handler) spotProxy(r *http.Request) {
	if r.Header["X-Forwarded-For"] == nil || h.spotted.Load() {
		return
	}
	trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool)
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if near := peer.Addr().Unmap(); trusted || err != nil || !near.IsPrivate() && !near.IsLoopback() || !h.spotted.CompareAndSwap(false, true) {
		return
	}
	h.logger.Warn("X-Forwarded-For comes from a private address that is not trusted; if that is a proxy, its clients are one address until trusted_proxies names it",
		zap.String("api", h.Name), zap.String("peer", peer.Addr().String()))
}

// Interface guards
var (
	_ caddy.App       = (*Proxies)(nil)
	_ caddy.Validator = (*Proxies)(nil)
)
