package resilience

import (
	"crypto/tls"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/resilience/internal/breaker"
)

// A request that outlives its configuration must not hold a breaker for good.
func TestReleasedTargets(t *testing.T) {
	ts := targets{settings: breaker.Settings{Open: time.Second}}
	ts.add("a:80", "a:80")
	ts.release()
	for _, dial := range []string{"a:80", "b:80"} {
		ts.of(reverseproxy.DialInfo{Address: dial, Upstream: &reverseproxy.Upstream{Dial: dial}})
		if n, there := pool.References(poolKey{dial, ts.settings, ts.failures}); there {
			t.Errorf("%s is still held %d times", dial, n)
		}
	}
}

// TestUnreached: what no request can be the cause of, and what one may be.
func TestUnreached(t *testing.T) {
	drop := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	plain, secret, proving := httptest.NewServer(drop), httptest.NewTLSServer(drop), httptest.NewUnstartedServer(drop)
	proving.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	proving.StartTLS()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	trusting := secret.Client().Transport
	for _, u := range []*httptest.Server{plain, secret, proving} {
		u.Config.ErrorLog = log.New(io.Discard, "", 0)
		t.Cleanup(u.Close)
	}
	for name, c := range map[string]struct {
		by   http.RoundTripper
		url  string
		want bool
	}{
		"a closed port":                {new(http.Transport), "http://" + closed.Addr().String(), true},
		"a certificate nobody vouches": {new(http.Transport), secret.URL, true},
		"no TLS":                       {new(http.Transport), "https" + plain.URL[len("http"):], true},
		"a certificate is asked for":   {trusting, proving.URL, true},
		"a connection is dropped":      {new(http.Transport), plain.URL, false},
		"one with TLS is dropped":      {trusting, secret.URL, false},
	} {
		t.Run(name, func(t *testing.T) {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url, nil)
			res, err := c.by.RoundTrip(req)
			if err == nil {
				_ = res.Body.Close()
				t.Fatal("it was answered")
			}
			if got := unreached(err); got != c.want {
				t.Errorf("%v: %v, want %v", err, got, c.want)
			}
		})
	}
}

// TestCallerOf: who is told apart, and who is not.
func TestCallerOf(t *testing.T) {
	at := func(addr string) *gate.Exchange { return &gate.Exchange{Client: netip.MustParseAddr(addr)} }
	as := func(p gate.Principal) *gate.Exchange { return &gate.Exchange{Principal: &p} }
	for name, c := range map[string]struct {
		a, b *gate.Exchange
		same bool
	}{
		"two addresses":              {at("192.0.2.1"), at("192.0.2.2"), false},
		"two networks of a customer": {at("2001:db8:1:1::1"), at("2001:db8:1:2::1"), true},
		"those of two":               {at("2001:db8:1::1"), at("2001:db8:2::1"), false},
		"two of a tenant":            {as(gate.Principal{Tenant: "acme", Subject: "ann"}), as(gate.Principal{Tenant: "acme", Subject: "bob"}), true},
		"two subjects":               {as(gate.Principal{Issuer: "main", Subject: "ann"}), as(gate.Principal{Issuer: "main", Subject: "bob"}), false},
		"two clients":                {as(gate.Principal{Issuer: "main", Client: "web"}), as(gate.Principal{Issuer: "main", Client: "app"}), false},
	} {
		if got := callerOf(c.a) == callerOf(c.b); got != c.same {
			t.Errorf("%s: the same is %v", name, got)
		}
		if n := testing.AllocsPerRun(100, func() { callerOf(c.a) }); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// TestWorstIsShown: of two breakers that one upstream has under different
// settings, the worse one is shown, and none when nobody has the upstream.
func TestWorstIsShown(t *testing.T) {
	now := time.Now()
	shown := func() map[string]float64 {
		got := make(chan prometheus.Metric, 100)
		breakerState.Collect(got)
		close(got)
		values := map[string]float64{}
		for metric := range got {
			var m dto.Metric
			if err := metric.Write(&m); err != nil {
				t.Fatal(err)
			}
			values[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
		}
		return values
	}
	var all [2]targets
	for i := range all {
		all[i].settings = breaker.Settings{Ratio: 0.5, Samples: 9, Window: time.Second, Consecutive: i + 1, Open: time.Second, MaxOpen: time.Second, Probes: 1}
		all[i].add("a:80", "a:80")
		all[i].add("b:80", "dynamic")
		all[i].add("c:80", "dynamic")
	}
	for i, dial := range []string{"a:80", "b:80"} {
		target := all[0].known[dial]
		permit, _ := target.Enter(now)
		target.Done(permit, breaker.Result{Outcome: breaker.Unreached, Began: now}, now)
		if i == 1 { // a probe is on its way
			target.Enter(now.Add(time.Minute))
		}
	}
	if got, want := shown(), (map[string]float64{"a:80": 2, "dynamic": 1}); !maps.Equal(got, want) {
		t.Errorf("%v is shown, want %v", got, want)
	}
	all[0].release()
	if got, want := shown(), (map[string]float64{"a:80": 0, "dynamic": 0}); !maps.Equal(got, want) {
		t.Errorf("%v is shown, want %v", got, want)
	}
	all[1].release()
	if got := shown(); len(got) > 0 {
		t.Errorf("%v is shown, and nobody has any", got)
	}
}
