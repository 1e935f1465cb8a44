package quota

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/quota/internal/bucket"
)

func network(s string) waiter {
	return waiterOf(&gate.Exchange{Client: netip.MustParseAddr(s)})
}

// TestPlaces: neither one network nor one quota takes the places of others, and
// nothing is left when all are gone.
func TestPlaces(t *testing.T) {
	var p waitingRoom
	type taken struct {
		quota string
		by    waiter
	}
	var all []taken
	fill := func(quota string, queue int, addresses ...string) (n int) {
		for _, a := range addresses {
			for p.Take(quota, network(a), queue) {
				all = append(all, taken{quota, network(a)})
				n++
			}
		}
		return n
	}
	if n := fill("a", 60, "2001:db8:0:1::1", "2001:db8:0:2::1"); n != fewWaiting {
		t.Errorf("a /48 has %d places", n)
	}
	if n := fill("a", 999, "2001:db8:1::1"); n != 1000 {
		t.Errorf("a caller with a queue of 999 has %d places", n)
	}
	var many []string
	for i := range 64 {
		many = append(many, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}).String())
	}
	if n := fill("a", 60, many...); n != maxWaiting/2-fewWaiting-1000 {
		t.Errorf("the rest of a quota is %d", n)
	}
	if n := fill("b", 60, many...); n != maxWaiting/4 {
		t.Errorf("the second quota has %d places", n)
	}
	for _, quota := range []string{"c", "d", "e"} {
		if n := fill(quota, 60, many...); n < maxWaiting/32 {
			t.Errorf("quota %s has %d places", quota, n)
		}
	}
	if p.Len() > maxWaiting {
		t.Errorf("%d places are taken", p.Len())
	}
	for _, a := range all {
		p.Leave(a.quota, a.by)
	}
	if p.Len() != 0 || len(p.quotas) != 0 || len(p.waiters) != 0 {
		t.Errorf("%d places, %d quotas, %d waiters are left", p.Len(), len(p.quotas), len(p.waiters))
	}
}

// TestNoPlace: a request that finds no place costs nothing, nor does it let
// those who wait off what they have spent.
func TestNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := Rate{Events: 1, Window: caddy.Duration(time.Second), Leaky: 10}.ready("rate")
		if err != nil {
			t.Fatal(err)
		}
		h := &Handler{app: &App{table: bucket.NewTable(1024)}}
		ex := &gate.Exchange{Client: netip.MustParseAddr("192.0.2.1")}
		who := caller{zone: "TestNoPlace", network: ex.Network()}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		ask := func() bucket.Outcome {
			o, _ := h.take(ex, r, who, p, p.queue, time.Now())
			return o
		}
		began := time.Now()
		ask() // at once
		done := make(chan time.Duration, 2)
		go func() { ask(); done <- time.Since(began) }() // after a second
		synctest.Wait()
		go func() { ask(); done <- time.Since(began) }() // after two
		synctest.Wait()

		taken := 0
		for places.Take(who.zone, waiterOf(ex), 10) {
			taken++
		}
		for range 100 {
			if o := ask(); o.Allowed || o.Wait != 3*time.Second {
				t.Fatalf("without a place: %+v", o)
			}
		}
		for range taken {
			places.Leave(who.zone, waiterOf(ex))
		}
		if o := ask(); !o.Allowed || time.Since(began) != 3*time.Second {
			t.Errorf("who comes next waits %v: %+v", time.Since(began), o)
		}
		if a, b := <-done, <-done; a != time.Second || b != 2*time.Second {
			t.Errorf("those before waited %v and %v", a, b)
		}
		if n := places.Len(); n != 0 {
			t.Errorf("%d places are taken", n)
		}
	})
}

// TestGoneWaiter: who goes away leaves its place.
func TestGoneWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
		began := time.Now()
		time.AfterFunc(time.Second, cancel)
		wait(r, time.Minute)
		if time.Since(began) != time.Second {
			t.Errorf("it waits %v", time.Since(began))
		}
	})
}
