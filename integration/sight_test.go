package integration

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gatehouse-caddy/gatehouse/modules/api"
)

// ask sends a request to the admin endpoint.
func (g *gateway) ask(t testing.TB, path string) string {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", g.admin)
	}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: tr}).Do(r)
	for range 3 {
		if err == nil {
			break
		}
		resp, err = (&http.Client{Transport: tr}).Do(r) // the endpoint of the configuration before may have taken it, and dropped it
	}
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %s %v", path, resp.StatusCode, body, err)
	}
	return string(body)
}

// log is all that the gateway's modules logged. Caddy's own debug log shows
// whole URLs.
func (g *gateway) log(t testing.TB) string {
	t.Helper()
	api.Flush()
	data, err := os.ReadFile(g.logFile())
	if err != nil {
		t.Fatal(err)
	}
	var ours strings.Builder
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, `gatehouse_`) {
			ours.WriteString(line)
		}
	}
	return ours.String()
}

// metric adds up the series of a name that have all of the labels.
func (g *gateway) metric(t testing.TB, name string, labels ...string) (sum float64) {
	t.Helper()
	for line := range strings.Lines(g.ask(t, "/metrics")) {
		if !strings.HasPrefix(line, name) || slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(line, l) }) {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]), 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += v
	}
	return sum
}

// TestMetrics: decisions are counted on Caddy's own /metrics, keep their counts
// over a reload, and no label comes from a stranger.
func TestMetrics(t *testing.T) {
	b := newBackend(t, nil)
	const name = "metered"
	site := "api " + name + " {\nquota per address 2/h\nreverse_proxy " + b.addr() + "\n}"
	gw := start(t, "", site)
	for i := range 4 {
		gw.get(t, "/stranger-"+strconv.Itoa(i), http.Header{"User-Agent": {"stranger"}})
	}
	allowed := func() float64 {
		return gw.metric(t, "gatehouse_decisions_total", `api="`+name+`"`, `stage="quota"`, `verdict="allow"`)
	}
	denied := func() float64 {
		return gw.metric(t, "gatehouse_decisions_total", `api="`+name+`"`, `stage="quota"`, `reason="quota.exhausted"`, `verdict="deny"`)
	}
	if allowed() != 2 || denied() != 2 {
		t.Errorf("%v allowed and %v denied, want 2 and 2\n%s", allowed(), denied(), gw.ask(t, "/metrics"))
	}
	if n := gw.metric(t, "gatehouse_stage_seconds_count", `api="`+name+`"`, `stage="quota"`); n != 4 {
		t.Errorf("the time of %v decisions was measured, want 4", n)
	}
	if gw.metric(t, "gatehouse_quota_keys") < 1 {
		t.Error("no quota key is counted")
	}

	if err := gw.load("", site+"\n# again"); err != nil {
		t.Fatal(err)
	}
	gw.get(t, "/", nil)
	if allowed() != 2 || denied() != 3 {
		t.Errorf("after a reload %v allowed and %v denied, want 2 and 3", allowed(), denied())
	}
	if all := gw.ask(t, "/metrics"); strings.Contains(all, "stranger") {
		t.Error("a metric repeats what was sent")
	}
}

// TestSecretsStayHome: what the admin endpoint shows, and what is logged, has no
// credential in it.
func TestSecretsStayHome(t *testing.T) {
	b := newBackend(t, nil)
	gw := prepare(t)
	gw.level = "DEBUG"
	sum := sha256.Sum256([]byte("the-secret-key"))
	gw.write(t, "keys.json", `[{"id":"ci","sha256":"`+hex.EncodeToString(sum[:])+`"}]`)
	globals := "identity {\nkeys keys.json\nissuer local dev {\naudience a\n}\n}"
	if err := gw.load(globals, "api demo {\nidentity local {\nkeys\n}\nreverse_proxy "+b.addr()+"\n}"); err != nil {
		t.Fatal(err)
	}
	for _, h := range []http.Header{
		{"X-Api-Key": {"the-secret-key"}},
		{"X-Api-Key": {"the-secret-key-2"}},
		{"Authorization": {"Bearer the-secret-key"}},
		{"Authorization": {"Bearer eyJhbGciOiJub25lIn0.the-secret-key."}},
	} {
		gw.get(t, "/?access_token=the-secret-key", h)
	}
	if n := len(gw.decisions(t)); n != 4 {
		t.Fatalf("%d decisions are logged, want 4", n)
	}
	for name, text := range map[string]string{
		"/config": gw.ask(t, "/config/"), "/metrics": gw.ask(t, "/metrics"), "the log": gw.log(t),
		"the console": gw.ask(t, "/gatehouse/exchanges") + gw.ask(t, "/gatehouse/overview"),
	} {
		for _, secret := range []string{"the-secret-key", hex.EncodeToString(sum[:])} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %q in it", name, secret)
			}
		}
		if key := regexp.MustCompile(`"d":\s*"|PRIVATE KEY`).FindString(text); key != "" {
			t.Errorf("%s has a private key in it", name)
		}
	}
}
