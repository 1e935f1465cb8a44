// Package integration runs whole Caddyfiles in a real Caddy, in process.
package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/gatehouse-caddy/gatehouse"
	"github.com/gatehouse-caddy/gatehouse/modules/api"
)

// gateway is a running Caddy that is reached through a unix socket, so that
// tests need no port. Caddy has one running config per process: tests that
// call start run one after another.
type gateway struct {
	dir    string // files of the test; the Caddyfile's relative paths start here
	sock   string
	admin  string
	level  string // of the log
	client *http.Client
}

// start loads a Caddyfile made of global options and the body of one site, and
// stops it with the test.
func start(t testing.TB, global, site string) *gateway {
	t.Helper()
	gw := prepare(t)
	if err := gw.load(global, site); err != nil {
		t.Fatalf("loading: %v", err)
	}
	return gw
}

// prepare makes a gateway's folder without starting it, for tests that put
// files there first.
func prepare(t testing.TB) *gateway {
	t.Helper()
	dir, err := os.MkdirTemp("", "gw") //nolint:usetesting // t.TempDir's path may be too long for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	gw := &gateway{dir: dir, sock: filepath.Join(dir, "s"), admin: filepath.Join(dir, "a"), level: "INFO"}
	tr := &http.Transport{MaxIdleConnsPerHost: 16, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", gw.sock)
	}}
	gw.client = &http.Client{Transport: tr, Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		if err := caddy.Stop(); err != nil {
			t.Errorf("stopping: %v", err)
		}
		_ = os.RemoveAll(dir)
	})
	return gw
}

// caddyfile is the whole file that load loads.
func (g *gateway) caddyfile(global, site string) string {
	return fmt.Sprintf(`{
	admin unix/%s
	persist_config off
	auto_https off
	grace_period 5s
	storage file_system %s
	log {
		output file %s
		level %s
	}
	%s
}
http://localhost {
	bind unix/%s
	%s
}
`, g.admin, filepath.Join(g.dir, "storage"), g.logFile(), g.level, global, g.sock, site)
}

// load adapts and loads, again when something runs already.
func (g *gateway) load(global, site string) error {
	return g.loadFile(g.caddyfile(global, site))
}

func (g *gateway) loadFile(src string) error {
	raw, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(src), map[string]any{"filename": filepath.Join(g.dir, "Caddyfile")})
	if err != nil {
		return err
	}
	err = caddy.Load(raw, true)
	g.settle()
	return err
}

// settle leaves the configuration before behind: a connection to it may be
// closed under the next request, and the first that comes after a reload may
// still be taken by it and dropped.
func (g *gateway) settle() {
	time.Sleep(20 * time.Millisecond) // Caddy returns when it is likely to have closed the old socket
	for range 3 {
		g.client.CloseIdleConnections()
		if resp, err := g.client.Get("http://nobody.test/"); err == nil { // which is no site of anybody's
			_ = resp.Body.Close()
		}
	}
	g.client.CloseIdleConnections()
}

// write puts a file into the gateway's folder and returns its path.
func (g *gateway) write(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(g.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// answer is what a client sees.
type answer struct {
	status  int
	header  http.Header
	trailer http.Header
	body    string
}

// problem reads the answer as RFC 9457 says, and fails when it is none.
func (a answer) problem(t testing.TB) map[string]any {
	t.Helper()
	if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Fatalf("status %d has content type %q, want application/problem+json; body %q", a.status, ct, a.body)
	}
	var p map[string]any
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		t.Fatalf("problem %q: %v", a.body, err)
	}
	return p
}

// reason is the problem's reason, or empty when the answer is no problem.
func (a answer) reason() string {
	var p struct {
		Reason string `json:"reason"`
	}
	_ = json.Unmarshal([]byte(a.body), &p)
	return p.Reason
}

// do sends one request; header may be nil.
func (g *gateway) do(t testing.TB, method, path string, header http.Header, body string) answer {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://localhost"+path, r)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	resp, err := g.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, resp.Trailer, string(b)}
}

func (g *gateway) get(t testing.TB, path string, header http.Header) answer {
	t.Helper()
	return g.do(t, http.MethodGet, path, header, "")
}

func (g *gateway) logFile() string { return filepath.Join(g.dir, "log") }

// decisions returns the decision log entries so far, oldest first.
func (g *gateway) decisions(t testing.TB) []map[string]any {
	t.Helper()
	api.Flush()
	data, err := os.ReadFile(g.logFile())
	if err != nil {
		t.Fatal(err)
	}
	var entries []map[string]any
	for line := range bytes.Lines(data) {
		var e map[string]any
		if json.Unmarshal(line, &e) == nil && strings.HasSuffix(fmt.Sprint(e["logger"]), "gatehouse_api.decision") {
			entries = append(entries, e)
		}
	}
	return entries
}

// backend is a real HTTP server behind the gateway that keeps what it got.
type backend struct {
	*httptest.Server
	mu   sync.Mutex
	last *http.Request
	body string
	hits int
}

// newBackend answers every request with 200 and {"ok":true} unless handler is given.
func newBackend(t testing.TB, handler http.HandlerFunc) *backend {
	t.Helper()
	b := &backend{}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		b.mu.Lock()
		b.last, b.body = r, string(data)
		b.hits++
		b.mu.Unlock()
		if handler != nil {
			r.Body = io.NopCloser(bytes.NewReader(data))
			handler(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"ok":true}`)
	}))
	t.Cleanup(b.Close)
	return b
}

// addr is the backend as reverse_proxy wants it.
func (b *backend) addr() string { return b.Listener.Addr().String() }

// got is the last request and its body.
func (b *backend) got() (*http.Request, string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last, b.body
}

func (b *backend) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.hits
}

func TestMain(m *testing.M) {
	flag.Parse()
	if file := os.Getenv(gatewayEnv); file != "" {
		if err := runGateway(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	caddy.DefaultStorage.Path = filepath.Join(os.TempDir(), "gatehouse-test-storage")
	os.Exit(m.Run())
}
