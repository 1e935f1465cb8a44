package introspect

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/ask"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/clientauth"
)

var start = time.Unix(1_800_000_000, 0)

func TestRead(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`{"active":true,"sub":"ann"}`, "yes"},
		{`{"active":false}`, "no"},
		{`{"active":false,"sub":"ann"}`, "no"},
		{`{"sub":"ann"}`, "error"},
		{`{"active":"true"}`, "error"},
		{`{"active":1}`, "error"},
		{`{"active":null}`, "error"},
		{`{"active":false,"active":true}`, "error"},
		{`[{"active":true}]`, "error"},
		{`{"active":true} {}`, "error"},
		{`true`, "error"},
		{``, "error"},
		{`<html>`, "error"},
		{`{"active":true,"x":"` + strings.Repeat("a", maxAnswer) + `"}`, "error"},
	} {
		claims, err := read([]byte(c.in))
		got := "yes"
		switch {
		case err != nil:
			got = "error"
		case claims == nil:
			got = "no"
		}
		if got != c.want {
			t.Errorf("%.60s is a %s, want %s", c.in, got, c.want)
		}
	}
}

// FuzzRead: whatever an issuer sends, it is a yes only if it says so.
func FuzzRead(f *testing.F) {
	f.Add(`{"active":true}`)
	f.Add(`{"active":false,"exp":1e9}`)
	f.Fuzz(func(t *testing.T, in string) {
		claims, err := read([]byte(in))
		if claims != nil && (err != nil || claims["active"] != true || !strings.Contains(in, "true")) {
			t.Fatalf("%q is %v, %v", in, claims, err)
		}
	})
}

// TestEndpoint: the question is as RFC 7662 has it, and strange answers are no
// answers.
func TestEndpoint(t *testing.T) {
	var status atomic.Int64
	var kind atomic.Value
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, secret, _ := r.BasicAuth()
		if r.Method != http.MethodPost || r.FormValue("token") != "a&b" || id != "gate%3Away" || secret != "p+w" {
			t.Errorf("asked %s %v as %s %s", r.Method, r.Form, id, secret)
		}
		w.Header().Set("Location", "https://elsewhere.test/")
		w.Header().Set("Content-Type", kind.Load().(string))
		w.WriteHeader(int(status.Load()))
		_, _ = fmt.Fprint(w, `{"active":true}`)
	}))
	defer srv.Close()
	ask := Endpoint(srv.URL, clientauth.Basic("gate:way", "p w"), nil)
	for _, c := range []struct {
		status int
		kind   string
		good   bool
	}{
		{200, "application/json; charset=utf-8", true},
		{200, "text/html", false},
		{200, "application/token-introspection+jwt", false},
		{302, "application/json", false},
		{401, "application/json", false},
		{500, "application/json", false},
	} {
		status.Store(int64(c.status))
		kind.Store(c.kind)
		claims, err := ask(t.Context(), "a&b")
		if (claims != nil) != c.good || (err == nil) != c.good || err != nil && (strings.Contains(err.Error(), "p w") || strings.Contains(err.Error(), "a&b")) {
			t.Errorf("%d %s: %v, %v", c.status, c.kind, claims, err)
		}
	}
}

func TestAbout(t *testing.T) {
	var asked atomic.Int64
	var fails atomic.Bool
	a := New(func(_ context.Context, token string) (map[string]any, error) {
		asked.Add(1)
		switch {
		case fails.Load():
			return nil, errors.New("down")
		case token == "bad":
			return nil, nil
		}
		return map[string]any{"active": true, "sub": token}, nil
	}, 30*time.Second, 10*time.Second, 1000)

	is := func(token string, now time.Time, want string) {
		t.Helper()
		answer, err := a.About(t.Context(), netip.Prefix{}, token, now)
		got := "yes"
		switch {
		case errors.Is(err, ask.ErrAway):
			got = "away"
		case err != nil:
			t.Fatal(err)
		case answer.Claims == nil:
			got = "no"
		}
		if got != want {
			t.Errorf("%s at %v: %s, want %s", token, now.Sub(start), got, want)
		}
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { is("ann", start, "yes") })
	}
	wg.Wait()
	is("bad", start, "no")
	is("ann", start.Add(29*time.Second), "yes")
	is("bad", start.Add(9*time.Second), "no")
	if n := asked.Load(); n != 2 {
		t.Errorf("asked %d times, want 2", n)
	}
	is("bad", start.Add(10*time.Second), "no")
	is("ann", start.Add(30*time.Second), "yes")
	if n := asked.Load(); n != 4 {
		t.Errorf("asked %d times, want 4", n)
	}

	fails.Store(true)
	at := start.Add(time.Hour)
	for i := range 10 { // the first failure keeps the others from asking
		is(fmt.Sprint("c", i), at, "away")
	}
	if n := asked.Load(); n != 5 {
		t.Errorf("an issuer that is away was asked %d times, want once", n-4)
	}
	is("d", at.Add(1500*time.Millisecond), "away")
	is("d", at.Add(3*time.Second), "away") // twice as long
	if n := asked.Load(); n != 6 {
		t.Errorf("asked %d times more, want twice", n-4)
	}
	fails.Store(false)
	is("d", at.Add(5*time.Second), "yes")
	is(strings.Repeat("x", maxToken+1), at.Add(5*time.Second), "no")
}
