package resilience

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/resilience/internal/breaker"
)

// budget counts requests in flight, so that retries stay a share of them.
type budget struct {
	active, retrying atomic.Int64
}

// take reserves one retry, if there is room.
func (b *budget) take(share float64, least int) bool {
	most := max(int64(least), int64(share*float64(b.active.Load())))
	if b.retrying.Add(1) > most {
		b.retrying.Add(-1)
		return false
	}
	return true
}

// run is what a request leaves behind between its tries, in its Exchange:
// Caddy's request variables may still be read by a connection that is being
// made. Most requests pass at once and have none.
type run struct {
	transport *Transport
	url       *url.URL // tells one pass through the proxy from another
	first     time.Time
	tried     []string // what was dialed: a dynamic upstream is another object each time
	again     bool     // another try has been granted
	last      error    // how it ended

	probe  *target // the upstream that the policy took a permit for
	permit breaker.Permit

	body    []byte // to be sent again
	release func() // gives the place in the budget back
}

// runOf finds what an earlier try of the same request left.
func (t *Transport) runOf(ex *gate.Exchange, r *http.Request) *run {
	if run, ok := ex.Tries.(*run); ok && run.transport == t && run.url == r.URL {
		return run
	}
	return nil
}

// met reports whether the request has been sent to an upstream before.
func (r *run) met(u *reverseproxy.Upstream) bool { return slices.Contains(r.tried, dialOf(u)) }

func dialOf(u *reverseproxy.Upstream) string {
	if u == nil {
		return ""
	}
	return u.Dial
}

// resume takes up a try that was granted. One that was not is what Caddy does
// by itself after a failure to connect: it gets the same answer again.
func (t *Transport) resume(ex *gate.Exchange, r *http.Request) (*run, error) {
	run := t.runOf(ex, r)
	if run == nil || len(run.tried) == 0 { // a probe, in its first try
		return run, nil
	}
	if !run.again {
		return nil, run.last
	}
	run.again = false
	return run, nil
}

// prepare makes the request what it was in the first try. It waits a moment
// before it asks the same upstream again.
func (y *try) prepare() error {
	run := y.run
	if len(run.tried) == 0 {
		run.first = y.began
		return nil
	}
	if run.body != nil {
		y.r.Body = io.NopCloser(bytes.NewReader(run.body))
	}
	if !run.met(y.upstream) {
		return nil
	}
	const base = 25 * time.Millisecond
	pause := time.NewTimer(rand.N(base << min(len(run.tried), 5))) //nolint:gosec // jitter, not a secret
	defer pause.Stop()
	select {
	case <-pause.C:
		y.began = gate.Now()
		return nil
	case <-y.r.Context().Done():
		run.release()
		return context.Cause(y.r.Context())
	}
}

// repeatable reports whether a request may be sent a second time although the
// first may have had its effect.
func repeatable(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true // RFC 9110, section 9.2.2
	}
	return len(r.Header["Idempotency-Key"]) > 0
}

// again grants another try, if Caddy will make one and all else allows it.
func (y *try) again(sent bool) bool {
	lb := y.t.proxy.LoadBalancing
	made := 1
	if y.run != nil {
		made += len(y.run.tried)
	}
	if lb == nil || lb.Retries == 0 && lb.TryDuration == 0 {
		return false
	}
	run, outcome := y.leave(), "granted"
	body, whole := y.whole()
	switch {
	case lb.Retries > 0 && made > lb.Retries, gate.Since(y.first) >= time.Duration(y.t.Timeout):
		outcome = "exhausted"
	case sent && (!whole || !repeatable(y.r)):
		outcome = "not_repeatable"
	case !y.reserve():
		outcome = "no_budget"
	default:
		run.tried = append(run.tried, dialOf(y.upstream))
		run.body, run.again = body, true
	}
	retries.WithLabelValues(outcome).Inc()
	return run.again
}

// reserve takes a retry's place in the budget until the retry, or else the
// request, is over.
func (y *try) reserve() bool {
	b, r := &y.t.budget, &y.t.Retry
	if !b.take(r.Budget, r.AtLeast) {
		return false
	}
	var done atomic.Bool
	release := func() {
		if !done.Swap(true) {
			b.retrying.Add(-1)
		}
	}
	stop := context.AfterFunc(y.r.Context(), release) // Caddy may not try after all
	y.run.release = func() { stop(); release() }
	return true
}

// leave is the run of this request, for the tries to come.
func (y *try) leave() *run {
	if y.run == nil {
		y.run = &run{transport: y.t, url: y.r.URL, first: y.first}
		y.ex.Tries = y.run
	}
	y.run.release = func() {}
	return y.run
}

// end makes an error the answer to whatever Caddy tries by itself.
func (y *try) end(err error) error {
	run := y.leave()
	run.last, run.again = err, false
	run.tried = append(run.tried, dialOf(y.upstream))
	return err
}

// whole returns the body as it was sent, if it is still known.
func (y *try) whole() ([]byte, bool) {
	if y.run.body != nil {
		return y.run.body, true
	}
	return y.ex.Hold(y.r, 0) // what a stage, or send, has read
}

// hold keeps a small body of a request that may be sent again.
func (y *try) hold() {
	if lb := y.t.proxy.LoadBalancing; lb != nil && (lb.Retries > 0 || lb.TryDuration > 0) && repeatable(y.r) {
		y.ex.Hold(y.r, y.t.Retry.Body)
	}
}

// prompt reports whether the client is not waited for any more. One that sends
// its body a byte at a time would keep all others from an upstream that waits
// for what its probe finds out.
func (t *Transport) prompt(ex *gate.Exchange, r *http.Request) bool {
	if ex == nil {
		return r.Body == nil || r.Body == http.NoBody
	}
	_, whole := ex.Hold(r, t.Retry.Body)
	return whole
}
