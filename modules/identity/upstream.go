package identity

import (
	"errors"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// upstreamReady makes ready what only the upstream gets to see.
func (h *Handler) upstreamReady(ctx caddy.Context) error {
	if h.TellJWT != nil {
		if err := h.TellJWT.ready(ctx, h.app); err != nil {
			return err
		}
	}
	if h.TokenExchange != nil {
		if err := h.TokenExchange.ready(h); err != nil {
			return err
		}
	}
	return gate.RegisterMetrics(ctx, tokensSigned, exchanges)
}

// hide takes off what a client may not say to the upstream, or should not show
// it: a copy of the header that the gateway signs in, a key, and a token that is
// to be exchanged, for none is meant for the upstream. It holds for requests without
// a principal, and where identity is off, too.
func (h *Handler) hide(header http.Header) {
	if h.TellJWT != nil {
		delete(header, h.TellJWT.Header)
	}
	if h.Keys {
		delete(header, h.KeyHeader)
	}
	if h.TokenExchange != nil {
		delete(header, "Authorization")
		delete(header, "Dpop")
	}
}

// forUpstream puts into the request what only the upstream is to see. Where it
// cannot, the setting that is broken says what becomes of the request. Nothing is
// made for nobody, nor for a request that does not pass.
func (h *Handler) forUpstream(r *http.Request, who *proven, passes bool, now time.Time) (*gate.Denial, gate.OnError) {
	if h.TellJWT == nil && h.TokenExchange == nil {
		return nil, gate.Closed
	}
	c, _, _ := bearer(r.Header) // before it is hidden
	h.hide(r.Header)
	if who == nil || !passes {
		return nil, gate.Closed
	}
	passed := false
	if h.TellJWT != nil {
		if d := h.TellJWT.tell(r, who, now); d != nil && h.TellJWT.OnError == gate.Closed {
			return d, gate.Closed
		} else if d != nil {
			passed = true
		}
	}
	if h.TokenExchange != nil {
		if d := h.TokenExchange.swap(r, who, c.token, now); d != nil {
			return d, h.TokenExchange.onError(d)
		}
	}
	if passed {
		return &gate.Denial{Reason: gate.IdentityUnsigned}, gate.Open
	}
	return nil, gate.Closed
}

var errTwice = errors.New("tell jwt and exchange both write Authorization; give tell jwt another header")
