package resilience

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/resilience/internal/breaker"
)

func init() { caddy.RegisterModule(new(Policy)) }

// Policy chooses the less busy of two upstreams picked at random, among those
// whose breaker is closed and that stand in the gateway's own zone.
type Policy struct {
	// The zone that this gateway stands in; may be a placeholder such as
	// `{env.ZONE}`. Default: none, and all upstreams are alike.
	LocalZone string `json:"local_zone,omitempty"`

	// The upstreams of each zone, as the reverse_proxy names them.
	Zones map[string][]string `json:"zones,omitempty"`

	transport *Transport
	local     map[string]bool // the upstreams of the own zone
}

// CaddyModule returns the Caddy module information.
func (*Policy) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.reverse_proxy.selection_policies.gatehouse",
		New: func() caddy.Module { return new(Policy) },
	}
}

// Provision finds the transport, whose breakers the policy looks at.
func (p *Policy) Provision(ctx caddy.Context) error {
	proxy, err := proxyOf(ctx)
	if err != nil {
		return err
	}
	var ok bool
	if p.transport, ok = proxy.Transport.(*Transport); !ok {
		return errors.New("lb_policy gatehouse needs transport gatehouse beside it")
	}
	for zone, dials := range p.Zones {
		for _, dial := range dials {
			if proxy.DynamicUpstreamsRaw == nil && !slices.ContainsFunc(proxy.Upstreams, func(u *reverseproxy.Upstream) bool { return u.Dial == dial }) {
				return fmt.Errorf("zone %s names %s, which is no upstream of this reverse_proxy", zone, dial)
			}
		}
	}
	zone, err := caddy.NewReplacer().ReplaceOrErr(p.LocalZone, true, true)
	switch {
	case err != nil:
		return fmt.Errorf("local_zone: %w", err)
	case (zone == "") != (len(p.Zones) == 0):
		return errors.New("local_zone and zone go together")
	case zone != "":
		p.local = make(map[string]bool, len(p.Zones[zone]))
		for _, dial := range p.Zones[zone] {
			p.local[dial] = true
		}
	}
	return nil
}

// Select chooses an upstream, or none when nothing more may be tried.
func (p *Policy) Select(all reverseproxy.UpstreamPool, r *http.Request, _ http.ResponseWriter) *reverseproxy.Upstream {
	ex, mode := gate.Enter(r, gate.Resilience, p.transport.Mode)
	var run *run
	if ex != nil {
		run = p.transport.runOf(ex, r)
	}
	if run != nil && !run.again {
		return nil
	}
	if len(all) == 1 {
		if !all[0].Available() {
			return nil
		}
		return all[0]
	}
	now := gate.Now()
	var near, far, tried, failing, deaf pair
	for _, u := range all {
		if !u.Available() {
			continue
		}
		t := p.transport.targets.look(u)
		ready := breaker.Ready
		if t != nil && mode == gate.Enforce && t.State() != breaker.Closed {
			ready = t.Look(repeatable(r) && p.transport.prompt(ex, r), now)
		}
		switch {
		case ready == breaker.Due && run == nil && p.probe(t, ex, r, now):
			return u
		case ready == breaker.Deaf:
			deaf.add(u)
		case ready != breaker.Ready:
			failing.add(u)
		case run != nil && run.met(u):
			tried.add(u)
		case p.local == nil || p.local[u.Dial]:
			near.add(u)
		default:
			far.add(u)
		}
	}
	if u := p.spill(&near, &far).pick(); u != nil {
		return u
	}
	for _, last := range []*pair{&tried, &failing, &deaf} {
		if u := last.pick(); u != nil {
			return u
		}
	}
	return nil
}

// probe takes the permit to find out whether an upstream is back, so that only
// the request that has it goes there.
func (p *Policy) probe(t *target, ex *gate.Exchange, r *http.Request, now time.Time) bool {
	permit, ok := t.Enter(now)
	if ok {
		ex.Tries = &run{transport: p.transport, url: r.URL, probe: t, permit: permit, release: func() {}}
	}
	return ok
}

// spill sends a share of the requests to other zones once too few upstreams of
// the own one are well: below 5 of 7, as many as those left cannot carry.
func (p *Policy) spill(near, far *pair) *pair {
	const spare = 1.4
	share := spare * float64(near.n) / float64(max(len(p.local), 1))
	if near.n == 0 || far.n > 0 && share < 1 && rand.Float64() >= share { //nolint:gosec // load, not a secret
		return far
	}
	return near
}

// pair holds two upstreams picked at random out of any number.
type pair struct {
	a, b *reverseproxy.Upstream
	n    int
}

func (p *pair) add(u *reverseproxy.Upstream) {
	p.n++
	switch i := rand.IntN(p.n); { //nolint:gosec // load, not a secret
	case p.n == 1:
		p.a = u
	case p.n == 2:
		p.b = u
		if i == 0 {
			p.a, p.b = p.b, p.a // who comes first wins a tie
		}
	case i == 0:
		p.a = u
	case i == 1:
		p.b = u
	}
}

// pick is the one with fewer requests in flight.
func (p *pair) pick() *reverseproxy.Upstream {
	if p.b != nil && p.b.NumRequests() < p.a.NumRequests() {
		return p.b
	}
	return p.a
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Policy)(nil)
	_ reverseproxy.Selector = (*Policy)(nil)
)
