package transcode

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/transcode/internal/descset"
)

// call is one request on its way through the library, which calls it back as
// the handler of the service.
//
// The library's two directions share state without a lock, and the proxy's
// transport reads the request in a goroutine of its own. So whoever is inside
// the library holds mu, and lets go of it while waiting for the client.
type call struct {
	h        *Handler
	w        http.ResponseWriter
	r        *http.Request
	next     caddyhttp.Handler
	ex       *gate.Exchange
	began    time.Time
	due      time.Time // the deadline, if there is one
	protocol gate.Protocol
	text     bool // gRPC-Web in base64
	source   *source

	mu       sync.Mutex
	asking   bool // what the library writes now is about the request
	closed   bool // what it writes now is for nobody
	said     said // what it wrote about the request, or against the answer
	method   *descset.Method
	unknown  bool         // no method answers
	refusal  *gate.Denial // the request is not passed on, or no further
	err      error        // what next returned
	answered bool         // the service has begun to answer
	outcome  *outcome     // how it says that the call ended
	over     bool         // the library gave up on the answer, and said so
	held     int          // the status of an answer that we write instead
	wrote    bool         // the answer is on its way to the client
	lost     error        // the client is gone
}

// refuse notes why the request goes no further; the first reason counts.
func (c *call) refuse(d *gate.Denial) {
	if c.refusal == nil {
		c.refusal = d
	}
}

// run calls the library, and takes up a panic that only means that the proxy
// cannot go on with an answer.
func (c *call) run(rq *http.Request) {
	c.mu.Lock()
	c.asking = true
	defer func() {
		c.closed = true
		c.mu.Unlock()
		broken := !c.wrote && c.answered && c.r.Context().Err() == nil
		if !c.over && !broken {
			return // and let the panic pass, if there is one
		}
		switch p := recover(); {
		case p == nil, c.over: // all is said, and the library must not be used any more, as it is by its own
		case p != http.ErrAbortHandler: //nolint:errorlint // a value, not a chain
			panic(p)
		default:
			c.refuse(&gate.Denial{Reason: gate.TranscodeAnswer, Detail: "The answer of the service broke off.", Err: errBroken})
		}
	}()
	c.h.transcoder.ServeHTTP(client{c}, rq)
}

var errBroken = errors.New("the answer broke off")

// end is what ServeHTTP returns, once the library is done.
func (c *call) end() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refusal == nil && c.method == nil && !c.unknown {
		c.refuse(c.said.denial(c.r))
	}
	if c.refusal == nil && c.err == nil && c.answered && c.fault() {
		d := &gate.Denial{Reason: gate.TranscodeAnswer, Err: fmt.Errorf("translating the answer: %s", c.said.text())}
		if c.wrote { // the library has told the client
			_ = c.ex.Decide(gate.Transcode, gate.Enforce, c.rule(), d, c.began)
			return nil
		}
		c.refuse(d)
	}
	switch {
	case c.refusal != nil:
		err := c.ex.Conclude(c.w, c.r, gate.Transcode, gate.Enforce, c.rule(), c.refusal, c.began)
		if c.wrote { // an answer that is cut must not look whole
			panic(http.ErrAbortHandler)
		}
		return err
	case c.unknown:
		return c.h.unmatched(c.ex, c.w, c.r, c.next)
	case c.err != nil:
		return c.err
	case c.held != 0:
		c.outcome.problem(c)
	}
	if c.outcome != nil {
		calls.WithLabelValues(c.protocol.String(), c.outcome.code.String()).Inc()
	}
	return nil
}

// fault reports whether it is the library that says that the call failed, not
// the service.
func (c *call) fault() bool {
	return c.outcome == nil || c.outcome.code == 0 && (c.over || c.held != 0)
}

func (c *call) rule() string {
	if c.method == nil {
		return ""
	}
	return string(c.method.FullName())
}

// unknown is the library's handler for what no method answers.
func unknown(_ http.ResponseWriter, r *http.Request) {
	r.Context().Value(callKey{}).(*call).unknown = true
}

// backend is the library's handler of every service.
func backend(rw http.ResponseWriter, q *http.Request) {
	q.Context().Value(callKey{}).(*call).forward(rw, q)
}

// forward sends the call on. It takes the place of the request while it is on
// its way: placeholders, matchers and the proxy must all see the same. Problems,
// logs and error routes are about what the client asked.
func (c *call) forward(rw http.ResponseWriter, q *http.Request) {
	c.method = c.h.set.Methods[q.URL.Path]
	denial := astray(c.ex, c.r, c.method)
	if denial == nil {
		denial = c.request(q)
	}
	if denial != nil {
		c.refuse(denial)
		c.closed = true
		return
	}
	c.asking = false
	if c.ex.Operation == nil {
		c.ex.Operation = c.h.operations[q.URL.Path]
	}
	_ = c.ex.Conclude(c.w, c.r, gate.Transcode, gate.Enforce, c.rule(), nil, c.began) // allowed

	ctx, cancel := c.deadline(q)
	defer cancel()
	r, asked := c.r, *c.r
	r.Method, r.URL, r.RequestURI, r.Header = q.Method, q.URL, q.URL.Path, q.Header
	r.Body, r.ContentLength, r.TransferEncoding = q.Body, q.ContentLength, nil
	d := &down{call: c, rw: rw}
	done := false
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		*r = asked
		c.closed = c.closed || !done
	}()
	// The proxy's transport may look at what it got after it has returned.
	if c.err = c.next.ServeHTTP(d, r.WithContext(ctx)); c.err == nil { //nolint:contextcheck // it comes from r's
		done = true
		d.finish()
	} else if c.late() {
		c.refuse(&gate.Denial{Reason: gate.TranscodeTimeout, Err: c.err})
	}
}

// deadline ends a call with one message each way that takes longer than it may,
// and any call at the deadline that its client set.
//
// The service is told a little later a time, or it would hang up first, which
// looks like a failure. A client's own deadline cancels the call and counts
// against nobody: impatient clients must not be able to open a breaker.
func (c *call) deadline(q *http.Request) (context.Context, context.CancelFunc) {
	const later = 100 * time.Millisecond
	limit, own := grpcTimeout(q.Header.Get("Grpc-Timeout"))
	if streams := c.method.IsStreamingClient() || c.method.IsStreamingServer(); streams && !own {
		return q.Context(), func() {}
	} else if usual := time.Duration(c.h.Timeout); !streams && (!own || limit > usual) {
		limit, own = usual, false
	}
	q.Header["Grpc-Timeout"] = []string{writeTimeout(limit + later)}
	c.due = time.Now().Add(limit)
	if !own {
		return context.WithDeadline(q.Context(), c.due)
	}
	ctx, cancel := context.WithCancel(q.Context())
	timer := time.AfterFunc(limit, cancel)
	return ctx, func() { timer.Stop(); cancel() }
}

// late reports whether the deadline is over.
func (c *call) late() bool { return !c.due.IsZero() && !time.Now().Before(c.due) }

// writeTimeout writes a timeout in at most the eight digits that gRPC has for it.
func writeTimeout(d time.Duration) string {
	if ms := d.Milliseconds(); ms < 1e8 {
		return strconv.FormatInt(max(ms, 1), 10) + "m"
	}
	return strconv.FormatInt(min(int64(d/time.Second), 1e8-1), 10) + "S"
}

// grpcTimeout reads a timeout as gRPC writes it: digits and a unit.
func grpcTimeout(s string) (time.Duration, bool) {
	if s == "" {
		return 0, false
	}
	units := map[byte]time.Duration{'n': time.Nanosecond, 'u': time.Microsecond, 'm': time.Millisecond, 'S': time.Second, 'M': time.Minute, 'H': time.Hour}
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 31)
	unit := units[s[len(s)-1]]
	if err != nil || unit == 0 || time.Duration(n) > time.Duration(1<<62)/unit {
		return 0, false
	}
	return time.Duration(n) * unit, true
}
