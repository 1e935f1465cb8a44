package integration

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptrace"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// clientAuth is a gateway that asks for client certificates, with files that
// the tests replace.
type clientAuth struct {
	*gateway
	raw     []byte // the configuration
	port    int
	server  *x509.CertPool // what signed the gateway's certificate
	backend *backend
	held    chan struct{} // lets requests to /held go
	inside  chan struct{} // says that one has arrived
}

func startClientAuth(t *testing.T, mode string, trusted ...*x509.Certificate) *clientAuth {
	t.Helper()
	c := &clientAuth{gateway: prepare(t), held: make(chan struct{}), inside: make(chan struct{}, 1)}
	c.backend = newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			c.inside <- struct{}{}
			<-c.held
		}
		w.Header().Set("Subject", r.Header.Get("X-Gatehouse-Subject"))
	})
	c.serve(t, 1)
	c.trust(t, trusted...)
	httpPort, httpsPort := freePorts(t)
	c.port = httpsPort
	var err error
	c.raw, _, err = caddyconfig.GetAdapter("caddyfile").Adapt([]byte(c.secured(httpPort, httpsPort, "", host+` {
	tls `+c.dir+`/cert.pem `+c.dir+`/key.pem {
		client_auth {
			mode `+mode+`
			trust_pool file `+c.dir+`/clients.pem
		}
	}
	api orders {
		log off
		identity {
			mtls
		}
		reverse_proxy `+c.backend.addr()+`
	}
}`)), nil)
	if err != nil {
		t.Fatal(err)
	}
	c.reload(t, false)
	return c
}

// reload loads the same configuration again.
func (c *clientAuth) reload(t *testing.T, force bool) {
	t.Helper()
	if err := caddy.Load(c.raw, force); err != nil {
		t.Fatal(err)
	}
}

// serve writes the gateway's certificate file.
func (c *clientAuth) serve(t *testing.T, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: []string{host}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c.write(t, "cert.pem", block(cert))
	c.write(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	if c.server == nil {
		c.server = x509.NewCertPool()
	}
	c.server.AddCert(cert)
}

// trust writes the file of authorities whose clients may come.
func (c *clientAuth) trust(t *testing.T, cas ...*x509.Certificate) {
	t.Helper()
	var file strings.Builder
	for _, ca := range cas {
		file.WriteString(block(ca))
	}
	c.write(t, "clients.pem", file.String())
}

// as is a caller with a certificate; nil: none.
func (c *clientAuth) as(t *testing.T, who *tls.Certificate) *caller {
	t.Helper()
	config := &tls.Config{RootCAs: c.server, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	if who != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return who, nil }
	}
	return call(t, c.port, config)
}

// TestClientCARotation replaces the authority of the clients, from the first
// over both to the second, under traffic of those who are trusted all the time.
func TestClientCARotation(t *testing.T) {
	ca1, key1 := certificate(t, nil, nil, "ca 1")
	ca2, key2 := certificate(t, nil, nil, "ca 2")
	ann, bob := pair(t, ca1, key1, "spiffe://test/ann"), pair(t, ca2, key2, "spiffe://test/bob")
	gw := startClientAuth(t, "require_and_verify", ca1)

	welcome := func(who *tls.Certificate) {
		t.Helper()
		if status, _, err := gw.as(t, who).get(t.Context()); err != nil || status != http.StatusOK {
			t.Errorf("a caller who is trusted: status %d, %v", status, err)
		}
	}
	refused := func(c *caller) {
		t.Helper()
		var err error
		for range 10 { // the alert may lose against the end of the connection that follows it
			var status int
			if status, _, err = c.get(t.Context()); err == nil {
				t.Errorf("a caller who is not trusted: status %d", status)
				return
			}
			if strings.Contains(err.Error(), "tls: ") {
				return
			}
		}
		t.Errorf("a caller who is not trusted: %v", err)
	}
	welcome(ann)
	refused(gw.as(t, bob))

	// The trap: the file is another, the configuration the same, and a plain
	// reload does nothing.
	gw.trust(t, ca1, ca2)
	gw.reload(t, false)
	refused(gw.as(t, bob))

	done := gw.traffic(t, ann)
	gw.reload(t, true)
	done()
	welcome(ann)
	welcome(bob)

	// The first authority is withdrawn, while its callers hold connections.
	busy := gw.as(t, ann)
	idle := []*caller{gw.as(t, ann), gw.as(t, ann).over2(), gw.as(t, ann).over3(t)}
	for _, c := range idle {
		if _, _, err := c.get(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	old12 := gw.as(t, ann)
	old12.TLSClientConfig.MaxVersion = tls.VersionTLS12
	if _, _, err := old12.get(t.Context()); err != nil {
		t.Fatal(err)
	}
	old12.CloseIdleConnections()

	answer := make(chan error, 1)
	go func() {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+host+"/held", nil)
		resp, err := busy.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
		}
		answer <- err
	}()
	<-gw.inside

	gw.trust(t, ca2)
	done = gw.traffic(t, bob)
	gw.reload(t, true)
	done()
	welcome(bob)
	refused(gw.as(t, ann)) // on a new connection
	refused(old12)         // with a session of before: none is resumed

	// Idle connections were closed, so the next request needs a new one.
	for i, c := range idle {
		refused(c)
		if n := c.dialed.Load(); n < 2 {
			t.Errorf("the connection over HTTP/%d was kept", i+1)
		}
	}
	// A request that was on its way is answered, also when the grace period is
	// over, and is the last of its connection.
	await(t, "the end of the grace period", func() error {
		log, err := os.ReadFile(gw.logFile())
		if err == nil && !bytes.Contains(log, []byte(`"msg":"server shutdown","error":"server graceful shutdown`)) {
			err = errors.New("not yet")
		}
		return err
	})
	close(gw.held)
	if err := <-answer; err != nil {
		t.Errorf("a request that was on its way: %v", err)
	}
	refused(busy)
}

// traffic sends requests until its result is called, over kept and over new
// connections. Over HTTP/2 not one may fail. Over HTTP/1 a server of Go's that
// shuts down, and the kernel's queue of a socket that closes, drop connections
// without an answer: such a request is sent again, as clients do, and it must
// have reached nobody.
func (c *clientAuth) traffic(t *testing.T, who *tls.Certificate) (done func()) {
	t.Helper()
	var (
		stop            atomic.Bool
		served, dropped atomic.Int64
		wg              sync.WaitGroup
	)
	before := c.backend.count()
	for i := range 4 {
		from := c.as(t, who)
		from.DisableKeepAlives = i%2 == 0
		if i >= 2 {
			from.over2()
		}
		wg.Go(func() {
			for !stop.Load() {
				connected := false
				ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected = true }})
				status, _, err := from.get(ctx)
				if (i < 2 || !connected) && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)) {
					dropped.Add(1)
					continue
				}
				if err != nil || status != http.StatusOK {
					t.Errorf("caller %d during a rotation: status %d, %v", i, status, err)
					return
				}
				served.Add(1)
			}
		})
	}
	enough := func() {
		for n := served.Load(); served.Load() < n+40 && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
	}
	enough()
	return func() {
		t.Helper()
		enough()
		stop.Store(true)
		wg.Wait()
		if got := int64(c.backend.count() - before); got != served.Load() {
			t.Errorf("the backend got %d requests, and %d were answered", got, served.Load())
		}
		t.Logf("%d requests, %d connections dropped", served.Load(), dropped.Load())
	}
}

// TestCertificateFiles: a certificate that is replaced on disk is served after
// a forced reload, and after no other.
func TestCertificateFiles(t *testing.T) {
	ca, key := certificate(t, nil, nil, "ca")
	gw := startClientAuth(t, "require_and_verify", ca)
	ann := pair(t, ca, key, "spiffe://test/ann")
	serves := func(want string) {
		t.Helper()
		_, serial, err := gw.as(t, ann).get(t.Context())
		for errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) { // it waited at the socket that Caddy closed
			_, serial, err = gw.as(t, ann).get(t.Context())
		}
		if err != nil || serial != want {
			t.Errorf("certificate %s is served, want %s: %v", serial, want, err)
		}
	}
	serves("1")
	gw.serve(t, 2)
	gw.reload(t, false)
	serves("1")
	gw.reload(t, true)
	serves("2")
}

// TestUnverifiedCertificate: a certificate that Caddy only asked for, and did
// not verify, is nobody's.
func TestUnverifiedCertificate(t *testing.T) {
	ca, key := certificate(t, nil, nil, "ca")
	stranger, strangerKey := certificate(t, nil, nil, "ca") // of the same name
	ann := pair(t, ca, key, "spiffe://test/ann")
	mallory := pair(t, stranger, strangerKey, "spiffe://test/ann")
	const nobody = http.StatusUnauthorized
	for _, tc := range []struct {
		mode               string
		ann, mallory, none int // 0: no connection
	}{
		{"request", nobody, nobody, nobody},
		{"require", nobody, nobody, 0},
		{"verify_if_given", http.StatusOK, 0, nobody},
		{"require_and_verify", http.StatusOK, 0, 0},
	} {
		t.Run(tc.mode, func(t *testing.T) {
			gw := startClientAuth(t, tc.mode, ca)
			for name, c := range map[string]struct {
				who  *tls.Certificate
				want int
			}{"ann": {ann, tc.ann}, "mallory": {mallory, tc.mallory}, "none": {nil, tc.none}} {
				if status, _, err := gw.as(t, c.who).get(t.Context()); status != c.want || (err != nil) != (c.want == 0) {
					t.Errorf("%s: status %d, %v; want %d", name, status, err, c.want)
				}
			}
		})
	}
}
