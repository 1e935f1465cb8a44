package require

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// StepUp asks for a stronger or a more recent authentication than a token may
// come from (RFC 9470).
type StepUp struct {
	// How the caller must have shown its issuer who it is: any one of these must
	// be the token's `acr`. The client is told them in this order.
	// Default: nothing is asked.
	ACR []string `json:"acr,omitempty"`

	// How long ago that may be, by the token's `auth_time`, in whole seconds.
	// Default: however long.
	MaxAge caddy.Duration `json:"max_age,omitempty"`
}

func (s *StepUp) asked() bool { return len(s.ACR) > 0 || s.MaxAge > 0 }

func (s *StepUp) authentication() gate.Authentication {
	return gate.Authentication{ACR: s.ACR, MaxAge: time.Duration(s.MaxAge)}
}

func (s *StepUp) check() error {
	if s.MaxAge < 0 || s.MaxAge%caddy.Duration(time.Second) != 0 {
		return errors.New("max_age must be whole seconds, which is what clients are told")
	}
	for _, v := range s.ACR {
		if v == "" || strings.ContainsFunc(v, func(c rune) bool { return c <= ' ' || c > '~' || c == '"' || c == '\\' }) {
			return errors.New("acr takes values without spaces, quotes and backslashes")
		}
	}
	return nil
}

// readStepUp takes the values of acr or max_age.
func (s *StepUp) readStepUp(d *caddyfile.Dispenser, opt string, args []string) error {
	switch {
	case len(args) == 0:
		return d.Errf("require %s needs a value", opt)
	case opt == "acr":
		s.ACR = append(s.ACR, args...)
	case len(args) > 1:
		return d.ArgErr()
	default:
		age, err := caddy.ParseDuration(args[0])
		if err != nil || age <= 0 {
			return d.Errf("max_age %q is not a duration; write for example 30s, 5m or 1d", args[0])
		}
		s.MaxAge = caddy.Duration(age)
	}
	if err := s.check(); err != nil {
		return d.Err(err.Error())
	}
	return nil
}

// stepUp sends a caller whose authentication is too weak or too old back to its
// issuer. One who has not shown a token cannot do that, whatever it does.
func stepUp(ex *gate.Exchange, a gate.Authentication) *gate.Denial {
	p := ex.Principal
	switch {
	case p == nil:
		return anonymous(ex)
	case p.Method != gate.Bearer:
		return &gate.Denial{Reason: gate.RequireScheme, Header: challenge(ex), Err: fmt.Errorf("acr and max_age ask for a bearer token, and the caller is known by %s", proofs[p.Method])}
	case a.Met(p, gate.Now()):
		return nil
	}
	wrong := []gate.Parameter{
		{Name: "error", Value: "insufficient_user_authentication"},
		{Name: "error_description", Value: gate.RequireAuthentication.Title()},
	}
	if len(a.ACR) > 0 {
		wrong = append(wrong, gate.Parameter{Name: "acr_values", Value: strings.Join(a.ACR, " ")})
	}
	if a.MaxAge > 0 {
		wrong = append(wrong, gate.Parameter{Name: "max_age", Value: strconv.FormatInt(int64(a.MaxAge/time.Second), 10)})
	}
	return &gate.Denial{Reason: gate.RequireAuthentication, Header: challenge(ex, wrong...), Err: weak(p, a)}
}

// weak tells the operator what the token says, and what is asked for.
func weak(p *gate.Principal, a gate.Authentication) error {
	when := "has no auth_time"
	if !p.AuthTime.IsZero() {
		when = fmt.Sprintf("is of an authentication %v ago", gate.Since(p.AuthTime).Round(time.Second))
	}
	asked := ""
	if len(a.ACR) > 0 {
		asked = " acr " + strings.Join(a.ACR, " ")
	}
	if a.MaxAge > 0 {
		asked += " max_age " + a.MaxAge.String()
	}
	return fmt.Errorf("the token has the acr %.64q and %s; asked for is%s", p.ACR, when, asked)
}

// challenge tells the client how it could prove more (RFC 9110, section 11.6.1).
func challenge(ex *gate.Exchange, wrong ...gate.Parameter) http.Header {
	return http.Header{"Www-Authenticate": ex.Challenge(wrong...)}
}

func anonymous(ex *gate.Exchange) *gate.Denial {
	return &gate.Denial{Reason: gate.RequireAnonymous, Header: challenge(ex), Err: whyNobody(ex)}
}

// whyNobody tells the operator why nobody is proven.
func whyNobody(ex *gate.Exchange) error {
	for _, d := range slices.Backward(ex.Decisions()) {
		switch {
		case d.Stage != gate.Identity:
		case d.Mode == gate.Off:
			return errors.New("identity is off")
		case d.Verdict == gate.WouldDeny:
			return errors.New("identity is in shadow mode, and would have refused the request: " + d.Reason.String())
		case d.Verdict == gate.Undecided:
			return errors.New("identity could not find out who asks, and its on_error is open: " + d.Reason.String())
		default:
			return errors.New("no credential came, and identity let the request pass: it is optional there, or by the contract")
		}
	}
	if ex.Dropped() > 0 {
		return nil // it may be among what did not fit
	}
	return errors.New("no identity stands before this require, so that nobody is ever proven here")
}

// lacksScope tells the client which scopes to ask for (RFC 6750, section 3.1).
// One with an API key or a certificate has nobody to ask.
func lacksScope(ex *gate.Exchange, scopes []string) *gate.Denial {
	d := &gate.Denial{Reason: gate.RequireScope, Err: errors.New(has(ex.Principal, "scopes", ex.Principal.Scopes)), Detail: "The operation needs the scope " + strings.Join(scopes, " ") + "."}
	if ex.Principal.Method == gate.Bearer {
		d.Header = challenge(ex, gate.Parameter{Name: "error", Value: "insufficient_scope"}, gate.Parameter{Name: "scope", Value: strings.Join(scopes, " ")})
	}
	return d
}
