package integration

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestQuota(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("RateLimit", `"theirs";r=1;t=1`)
	})
	by := "{http.request.header.X-Caller}"
	gw := start(t, "", "api demo {\nquota per "+by+" 2/h\nreverse_proxy "+b.addr()+"\n}")
	for i, tc := range []struct {
		caller string
		status int
		left   string
	}{
		{"ann", 200, `"rate";r=1;t=1800`},
		{"ann", 200, `"rate";r=0;t=3600`},
		{"ann", 429, `"rate";r=0;t=3600`},
		{"bob", 200, `"rate";r=1;t=1800`},
		{"", 200, `"rate";r=1;t=1800`},
	} {
		a := gw.get(t, "/", http.Header{"X-Caller": {tc.caller}})
		if a.status != tc.status || !strings.Contains(fmt.Sprint(a.header["Ratelimit"]), tc.left) || a.header.Get("RateLimit-Policy") != `"rate";q=2;w=3600` {
			t.Errorf("%d, %q: %d %v", i, tc.caller, a.status, a.header)
		}
		if tc.status == 429 {
			if s, _ := strconv.Atoi(a.header.Get("Retry-After")); s < 1790 || s > 1800 || a.problem(t)["reason"] != "quota.exhausted" {
				t.Errorf("Retry-After %q, %s", a.header.Get("Retry-After"), a.body)
			}
		} else if n := len(a.header["Ratelimit"]); n != 2 {
			t.Errorf("%d RateLimit members, want ours and the upstream's", n)
		}
	}
	if err := gw.load("", "api demo {\nquota per "+by+" 2/h {\nmode shadow\n}\nreverse_proxy "+b.addr()+"\n}"); err != nil {
		t.Fatal(err)
	}
	if a := gw.get(t, "/", http.Header{"X-Caller": {"ann"}}); a.status != 200 || a.header.Get("Retry-After") != "" {
		t.Errorf("shadow: %d %v", a.status, a.header)
	}
	if d := gw.decisions(t); !strings.Contains(fmt.Sprint(d[len(d)-1]), "would_deny") {
		t.Errorf("shadow recorded %v", d[len(d)-1])
	}
}

// TestQuotaAPIsAreApart: two APIs with the same words do not share counters,
// and two rates of one API for the same callers do not either.
// TestQuotaOfATenant: a tenant is counted once, whether its callers have tokens or
// keys.
func TestQuotaOfATenant(t *testing.T) {
	gw, iss, key := revocable(t)
	if err := gw.load(fmt.Sprintf(identityGlobals, "jwks.json"), "api demo {\nidentity main {\nkeys\n}\nquota per tenant 3/h\nrespond ok\n}"); err != nil {
		t.Fatal(err)
	}
	token := bearer(iss.token(t, nil)) // of acme too
	for i, header := range []http.Header{token, key, token, key} {
		want := 200
		if i == 3 {
			want = 429
		}
		if a := gw.get(t, "/", header); a.status != want {
			t.Errorf("request %d: %d, want %d", i, a.status, want)
		}
	}
}

func TestQuotaAPIsAreApart(t *testing.T) {
	gw := start(t, "", `
	@a path /a
	api @a a {
		quota per address 1/h
		respond a
	}
	api b {
		quota per address 1/h
		quota per address 100/m
		respond b
	}`)
	for _, path := range []string{"/a", "/b"} {
		if a := gw.get(t, path, nil); a.status != 200 {
			t.Errorf("%s: %d", path, a.status)
		}
		if a := gw.get(t, path, nil); a.status != 429 {
			t.Errorf("%s again: %d", path, a.status)
		}
	}
}

func TestQuotaLeaky(t *testing.T) {
	gw := start(t, "", "api demo {\nquota per address 10/s leaky 2\nrespond ok\n}")
	began := time.Now()
	type done struct {
		status int
		reason string
	}
	results := make(chan done)
	for range 5 {
		go func() {
			resp, err := gw.client.Get("http://localhost/")
			if err != nil {
				t.Error(err)
				results <- done{}
				return
			}
			resp.Body.Close()
			results <- done{resp.StatusCode, ""}
		}()
	}
	counts := map[int]int{}
	for range 5 {
		counts[(<-results).status]++
	}
	if counts[200] != 3 || counts[429] != 2 {
		t.Errorf("%v, want one at once, two that waited and two refused", counts)
	}
	if took := time.Since(began); took < 190*time.Millisecond {
		t.Errorf("three requests at 10/s took %v", took)
	}
}

// TestQuotaLeakyIsShared: one line's addresses take no places from other quotas,
// nor from other networks, and a request that finds no place costs nothing.
func TestQuotaLeakyIsShared(t *testing.T) {
	gw := start(t, "servers {\ntrusted_proxies_unix\nprotocols h1 h2c\n}", `
	@slow path /slow
	api @slow slow {
		quota per address 1/m leaky 60
		respond slow
	}
	api demo {
		quota per address 10/s burst 1 leaky 5
		respond ok
	}`)
	client := gw.h2(t)
	ctx, cancel := context.WithCancel(t.Context())
	get := func(path, from string) (int, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, nil)
		if err != nil {
			return 0, err
		}
		req.Header.Set("X-Forwarded-For", from)
		resp, err := client.Do(req)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		return resp.StatusCode, nil
	}
	const lines, each = 90, 50 // 4,500, of which 90 are answered at once
	var answered atomic.Int64
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for i := range lines * each {
		wg.Go(func() {
			if _, err := get("/slow", fmt.Sprintf("2001:db8:2:%x::1", i/each)); err == nil {
				answered.Add(1)
			}
		})
	}
	var waiting int
	for until := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if waiting = int(gw.metric(t, "gatehouse_quota_waiting")); waiting+int(answered.Load()) == lines*each {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("%d wait, %d were answered", waiting, answered.Load())
		}
	}
	if waiting == 0 || waiting > 256 {
		t.Errorf("%d requests of one line wait", waiting)
	}
	for _, c := range []struct{ path, from string }{{"/", "198.51.100.21"}, {"/", "2001:db8:2:1::1"}} {
		statuses := make(chan int, 4)
		for range 4 {
			go func() {
				status, _ := get(c.path, c.from)
				statuses <- status
			}()
		}
		for range 4 {
			if status := <-statuses; status != 200 {
				t.Errorf("%s from %s: %d", c.path, c.from, status)
			}
		}
	}
	before := gw.metric(t, "gatehouse_quota_waiting")
	if status, err := get("/slow", "2001:db8:3::1"); status != 200 {
		t.Errorf("another line: %d %v", status, err)
	}
	wg.Go(func() { _, _ = get("/slow", "2001:db8:3::1") })
	for until := time.Now().Add(time.Minute); gw.metric(t, "gatehouse_quota_waiting") == before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("another line may not wait")
		}
	}
}

// TestQuotaByCountryAndHour: what a plan allows depends on where a request comes
// from, and on the time of the day.
func TestQuotaByCountryAndHour(t *testing.T) {
	gw := prepare(t)
	gw.mmdb(t, "GeoLite2-Country-Test.mmdb", "country.mmdb")
	now := time.Now().UTC()
	around := now.Add(-time.Hour).Format("15:04") + "-" + now.Add(time.Hour).Format("15:04")
	elsewhen := now.Add(2*time.Hour).Format("15:04") + "-" + now.Add(3*time.Hour).Format("15:04")
	global := behindProxy + `
	reputation {
		country_db country.mmdb
	}
	quota {
		plan free 5/h {
			when country GB hours ` + elsewhen + ` rate 1/h
			when country GB rate 2/h
			when country SE hours ` + around + ` rate 3/h
		}
	}`
	if err := gw.load(global, "api demo {\nreputation\nquota per address\nrespond ok\n}"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		addr, rule string
		allowed    int
	}{
		{"81.2.69.142", "free, GB", 2},
		{"89.160.20.112", "free, SE " + around, 3},
		{"203.0.113.7", "free", 5},
	} {
		allowed := 0
		for range 7 {
			if gw.from(t, c.addr).status == 200 {
				allowed++
			}
		}
		if allowed != c.allowed {
			t.Errorf("%d allowed from %s, want %d", allowed, c.addr, c.allowed)
		}
		last := gw.decisions(t)
		if log := fmt.Sprint(last[len(last)-1]["stages"]); !strings.Contains(log, "rule:"+c.rule+" ") {
			t.Errorf("decided by %s, want %q", log, c.rule)
		}
	}
}
