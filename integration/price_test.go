package integration

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/modules/transcode/transcodetest"
)

// BenchmarkWalk is what the stages cost without network and proxy: Caddy's
// server answers with a word, directly and behind more and more stages. What
// Caddy itself takes for that is the first line.
func BenchmarkWalk(b *testing.B) {
	iss, shop := newIssuer(b, "k1"), transcodetest.New(b)
	const quota = "quota per tenant 100000000/m burst 100000000\n"
	for _, c := range []struct{ name, site string }{
		{"plain", "respond ok"},
		{"api", "api demo {\nlog denied\nrespond ok\n}"},
		{"api-log", "api demo {\nrespond ok\n}"},
		{"api-identity", "api demo {\nlog denied\nidentity main\nrespond ok\n}"},
		{"api-identity-require", "api demo {\nlog denied\nidentity main\nrequire scope orders:read\nrespond ok\n}"},
		{"api-identity-require-quota", "api demo {\nlog denied\nidentity main\nrequire scope orders:read\n" + quota + "respond ok\n}"},
		{"reputation", "api demo {\nlog denied\nreputation {\ndeny 192.0.2.128/25\n}\nrespond ok\n}"},
		{"quota", "api demo {\nlog denied\nquota per address 100000000/m burst 100000000\nrespond ok\n}"},
		{"quota-shared", "api demo {\nlog denied\nquota per address 100000000/m burst 100000000\nrespond ok\n}"},
		{"quota-habit", "api demo {\nlog denied\nquota per address 100000000/m burst 100000000 {\nhabit 10x\n}\nrespond ok\n}"},
		{"transcode-unmatched", "api demo {\nlog denied\ntranscode shop.binpb\nrespond ok\n}"},
		{"catalog", "api demo {\nlog denied\ncatalog\nrespond ok\n}"},
		{"guard", "api demo {\nlog denied\nguard\nrespond ok\n}"},
		{"canary", "api demo {\nlog denied\ncanary next {\nweight 1%\nrespond next\n}\nrespond ok\n}"},
		{"all-off", "api demo {\nlog off\nidentity main {\nmode off\n}\nrequire scope a {\nmode off\n}\nquota per tenant 1/m {\nmode off\n}\nrespond ok\n}"},
	} {
		b.Run(c.name, func(b *testing.B) {
			gw := prepare(b)
			gw.write(b, "jwks.json", iss.jwks())
			gw.write(b, "shop.binpb", string(shop.Set))
			globals := "identity {\nissuer main https://id.test {\njwks jwks.json\naudience orders-api\n}\n}"
			if c.name == "quota-shared" {
				globals += "\ncluster unix://" + startRedis(b).sock
			}
			if err := gw.load(globals, c.site); err != nil {
				b.Fatal(err)
			}
			req, _ := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://localhost/orders?page=2&limit=50", nil)
			req.RequestURI, req.RemoteAddr = "/orders?page=2&limit=50", "192.0.2.1:1234"
			req.Header = bearer(iss.token(b, nil))
			req.Header.Set("Accept", "application/json")
			req.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64)")
			serve(b, req)
		})
	}
}

// serve has the running configuration answer a request over and over.
func serve(b *testing.B, req *http.Request) {
	b.Helper()
	app, err := caddy.ActiveContext().App("http")
	if err != nil {
		b.Fatal(err)
	}
	server := app.(*caddyhttp.App).Servers["srv0"]
	b.ReportAllocs()
	for b.Loop() {
		r := *req
		r.Header = req.Header.Clone()
		w := &sink{header: make(http.Header, 8)}
		server.ServeHTTP(w, &r)
		if w.status != http.StatusOK {
			b.Fatalf("status %d: %s", w.status, w.body.String())
		}
	}
}

// BenchmarkSessionWalk is what a browser's session costs: the cookie is opened
// once, and then found by its text. A cookie's length is what remains.
func BenchmarkSessionWalk(b *testing.B) {
	p := newLoginProvider(b, "http://localhost")
	gw := prepare(b)
	if err := gw.load(loginGlobals(p, ""), "handle /plain {\nrespond ok\n}\nhandle /api {\napi bare {\nlog denied\nrespond ok\n}\n}\nhandle {\napi portal {\nlog denied\nidentity {\nsession main\n}\nrespond ok\n}\n}"); err != nil {
		b.Fatal(err)
	}
	s := gw.surfer(b)
	if a := s.login(b, p, "/", ann); a.status != 200 {
		b.Fatalf("%d %s", a.status, a.body)
	}
	for _, path := range []string{"/plain", "/api", "/"} {
		b.Run(path, func(b *testing.B) {
			req, _ := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://localhost"+path, nil)
			req.RequestURI, req.RemoteAddr, req.Header = path, "192.0.2.1:1234", s.jarred()
			serve(b, req)
		})
	}
}

// sink takes an answer for nothing.
type sink struct {
	header http.Header
	status int
	body   strings.Builder
}

func (s *sink) Header() http.Header { return s.header }

func (s *sink) WriteHeader(status int) { s.status = status }

func (s *sink) Write(p []byte) (int, error) {
	if s.status == 0 {
		s.status = http.StatusOK
	}
	if s.status != http.StatusOK {
		s.body.Write(p)
	}
	return len(p), nil
}

func (s *sink) ReadFrom(src io.Reader) (int64, error) { return io.Copy(io.Discard, src) }

// BenchmarkSites is what a hosting provider pays for a site: the time in which a
// configuration of so many is adapted and takes the place of one of the same, and
// the memory that each keeps. Contracts, rules and plans are shared.
func BenchmarkSites(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			iss, gw := newIssuer(b, "k1"), prepare(b)
			gw.write(b, "jwks.json", iss.jwks())
			gw.write(b, "api.yaml", fmt.Sprintf(contractDoc, "3.1.0"))
			globals := "identity {\nissuer main https://id.test {\njwks jwks.json\naudience orders-api\n}\n}\nquota {\nplan free 60/m\n}"
			live := func() float64 {
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				return float64(m.HeapAlloc)
			}
			src := func(n int) string {
				var sites strings.Builder
				for i := range n {
					fmt.Fprintf(&sites, "http://t%d.test {\nbind unix/%s\nguard\napi a%d {\ncontract api.yaml\nidentity main\nquota per tenant\nfirewall\nreverse_proxy localhost:9\n}\n}\n", i, gw.sock, i)
				}
				return gw.caddyfile(globals, "respond ok") + sites.String()
			}
			if err := gw.loadFile(src(1)); err != nil {
				b.Fatal(err)
			}
			before := live()
			for b.Loop() {
				if err := gw.loadFile(src(n)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric((live()-before)/float64(n)/1024, "KiB/site")
		})
	}
}
