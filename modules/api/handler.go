package api

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// ServeHTTP runs the API's chain and answers whatever it left unanswered. It
// never calls next: an api is where a request ends.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	opaque := r.URL.Opaque != ""
	ex := gate.Of(r)
	ex.API, ex.ProblemType = h.Name, h.ProblemType
	ex.Modes = h.modes.Load()[h.Name]
	for _, o := range h.owners {
		ex.Own = ex.Own || o.Own(r)
	}
	h.spotProxy(r)
	ids := []string{ex.ID}
	r.Header[gate.RequestIDHeader] = ids
	rw := &response{ResponseWriter: w, r: r, ex: ex, drain: h.drain, ids: ids, mask: h.UpstreamErrors == "mask"}

	abort, err := false, target(r, opaque)
	if err == nil {
		abort, err = h.run(rw, r)
	}
	rw.dropTrailers()
	switch {
	case abort && rw.held != 0:
		abort = false // what broke off is not what the client gets
	case err == nil && !abort && !rw.wrote && rw.held == 0 && r.Context().Err() == nil:
		err = gate.Deny(&gate.Denial{Reason: gate.APIUpstreamFailed, Err: errUnanswered})
	}

	status, denial := h.conclude(ex, rw, err)
	if !rw.wrote {
		h.drain.ask(r, w.Header())
	}
	switch {
	case abort:
	case denial == nil:
		err = nil
	case rw.wrote:
		abort = true // too late for an answer; a cut one must not look whole
	case h.Errors == "site":
		ex.Publish(r, denial)
		rw.setHeaders(denial)
		err = caddyhttp.HandlerError{StatusCode: status, Err: denial}
	default:
		rw.render(status, denial)
		err = nil
	}
	if rw.status != 0 && denial == nil {
		status = rw.status
	}
	h.report(r, ex, status, denial)
	if abort {
		panic(http.ErrAbortHandler)
	}
	return err
}

// target refuses what every stage would read in another way than the upstream:
// a target that is no path, and a tunnel, which Caddy's proxy turns into a GET
// behind all stages. An empty path is a slash (RFC 9112, section 3.2.2).
func target(r *http.Request, opaque bool) error {
	switch {
	case r.Method == http.MethodConnect:
		return gate.Deny(&gate.Denial{Reason: gate.GuardPath, Detail: "There is no tunnel here."})
	case opaque:
		return gate.Deny(&gate.Denial{Reason: gate.GuardPath, Detail: "The request's target has no path."})
	case r.URL.Path == "":
		r.URL.Path = "/"
	}
	return nil
}

// run calls the chain and turns a panic into an error. Aborting is no failure
// of ours: Caddy's proxy panics so when a response breaks off.
func (h *Handler) run(w http.ResponseWriter, r *http.Request) (abort bool, err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			abort = true
		default:
			h.logger.Error("panic in a handler", zap.String("api", h.Name), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
			err = gate.Deny(&gate.Denial{Reason: gate.APIPanic, Err: fmt.Errorf("panic: %v", p)})
		}
	}()
	return false, h.chain.ServeHTTP(w, r)
}

// conclude finds out how the Exchange ended and records it for the api itself,
// unless a stage has already said why. It returns the status of a refusal.
func (h *Handler) conclude(ex *gate.Exchange, rw *response, err error) (int, *gate.Denial) {
	var denial *gate.Denial
	status := 0
	switch {
	case err != nil:
		status, denial = denialOf(err)
	case rw.held != 0:
		status, denial = rw.held, &gate.Denial{Reason: upstreamReason(rw.held), Err: rw.why}
	}
	// A stage may also refuse late, in a body that the proxy reads; nothing is
	// recorded of that yet.
	if denial == nil || denial.Reason.Stage() == gate.API.String() || !ex.Refused() {
		ex.Close(denial)
	}
	return status, denial
}

// denialOf reads an error as a denial. Errors of handlers that are not ours
// keep their status and get the reason that comes nearest.
func denialOf(err error) (int, *gate.Denial) {
	var denial *gate.Denial
	if errors.As(err, &denial) {
		return denial.Reason.Status(), denial
	}
	status := http.StatusInternalServerError
	var he caddyhttp.HandlerError
	if errors.As(err, &he) && he.StatusCode >= 400 {
		status = he.StatusCode
	}
	denial = &gate.Denial{Err: err}
	switch {
	case status < 500:
		denial.Reason = gate.APIRejected
		denial.Detail = http.StatusText(status) + "."
	case status == http.StatusInternalServerError:
		denial.Reason = gate.APIFailed
	default:
		denial.Reason = upstreamReason(status)
	}
	return status, denial
}

func upstreamReason(status int) gate.Reason {
	switch status {
	case http.StatusServiceUnavailable:
		return gate.APIUpstreamUnavailable
	case http.StatusGatewayTimeout:
		return gate.APIUpstreamTimeout
	}
	return gate.APIUpstreamFailed
}

// report tells everybody who wants to know how the Exchange ended: the trace,
// those who look at the last Exchanges, and the log.
func (h *Handler) report(r *http.Request, ex *gate.Exchange, status int, denial *gate.Denial) {
	if span := trace.SpanFromContext(r.Context()); span.IsRecording() {
		annotate(span, ex, status, denial)
	}
	level := zap.InfoLevel
	if denial != nil && status >= 500 {
		level = zap.ErrorLevel
	}
	logged := h.Log == "all" || h.Log == "denied" && (denial != nil || wouldDeny(ex))
	logged = logged && h.decisions.Core().Enabled(level)
	remembered := gate.RecentKept() > 0
	if !logged && !remembered {
		return
	}
	rec := ex.Record(r, status, denial)
	if remembered {
		gate.Remember(rec)
	}
	if logged {
		log(line{h.decisions, level, rec})
	}
}

func wouldDeny(ex *gate.Exchange) bool {
	for _, d := range ex.Decisions() {
		if d.Verdict == gate.WouldDeny || d.Verdict == gate.Undecided {
			return true
		}
	}
	return false
}
