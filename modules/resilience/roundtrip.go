package resilience

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"golang.org/x/net/http/httpguts"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/resilience/internal/breaker"
)

// RoundTrip sends the request to the upstream that was chosen for it. An error
// that looks like a failure to connect makes Caddy choose again; any other
// one ends the matter.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Context().Value(caddyhttp.VarsCtxKey) == nil {
		return t.HTTPTransport.RoundTrip(r) // a health check, not a request
	}
	ex, mode := gate.Enter(r, gate.Resilience, t.Mode)
	if mode == gate.Off {
		return t.HTTPTransport.RoundTrip(r)
	}
	run, err := t.resume(ex, r)
	if err != nil {
		return nil, err
	}
	now := gate.Now()
	try := try{t: t, r: r, ex: ex, mode: mode, run: run, first: now, began: now}
	if di, ok := reverseproxy.GetDialInfo(r.Context()); ok {
		try.target, try.upstream = t.targets.of(di), di.Upstream
	}
	if run != nil {
		if err := try.prepare(); err != nil {
			return nil, err
		}
		try.first = run.first
		defer run.release()
	}
	t.budget.active.Add(1)
	defer t.budget.active.Add(-1)

	permit, ok := try.enter()
	if !ok {
		var denial *gate.Denial
		if permit, denial = try.refuse(); denial != nil {
			return nil, try.fail(denial)
		}
	}
	res, err := try.send()
	outcome, denial := try.judge(res, err)
	if try.target != nil {
		if outcome != breaker.Fine && outcome != breaker.Unknown {
			try.target.remember(res, err)
		}
		t.note(try.target, permit, try.result(outcome))
	}
	switch {
	case denial != nil:
		return nil, try.fail(denial)
	case err != nil:
		return nil, try.end(err) // the client's doing
	case matches(res.StatusCode, t.Retry.Statuses) && try.again(true):
		_ = res.Body.Close()
		return nil, reverseproxy.NewDialError(fmt.Errorf("the upstream answered %d", res.StatusCode))
	}
	_ = ex.Decide(gate.Resilience, mode, try.rule(), try.late(), try.first) // refuses nothing: an answer is here
	t.hush(r, res)
	return res, nil
}

// hush leaves little of the request that Caddy goes on with. Its proxy encodes
// it for a log entry at once, whether or not there will be one; that costs as
// much as all our stages together, and the entry would show API keys, tokens in
// the query, and what identity told the upstream. What was sent is a copy
// (send). What Caddy itself looks at later stays: everything after an upgrade,
// and what a stream of HTTP/2 may be encoded as.
func (t *Transport) hush(r *http.Request, res *http.Response) {
	if t.verbose || res.StatusCode == http.StatusSwitchingProtocols {
		return
	}
	rest := http.Header{gate.RequestIDHeader: r.Header[gate.RequestIDHeader]}
	if r.ProtoMajor == 2 {
		rest["Accept-Encoding"] = r.Header["Accept-Encoding"]
	}
	r.Header, r.RequestURI, r.TLS = rest, r.URL.Path, nil
}

// try is one request on its way to one upstream.
type try struct {
	t        *Transport
	r        *http.Request
	ex       *gate.Exchange
	mode     gate.Mode
	run      *run    // nil in the first try
	target   *target // nil without a breaker
	upstream *reverseproxy.Upstream
	first    time.Time // when the first try began
	began    time.Time // when this one did
}

// enter asks the upstream's breaker.
func (y *try) enter() (breaker.Permit, bool) {
	switch {
	case y.target == nil:
		return breaker.Permit{}, true
	case y.run != nil && y.run.probe == y.target:
		y.run.probe = nil
		return y.run.permit, true
	case y.target.State() != breaker.Closed && y.target.Look(y.t.prompt(y.ex, y.r), y.began) > breaker.Due:
		return breaker.Permit{}, false
	}
	return y.target.Enter(y.began)
}

// refuse says why the request may not go to an upstream whose breaker is open,
// unless it may.
func (y *try) refuse() (breaker.Permit, *gate.Denial) {
	if y.t.Breaker.AllOpen == "pass" && !y.t.better(y.target, y.began) {
		if permit, ok := y.target.Pass(callerOf(y.ex)); ok {
			return permit, nil
		}
	}
	wait := int64((y.target.Wait(y.began) + time.Second - 1) / time.Second)
	denial := &gate.Denial{
		Reason: gate.ResilienceBreakerOpen,
		Err:    fmt.Errorf("%s is left alone for %ds more; its last failure: %s", y.target.dial, wait, y.target.failure()),
		Header: http.Header{"Retry-After": {strconv.FormatInt(max(wait, 1), 10)}},
	}
	if y.mode == gate.Shadow {
		_ = y.ex.Decide(gate.Resilience, y.mode, y.rule(), denial, y.first) // shadow refuses nothing
		return breaker.Permit{}, nil
	}
	return breaker.Permit{}, denial
}

// better reports whether there is an upstream that would do better.
func (t *Transport) better(than *target, now time.Time) bool {
	for _, u := range t.proxy.Upstreams {
		if other := t.targets.look(u); other != nil && other != than && u.Available() && other.Look(true, now) <= breaker.Due {
			return true
		}
	}
	return false
}

// judge reads what became of the request: whose failure it is, and which.
func (y *try) judge(res *http.Response, err error) (breaker.Outcome, *gate.Denial) {
	if err == nil {
		if failed(res, y.t.Breaker.Statuses) {
			return breaker.Bad, nil
		}
		return breaker.Fine, nil
	}
	var denial *gate.Denial
	var late net.Error
	gone := y.r.Context().Err() != nil
	switch {
	case errors.Is(err, errTimeout), errors.Is(err, context.DeadlineExceeded) && gone:
		return breaker.Unanswered, &gate.Denial{Reason: gate.ResilienceTimeout, Err: err}
	case gone, errors.Is(err, errUpload), errors.As(err, &denial), y.overdue(), y.impossible():
		return breaker.Unknown, nil //nolint:nilerr // a failure, but nobody's here
	}
	outcome := breaker.Broken
	switch {
	case unreached(err):
		outcome = breaker.Unreached
	case errors.As(err, &late) && late.Timeout(): // one of Caddy's own options
		outcome = breaker.Unanswered
	}
	return outcome, &gate.Denial{Reason: gate.ResilienceUnreachable, Err: err}
}

// unreached reports whether there was no connection, which no request can be
// the cause of: it failed to come about, or they could not agree on TLS. One
// that breaks off later may be the doing of whoever sent the request.
func unreached(err error) bool {
	var dial reverseproxy.DialError
	var op *net.OpError
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	return errors.As(err, &dial) || errors.As(err, &certificate) || errors.As(err, &record) ||
		errors.As(err, &op) && (op.Op == "dial" || op.Op == "remote error") // the latter is an alert of TLS
}

// result is what the breaker is told.
func (y *try) result(o breaker.Outcome) breaker.Result {
	return breaker.Result{Outcome: o, Caller: callerOf(y.ex), Began: y.began, Again: y.run != nil && y.run.met(y.upstream)}
}

// impossible reports whether the request could be sent to nobody, and no
// upstream has seen it: a header_up may put into a field what a client says.
func (y *try) impossible() bool {
	for _, header := range []http.Header{y.r.Header, y.r.Trailer} {
		for name, values := range header {
			if !httpguts.ValidHeaderFieldName(name) || !all(values, httpguts.ValidHeaderFieldValue) {
				return true
			}
		}
	}
	control := func(r rune) bool { return r < ' ' || r == 0x7f }
	return !httpguts.ValidHostHeader(y.r.Host) || strings.ContainsFunc(y.r.URL.RequestURI(), control)
}

func all(texts []string, ok func(string) bool) bool {
	return !slices.ContainsFunc(texts, func(s string) bool { return !ok(s) })
}

// failed also knows a gRPC call that failed before it began, whose status of
// HTTP is 200.
func failed(res *http.Response, statuses []int) bool {
	if matches(res.StatusCode, statuses) {
		return true
	}
	const unavailable = "14"
	s := res.Header["Grpc-Status"]
	return len(s) == 1 && s[0] == unavailable && matches(http.StatusServiceUnavailable, statuses)
}

// fail ends a try. Either the request goes on to another upstream, or this was
// the last word.
func (y *try) fail(denial *gate.Denial) error {
	cause := denial.Err
	if cause == nil {
		cause = denial
	}
	dial, refused := reverseproxy.DialError{}, denial.Reason == gate.ResilienceBreakerOpen
	if (!refused || y.t.better(y.target, y.began)) && y.again(!refused && !errors.As(cause, &dial)) {
		return reverseproxy.NewDialError(cause)
	}
	err := y.ex.Decide(gate.Resilience, y.mode, y.rule(), denial, y.first)
	if err == nil { // in shadow mode it is the upstream's failure as it is
		return y.end(cause)
	}
	if y.ex.API == "" {
		y.ex.Publish(y.r, denial)
	}
	return y.end(err)
}

// late is the denial that shadow mode does not enforce on an answer that took
// too long.
func (y *try) late() *gate.Denial {
	if y.mode == gate.Shadow && y.bounded() && gate.Since(y.began) > y.limit() {
		return &gate.Denial{Reason: gate.ResilienceTimeout}
	}
	return nil
}

// rule names the upstream, for the log.
func (y *try) rule() string {
	name := dialOf(y.upstream)
	if y.target != nil {
		name = y.target.dial
	}
	if y.run != nil && len(y.run.tried) > 0 {
		return fmt.Sprintf("%s, try %d", name, len(y.run.tried)+1)
	}
	return name
}

// Describe tells that upstreams may be left alone, and nothing of them.
func (t *Transport) Describe(d *gate.Description) { d.MayRefuse(t.Mode, gate.Resilience) }
