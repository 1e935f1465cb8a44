package canary

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-caddy/gatehouse/modules/canary/internal/release"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// Describe says that the stage is there. It refuses nobody.
func (h *Handler) Describe(d *gate.Description) { d.Stands(gate.Canary) }

// ServeHTTP chooses the release that answers. It refuses nobody.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	ex, mode := gate.Enter(r, gate.Canary, h.Mode)
	if mode == gate.Off {
		return next.ServeHTTP(w, r)
	}
	began := gate.Now()
	weight := h.weight(began)
	caller := caller(ex)
	choice := h.choose(w, r, ex, mode, weight, caller)
	_ = ex.Decide(gate.Canary, mode, h.rule[choice], nil, began) // nothing to refuse
	if mode == gate.Shadow {
		return next.ServeHTTP(w, r)
	}

	a := answerOf(w, r, ex, counted(ex, caller), began)
	if choice == taken || choice == forced {
		return h.take(a, r, choice)
	}
	var count *[3]prometheus.Counter
	if ex.Release.Name == "" { // of several canaries, the first counts for the stable release
		ex.Release.Name = stableName
		count = &h.stable
	}
	ex.Release.Taken += weight
	if choice == passed && weight > 0 {
		a.by = append(a.by, watcher{h: h, side: release.Stable})
	}
	return a.run(next, r, stableName, count)
}

// take lets the release answer. One who asks for it says nothing about how it
// does with others.
func (h *Handler) take(a *answer, r *http.Request, choice choice) error {
	a.ex.Release.Name = h.Release
	a.by = a.by[:0]
	if choice == taken {
		a.by = append(a.by, watcher{h: h, side: release.Canary})
	}
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("gatehouse.release", h.Release)
	}
	return a.run(h.chain, r, h.Release, &h.own) //nolint:contextcheck // storing a rollback outlives the request that it was noticed at
}

// choice is what becomes of a request at a canary.
type choice uint8

const (
	passed  choice = iota // to the stable release, or the next canary
	taken                 // its caller is on the release
	forced                // it asks for the release
	refused               // it asks for another
)

// choose asks what the request wants before where its caller is.
func (h *Handler) choose(w http.ResponseWriter, r *http.Request, ex *gate.Exchange, mode gate.Mode, weight float64, caller release.Point) choice {
	if h.Force != nil {
		if said := r.Header[h.Force.Header]; len(said) > 0 && said[0] != "" {
			if said[0] == h.Force.Value {
				return forced
			}
			return refused
		}
	}
	rest := 100 - ex.Release.Taken
	if weight <= 0 || rest <= 0 {
		return passed
	}
	point := h.seed
	switch {
	case h.Sticky == "address":
		point = network(point, ex)
	case h.Sticky == "cookie" && ex.Principal == nil:
		point = point.Add(h.ticket(w, r, mode))
	default:
		point ^= caller
	}
	if point.Mix().Within(weight / rest) {
		return taken
	}
	return passed
}

// caller is who asks, as well as is known.
func caller(ex *gate.Exchange) release.Point {
	p := ex.Principal
	if p == nil {
		return network(release.Start, ex).Mix()
	}
	subject := p.Subject
	if subject == "" {
		subject = p.Client
	}
	return release.Start.Add(p.Issuer).Add(subject).Mix()
}

// counted is whom a result is counted for: what of one caller's results counts
// is bounded by it. Whatever a cookie says, that is a principal or a network; in
// IPv6 a /48, of which one customer may well have all.
func counted(ex *gate.Exchange, caller release.Point) release.Point {
	if ex.Principal != nil || !ex.Client.Is6() {
		return caller
	}
	b := ex.Customer().Addr().As16()
	return release.Start.Add(string(b[:])).Mix()
}

// network hashes the address as callers are counted by it.
func network(p release.Point, ex *gate.Exchange) release.Point {
	b := ex.Network().Addr().As16()
	return p.Add(string(b[:]))
}
