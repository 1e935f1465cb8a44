package integration

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"go.uber.org/goleak"
)

// host is the name that callers ask for, unless they say otherwise.
const host = "api.gatehouse.test"

// authority is a running ACME server, Pebble, with a root of its own.
type authority struct {
	host      string         // to ask a certificate for
	directory string         // URL
	roots     *x509.CertPool // what a client of the gateway trusts
}

// startAuthority runs Pebble on a loopback port. It validates as a public
// authority does: it looks the name up, at a DNS server that knows this
// machine only, and asks at the ports given. Its certificates live as long as
// life says, in whole seconds.
func (g *gateway) startAuthority(t testing.TB, httpPort, httpsPort int, life time.Duration) authority {
	t.Helper()
	if t, ok := t.(*testing.T); ok {
		t.Setenv("PEBBLE_VA_NOSLEEP", "1") // it would wait seconds before it asks, to find impatient clients
	}
	quiet := log.New(io.Discard, "", 0)
	store := db.NewMemoryStore()
	issuer := ca.New(quiet, store, "", "ecdsa", 0, 1, map[string]ca.Profile{
		"brief": {Description: "for rotation", ValidityPeriod: uint64(life / time.Second)},
	})
	validator := va.New(quiet, httpPort, httpsPort, false, nameserver(t), store)
	front := wfe.New(quiet, store, validator, issuer, []string{"gatehouse.test"}, false, false, 1, 1)
	srv := httptest.NewTLSServer(front.Handler())
	t.Cleanup(srv.Close)
	g.write(t, "acme.pem", block(srv.Certificate()))

	// Caddy remembers for the whole process, by name, that a renewal failed, as
	// one does that a test's end cuts off. So each test has a name of its own.
	a := authority{fmt.Sprintf("api-%d.gatehouse.test", httpsPort), srv.URL + wfe.DirectoryPath, x509.NewCertPool()}
	if !a.roots.AppendCertsFromPEM(issuer.GetRootCert(0).PEM()) {
		t.Fatal("Pebble has no root")
	}
	return a
}

// nameserver answers that every name is this machine.
func nameserver(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &dns.Server{Listener: l, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{
				Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET},
				A:   net.IPv4(127, 0, 0, 1),
			}}
		}
		_ = w.WriteMsg(m)
	})}
	done := make(chan error, 1)
	go func() { done <- srv.ActivateAndServe() }()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String()
}

// secured is a whole Caddyfile with one site on real ports.
func (g *gateway) secured(httpPort, httpsPort int, global, site string) string {
	return fmt.Sprintf(`{
	admin unix/%[1]s
	persist_config off
	grace_period 100ms
	storage file_system %[2]s/storage
	log {
		output file %[2]s/log
		level DEBUG
	}
	default_bind 127.0.0.1
	http_port %[3]d
	https_port %[4]d
	skip_install_trust
	%[5]s
}
%[6]s
`, g.admin, g.dir, httpPort, httpsPort, global, site)
}

// freePorts finds ports of this machine that nobody listens on. A reload needs
// ports that stay; port 0 would give new ones.
func freePorts(t testing.TB) (a, b int) {
	t.Helper()
	var ports [2]int
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // after both are found, so that they differ
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports[0], ports[1]
}

// caller is a client of a gateway on a real port. It counts its connections.
type caller struct {
	*http.Transport
	by     http.RoundTripper // the transport, unless over3 says otherwise
	dialed atomic.Int64
	port   int
}

func call(t testing.TB, port int, config *tls.Config) *caller {
	t.Helper()
	if config.ServerName == "" {
		config.ServerName = host
	}
	c := &caller{port: port}
	c.Transport = &http.Transport{TLSClientConfig: config, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		c.dialed.Add(1)
		return new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	}}
	c.by = c.Transport
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// over2 makes the caller speak HTTP/2.
func (c *caller) over2() *caller {
	c.ForceAttemptHTTP2 = true
	return c
}

// over3 makes the caller speak HTTP/3.
func (c *caller) over3(t testing.TB) *caller {
	t.Helper()
	tr := &http3.Transport{TLSClientConfig: c.TLSClientConfig, Dial: func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
		c.dialed.Add(1)
		return quic.DialAddr(ctx, fmt.Sprintf("127.0.0.1:%d", c.port), tc, qc)
	}}
	c.by = tr
	t.Cleanup(func() { _ = tr.Close() })
	return c
}

// get returns the status and the serial of the gateway's certificate.
func (c *caller) get(ctx context.Context) (status int, serial string, _ error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+c.TLSClientConfig.ServerName+"/orders", nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := c.by.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0, "", err
	}
	return resp.StatusCode, resp.TLS.PeerCertificates[0].SerialNumber.String(), nil
}

// watchLeaks fails the test when it leaves goroutines behind. It comes first,
// so that it looks last.
func watchLeaks(t *testing.T) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		goleak.VerifyNone(t, before,
			goleak.IgnoreAnyFunction("github.com/letsencrypt/pebble/v2/va.VAImpl.processTasks"),       // Pebble's queue has no end; it sleeps
			goleak.IgnoreAnyFunction("github.com/caddyserver/caddy/v2.replaceLocalAdminServer.func2"), // Caddy leaves its admin endpoint up
			goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.(*RingBufferRateLimiter).permit"),
			goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"), // ends with the next tick
			goleak.IgnoreAnyFunction("github.com/DeRuina/timberjack.(*Logger).millRun"))
	})
}

// await repeats try until it is satisfied.
func await(t testing.TB, what string, try func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func block(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

// TestACME: an API gets its certificate from an ACME server that asks back
// with each of the challenges that need no DNS provider.
func TestACME(t *testing.T) {
	for _, tc := range []struct{ challenge, other string }{
		{"http-01", "disable_tlsalpn_challenge"},
		{"tls-alpn-01", "disable_http_challenge"},
	} {
		t.Run(tc.challenge, func(t *testing.T) {
			watchLeaks(t)
			b := newBackend(t, nil)
			gw := prepare(t)
			httpPort, httpsPort := freePorts(t)
			acme := gw.startAuthority(t, httpPort, httpsPort, time.Hour)
			if err := gw.loadFile(gw.secured(httpPort, httpsPort, "", acme.host+` {
	tls {
		issuer acme {
			dir `+acme.directory+`
			trusted_roots `+gw.dir+`/acme.pem
			profile brief
			`+tc.other+`
		}
	}
	api orders {
		guard
		reverse_proxy `+b.addr()+`
	}
}`)); err != nil {
				t.Fatal(err)
			}
			c := call(t, httpsPort, &tls.Config{ServerName: acme.host, RootCAs: acme.roots})
			await(t, "the first certificate", func() error {
				status, _, err := c.get(t.Context())
				if err == nil && status != http.StatusOK {
					err = fmt.Errorf("status %d", status)
				}
				return err
			})
			if r, _ := b.got(); r == nil || r.URL.Path != "/orders" || r.Header.Get("X-Request-Id") == "" {
				t.Errorf("the backend got %v", r)
			}
			if log, err := os.ReadFile(gw.logFile()); err != nil || !bytes.Contains(log, []byte(`"challenge_type":"`+tc.challenge+`"`)) {
				t.Errorf("the challenge was not solved with %s: %v", tc.challenge, err)
			}
			// The chain is Pebble's and nobody else's.
			var unknown x509.UnknownAuthorityError
			if _, _, err := call(t, httpsPort, &tls.Config{ServerName: acme.host, RootCAs: x509.NewCertPool()}).get(t.Context()); !errors.As(err, &unknown) {
				t.Errorf("a client that trusts nobody: %v", err)
			}
		})
	}
}

// TestRenewalUnderTraffic: the certificate is renewed three times while callers
// send requests over new and over kept connections, and none of them fails.
func TestRenewalUnderTraffic(t *testing.T) {
	watchLeaks(t)
	b := newBackend(t, nil)
	gw := prepare(t)
	httpPort, httpsPort := freePorts(t)
	acme := gw.startAuthority(t, httpPort, httpsPort, 20*time.Second)
	// A certificate of 20 seconds is renewed when it is one second old.
	if err := gw.loadFile(gw.secured(httpPort, httpsPort, "renew_interval 100ms", acme.host+` {
	tls {
		renewal_window_ratio 0.95
		issuer acme {
			dir `+acme.directory+`
			trusted_roots `+gw.dir+`/acme.pem
			profile brief
		}
	}
	api orders {
		log off
		reverse_proxy `+b.addr()+`
	}
}`)); err != nil {
		t.Fatal(err)
	}
	probe := call(t, httpsPort, &tls.Config{ServerName: acme.host, RootCAs: acme.roots})
	probe.DisableKeepAlives = true
	await(t, "the first certificate", func() error { _, _, err := probe.get(t.Context()); return err })

	var (
		stop   atomic.Bool
		served atomic.Int64
		wg     sync.WaitGroup
	)
	send := func(c *caller, look func(serial string)) {
		wg.Go(func() {
			for !stop.Load() {
				status, serial, err := c.get(t.Context())
				if err != nil || status != http.StatusOK {
					t.Errorf("during a renewal: status %d, %v", status, err)
					return
				}
				served.Add(1)
				look(serial)
			}
		})
	}
	keep := []*caller{call(t, httpsPort, &tls.Config{ServerName: acme.host, RootCAs: acme.roots}), call(t, httpsPort, &tls.Config{ServerName: acme.host, RootCAs: acme.roots}).over2()}
	for _, c := range keep {
		first, dialed := "", int64(0)
		send(c, func(serial string) {
			if n := c.dialed.Load(); n != dialed {
				first, dialed = serial, n
			}
			if serial != first && !t.Failed() {
				t.Errorf("a kept connection changed its certificate from %s to %s", first, serial)
			}
		})
	}
	fresh := call(t, httpsPort, &tls.Config{ServerName: acme.host, RootCAs: acme.roots})
	fresh.DisableKeepAlives = true
	const renewals = 3
	var serials []string
	enough := make(chan struct{})
	send(fresh, func(serial string) {
		if slices.Contains(serials, serial) {
			if serial != serials[len(serials)-1] {
				t.Errorf("a new connection saw %s again, which was replaced", serial)
			}
			return
		}
		if serials = append(serials, serial); len(serials) == 1+renewals {
			close(enough)
		}
	})
	select {
	case <-enough:
	case <-time.After(30 * time.Second):
		t.Error("the certificate was not renewed three times")
	}
	stop.Store(true)
	wg.Wait()
	for i, c := range keep {
		// On a busy machine, Go's client gives up a connection by itself when its
		// writer is late.
		if n := c.dialed.Load(); n > 3 {
			t.Errorf("caller %d that keeps its connection made %d", i, n)
		}
	}
	if served.Load() < 100 || int(served.Load()) > b.count() {
		t.Errorf("%d requests were served, the backend got %d", served.Load(), b.count())
	}
	t.Logf("%d requests, %d over new connections, %d certificates", served.Load(), fresh.dialed.Load(), len(serials))
}
