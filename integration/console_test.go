package integration

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/api"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// shown is an Exchange as the admin API shows it.
type shown struct {
	ID, API, Operation, Method, Path, Verdict, Reason, Sentence, Detail, Principal, Tenant, Upstream string
	Error                                                                                            string
	Faults                                                                                           []string
	Status                                                                                           int
	UserAgent                                                                                        string `json:"user_agent"`
	TraceID                                                                                          string `json:"trace_id"`
	DurationUs                                                                                       int64  `json:"duration_us"`
	Stages                                                                                           []struct {
		Stage, Verdict, Reason, Rule, Mode string
		AtUs                               int64 `json:"at_us"`
		Us                                 int64
	}
}

func (s shown) walked() string {
	var names []string
	for _, st := range s.Stages {
		names = append(names, st.Stage+":"+st.Verdict)
	}
	return strings.Join(names, " ")
}

// exchanges asks for what is remembered.
func (g *gateway) exchanges(t testing.TB, query string) []shown {
	t.Helper()
	var page struct{ Exchanges []shown }
	if err := json.Unmarshal([]byte(g.ask(t, "/gatehouse/exchanges?"+query)), &page); err != nil {
		t.Fatal(err)
	}
	return page.Exchanges
}

// TestExplain reads one request back by the id that its client got, and finds
// it after a reload too.
func TestExplain(t *testing.T) {
	w := startWalk(t, "")
	a := w.do(t, "POST", "/orders?token=hunter2", with(bearer(w.token(t, map[string]any{"scope": "orders:write"})), "Content-Type", "application/json"), `{"quantity":0}`)
	if a.reason() != "input.body" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	id := a.header.Get("X-Request-Id")
	if err := w.reload("owner team"); err != nil {
		t.Fatal(err)
	}
	var ex shown
	text := w.ask(t, "/gatehouse/exchanges/"+id)
	if err := json.Unmarshal([]byte(text), &ex); err != nil {
		t.Fatal(err)
	}
	if ex.ID != id || ex.API != "orders" || ex.Operation != "createOrder" || ex.Method != "POST" || ex.Path != "/orders" || ex.Status != 400 ||
		ex.Verdict != "deny" || ex.Reason != "input.body" || ex.Principal != "ann" || ex.Tenant != "acme" || len(ex.Faults) == 0 || strings.Contains(text, "hunter2") {
		t.Errorf("it shows %s", text)
	}
	if ex.walked() != "contract:allow identity:allow require:allow quota:allow input:deny" {
		t.Errorf("the walk was %s", ex.walked())
	}
	at := int64(0)
	for _, s := range ex.Stages {
		if s.AtUs < at || s.AtUs+s.Us > ex.DurationUs {
			t.Errorf("stage %s at %d µs for %d of %d", s.Stage, s.AtUs, s.Us, ex.DurationUs)
		}
		at = s.AtUs
	}

	for _, word := range []string{id, "urn:request:" + id} {
		told, err := w.command(t, "explain", word)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"POST /orders", "principal ann", "tenant acme", "createOrder", "deny, input.body", "quantity", "identity  allow", "To let it pass"} {
			if !strings.Contains(told, want) {
				t.Errorf("explain does not say %q:\n%s", want, told)
			}
		}
	}
	if _, err := w.command(t, "explain", "nobody"); err == nil || !strings.Contains(err.Error(), "no Exchange with the request id nobody is remembered") {
		t.Errorf("an unknown id is explained: %v", err)
	}
}

// TestExchangesAreFound asks for some of what is remembered.
func TestExchangesAreFound(t *testing.T) {
	gate.KeepRecent(0) // what other tests have left is from times that they made up
	gate.KeepRecent(1000)
	w := startWalk(t, "")
	ann, bob := bearer(w.token(t, nil)), bearer(w.token(t, map[string]any{"sub": "bob", "tenant": "other"}))
	start := time.Now().UTC().Format(time.RFC3339Nano)
	for range 3 {
		w.get(t, "/orders", ann)
	}
	w.get(t, "/orders", bob)
	w.get(t, "/orders", nil)                // 401 identity.missing
	w.get(t, "/nowhere", ann)               // 404 contract.unknown_path
	w.do(t, "DELETE", "/orders/1", ann, "") // 403 require.scope
	w.get(t, "/orders?limit=1000", ann)     // 400 input.parameters
	if err := w.reload("quota per tenant 1/h {\nmode shadow\n}"); err != nil {
		t.Fatal(err)
	}
	w.get(t, "/orders", ann)
	last := w.get(t, "/orders", ann).header.Get("X-Request-Id")

	all := w.exchanges(t, "since="+url.QueryEscape(start))
	if len(all) != 10 || all[0].ID != last || all[0].Verdict != "would_deny" {
		t.Fatalf("%d are remembered, the newest %+v", len(all), all[0])
	}
	for query, want := range map[string]int{
		"api=orders": 10, "api=other": 0, "limit=4": 4,
		"verdict=deny": 4, "verdict=allow": 5, "verdict=would_deny": 1, "verdict=undecided": 0,
		"stage=quota&verdict=would_deny": 1, "stage=quota": 7, "stage=contract&verdict=deny": 1,
		"reason=require.scope": 1, "reason=input.parameters&stage=input": 1, "reason=input.parameters&stage=identity": 0,
		"status=404": 1, "status=4xx": 4, "status=5xx": 0,
		"principal=bob": 1, "tenant=other": 1, "principal=": 10,
		"path=/now": 1, "method=DELETE": 1, "operation=deleteOrder": 1, "since=1h": 10,
	} {
		q := query
		if !strings.Contains(q, "since") {
			q += "&since=" + url.QueryEscape(start)
		}
		if got := len(w.exchanges(t, q)); got != want && query != "since=1h" || got < want {
			t.Errorf("%s finds %d, want %d", query, got, want)
		}
	}
}

// TestConsoleRefuses asks for what makes no sense.
func TestConsoleRefuses(t *testing.T) {
	gw := start(t, "", "api demo {\nrespond ok\n}")
	for path, want := range map[string]string{
		"/gatehouse/exchanges?stage=quotas":                "400 there is no stage",
		"/gatehouse/exchanges?reason=quota.empty":          "400 there is no reason",
		"/gatehouse/exchanges?verdict=no":                  "400 verdict",
		"/gatehouse/exchanges?status=abc":                  "400 status",
		"/gatehouse/exchanges?status=9xx":                  "400 status",
		"/gatehouse/exchanges?since=yesterday":             "400 since",
		"/gatehouse/exchanges?limit=1001":                  "400 limit",
		"/gatehouse/exchanges?limit=0":                     "400 limit",
		"/gatehouse/exchanges?tennant=a":                   "400 unknown filter",
		"/gatehouse/exchanges?tenant=a&tenant=b":           "400 tenant may be given once",
		"/gatehouse/exchanges/stream?verdict=maybe":        "400 verdict",
		"/gatehouse/exchanges/stream?after=now":            "400 after",
		"/gatehouse/exchanges/nobody":                      "404 no Exchange",
		"/gatehouse/exchanges/a%20b":                       "400 ",
		"/gatehouse/exchanges/" + strings.Repeat("a", 200): "400 ",
		"/gatehouse/exchanges/<script>":                    "400 ",
	} {
		a := gw.change(t, http.MethodGet, path, "", nil)
		status, text, _ := strings.Cut(want, " ")
		if strconv.Itoa(a.status) != status || !strings.Contains(a.body, text) || len(a.body) > 500 || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	for _, path := range []string{"/gatehouse/exchanges", "/gatehouse/exchanges/x", "/gatehouse/overview", "/gatehouse/console"} {
		if a := gw.change(t, http.MethodPost, path, "", nil); a.status != 405 || a.header.Get("Allow") == "" {
			t.Errorf("POST %s: %d %s", path, a.status, a.body)
		}
	}
	if err := gw.load("console off", "api demo {\nrespond ok\n}"); err != nil {
		t.Fatal(err)
	}
	id := gw.get(t, "/", nil).header.Get("X-Request-Id")
	if a := gw.change(t, http.MethodGet, "/gatehouse/exchanges/"+id, "", nil); a.status != 404 || !strings.Contains(a.body, "console off") {
		t.Errorf("off: %d %s", a.status, a.body)
	}
	if err := gw.load("", "api demo {\nrespond ok\n}"); err != nil {
		t.Fatal(err)
	}
	id = gw.get(t, "/", nil).header.Get("X-Request-Id")
	gw.ask(t, "/gatehouse/exchanges/"+id)
}

// TestRefusalsOutliveTraffic: a flood of requests that pass does not push out
// what was refused, and the other way round.
func TestRefusalsOutliveTraffic(t *testing.T) {
	gw := start(t, "console {\nkeep 10\n}", "api floods {\n@no path /no\nrequire @no role admin\nrespond ok\n}")
	no := gw.get(t, "/no", nil).header.Get("X-Request-Id")
	var yes string
	for range 50 {
		yes = gw.get(t, "/", nil).header.Get("X-Request-Id")
	}
	gw.ask(t, "/gatehouse/exchanges/"+no)
	if n := len(gw.exchanges(t, "api=floods")); n != 11 {
		t.Errorf("%d are remembered, want 10 that passed and 1 that did not", n)
	}
	for range 50 {
		gw.get(t, "/no", nil)
	}
	gw.ask(t, "/gatehouse/exchanges/"+yes)
	if n := len(gw.exchanges(t, "api=floods")); n != 20 {
		t.Errorf("%d are remembered, want 20", n)
	}
}

// TestStageAloneIsRemembered: a stage without an api around it leaves a record
// of what it refused.
func TestStageAloneIsRemembered(t *testing.T) {
	gw := start(t, "", "require role admin\nrespond ok\nhandle_errors {\nrespond refused 403\n}")
	id := gw.get(t, "/secret", nil).header.Get("X-Request-Id")
	var ex shown
	if err := json.Unmarshal([]byte(gw.ask(t, "/gatehouse/exchanges/"+id)), &ex); err != nil {
		t.Fatal(err)
	}
	if ex.API != "" || ex.Path != "/secret" || ex.Reason != "require.anonymous" || ex.walked() != "require:deny" {
		t.Errorf("%+v", ex)
	}
}

// stream opens the stream of Exchanges and returns what it sends, line by line.
func (g *gateway) stream(t testing.TB, query, last string) (<-chan string, func()) {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", g.admin)
	}}
	ctx, cancel := context.WithCancel(t.Context())
	r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/gatehouse/exchanges/stream?"+query, nil)
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	resp, err := (&http.Client{Transport: tr}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		defer resp.Body.Close()
		in := bufio.NewScanner(resp.Body)
		in.Buffer(nil, 1<<20)
		for in.Scan() {
			lines <- in.Text()
		}
	}()
	t.Cleanup(cancel)
	return lines, cancel
}

// waitFor reads lines until one fits.
func waitFor(t testing.TB, lines <-chan string, fits func(string) bool) string {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case line, ok := <-lines:
			switch {
			case !ok:
				t.Fatal("the stream ended")
			case fits(line):
				return line
			}
		case <-timeout:
			t.Fatal("nothing came")
		}
	}
}

// TestStream watches requests as they end, by a filter, and goes on after a
// reload where it left off.
func TestStream(t *testing.T) {
	const site = "api demo {\n@no path /no*\nrequire @no role admin\nrespond ok\n}"
	gw := start(t, "", site)
	lines, _ := gw.stream(t, "verdict=deny", "")
	waitFor(t, lines, func(l string) bool { return strings.HasPrefix(l, "id: ") })
	gw.get(t, "/yes", nil)
	gw.get(t, "/no1", nil)
	data := waitFor(t, lines, func(l string) bool { return strings.HasPrefix(l, "data: ") })
	if !strings.Contains(data, `"path":"/no1"`) || !strings.Contains(data, `"stages":[`) {
		t.Errorf("it says %s", data)
	}
	id := waitFor(t, lines, func(l string) bool { return strings.HasPrefix(l, "id: ") })

	if err := gw.load("", site+"\n# again"); err != nil {
		t.Fatal(err)
	}
	for range lines { // it ends with its configuration
	}
	gw.get(t, "/no2", nil)
	lines, _ = gw.stream(t, "verdict=deny", strings.TrimPrefix(id, "id: "))
	if data := waitFor(t, lines, func(l string) bool { return strings.HasPrefix(l, "data: ") }); !strings.Contains(data, `"path":"/no2"`) {
		t.Errorf("after the reload it says %s", data)
	}
}

// TestSlowStream: who reads slower than requests come is told how many were
// lost, and requests wait for nobody.
func TestSlowStream(t *testing.T) {
	gw := start(t, "console {\nkeep 10\n}", "api demo {\nrespond ok\n}")
	lines, _ := gw.stream(t, "", "")
	for range 200 {
		gw.get(t, "/", nil)
	}
	lost := waitFor(t, lines, func(l string) bool { return strings.HasPrefix(l, `data: {"lost":`) })
	if strings.Contains(lost, ":0}") {
		t.Error(lost)
	}
}

// TestStreamsAreBounded: so many may look on at once, and no more.
func TestStreamsAreBounded(t *testing.T) {
	gw := start(t, "", "api demo {\nrespond ok\n}")
	var stops []func()
	for range 16 {
		_, stop := gw.stream(t, "", "")
		stops = append(stops, stop)
	}
	if a := gw.change(t, http.MethodGet, "/gatehouse/exchanges/stream", "", nil); a.status != 429 {
		t.Errorf("one more: %d %s", a.status, a.body)
	}
	stops[0]()
	eventually(t, "room for another", func() bool {
		var o struct{ Streams int }
		return json.Unmarshal([]byte(gw.ask(t, "/gatehouse/overview")), &o) == nil && o.Streams == 15
	})
	gw.stream(t, "", "")
}

// TestOverview shows breakers, quotas and certificates of a running gateway.
func TestOverview(t *testing.T) {
	gw, failing := prepare(t), newUpstream(t)
	failing.status.Store(500)
	src := gw.caddyfile("quota {\nplan free 5/h\n}\nskip_install_trust", "api demo {\nquota per address\nreverse_proxy "+failing.addr()+
		" {\ntransport gatehouse {\nbreaker {\nsamples 1\nall_open refuse\n}\n}\n}\n}\n}\nhttps://console.test:0 {\nbind 127.0.0.1\ntls internal\nrespond ok")
	if err := gw.loadFile(strings.Replace(src, "auto_https off", "auto_https disable_redirects", 1)); err != nil {
		t.Fatal(err)
	}
	gw.get(t, "/", nil)
	gw.get(t, "/", nil)
	var o struct {
		APIs []struct {
			API            string
			Passed, Denied float64
		}
		Breakers     []struct{ Upstream, State string }
		Quota        struct{ Keys float64 }
		Certificates []struct {
			Names    []string
			Issuer   string
			DaysLeft float64 `json:"days_left"`
		}
	}
	eventually(t, "the certificate", func() bool {
		text := gw.ask(t, "/gatehouse/overview")
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		return len(o.Certificates) == 1
	})
	if c := o.Certificates[0]; len(c.Names) != 1 || c.Names[0] != "console.test" || !strings.Contains(c.Issuer, "Caddy") || c.DaysLeft <= 0.1 || c.DaysLeft > 1 {
		t.Errorf("certificate %+v", c)
	}
	open := false
	for _, b := range o.Breakers {
		open = open || b.Upstream == failing.addr() && b.State == "open"
	}
	if !open || o.Quota.Keys < 1 || len(o.APIs) == 0 {
		t.Errorf("overview %+v", o)
	}
}

// TestCertificatesOnDemand: what is issued for a name that no configuration has
// is listed too, also after a reload.
func TestCertificatesOnDemand(t *testing.T) {
	permission := newUpstream(t)
	gw := prepare(t)
	httpPort, httpsPort := freePorts(t)
	src := strings.Replace(gw.caddyfile(fmt.Sprintf("skip_install_trust\nhttp_port %d\nhttps_port %d\non_demand_tls {\nask http://%s/\n}", httpPort, httpsPort, permission.addr()),
		"api demo {\nrespond ok\n}\n}\nhttps:// {\nbind 127.0.0.1\ntls internal {\non_demand\n}\nrespond ok"), "auto_https off", "auto_https disable_redirects", 1)
	if err := gw.loadFile(src); err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", httpsPort), &tls.Config{ServerName: "tenant.test", InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	for _, when := range []string{"issued", "reloaded"} {
		eventually(t, when, func() bool { return strings.Contains(gw.ask(t, "/gatehouse/overview"), `"names":["tenant.test"]`) })
		if err := gw.loadFile(src + "\n# again"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestConsoleCommand serves the page from a socket, and nothing else of the
// admin endpoint.
func TestConsoleCommand(t *testing.T) {
	gw := start(t, "", "api demo {\nrespond ok\n}")
	id := gw.get(t, "/", nil).header.Get("X-Request-Id")
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- gw.serveCommand(ctx, t, in, "console", "--address", "unix/"+gw.admin) }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address := strings.TrimSpace(line)
	base, key, found := strings.Cut(address, "console?key=")
	if !found || len(key) < 26 {
		t.Fatalf("the address is %q", address)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	own := &http.Client{Timeout: time.Minute, Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}
	fetchBy := func(c *http.Client, path, host string) (int, string) {
		r, _ := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
		r.Header.Set("Sec-Fetch-Mode", "navigate")
		if host != "" {
			r.Host = host
		}
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode == 200 && strings.Contains(resp.Request.URL.String()+string(body), key) {
			t.Errorf("%s: the key is where it stays", path)
		}
		return resp.StatusCode, string(body)
	}
	fetch := func(path, host string) (int, string) { return fetchBy(own, path, host) }
	stranger := &http.Client{Timeout: time.Minute, Transport: own.Transport}
	shut := func(paths ...string) {
		t.Helper()
		for _, path := range paths {
			if status, body := fetchBy(stranger, path, ""); status != 403 || strings.Contains(body, id) {
				t.Errorf("another user's %s: %d %s", path, status, body)
			}
		}
	}
	shut("console", "console/console.js", "exchanges", "exchanges/"+id, "overview", "console?key=", "console?key="+strings.Repeat("A", len(key)), "exchanges?key=guess")
	if status, _ := fetch("console?key="+key, "evil.test"); status != 403 {
		t.Error("another name's page may use the key")
	}
	resp, err := (&http.Client{Timeout: time.Minute, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Get(address)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	c := resp.Cookies()
	if resp.StatusCode != 303 || resp.Header.Get("Location") != "/gatehouse/console" || len(c) != 1 || !c[0].HttpOnly || c[0].SameSite != http.SameSiteStrictMode || c[0].Path != "/gatehouse/" || c[0].Value == key {
		t.Errorf("the first use: %d %v", resp.StatusCode, resp.Header)
	}
	shut("console?key="+key, "exchanges") // which is good once
	if status, _ := fetch("console?key="+key, ""); status != 200 {
		t.Error("who is in already is not sent on")
	}
	if status, body := fetch("console", ""); status != 200 || !strings.Contains(body, "<title>Gatehouse") {
		t.Errorf("the page: %d %s", status, body)
	}
	if status, body := fetch("exchanges/"+id, ""); status != 200 || !strings.Contains(body, id) {
		t.Errorf("one Exchange: %d %s", status, body)
	}
	for _, path := range []string{"keys", "../config/", "audit", "consoles", "exchanges/../../config/"} {
		if status, body := fetch(path, ""); status != 404 && status != 502 || strings.Contains(body, "apps") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, _ := fetch("console", "evil.test"); status != 403 {
		t.Errorf("another name's page: %d", status)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestLogThatStandsStill: a log that nobody reads costs entries, and they are
// counted; requests go on.
func TestLogThatStandsStill(t *testing.T) {
	gw := prepare(t)
	pipe := filepath.Join(gw.dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(pipe, os.O_RDWR, 0) // holds it open and reads nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reader.Close() })
	src := strings.Replace(gw.caddyfile("", "api stuck {\nrespond ok\n}"), "level INFO\n", "exclude http.handlers.gatehouse_api.decision\n}\nlog decisions {\noutput file "+pipe+
		" {\nroll_disabled\n}\ninclude http.handlers.gatehouse_api.decision\n", 1)
	if err := gw.loadFile(src); err != nil {
		t.Fatal(err)
	}
	before := gw.metric(t, "gatehouse_log_dropped_total")
	var wg sync.WaitGroup
	var slowest time.Duration
	var mu sync.Mutex
	for range 8 {
		wg.Go(func() {
			for range 700 {
				began := time.Now()
				a := gw.get(t, "/", nil)
				mu.Lock()
				slowest = max(slowest, time.Since(began))
				mu.Unlock()
				if a.status != 200 {
					t.Errorf("%d", a.status)
				}
			}
		})
	}
	wg.Wait()
	if slowest > 2*time.Second {
		t.Errorf("a request took %v", slowest)
	}
	if n := gw.metric(t, "gatehouse_log_dropped_total") - before; n < 100 || n > 5600-4096 {
		t.Errorf("%v entries were dropped", n)
	}
	began := time.Now()
	if err := gw.loadFile(src + "\n# again"); err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("a reload took %v: %v", time.Since(began), err)
	}
	// When somebody reads again, entries come again.
	go func() { _, _ = io.Copy(io.Discard, reader) }()
	eventually(t, "the queue to be written", func() bool {
		began := time.Now()
		api.Flush()
		return time.Since(began) < 200*time.Millisecond
	})
}
