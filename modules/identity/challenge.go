package identity

import (
	"encoding/json"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
)

// The schemes that tokens are sent by.
const (
	schemeBearer = "Bearer"
	schemeDPoP   = "DPoP"
)

// ways lists how callers may prove who they are, each as a challenge of its
// own. DPoP is among them where it is configured, or where a request has shown
// that its client knows it.
func (h *Handler) ways(dpop bool) []gate.Challenge {
	const realm = `realm="api"`
	var ways []gate.Challenge
	if len(h.issuers) > 0 {
		if h.DPoP == nil || !h.DPoP.Required {
			ways = append(ways, gate.Challenge{Scheme: schemeBearer, Params: realm, Token: true})
		}
		if h.DPoP != nil || dpop { // RFC 9449, section 7.1
			ways = append(ways, gate.Challenge{Scheme: schemeDPoP, Params: `algs="` + strings.Join(jwt.Algorithms(), " ") + `"`, Token: true})
		}
	}
	if h.Keys {
		// No registered scheme is about keys; this one says where the key goes.
		ways = append(ways, gate.Challenge{Scheme: "ApiKey", Params: realm + `, header="` + h.KeyHeader + `"`})
	}
	if h.Session != nil {
		ways = append(ways, gate.Challenge{Scheme: "Session", Params: realm + `, login="` + h.Session.Path + `/login"`})
	}
	if ways == nil { // certificates have no scheme, and a 401 needs one
		ways = []gate.Challenge{{Scheme: "ClientCertificate", Params: realm}}
	}
	return ways
}

// refuse tells the client how it could have proven who it is. An error is named
// only when it was a token that was wrong, sent by the scheme that is given
// (RFC 6750, section 3.1, and RFC 9449, section 7.1).
func (h *Handler) refuse(r *http.Request, d *gate.Denial, scheme string) *gate.Denial {
	if d == nil {
		return nil
	}
	code := ""
	switch {
	case d.Reason == gate.IdentityAmbiguous && scheme != "":
		code = "invalid_request"
	case d.Reason.Status() != http.StatusUnauthorized:
		return d
	case d.Reason == gate.IdentityBadProof, d.Reason == gate.IdentityReplayed:
		code = "invalid_dpop_proof"
	case d.Reason == gate.IdentityNonce:
		code = "use_dpop_nonce"
	case scheme != "":
		code = "invalid_token"
	}
	var wrong []gate.Parameter
	if code != "" {
		wrong = []gate.Parameter{{Name: "error", Value: code}, {Name: "error_description", Value: d.Reason.Title()}}
	}
	ways := h.ways(scheme == schemeDPoP || d.Reason == gate.IdentityUnbound)
	if d.Header == nil {
		d.Header = make(http.Header)
	}
	d.Header["Www-Authenticate"] = gate.Challenges(ways, scheme, gate.Of(r).Metadata, wrong...)
	h.offerNonce(d.Header, gate.Now())
	return d
}

// offer lets later stages say how a caller could prove more, and gives one who
// makes proofs the nonce for the next.
func (h *Handler) offer(w http.ResponseWriter, ex *gate.Exchange, who *proven, now time.Time) {
	ex.Ways = h.accepted[0]
	if who == nil {
		return
	}
	if ex.Scheme = who.scheme(); ex.Scheme == schemeDPoP {
		ex.Ways = h.accepted[1]
		h.offerNonce(w.Header(), now)
	}
}

// scheme is what the principal's token was sent by; empty without a token.
func (p *proven) scheme() string {
	switch {
	case p.principal.Method != gate.Bearer:
		return ""
	case p.bound.key != "":
		return schemeDPoP
	}
	return schemeBearer
}

// authenticated reads how, and when, the subject has shown the issuer who it is
// (RFC 9470, section 6). What cannot be read is not said.
func authenticated(p *gate.Principal, claims map[string]any) *gate.Principal {
	p.ACR, _ = claims["acr"].(string)
	if n, ok := claims["auth_time"].(json.Number); ok {
		if s, err := n.Float64(); err == nil && s > 0 && s < math.MaxInt32<<8 {
			p.AuthTime = time.Unix(int64(s), 0)
		}
	}
	return p
}
