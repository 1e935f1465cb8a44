package gate

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// remembering starts with an empty memory of n and puts back what was there.
func remembering(t *testing.T, n int) {
	t.Helper()
	size := RecentKept()
	KeepRecent(0)
	KeepRecent(n)
	t.Cleanup(func() { KeepRecent(0); KeepRecent(size) })
}

func remember(id string, why Reason) { Remember(&Record{ID: id, Reason: why}) }

func ids(recs []*Record) string {
	var all []string
	for _, rec := range recs {
		all = append(all, rec.ID)
	}
	return strings.Join(all, " ")
}

func newest() (recs []*Record) {
	for rec := range Recent() {
		recs = append(recs, rec)
	}
	return recs
}

func TestRecentKeepsEitherKind(t *testing.T) {
	remembering(t, 3)
	remember("r1", QuotaExhausted)
	for i := range 5 {
		remember(fmt.Sprintf("p%d", i), None)
	}
	remember("r2", IdentityMissing)
	Remember(&Record{ID: "s", Decisions: []Decision{{Verdict: WouldDeny}}})
	if got := ids(newest()); got != "s r2 p4 p3 p2 r1" {
		t.Errorf("remembered %s", got)
	}
	if rec := FindRecent("r1"); rec == nil || rec.Reason != QuotaExhausted {
		t.Errorf("found %v", rec)
	}
	if FindRecent("p0") != nil {
		t.Error("one that was pushed out is found")
	}
}

func TestRecentResizes(t *testing.T) {
	remembering(t, 4)
	for i := range 6 {
		remember(fmt.Sprintf("p%d", i), None)
	}
	c := CursorNow()
	KeepRecent(8)
	remember("p6", None)
	if got := ids(newest()); got != "p6 p5 p4 p3 p2" {
		t.Errorf("larger: %s", got)
	}
	KeepRecent(2)
	if got := ids(newest()); got != "p6 p5" {
		t.Errorf("smaller: %s", got)
	}
	if recs, _, lost := c.Since(10); ids(recs) != "p6" || lost != 0 {
		t.Errorf("a cursor from before: %s, %d lost", ids(recs), lost)
	}
	KeepRecent(0)
	remember("p7", None)
	if len(newest()) != 0 || RecentKept() != 0 {
		t.Error("something is remembered")
	}
}

func TestCursor(t *testing.T) {
	remembering(t, 4)
	c := CursorNow()
	remember("p0", None)
	remember("r0", QuotaExhausted)
	remember("p1", None)
	recs, next, lost := c.Since(10)
	if ids(recs) != "p0 r0 p1" || lost != 0 {
		t.Errorf("%s, %d lost", ids(recs), lost)
	}
	if recs, _, _ := next.Since(10); len(recs) != 0 {
		t.Errorf("twice: %s", ids(recs))
	}
	recs, some, _ := c.Since(1)
	if ids(recs) != "p0 r0" {
		t.Errorf("one of a kind: %s", ids(recs))
	}
	if recs, _, _ := some.Since(10); ids(recs) != "p1" {
		t.Errorf("the rest: %s", ids(recs))
	}
	for i := range 10 {
		remember(fmt.Sprintf("q%d", i), None)
	}
	if recs, _, lost := next.Since(10); ids(recs) != "q6 q7 q8 q9" || lost != 6 {
		t.Errorf("%s, %d lost", ids(recs), lost)
	}
	if recs, _, lost := (Cursor{1 << 60, 1 << 60}).Since(10); len(recs) != 0 || lost != 0 {
		t.Errorf("of another process: %s, %d lost", ids(recs), lost)
	}
}

// TestCursorOverResize: who goes on from a place that the ring of before had does
// not wait for it.
func TestCursorOverResize(t *testing.T) {
	defer KeepRecent(RecentKept())
	KeepRecent(0)
	KeepRecent(10)
	for range 100 {
		Remember(&Record{})
	}
	KeepRecent(1000)
	for range 500 {
		Remember(&Record{})
	}
	recs, next, lost := Cursor{Passed: 50}.Since(1000)
	if len(recs) != 510 || next.Passed != 600 || lost != 40 {
		t.Errorf("%d records up to %d, and %d lost", len(recs), next.Passed, lost)
	}
}

// TestRecentUnderWay: whoever reads while others write gets each record once,
// or is told that it is gone.
func TestRecentUnderWay(t *testing.T) {
	remembering(t, 64)
	const writers, each = 4, 2000
	var wg sync.WaitGroup
	c := CursorNow()
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				why := None
				if i%3 == 0 {
					why = QuotaExhausted
				}
				remember(fmt.Sprintf("%d-%d", w, i), why)
				if i%100 == 0 {
					runtime.Gosched()
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	seen, lost := map[string]bool{}, uint64(0)
	for last := false; ; {
		recs, next, n := c.Since(32)
		c, lost = next, lost+n
		for _, rec := range recs {
			if seen[rec.ID] {
				t.Fatalf("%s came twice", rec.ID)
			}
			seen[rec.ID] = true
		}
		if last && len(recs) == 0 {
			break
		}
		select {
		case <-done:
			last = true
		default:
		}
		for range Recent() { // must not mind
			break
		}
	}
	if got := uint64(len(seen)) + lost; got != writers*each {
		t.Errorf("%d came and %d were lost, together not %d", len(seen), lost, writers*each)
	}
}

// TestRecordIsBounded: however long what a request brings is, little is kept of
// it, and all of it is text.
func TestRecordIsBounded(t *testing.T) {
	long := strings.Repeat("ä", 100_000)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), httptest.NewRecorder(), nil)
	r.URL.Path, r.Method = long, long
	r.Header.Set("User-Agent", long)
	ex := &Exchange{ID: "id", Began: time.Now(), Principal: &Principal{Subject: long, Client: long, Tenant: long, Plan: long, Issuer: long, Method: Bearer}}
	for range maxDecisions {
		ex.record(Decision{Stage: Guard, Rule: long})
	}
	d := &Denial{Reason: InputBody, Detail: long, Err: errors.New(long)}
	for range 1000 {
		d.Fields = append(d.Fields, FieldError{Pointer: long, Detail: long})
	}
	rec := ex.Record(r, 400, d)
	text := []string{rec.Method, rec.Path, rec.UserAgent, rec.Principal.Subject, rec.Principal.Client, rec.Principal.Tenant, rec.Principal.Plan, rec.Principal.Issuer, rec.Detail, rec.Err, rec.Faults}
	for _, dec := range rec.Decisions {
		text = append(text, dec.Rule)
	}
	n := 0
	for _, s := range text {
		n += len(s)
		if !utf8.ValidString(s) {
			t.Errorf("%.20q… ends in half a character", s)
		}
	}
	if n > 13<<10 {
		t.Errorf("%d bytes of text are kept", n)
	}
	if rec.Principal.Subject == "" || rec.Faults == "" || rec.Err == "" {
		t.Error("something is not kept at all")
	}
}
