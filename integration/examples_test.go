package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-caddy/gatehouse/modules/policytest"
	"github.com/gatehouse-caddy/gatehouse/modules/transcode/transcodetest"
)

var update = flag.Bool("update", false, "rewrite the descriptors of examples/grpc-behind-rest")

func examples(t *testing.T) (dirs []string) {
	t.Helper()
	files, err := filepath.Glob("../examples/*/Caddyfile")
	if err != nil || len(files) < 6 {
		t.Fatalf("only %d examples were found: %v", len(files), err)
	}
	for _, f := range files {
		dirs = append(dirs, filepath.Dir(f))
	}
	return dirs
}

// TestExamplesCases runs the cases that every example carries.
func TestExamplesCases(t *testing.T) {
	for _, dir := range examples(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			var out bytes.Buffer
			if status := policytest.Test(&out, policytest.TestOptions{Dir: dir}); status != 0 {
				t.Errorf("status %d:\n%s", status, &out)
			}
		})
	}
}

// TestExamplesAudit holds that no example shows what an audit warns of, but for
// what its README says.
func TestExamplesAudit(t *testing.T) {
	skip := map[string][]string{"hosting-provider": {"GH002", "GH005"}}
	for _, dir := range examples(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			var out bytes.Buffer
			o := policytest.AuditOptions{Config: dir + "/Caddyfile", Skip: skip[filepath.Base(dir)]}
			if status := policytest.Audit(&out, o); status != 0 {
				t.Errorf("status %d:\n%s", status, &out)
			}
		})
	}
}

// TestExampleDescriptors holds that the descriptors of the example are those of
// its source.
func TestExampleDescriptors(t *testing.T) {
	const dir = "../examples/grpc-behind-rest/"
	source, err := os.ReadFile(dir + "shop.proto")
	if err != nil {
		t.Fatal(err)
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(transcodetest.Compile(t, string(source)))
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(dir+"shop.binpb", data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(dir + "shop.binpb")
	if err != nil || string(have) != string(data) {
		t.Errorf("shop.binpb is not what shop.proto says (%v); go test ./integration -run TestExampleDescriptors -update", err)
	}
}

// example copies an example into the gateway's folder and returns its Caddyfile
// with pairs of texts replaced: what is elsewhere there is of the test here.
// Each text must be there, so that an example cannot drift away from its test.
func (g *gateway) example(t *testing.T, name, https string, pairs ...string) string {
	t.Helper()
	if err := os.CopyFS(g.dir, os.DirFS("../examples/"+name)); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("../examples/" + name + "/Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	src := string(data)
	global := fmt.Sprintf("{\n\tadmin unix/%s\n\tpersist_config off\n\tauto_https %s\n\tskip_install_trust\n\tgrace_period 5s\n\tlog {\n\t\toutput file %s\n\t}\n", g.admin, https, g.logFile())
	if !strings.Contains(src, "storage file_system") {
		global += "\tstorage file_system " + filepath.Join(g.dir, "storage") + "\n"
	}
	pairs = append([]string{"\n{\n", "\n" + global}, pairs...)
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(src, pairs[i]) {
			t.Fatalf("the Caddyfile of %s has no %q", name, pairs[i])
		}
		src = strings.Replace(src, pairs[i], pairs[i+1], 1)
	}
	return src
}

// on is a site that is reached through the gateway's socket.
func (g *gateway) on(host string) string { return "http://" + host + " {\n\tbind unix/" + g.sock }

// visit asks a site of the gateway by its name.
func (g *gateway) visit(t *testing.T, host, path string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := g.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, resp.Trailer, string(body)}
}

func TestExamplePublicPlans(t *testing.T) {
	gw, one, two := prepare(t), newBackend(t, nil), newBackend(t, nil)
	src := gw.example(t, "public-plans", "off", "api.example.com {", gw.on("localhost"), "weather-1:8080 weather-2:8080", one.addr()+" "+two.addr())
	const secret = "the key of a test"
	sum := sha256.Sum256([]byte(secret))
	gw.write(t, "keys.json", `[{"id": "acme-1", "sha256": "`+hex.EncodeToString(sum[:])+`", "tenant": "acme", "plan": "pro"}]`)
	if err := gw.loadFile(src); err != nil {
		t.Fatal(err)
	}
	key := http.Header{"X-Api-Key": {secret}}
	for i := range 10 {
		if a := gw.get(t, "/forecasts/rome", nil); a.status != 200 {
			t.Fatalf("request %d of nobody: %d %s", i+1, a.status, a.body)
		}
	}
	if a := gw.get(t, "/forecasts/rome", nil); a.reason() != "quota.exhausted" {
		t.Errorf("nobody has more: %d %s", a.status, a.body)
	}
	if a := gw.get(t, "/forecasts/rome", key); a.status != 200 || !strings.Contains(a.header.Get("RateLimit-Policy"), `"pro"`) {
		t.Errorf("a key: %d %v", a.status, a.header)
	}
	post := with(key, "Content-Type", "application/json")
	if a := gw.do(t, "POST", "/measurements", post, `{"place":"rome","celsius":20}`); a.status != 200 {
		t.Errorf("a measurement: %d %s", a.status, a.body)
	}
	if a := gw.do(t, "POST", "/measurements", post, `{"place":"rome","celsius":700}`); a.reason() != "input.body" {
		t.Errorf("a measurement that cannot be: %d %s", a.status, a.body)
	}
	if one.count() == 0 || two.count() == 0 {
		t.Errorf("the backends got %d and %d requests", one.count(), two.count())
	}
}

func TestExampleInternalMTLS(t *testing.T) {
	gw, b := prepare(t), newBackend(t, nil)
	src := gw.example(t, "internal-mtls", "disable_redirects",
		"ledger.internal {", "https://ledger.internal {\n\tbind unix/"+gw.sock,
		"trust_pool file clients-ca.pem", "trust_pool file "+filepath.Join(gw.dir, "clients-ca.pem"),
		"ledger-backend.internal:8080", b.addr())
	ca, caKey := certificate(t, nil, nil, "an authority")
	gw.write(t, "clients-ca.pem", block(ca))
	if err := gw.loadFile(src); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	eventually(t, "the gateway's certificate", func() bool {
		root, err := os.ReadFile(filepath.Join(gw.dir, "storage/pki/authorities/local/root.crt"))
		if err != nil || !roots.AppendCertsFromPEM(root) {
			return false
		}
		found, _ := filepath.Glob(filepath.Join(gw.dir, "storage/certificates/local/ledger.internal/*.crt"))
		return len(found) > 0
	})
	ask := func(who *tls.Certificate, method, body string) (int, error) {
		config := &tls.Config{RootCAs: roots, ServerName: "ledger.internal"}
		if who != nil {
			config.Certificates = []tls.Certificate{*who}
		}
		tr := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", gw.sock)
		}}
		defer tr.CloseIdleConnections()
		r, err := http.NewRequestWithContext(t.Context(), method, "https://ledger.internal/accounts/00000042/entries", strings.NewReader(body))
		if err != nil {
			return 0, err
		}
		r.Header.Set("Content-Type", "application/json")
		resp, err := tr.RoundTrip(r)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, err
	}
	stranger, strangerKey := certificate(t, nil, nil, "another authority")
	reports := pair(t, ca, caKey, "spiffe://internal/reports")
	eventually(t, "Caddy to have issued its own certificate", func() bool {
		_, err := ask(reports, "GET", "")
		return err == nil
	})
	for _, c := range []struct {
		name         string
		who          *tls.Certificate
		method, body string
		want         int // 0: no connection
	}{
		{"nobody", nil, "GET", "", 0},
		{"one of another authority", pair(t, stranger, strangerKey, "spiffe://internal/billing"), "GET", "", 0},
		{"reports reads", reports, "GET", "", 200},
		{"a certificate for something else", pair(t, ca, caKey, "spiffe://elsewhere/billing"), "GET", "", 403},
		{"reports does not write", pair(t, ca, caKey, "spiffe://internal/reports"), "POST", `{"cents":1,"text":"mine"}`, 403},
		{"billing does", pair(t, ca, caKey, "spiffe://internal/billing"), "POST", `{"cents":1,"text":"lunch"}`, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ask(c.who, c.method, c.body)
			if got != c.want || (err == nil) == (c.want == 0) {
				t.Errorf("%d, %v; want %d", got, err, c.want)
			}
		})
	}
	if r, body := b.got(); r.Header.Get("X-Gatehouse-Subject") != "spiffe://internal/billing" || !strings.Contains(body, "lunch") {
		t.Errorf("the backend got %q of %v", body, r.Header)
	}
}

func TestExampleGRPC(t *testing.T) {
	gw, iss, shop := prepare(t), newIssuer(t, "k"), transcodetest.New(t).Serve(t)
	gw.write(t, "jwks.json", iss.jwks())
	src := gw.example(t, "grpc-behind-rest", "off",
		"shop.example.com {", gw.on("localhost"),
		"audience shop\n", "audience shop\n\t\t\tjwks "+filepath.Join(gw.dir, "jwks.json")+"\n",
		"h2c://shop-1:9090 h2c://shop-2:9090", "h2c://"+shop.Addr)
	if err := gw.loadFile(src); err != nil {
		t.Fatal(err)
	}
	token := bearer(iss.token(t, map[string]any{"iss": "https://id.example.com", "aud": "shop"}))
	if a := gw.get(t, "/v1/orders/7", token); a.status != 200 || !strings.Contains(a.body, `"id":"7"`) {
		t.Errorf("REST: %d %s", a.status, a.body)
	}
	if a := gw.do(t, "POST", "/v1/customers/ann/orders", with(token, "Content-Type", "application/json"), `{"quantity":3}`); a.status != 200 || !strings.Contains(a.body, `"customer":"ann"`) {
		t.Errorf("REST with a body: %d %s", a.status, a.body)
	}
	if a := gw.get(t, "/v1/orders/missing", token); a.status != 404 || a.reason() != "transcode.upstream" {
		t.Errorf("an order that is missing: %d %s", a.status, a.body)
	}
	if a := gw.get(t, "/v1/orders/7", nil); a.reason() != "identity.missing" {
		t.Errorf("nobody: %d %s", a.status, a.body)
	}
	if md := shop.Last.Load(); md == nil || strings.Join(md.Get("x-gatehouse-subject"), "") != "ann" {
		t.Errorf("the service was told %v", md)
	}
}

// TestExampleSeveralNodes runs three gateways, Redis and HAProxy as they are
// installed.
func TestExampleSeveralNodes(t *testing.T) {
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin")
	if _, err := exec.LookPath("haproxy"); err != nil {
		t.Fatal("haproxy is missing; make deps installs it, or apt-get install haproxy")
	}
	iss, b, r := newIssuer(t, "k"), newBackend(t, nil), startRedis(t)
	const password = "of-a-test"
	r.login(t, password)
	for name, value := range map[string]string{"REDIS_URL": "unix://" + r.sock, "REDIS_PASSWORD": password, "ZONE": "a"} {
		t.Setenv(name, value)
	}
	var nodes []*gateway
	var kill []func()
	storage := t.TempDir()
	proxy, err := os.ReadFile("../examples/several-nodes/haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	port, _ := freePorts(t)
	cfg := strings.NewReplacer("bind :443", fmt.Sprintf("bind 127.0.0.1:%d", port), "maxconn 20000", "maxconn 200").Replace(string(proxy))
	for i := range 3 {
		gw := prepare(t)
		gw.write(t, "jwks.json", iss.jwks())
		src := gw.example(t, "several-nodes", "off",
			"storage file_system /srv/gateway", "storage file_system "+storage,
			"api.example.com {", gw.on("api.example.com"),
			"audience orders-api\n", "audience orders-api\n\t\t\tjwks "+filepath.Join(gw.dir, "jwks.json")+"\n",
			"reverse_proxy orders-1:8080 orders-2:8080 orders-3:8080", "reverse_proxy "+b.addr(),
			"zone a orders-1:8080 orders-2:8080", "zone a "+b.addr(), "zone b orders-3:8080", "")
		kill = append(kill, gw.process(t, src))
		server := fmt.Sprintf("10.0.0.%d:443", 11+i)
		if !strings.Contains(cfg, server) {
			t.Fatalf("haproxy.cfg has no %s", server)
		}
		cfg = strings.Replace(cfg, server, "unix@"+gw.sock, 1)
		nodes = append(nodes, gw)
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(cfg), 0o600); err != nil {
		t.Fatal(err)
	}
	haproxy := exec.Command("haproxy", "-db", "-f", file)
	haproxy.Stderr = os.Stderr
	if err := haproxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = haproxy.Process.Kill()
		_ = haproxy.Wait()
	})
	address := fmt.Sprintf("127.0.0.1:%d", port)
	token := iss.token(t, map[string]any{"iss": "https://id.example.com"})
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}}
	ask := func(token string) (int, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://api.example.com/orders", nil)
		if err != nil {
			return 0, err
		}
		r.Header = bearer(token)
		resp, err := client.Do(r)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, err
	}
	eventually(t, "haproxy to listen", func() bool {
		status, err := ask("none")
		return err == nil && status == 401
	})
	for _, gw := range nodes {
		gw.up(t, 1)
	}

	allowed := 0
	began := time.Now()
	for range 120 {
		switch status, err := ask(token); {
		case err != nil:
			t.Fatal(err)
		case status == 200:
			allowed++
		case status != 429:
			t.Fatalf("an answer of %d", status)
		}
	}
	// 60 at once, one for each second that went by, and what may be overshot.
	if most := 60 + int(time.Since(began).Seconds()) + 1 + 6; allowed < 60 || allowed > most {
		t.Errorf("three gateways allowed %d requests, want 60 to %d", allowed, most)
	}
	for i, gw := range nodes {
		seen := map[string]int{}
		for _, d := range gw.decisions(t) {
			seen[fmt.Sprint(d["client_ip"])]++
		}
		if seen["127.0.0.1"] == 0 || len(seen) != 1 {
			t.Errorf("gateway %d has seen clients %v", i+1, seen)
		}
	}

	kill[0]()
	other := iss.token(t, map[string]any{"iss": "https://id.example.com", "tenant": "initech"})
	for i := range 20 {
		if status, err := ask(other); err != nil || status != 200 {
			t.Errorf("request %d after a gateway was killed: %d, %v", i+1, status, err)
		}
	}
}

// login makes the server ask for a password.
func (r *redis) login(t *testing.T, password string) {
	t.Helper()
	c, err := net.Dial("unix", r.sock)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "CONFIG SET requirepass %s\r\n", password); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 64)
	if n, err := c.Read(answer); err != nil || !bytes.HasPrefix(answer[:n], []byte("+OK")) {
		t.Fatalf("redis-server says %q, %v", answer[:n], err)
	}
}

func TestExampleHostingProvider(t *testing.T) {
	gw := prepare(t)
	gw.level = "INFO"
	pairs := []string{}
	backends := map[string]*backend{}
	for host, dial := range map[string]string{
		"shop.acme.example {": "10.1.0.10:8080", "www.initech.example, initech.example {": "10.1.0.20:8080",
		"blog.newcomer.example {": "10.1.0.30:8080", "app.globex.example {": "10.1.0.40:8080",
	} {
		name := strings.TrimSuffix(strings.Fields(host)[0], ",")
		backends[name] = newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Powered-By", "PHP")
			_, _ = io.WriteString(w, name)
		})
		pairs = append(pairs, "\n"+host, "\n"+gw.on(name), dial, backends[name].addr())
	}
	if err := gw.loadFile(gw.example(t, "hosting-provider", "off", pairs...)); err != nil {
		t.Fatal(err)
	}
	const attack = "/?id=1%27%20OR%20%271%27=%271"
	for name, b := range backends {
		if a := gw.visit(t, name, "/"); a.status != 200 || a.body != name || a.header.Get("X-Powered-By") != "" {
			t.Errorf("%s: %d %q %v", name, a.status, a.body, a.header)
		}
		a := gw.visit(t, name, attack)
		switch name {
		case "blog.newcomer.example":
			if a.status != 200 || b.count() != 2 {
				t.Errorf("%s in shadow: %d %s", name, a.status, a.body)
			}
		case "app.globex.example":
			if a.status != 403 || a.body != "Globex cannot help you: firewall.attack" {
				t.Errorf("%s has a page of its own: %d %s", name, a.status, a.body)
			}
		default:
			if a.reason() != "firewall.attack" || b.count() != 1 {
				t.Errorf("%s: %d %s", name, a.status, a.body)
			}
		}
	}
}
