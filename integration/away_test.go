package integration

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clock "github.com/gatehouse-caddy/gatehouse/modules/gate/rehearsal"
)

// publisher is an issuer's key server that does as it is told.
type publisher struct {
	*httptest.Server
	keys  atomic.Pointer[string] // nil: it is down
	asked atomic.Int64
	stall atomic.Bool
}

func newPublisher(t *testing.T) *publisher {
	p := &publisher{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		if p.stall.Load() {
			<-r.Context().Done()
			return
		}
		set := p.keys.Load()
		if set == nil {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		_, _ = io.WriteString(w, *set)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *publisher) publish(set string) { p.keys.Store(&set) }

func (p *publisher) globals(more string) string {
	return fmt.Sprintf("identity {\nissuer main https://id.test {\njwks %s/keys%s\naudience orders-api\n}\n}", p.URL, more)
}

// TestIssuerAwayForAnHour: who is known passes, and so does whom the last keys
// can verify; the decision says why others do not; nothing stalls; and a flood
// of unknown keys costs a fetch in 30 seconds at most.
func TestIssuerAwayForAnHour(t *testing.T) {
	iss, stranger := newIssuer(t, "k1"), newIssuer(t, "k9")
	p := newPublisher(t)
	p.publish(iss.jwks())
	began := time.Now()
	t.Cleanup(clock.Release)
	clock.Hold(began)
	gw := start(t, p.globals(""), "api demo {\nidentity main\nrespond ok\n}")
	lasts := func(i *issuer, id int) http.Header {
		return bearer(i.token(t, map[string]any{"exp": began.Add(48 * time.Hour).Unix(), "jti": id}))
	}
	known, unknown := lasts(iss, 0), lasts(stranger, 0)
	if a := gw.get(t, "/", known); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	p.keys.Store(nil)
	before := p.asked.Load()
	const step = 30 * time.Second
	for n := range int(time.Hour / step) {
		clock.Advance(step)
		if a := gw.get(t, "/", known); a.status != 200 {
			t.Fatalf("step %d, known: %d %s", n, a.status, a.body)
		}
		if a := gw.get(t, "/", lasts(iss, n+1)); a.status != 200 {
			t.Fatalf("step %d, new, of a known key: %d %s", n, a.status, a.body)
		}
		for range 3 {
			if a := gw.get(t, "/", unknown); a.reason() != "identity.unknown_key" {
				t.Fatalf("step %d, of an unknown key: %d %s", n, a.status, a.body)
			}
		}
	}
	if n := p.asked.Load() - before; n < 1 || n > int64(time.Hour/step) {
		t.Errorf("in an hour it was asked %d times, want at most one in 30 seconds", n)
	}
	if d := gw.decisions(t); d[len(d)-1]["reason"] != "identity.unknown_key" || !strings.Contains(fmt.Sprint(d[len(d)-1]["error"]), "no key has the token's kid") {
		t.Errorf("recorded as %v", d[len(d)-1])
	}
	// It is away for so long that its keys are no good any more.
	clock.Advance(24 * time.Hour)
	a := gw.get(t, "/", known)
	d := gw.decisions(t)
	if a.reason() != "identity.unavailable" || !strings.Contains(fmt.Sprint(d[len(d)-1]["error"]), "502") {
		t.Errorf("a day later: %d %s, %v", a.status, a.body, d[len(d)-1])
	}
	// And it comes back with another key.
	p.publish(stranger.jwks())
	clock.Advance(step)
	if a := gw.get(t, "/", unknown); a.status != 200 {
		t.Errorf("it is back: %d %s", a.status, a.body)
	}
	if a := gw.get(t, "/", known); a.reason() != "identity.unknown_key" {
		t.Errorf("it is back without the old key: %d %s", a.status, a.body)
	}
}

// TestFloodOfUnknownKeys: many callers at once, each with a kid of its own.
func TestFloodOfUnknownKeys(t *testing.T) {
	iss := newIssuer(t, "k1")
	p := newPublisher(t)
	p.publish(iss.jwks())
	t.Cleanup(clock.Release)
	clock.Hold(time.Now())
	gw := start(t, p.globals("/flood"), "api demo {\nidentity main\nrespond ok\n}")
	if a := gw.get(t, "/", bearer(iss.token(t, nil))); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for range 3 {
		clock.Advance(31 * time.Second)
		before := p.asked.Load()
		var wg sync.WaitGroup
		for n := range 100 {
			token := bearer(newIssuerLike(iss, fmt.Sprint("flood-", n)).token(t, nil))
			wg.Go(func() {
				if a := gw.get(t, "/", token); a.reason() != "identity.unknown_key" {
					t.Errorf("%d %s", a.status, a.body)
				}
			})
		}
		wg.Wait()
		if n := p.asked.Load() - before; n != 1 {
			t.Errorf("100 unknown keys at once caused %d fetches, want 1", n)
		}
	}
}

// TestRotationUnderTraffic: while callers go on with tokens of either key, no
// token of a key that is published is refused.
func TestRotationUnderTraffic(t *testing.T) {
	old, young := newIssuer(t, "old"), newIssuer(t, "young")
	both := strings.Replace(old.jwks(), `]}`, ","+strings.TrimPrefix(young.jwks(), `{"keys":[`), 1)
	p := newPublisher(t)
	p.publish(old.jwks())
	gw := start(t, p.globals("/rotation"), "api demo {\nidentity main\nrespond ok\n}")
	var stop, moved atomic.Bool
	var wg sync.WaitGroup
	var sent atomic.Int64
	for n := range 4 {
		tokens := [2]http.Header{bearer(old.token(t, map[string]any{"jti": n})), bearer(young.token(t, map[string]any{"jti": n}))}
		wg.Go(func() {
			for !stop.Load() {
				i := 0
				if moved.Load() {
					i = int(sent.Load() % 2)
				}
				if a := gw.get(t, "/", tokens[i]); a.status != 200 {
					t.Errorf("token of key %d: %d %s", i, a.status, a.body)
					return
				}
				sent.Add(1)
			}
		})
	}
	eventually(t, "traffic", func() bool { return sent.Load() > 50 || t.Failed() })
	p.publish(both)
	moved.Store(true)
	at := sent.Load()
	eventually(t, "traffic with both keys", func() bool { return sent.Load() > at+200 || t.Failed() })
	stop.Store(true)
	wg.Wait()
	if n := p.asked.Load(); n > 2 {
		t.Errorf("the rotation cost %d fetches", n)
	}
}

// TestIssuerAnswersBadly: slow and malformed answers are no verdict on anybody,
// and hold nobody up for long.
func TestIssuerAnswersBadly(t *testing.T) {
	iss := newIssuer(t, "k1")
	p := newPublisher(t)
	gw := prepare(t)
	for name, says := range map[string]string{
		"nothing": "", "half": `{"keys":[`, "html": "<html>", "no keys": `{"keys":[]}`, "a list": `[]`, "null": `null`,
		"too much": `{"keys":[],"x":"` + strings.Repeat("a", 2<<20) + `"}`,
	} {
		p.publish(says)
		if err := gw.load(p.globals("/"+strings.ReplaceAll(name, " ", "-")), "api demo {\nidentity main\nrespond ok\n}"); err != nil {
			t.Fatal(err)
		}
		if a := gw.get(t, "/", bearer(iss.token(t, nil))); a.status != 503 || a.reason() != "identity.unavailable" || a.header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	p.stall.Store(true)
	if err := gw.load(p.globals("/slow"), "api demo {\nidentity main\nrespond ok\n}"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	began, before := time.Now(), p.asked.Load()
	for n := range 10 {
		token := bearer(iss.token(t, map[string]any{"jti": n}))
		wg.Go(func() {
			if a := gw.get(t, "/", token); a.reason() != "identity.unavailable" {
				t.Errorf("slow: %d %s", a.status, a.body)
			}
		})
	}
	wg.Wait()
	if took := time.Since(began); took > 4500*time.Millisecond { // the fetch itself may take 5s
		t.Errorf("requests waited for %v", took)
	}
	if n := p.asked.Load() - before; n > 1 {
		t.Errorf("ten requests that wait caused %d fetches", n)
	}
}
