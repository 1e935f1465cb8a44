package identity

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/cluster"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/dpop"
)

// DPoP says what is asked of proofs of possession (RFC 9449). A token that is
// bound to a key is accepted with a proof of that key only, whatever stands
// here.
type DPoP struct {
	// Whether tokens that are bound to nothing are refused. A token that is
	// bound to a client certificate is bound. Default: false.
	Required bool `json:"required,omitempty"`

	// How old a proof may be, from 1s to 5m. Default: 60s.
	MaxAge caddy.Duration `json:"max_age,omitempty"`

	// How old the nonce may be that proofs must carry, from 10s to 1h. The gateway
	// gives nonces in `DPoP-Nonce`, and refuses proofs without one with
	// `use_dpop_nonce`. Their key is in Caddy's storage, so that gateways that
	// share it accept each other's. Default: proofs need none.
	Nonce caddy.Duration `json:"nonce,omitempty"`

	// What happens to proofs while a cluster's server cannot be asked whether
	// another gateway has seen them: `open` goes by what this one has seen,
	// `closed` refuses them with 503. Default: `open`.
	OnError *gate.OnError `json:"on_error,omitempty"`
}

func (d *DPoP) ready() error {
	if d.MaxAge == 0 {
		d.MaxAge = caddy.Duration(time.Minute)
	}
	if d.OnError == nil {
		d.OnError = new(gate.OnError)
		*d.OnError = gate.Open
	}
	if d.MaxAge < caddy.Duration(time.Second) || d.MaxAge > caddy.Duration(maxProofAge) {
		return fmt.Errorf("dpop max_age must be between 1s and %v", maxProofAge)
	}
	return checkNonceAge(d.Nonce)
}

const (
	maxProofAge = 5 * time.Minute

	// ahead is how far the clock of who makes a proof may be ahead of ours.
	ahead = 10 * time.Second

	// maxProofs bounds the proofs that are remembered at a time. They are those
	// of callers with good tokens; when they are more, they have to wait.
	maxProofs = 1 << 21

	// shareOfProofs is what one key may have of them: some 200 proofs a second. Who
	// makes more waits before the others have to.
	shareOfProofs = maxProofs / 16
)

// proofs are kept over reloads: what was used before must not be good again.
var (
	proofs   = dpop.NewSeen(maxProofs, shareOfProofs, maxProofAge+ahead)
	verifier = dpop.NewVerifier(1 << 14)
)

// binding is what a token is bound to, by its claim cnf (RFC 7800).
type binding struct {
	key         string // thumbprint of a key that proofs are made with
	certificate string // SHA-256 of a client certificate (RFC 8705)
	other       bool   // something that we cannot check
}

func bindingOf(claims map[string]any) (b binding) {
	cnf, there := claims["cnf"]
	if !there {
		return b
	}
	members, _ := cnf.(map[string]any)
	for name, value := range members {
		text, ok := value.(string)
		switch {
		case name == "jkt" && ok && text != "":
			b.key = text
		case name == "x5t#S256" && ok && text != "":
			b.certificate = text
		default:
			b.other = true
		}
	}
	b.other = b.other || len(members) == 0
	return b
}

// bound checks that who sends a token is whom it was given to. A token that is
// bound to something and comes without it has been taken from somebody.
func (h *Handler) bound(r *http.Request, b binding, c credential, now time.Time) *gate.Denial {
	switch {
	case b.other:
		return unbound("the token is bound to something that cannot be checked: its cnf has more than jkt and x5t#S256")
	case b == binding{}:
		if h.DPoP != nil && h.DPoP.Required {
			return unbound("the token is bound to nothing, and dpop required asks for one that is")
		}
		if c.dpop {
			return unbound("the token is sent as bound to a key, and is not")
		}
		return nil
	case b.certificate != "" && (r.TLS == nil || len(r.TLS.PeerCertificates) == 0):
		return unbound("the token is bound to a client certificate, and the connection has none; client_auth of the site must request one")
	case b.certificate != "" && !holdsCertificate(r, b.certificate):
		return unbound("the token is bound to another certificate than that of the connection")
	case b.key == "":
		if c.dpop {
			return unbound("the token is sent as bound to a key, and is not")
		}
		return nil
	case !c.dpop:
		return unbound("the token is bound to a key, and sent as one that is not")
	}
	return h.proven(r, b.key, c.token, now)
}

func unbound(why string) *gate.Denial {
	return &gate.Denial{Reason: gate.IdentityUnbound, Err: errors.New(why)}
}

// holdsCertificate compares with the certificate of the connection. Nobody has
// to vouch for it (RFC 8705, section 3): the handshake has shown that the
// client has its key.
func holdsCertificate(r *http.Request, thumbprint string) bool {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return false
	}
	sum := sha256.Sum256(r.TLS.PeerCertificates[0].Raw)
	is := base64.RawURLEncoding.EncodeToString(sum[:])
	return subtle.ConstantTimeCompare([]byte(is), []byte(thumbprint)) == 1
}

// proven checks the proof that stands beside a token, and that it was not used
// before.
func (h *Handler) proven(r *http.Request, key, token string, now time.Time) *gate.Denial {
	values := r.Header["Dpop"]
	if len(values) != 1 {
		return &gate.Denial{Reason: gate.IdentityBadProof, Err: fmt.Errorf("%d proofs: the token is bound to a key, and one field DPoP is expected", len(values))}
	}
	age, onError := maxAge(h.DPoP)
	proof, err := verifier.Verify(values[0], dpop.Request{Method: r.Method, URL: asAsked(r), Token: token, Key: key}, dpop.Window{Before: age, After: ahead}, now)
	if err != nil {
		return &gate.Denial{Reason: gate.IdentityBadProof, Err: err}
	}
	if denial := h.checkNonce(proof, now); denial != nil {
		return denial
	}
	first, full := proofs.First(proof, now)
	switch {
	case full: // fail closed: what is not known to be new may be stolen
		return unavailable(errors.New("too many proofs at a time, of this key or of all"))
	case !first:
		return replayed(proof)
	}
	first, err = h.app.firstAnywhere(proof, age)
	switch {
	case err != nil && onError == gate.Closed: // fail closed: another gateway may have seen it
		return unavailable(err)
	case err == nil && !first:
		return replayed(proof)
	}
	return nil
}

func replayed(p dpop.Proof) *gate.Denial {
	return &gate.Denial{Reason: gate.IdentityReplayed, Err: fmt.Errorf("a proof with the jti %.64q has come before; the client has to make one for each request", p.ID)}
}

func maxAge(d *DPoP) (time.Duration, gate.OnError) {
	if d == nil {
		return time.Minute, gate.Open
	}
	return time.Duration(d.MaxAge), *d.OnError
}

// errProof tells proofs that cannot be asked about from keys that cannot be had:
// the on_error of an issuer is about these only.
var errProof = errors.New("whether the proof was used before is not known")

func unavailable(err error) *gate.Denial {
	return &gate.Denial{Reason: gate.IdentityUnavailable, Err: fmt.Errorf("%w: %w", errProof, err), Header: http.Header{"Retry-After": {"1"}}}
}

// once remembers a proof on the cluster's server for as long as it is good at
// any gateway, whose clocks may differ.
var once = cluster.NewScript(`return {redis.call('SET', KEYS[1], 1, 'NX', 'PX', ARGV[1]) and 1 or 0}`)

// firstAnywhere asks whether any gateway has seen a proof.
func (a *App) firstAnywhere(p dpop.Proof, age time.Duration) (bool, error) {
	if a.link == nil {
		return true, nil
	}
	sum := sha256.Sum256([]byte(p.Key + "\x00" + p.ID))
	answer, err := a.link.Run(once, "proof:"+base64.RawURLEncoding.EncodeToString(sum[:18]), strconv.FormatInt((age+2*ahead).Milliseconds(), 10))
	if err != nil {
		proofsAlone.Inc()
		return false, err
	}
	return len(answer) == 1 && answer[0] == 1, nil
}

// asAsked is the URL that the client has asked for, whatever was rewritten
// since. A proxy in front of the gateway says how it was reached itself, if it
// is trusted.
func asAsked(r *http.Request) string {
	scheme, host, target := "http", r.Host, r.URL
	if r.TLS != nil {
		scheme = "https"
	}
	if trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool); trusted {
		if v := r.Header["X-Forwarded-Proto"]; len(v) == 1 && (strings.EqualFold(v[0], "https") || strings.EqualFold(v[0], "http")) {
			scheme = v[0]
		}
		if v := r.Header["X-Forwarded-Host"]; len(v) == 1 && v[0] != "" {
			host = v[0]
		}
	}
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		target = original.URL
	}
	return scheme + "://" + host + target.EscapedPath()
}

// unmarshal reads the option. Syntax:
//
//	dpop {
//	    required
//	    max_age  <duration>
//	    nonce    [<duration>]
//	    on_error open|closed
//	}
func (d *DPoP) unmarshal(disp *caddyfile.Dispenser) error {
	if disp.NextArg() {
		return disp.ArgErr()
	}
	for nesting := disp.Nesting(); disp.NextBlock(nesting); {
		var err error
		switch opt := disp.Val(); opt {
		case "required":
			err = parse.Flag(disp, &d.Required)
		case "max_age":
			err = parse.Duration(disp, &d.MaxAge)
		case "nonce":
			err = d.unmarshalNonce(disp)
		case "on_error":
			d.OnError = new(gate.OnError)
			err = parse.Into(disp, d.OnError)
		default:
			err = parse.Unknown(disp, "dpop option", opt, "required", "max_age", "nonce", "on_error")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var proofsAlone = prometheus.NewCounter(prometheus.CounterOpts{
	Name: "gatehouse_identity_proofs_alone_total",
	Help: "Proofs of possession that only this gateway could be asked about, since the cluster's server could not.",
})
