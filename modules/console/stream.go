package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// A stream reads what is remembered at its own pace. Requests know nothing of
// it, and what it is too slow for it is told the number of.
const (
	maxStreams = 16
	pace       = 250 * time.Millisecond
	batch      = 250 // of either kind at a time
	heartbeat  = 15 * time.Second
	patience   = 10 * time.Second // for a reader that takes nothing
)

var streams atomic.Int32

func (a *Admin) serveStream(w http.ResponseWriter, r *http.Request) error {
	if gate.RecentKept() == 0 {
		return errOff
	}
	q := r.URL.Query()
	after := q.Get("after")
	q.Del("after")
	f, err := parseFilter(q, time.Now())
	if err != nil {
		return err
	}
	c := gate.CursorNow()
	if after != "" {
		var ok bool
		if c, ok = parseCursor(after); !ok {
			return badRequest("after %q is not what a list of Exchanges gave as next", short(after))
		}
	}
	// A browser that comes back after the configuration was replaced goes on
	// where it left off.
	if last, ok := parseCursor(r.Header.Get("Last-Event-ID")); ok {
		c = last
	}
	if r.Method == http.MethodHead {
		return nil
	}
	if streams.Add(1) > maxStreams {
		streams.Add(-1)
		return caddy.APIError{HTTPStatus: http.StatusTooManyRequests, Message: fmt.Sprintf("%d streams are open, and more are not served", maxStreams)}
	}
	defer streams.Add(-1)

	w.Header().Set("Content-Type", "text/event-stream")
	s := &stream{w: w, ctl: http.NewResponseController(w), filter: f}
	_ = s.ctl.SetReadDeadline(time.Time{}) // the admin endpoint's would end the stream after 10s
	fmt.Fprintf(&s.out, "retry: 1000\nid: %s\n\n", cursorID(c))
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for quiet := time.Duration(0); ; {
		if s.out.Len() > 0 {
			quiet = 0
		} else if quiet += pace; quiet >= heartbeat {
			s.out.WriteString(": nothing new\n\n")
			quiet = 0
		}
		if err := s.flush(); err != nil {
			return nil // the reader went away, or stopped to read
		}
		select {
		case <-a.gone:
			return nil
		case <-r.Context().Done():
			return nil
		case <-tick.C:
		}
		c = s.collect(c)
	}
}

type stream struct {
	w      http.ResponseWriter
	ctl    *http.ResponseController
	filter filter
	out    bytes.Buffer
}

// collect writes what came after c.
func (s *stream) collect(c gate.Cursor) gate.Cursor {
	recs, next, lost := c.Since(batch)
	if lost > 0 {
		fmt.Fprintf(&s.out, "event: lost\ndata: {\"lost\":%d}\n\n", lost)
	}
	for _, rec := range recs {
		if !s.filter.match(rec) {
			continue
		}
		data, err := json.Marshal(view(rec))
		if err != nil {
			continue // strings and numbers cannot fail
		}
		fmt.Fprintf(&s.out, "data: %s\n\n", data)
	}
	if s.out.Len() > 0 {
		fmt.Fprintf(&s.out, "id: %s\n\n", cursorID(next))
	}
	return next
}

func (s *stream) flush() error {
	if s.out.Len() == 0 {
		return nil
	}
	_ = s.ctl.SetWriteDeadline(time.Now().Add(patience)) // not every listener has deadlines
	_, err := s.out.WriteTo(s.w)
	if err == nil {
		err = s.ctl.Flush()
	}
	return err
}

func cursorID(c gate.Cursor) string {
	return strconv.FormatUint(c.Passed, 10) + "-" + strconv.FormatUint(c.Refused, 10)
}

func parseCursor(id string) (c gate.Cursor, ok bool) {
	passed, refused, _ := strings.Cut(id, "-")
	var err, err2 error
	c.Passed, err = strconv.ParseUint(passed, 10, 64)
	c.Refused, err2 = strconv.ParseUint(refused, 10, 64)
	return c, err == nil && err2 == nil
}
