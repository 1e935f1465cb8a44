package quota

import (
	"net/http"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/quota/internal/bucket"
)

// ServeHTTP takes one request from the caller's allowance, or refuses it.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	ex, mode := gate.Enter(r, gate.Quota, h.Mode)
	if mode == gate.Off {
		return next.ServeHTTP(w, r)
	}
	began := time.Now()
	plan, zone := h.plan(ex)
	key := h.caller(ex, r, zone)

	var o bucket.Outcome
	if plan.queue > 0 && mode == gate.Enforce {
		o = h.app.table.Queue(key, plan.limit, plan.queue, began)
		if o.Allowed && o.Wait > 0 && !wait(r, o.Wait) {
			o.Allowed = false
		}
	} else {
		o = h.app.table.Take(key, plan.limit, began)
	}
	plan.announce(w.Header(), o)

	var denial *gate.Denial
	if !o.Allowed {
		denial = refuse(plan, o)
	}
	if err := ex.Conclude(w, r, gate.Quota, mode, plan.name, denial, began); err != nil {
		return err
	}
	return next.ServeHTTP(w, r)
}

// plan is the rate of this quota, or what was set for the tenant while the
// gateway runs, or the plan that the principal carries. A plan that is not
// defined is never unlimited: it is the default one. The zone keeps what an
// operator set apart: who is given more must not first pay off what the plan
// before was spent by.
func (h *Handler) plan(ex *gate.Exchange) (_ *plan, zone string) {
	if h.rate != nil {
		return h.rate, h.zone
	}
	if ex.Principal != nil {
		if p := h.app.of(ex.Principal.Tenant); p != nil {
			return p, h.zone + "|" + p.policy
		}
		if p := h.app.plans[ex.Principal.Plan]; p != nil {
			return p, h.zone
		}
	}
	return h.app.fallback, h.zone
}

// caller names who is counted. An attribute that is empty must not become one
// bucket for all who lack it: they are counted by address.
func (h *Handler) caller(ex *gate.Exchange, r *http.Request, zone string) uint64 {
	id := ""
	switch {
	case h.who == nil:
		repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
		id = repl.ReplaceAll(h.Per, "")
	case ex.Principal != nil:
		id = h.who(ex)
	}
	if id != "" {
		issuer := ""
		if ex.Principal != nil {
			issuer = ex.Principal.Issuer // two issuers may know a subject of the same name
		}
		return h.app.table.Key(zone, issuer, id)
	}
	return h.app.table.KeyOf(zone, ex.Network())
}

func refuse(p *plan, o bucket.Outcome) *gate.Denial {
	d := &gate.Denial{
		Reason: gate.QuotaExhausted,
		Header: http.Header{"Retry-After": {strconv.FormatInt(seconds(o.Wait), 10)}},
	}
	if p.queue > 0 {
		d.Reason = gate.QuotaQueueFull
	}
	return d
}

// seconds rounds up: a client that waits exactly this long must be let in.
func seconds(d time.Duration) int64 {
	return int64((d + time.Second - 1) / time.Second)
}
