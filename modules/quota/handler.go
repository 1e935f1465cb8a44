package quota

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/netip"
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
	began := gate.Now()
	plan, zone := h.plan(ex)
	plan = plan.at(ex, began)
	who := h.caller(ex, r, zone)
	queue := plan.queue
	if mode != gate.Enforce {
		queue = 0 // nobody waits for what would be refused
	}

	o, rule := h.take(ex, r, who, plan, queue, began)
	plan.announce(w.Header(), o)

	var denial *gate.Denial
	if !o.Allowed {
		denial = refuse(plan, o)
	}
	if err := ex.Conclude(w, r, gate.Quota, mode, rule, denial, began); err != nil {
		return err
	}
	if err := r.Context().Err(); err != nil && o.Wait > 0 {
		return caddyhttp.Error(clientGone, err)
	}
	if h.Habit != nil && *h.Habit.Mode != gate.Off && denial == nil {
		if denial := h.unusual(who, plan, began); denial != nil {
			if err := ex.Conclude(w, r, gate.Quota, max(mode, *h.Habit.Mode), "habit", denial, began); err != nil {
				return err
			}
		}
	}
	return next.ServeHTTP(w, r)
}

// take spends one event, and waits for its turn. The place to wait at comes
// first: a request that cannot wait must not spend what it does not get.
func (h *Handler) take(ex *gate.Exchange, r *http.Request, who caller, p *plan, queue int, now time.Time) (o bucket.Outcome, rule string) {
	if queue > 0 {
		by := waiterOf(ex)
		if places.Take(who.zone, by, queue) {
			defer places.Leave(who.zone, by)
		} else {
			queue = 0
		}
	}
	o, rule = h.app.take(who, p, queue, now)
	if o.Allowed && o.Wait > 0 {
		wait(r, o.Wait)
	}
	return o, rule
}

// clientGone is the status that Caddy logs for a client that did not wait.
const clientGone = 499

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

// caller is who is counted, and within which counters.
type caller struct {
	zone, issuer, id string
	network          netip.Prefix // of who has no id
}

// caller names who is counted. An attribute that is empty must not become one
// bucket for all who lack it: they are counted by address.
func (h *Handler) caller(ex *gate.Exchange, r *http.Request, zone string) caller {
	c := caller{zone: zone}
	switch {
	case h.who == nil:
		repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
		c.id = repl.ReplaceAll(h.Per, "")
	case ex.Principal != nil:
		c.id = h.who(ex)
	}
	switch {
	case c.id == "":
		c.network = ex.Network()
	case ex.Principal != nil && h.Per != perTenant:
		c.issuer = ex.Principal.Issuer // two issuers may know a subject of the same name; a tenant is ours
	}
	return c
}

// key is the caller's name in the table of this process.
func (c *caller) key(t *bucket.Table) uint64 {
	if c.id != "" {
		return t.Key(c.zone, c.issuer, c.id)
	}
	return t.KeyOf(c.zone, c.network)
}

// name is what nodes call the caller among each other. Whoever can read the
// server's keys does not learn who it is without knowing already.
func (c *caller) name() string {
	h := sha256.New()
	for _, part := range []string{c.zone, c.issuer, c.id, c.network.String()} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	return "quota:" + hex.EncodeToString(h.Sum(nil)[:16])
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
