package canary

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-caddy/gatehouse/modules/canary/internal/release"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// answer watches a response on its way to the client. A result is known, and
// counts, with the header: streams and upgrades may last for hours, and a
// release whose failures came in first would look bad. What goes wrong behind
// the header makes a failure of it later.
type answer struct {
	caddyhttp.ResponseWriterWrapper
	r      *http.Request
	ex     *gate.Exchange
	caller release.Point
	began  time.Time
	by     []watcher // what the result counts for
	room   [2]watcher

	upload  upload
	known   bool // outcome is
	outcome release.Outcome
	grpc    bool
	deaf    bool // the client takes nothing more
	over    bool
}

// watcher is a canary that a result counts for, and on which side.
type watcher struct {
	h      *Handler
	side   release.Side
	ticket release.Ticket
}

// answerOf begins to watch, or goes on with what an earlier canary began.
func answerOf(w http.ResponseWriter, r *http.Request, ex *gate.Exchange, caller release.Point, began time.Time) *answer {
	if a, ok := w.(*answer); ok {
		return a
	}
	a := &answer{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, r: r, ex: ex, caller: caller, began: began}
	a.by = a.room[:0]
	if _, whole := ex.Hold(r, 0); !whole {
		a.upload.ReadCloser, a.upload.began = r.Body, began
		r.Body = &a.upload
	}
	return a
}

// run lets a handler answer and sees to it that the result is known, also when
// it panics. It is counted if it was the named release that answered.
func (a *answer) run(to caddyhttp.Handler, r *http.Request, name string, count *[3]prometheus.Counter) (err error) {
	whole := false
	defer func() {
		if a.end(err, !whole); count != nil && a.ex.Release.Name == name {
			count[a.outcome].Inc()
		}
	}()
	err = to.ServeHTTP(a, r)
	whole = true
	return err
}

// WriteHeader learns the result.
func (a *answer) WriteHeader(status int) {
	if !a.known && (status >= 200 || status == http.StatusSwitchingProtocols) {
		a.header(status)
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	if !a.known {
		a.header(http.StatusOK)
	}
	n, err := a.ResponseWriter.Write(b)
	a.deaf = a.deaf || err != nil
	return n, err
}

// ReadFrom keeps the server's fast path for files.
func (a *answer) ReadFrom(src io.Reader) (int64, error) {
	if !a.known {
		a.header(http.StatusOK)
	}
	n, err := a.ResponseWriterWrapper.ReadFrom(src)
	a.deaf = a.deaf || err != nil
	return n, err
}

// FlushError is what http.ResponseController looks for.
func (a *answer) FlushError() error {
	if !a.known {
		a.header(http.StatusOK)
	}
	return http.NewResponseController(a.ResponseWriter).Flush()
}

// Hijack is an answer too, of a handler that writes none.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err == nil && !a.known {
		a.header(http.StatusSwitchingProtocols)
	}
	return conn, rw, err
}

// header settles what a response header says.
func (a *answer) header(status int) {
	ct := a.Header()["Content-Type"]
	a.grpc = len(ct) > 0 && strings.HasPrefix(ct[0], "application/grpc")
	switch {
	case a.r.Context().Err() != nil, a.upload.broken.Load():
		a.settle(release.Left)
	case status >= 500 || a.grpc && grpcFailed(a.Header()):
		a.settle(release.Failed)
	default:
		a.settle(release.Fine)
	}
}

// settle counts the result for all whom it concerns. The time in which the
// client was waited for is not the release's.
func (a *answer) settle(o release.Outcome) {
	a.known, a.outcome = true, o
	if len(a.by) == 0 {
		return
	}
	took := gate.Since(a.began)
	now := a.began.Add(took)
	took -= a.upload.waited(now)
	for i := range a.by {
		if w := &a.by[i]; w.concerned(a.ex) {
			w.ticket = w.h.watch.Add(w.side, a.caller, o, took, now)
			w.judge(a.ex, now)
		}
	}
}

// end settles what no header did, and what has gone wrong behind one.
func (a *answer) end(err error, panicked bool) {
	if a.over {
		return
	}
	a.over = true
	left := a.deaf || a.r.Context().Err() != nil || a.upload.broken.Load()
	failed := panicked || err != nil && statusOf(err) >= 500
	switch {
	case a.known && a.outcome == release.Fine && (failed && !left || a.grpc && grpcFailed(a.Header())):
		a.outcome = release.Failed
		now := gate.Now()
		for i := range a.by {
			if w := &a.by[i]; w.concerned(a.ex) {
				w.h.watch.Spoil(w.side, w.ticket, now)
				w.judge(a.ex, now)
			}
		}
	case a.known:
	case left:
		a.settle(release.Left)
	case failed:
		a.settle(release.Failed)
	default:
		a.settle(release.Fine)
	}
}

// concerned reports whether the result is of the side it is counted for: what
// one canary passed may have been taken by the next.
func (w *watcher) concerned(ex *gate.Exchange) bool {
	return w.side == release.Canary || ex.Release.Name == stableName
}

func (w *watcher) judge(ex *gate.Exchange, now time.Time) {
	if w.side == release.Canary {
		w.h.judge(ex, now)
	}
}

// statusOf is the status that an error will be answered with.
func statusOf(err error) int {
	if denial, ok := errors.AsType[*gate.Denial](err); ok {
		return denial.Reason.Status()
	}
	if he, ok := errors.AsType[caddyhttp.HandlerError](err); ok && he.StatusCode >= 400 {
		return he.StatusCode
	}
	return http.StatusInternalServerError
}

// grpcFailed reads the status of a call, which is in the header or, behind a
// body, among the trailers. Some codes are the server's fault, as 5xx is.
func grpcFailed(h http.Header) bool {
	code := h.Get("Grpc-Status")
	if code == "" {
		code = h.Get(http.TrailerPrefix + "Grpc-Status")
	}
	switch code {
	case "2", "4", "12", "13", "14", "15": // unknown, deadline exceeded, unimplemented, internal, unavailable, data loss
		return true
	}
	return false
}

// upload measures how long the client was waited for, and sees when it breaks
// off what it sends.
type upload struct {
	io.ReadCloser
	began  time.Time
	since  atomic.Int64 // when the read that goes on began, after began, or 0
	total  atomic.Int64
	broken atomic.Bool
}

func (u *upload) Read(p []byte) (int, error) {
	since := gate.Since(u.began)
	u.since.Store(int64(since))
	n, err := u.ReadCloser.Read(p)
	u.since.Store(0)
	if err != nil && !errors.Is(err, io.EOF) {
		u.broken.Store(true)
	}
	u.total.Add(int64(gate.Since(u.began) - since))
	return n, err
}

func (u *upload) waited(now time.Time) time.Duration {
	waited := time.Duration(u.total.Load())
	if since := u.since.Load(); since > 0 {
		waited += now.Sub(u.began) - time.Duration(since)
	}
	return waited
}

// Interface guards
var (
	_ http.ResponseWriter = (*answer)(nil)
	_ io.ReaderFrom       = (*answer)(nil)
	_ http.Hijacker       = (*answer)(nil)
)
