package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// by is a request of a client that calls itself agent.
func (g *gateway) by(t testing.TB, agent string) answer {
	t.Helper()
	return g.get(t, "/", http.Header{"User-Agent": {agent}})
}

const fewBots = `[{"pattern":"Googlebot\\/"},{"pattern":"[wW]get"},{"pattern":"libwww-perl"},{"pattern":"W3C-checklink","depends_on":["libwww-perl"]}]`

// TestReputationBots: a declared bot is a tag for the log and for policies, and
// refuses nobody by itself.
func TestReputationBots(t *testing.T) {
	gw := prepare(t)
	gw.write(t, "bots.json", fewBots)
	global := "reputation {\n bots bots.json\n }"
	site := `
	api orders {
		reputation
		respond ok
	}
`
	if err := gw.load(global, site); err != nil {
		t.Fatal(err)
	}
	counted := gw.metric(t, "gatehouse_reputation_bots_total", `api="orders"`)
	const browser = "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0"
	agents := map[string]string{
		"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)": "Googlebot",
		"Wget/1.21":                         "[wW]get",
		"W3C-checklink/4.5 libwww-perl/5.8": "W3C-checklink",
		browser:                             "",
		"":                                  "",
		strings.Repeat("Mozilla/5.0 ", 50) + "Googlebot/2.1": "", // behind the first 512 bytes
	}
	for agent := range agents {
		if a := gw.by(t, agent); a.status != 200 {
			t.Errorf("%q: %d", agent, a.status)
		}
	}
	var logged []string
	for _, e := range gw.decisions(t) {
		if bot, ok := e["bot"]; ok {
			logged = append(logged, fmt.Sprint(bot))
		}
	}
	if len(logged) != 3 {
		t.Errorf("the log knows %q", logged)
	}
	for _, want := range agents {
		if want != "" && !strings.Contains(strings.Join(logged, "|"), want) {
			t.Errorf("the log knows %q, not %s", logged, want)
		}
	}
	if n := gw.metric(t, "gatehouse_reputation_bots_total", `api="orders"`); n != counted+3 {
		t.Errorf("%v bots are counted", n-counted)
	}

	// A policy may refuse them, and in shadow or off the tag comes and goes.
	policy := "require cel `origin.bot == \"\" || origin.bot.startsWith(\"W3C\")`\nrespond ok\n}"
	if err := gw.load(global, "api orders {\nreputation\n"+policy); err != nil {
		t.Fatal(err)
	}
	for agent, bot := range agents {
		want := 200
		if bot != "" && bot != "W3C-checklink" {
			want = 403
		}
		if a := gw.by(t, agent); a.status != want {
			t.Errorf("policy: %q got %d, want %d", agent, a.status, want)
		}
	}
	for mode, want := range map[string]int{"shadow": 403, "off": 200} {
		if err := gw.load(global, "api orders {\nreputation {\nmode "+mode+"\n}\n"+policy); err != nil {
			t.Fatal(err)
		}
		if a := gw.by(t, "wget"); a.status != want {
			t.Errorf("mode %s: %d, want %d", mode, a.status, want)
		}
	}

	// What is wrong with a file is an error of the configuration, and names it.
	for content, want := range map[string]string{
		`{}`: "bots.json: not a JSON array of bots", `[]`: "bots.json: the list is empty",
		`[{"pattern":"a(?!b)cd"}]`: `bots.json: pattern "a(?!b)cd": error parsing regexp`,
	} {
		gw.write(t, "bots.json", content)
		if err := gw.load(global, site); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", content, err)
		}
	}
	if err := gw.load("reputation {\n bots absent.json\n }", site); err == nil || !strings.Contains(err.Error(), "reputation: bots:") || !strings.Contains(err.Error(), "absent.json") {
		t.Errorf("an absent file: %v", err)
	}
	raw := fmt.Appendf(nil, `{"admin":{"disabled":true},"apps":{"gatehouse_reputation":{"bots":"http://example.com/bots.json"}}}`)
	if err := caddy.Load(raw, true); err == nil || !strings.Contains(err.Error(), `reputation: "http://example.com/bots.json" must be https`) {
		t.Errorf("JSON with an http URL: %v", err)
	}
}

// TestReputationKept: a gateway that starts while its feed is down has the last
// good copy, and says how old it is.
func TestReputationKept(t *testing.T) {
	var down atomic.Bool
	feed := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case down.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.URL.Path == "/bots":
			_, _ = w.Write([]byte(fewBots))
		default:
			_, _ = w.Write([]byte("192.0.2.0/24\n"))
		}
	}))
	defer feed.Close()
	global := behindProxy + "reputation {\n list drop " + feed.URL + "/drop\n bots " + feed.URL + "/bots\n }"
	site := "api orders {\nreputation {\ndeny drop\non_error closed\n}\nrequire cel `origin.bot == \"\"`\nrespond ok\n}"
	gw := start(t, global, site)
	ready := func() {
		t.Helper()
		await(t, "the lists", func() error {
			a, b := gw.from(t, "192.0.2.1").reason(), gw.by(t, "wget").reason()
			if a != "reputation.denied" || b != "require.expression" {
				return fmt.Errorf("%q, %q", a, b)
			}
			return nil
		})
	}
	ready()
	copies := filepath.Join(gw.dir, "storage", "gatehouse", "reputation")
	var names []string
	await(t, "two copies", func() error {
		names, _ = filepath.Glob(filepath.Join(copies, strings.Repeat("?", 32))) // a shorter one is being written
		if len(names) != 2 {
			return fmt.Errorf("there are %q", names)
		}
		return nil
	})

	// The process ends, and comes back a day later.
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	down.Store(true)
	yesterday := time.Now().Add(-24 * time.Hour).Truncate(time.Second).UTC()
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, list, _ := strings.Cut(string(data), "\n")
		if err := os.WriteFile(name, []byte(yesterday.Format(time.RFC3339)+"\n"+list), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := gw.load(global, site); err != nil {
		t.Fatal(err)
	}
	ready()
	if at := gw.metric(t, "gatehouse_reputation_read_timestamp_seconds", `source="`+feed.URL+`/drop"`); int64(at) != yesterday.Unix() {
		t.Errorf("the copy is of %v, want %d", at, yesterday.Unix())
	}

	// A storage that does not work is a warning, and nothing else.
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	down.Store(false)
	if err := os.RemoveAll(copies); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copies, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := gw.load(global, site); err != nil {
		t.Fatal(err)
	}
	ready()
	await(t, "a warning", func() error {
		log, err := os.ReadFile(gw.logFile())
		for line := range strings.Lines(string(log)) {
			if strings.Contains(line, `"level":"warn"`) && strings.Contains(line, "the kept copy of a reputation source cannot be read") {
				return nil
			}
		}
		return fmt.Errorf("none in the log: %w", err)
	})
}
