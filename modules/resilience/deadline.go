package resilience

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

var (
	errTimeout = errors.New("no answer in time")
	errUpload  = errors.New("reading the request body from the client")
)

// send makes one round trip, which must lead to a response header in time.
func (y *try) send() (*http.Response, error) {
	r := y.r
	if r.Body != nil && r.Body != http.NoBody && y.run == nil {
		y.hold()
	}
	w := new(watch)
	ctx := r.Context()
	if y.bounded() && y.mode == gate.Enforce {
		// Nobody cancels the context after an answer, which may be a stream; the
		// end of the client's request does.
		w.limit = y.limit()
		ctx, w.cancel = context.WithCancelCause(ctx)
	}
	r = r.WithContext(ctx) // a copy: see hush
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &upload{ReadCloser: r.Body, watch: w}
	}
	if w.cancel != nil {
		w.timer = time.AfterFunc(w.limit, w.expire)
	}

	res, err := y.t.HTTPTransport.RoundTrip(r)
	if !w.settle() {
		if err == nil {
			_ = res.Body.Close()
		}
		return nil, fmt.Errorf("%w: %s", errTimeout, y.deadline(w.limit))
	}
	if cause := w.broken.Load(); err != nil && cause != nil {
		err = fmt.Errorf("%w: %w", errUpload, *cause)
	}
	if err == nil && w.cancel != nil && failed(res, y.t.Breaker.Statuses) {
		// It is no stream, and may be read to its end before the client gets
		// anything: a failure that stalls has as long again.
		res.Body = &ending{res.Body, time.AfterFunc(w.limit, func() { w.cancel(errTimeout) })}
	}
	return res, err
}

// ending is a body that has to end in time.
type ending struct {
	io.ReadCloser
	timer *time.Timer
}

// Close stops the time.
func (e *ending) Close() error {
	e.timer.Stop()
	return e.ReadCloser.Close()
}

// bounded reports whether the deadlines are for this request. A call of gRPC
// brings its own, and may be a stream that says nothing for long.
func (y *try) bounded() bool {
	ct := y.r.Header["Content-Type"]
	return len(ct) == 0 || !strings.HasPrefix(ct[0], "application/grpc")
}

// overdue reports whether the deadline that a gRPC call brought is over. The
// upstream gives up then, as it was asked to: clients in a hurry must not be
// able to open its breaker.
func (y *try) overdue() bool {
	v := y.r.Header["Grpc-Timeout"]
	if len(v) != 1 || len(v[0]) < 2 {
		return false
	}
	last := len(v[0]) - 1
	n, err := strconv.ParseUint(v[0][:last], 10, 32) // at most eight digits
	if err != nil {
		return false
	}
	units := map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': 1}
	unit, ok := units[v[0][last]]
	return ok && gate.Since(y.began) >= time.Duration(n)*unit
}

// limit is the time this try has, of its own and of all tries together.
func (y *try) limit() time.Duration {
	left := time.Duration(y.t.Timeout) - y.began.Sub(y.first)
	return max(min(time.Duration(y.t.TryTimeout), left), time.Millisecond)
}

// deadline says which of the two has ended a try.
func (y *try) deadline(limit time.Duration) string {
	if limit < time.Duration(y.t.TryTimeout) {
		return fmt.Sprintf("this try had %v, which were left of timeout %v", limit.Round(time.Millisecond), time.Duration(y.t.Timeout))
	}
	return fmt.Sprintf("try_timeout %v", limit)
}

// watch cancels a round trip that takes too long, if there is a limit, and
// keeps in mind whether the client broke off what it sends.
type watch struct {
	limit   time.Duration
	timer   *time.Timer // nil without a limit
	cancel  context.CancelCauseFunc
	settled atomic.Uint32         // 0 while the time runs
	broken  atomic.Pointer[error] // why the client's body ended early
}

const (
	answered = 1
	expired  = 2
)

func (w *watch) expire() {
	if w.settled.CompareAndSwap(0, expired) {
		w.cancel(errTimeout)
	}
}

// settle stops the time and reports whether there was enough of it.
func (w *watch) settle() bool {
	if w.timer != nil {
		w.timer.Stop()
	}
	return w.settled.CompareAndSwap(0, answered)
}

// upload stops the time while the client is waited for, and begins anew when
// it has sent something.
type upload struct {
	io.ReadCloser
	watch *watch
}

func (u *upload) Read(p []byte) (int, error) {
	if u.watch.timer != nil {
		u.watch.timer.Stop()
	}
	n, err := u.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		u.watch.broken.CompareAndSwap(nil, &err)
	}
	if u.watch.timer != nil && u.watch.settled.Load() == 0 {
		u.watch.timer.Reset(u.watch.limit) // if it was settled meanwhile, expire does nothing
	}
	return n, err
}
