package integration

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

const keySite = `
	api orders {
		identity {
			keys
			tell subject client tenant plan scopes
		}
		reverse_proxy BACKEND
	}
`

func withKey(key string) http.Header { return http.Header{"X-Api-Key": {key}} }

// TestKeyRotation: two secrets work while the overlap lasts, and one after it.
func TestKeyRotation(t *testing.T) {
	b := newBackend(t, nil)
	gw := start(t, "", strings.ReplaceAll(keySite, "BACKEND", b.addr()))
	run := func(args ...string) string {
		t.Helper()
		out, err := gw.command(t, append([]string{"key"}, args...)...)
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return out
	}
	first := run("create", "--id", "rotated", "--tenant", "acme", "--plan", "pro", "--scope", "a b")
	if !regexp.MustCompile(`^gh_[0-9a-hjkmnp-tv-z]{32}_[0-9a-f]{8}$`).MatchString(first) {
		t.Errorf("the documented pattern does not find %q", first)
	}
	second := run("rotate", "rotated", "--overlap", "1h")
	for i, key := range []string{first, second} {
		if a := gw.get(t, "/", withKey(key)); a.status != http.StatusOK {
			t.Errorf("secret %d: %d %s", i+1, a.status, a.body)
		}
		if r, _ := b.got(); r.Header.Get("X-Gatehouse-Client") != "rotated" || r.Header.Get("X-Gatehouse-Tenant") != "acme" || r.Header.Get("X-Gatehouse-Plan") != "pro" || r.Header.Get("X-Gatehouse-Scopes") != "a b" {
			t.Errorf("secret %d: the backend was told %v", i+1, r.Header)
		}
	}
	// It is in the storage, and so outlives a reload.
	if err := gw.load("", strings.ReplaceAll(keySite, "BACKEND", b.addr())); err != nil {
		t.Fatal(err)
	}
	if a := gw.get(t, "/", withKey(first)); a.status != http.StatusOK {
		t.Errorf("the old secret after a reload: %d %s", a.status, a.body)
	}
	third := run("rotate", "rotated", "--overlap", "0")
	for key, want := range map[string]string{first: "identity.invalid_api_key", second: "identity.invalid_api_key", third: ""} {
		if a := gw.get(t, "/", withKey(key)); a.reason() != want {
			t.Errorf("after the end of the overlap: %d %s, want %q", a.status, a.body, want)
		}
	}
	// An overlap ends by itself.
	old := gw.change(t, "GET", "/gatehouse/keys/rotated", "", nil)
	hash := regexp.MustCompile(`"sha256":"([0-9a-f]{64})"`).FindStringSubmatch(old.body)[1]
	patch := `{"sha256":"` + strings.Repeat("0", 64) + `","previous":[{"sha256":"` + hash + `","until":"2020-01-01T00:00:00Z"}]}`
	if a := gw.change(t, "PATCH", "/gatehouse/keys/rotated", patch, http.Header{"If-Match": {old.header.Get("Etag")}}); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := gw.get(t, "/", withKey(third)); a.reason() != "identity.expired" {
		t.Errorf("a secret whose time is over: %d %s", a.status, a.body)
	}
	for _, bad := range []struct{ body, says string }{
		{`{"previous":[{"sha256":"abc","until":"2030-01-01T00:00:00Z"}]}`, "previous needs a sha256"},
		{`{"previous":[{"sha256":"` + hash + `"}]}`, "and until"},
		{`{"previous":[` + strings.Repeat(`{"sha256":"`+hash+`","until":"2030-01-01T00:00:00Z"},`, 4) + `{"sha256":"` + hash + `","until":"2030-01-01T00:00:00Z"}]}`, "at most 4"},
	} {
		if a := gw.change(t, "PATCH", "/gatehouse/keys/rotated", bad.body, nil); a.status != 400 || !strings.Contains(a.body, bad.says) {
			t.Errorf("%s: %d %s", bad.body, a.status, a.body)
		}
	}
	if _, err := gw.command(t, "key", "rotate", "nobody"); err == nil || !strings.Contains(err.Error(), "there is no keys/nobody") {
		t.Errorf("a key that is not there: %v", err)
	}
	for _, key := range []string{first, second, third} {
		if strings.Contains(gw.log(t), key) {
			t.Error("a secret is in the log")
		}
	}
}

// TestKeysInHeaderOnly: a key elsewhere is none, and what is made up is refused.
func TestKeysInHeaderOnly(t *testing.T) {
	b := newBackend(t, nil)
	gw := start(t, "", strings.ReplaceAll(keySite, "BACKEND", b.addr()))
	key, err := gw.command(t, "key", "create", "--id", "headed")
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		path   string
		header http.Header
		reason string
	}{
		"query":     {"/?api_key=" + key + "&X-API-Key=" + key, nil, "identity.missing"},
		"cookie":    {"/", http.Header{"Cookie": {"X-API-Key=" + key}}, "identity.missing"},
		"bearer":    {"/", bearer(key), "identity.missing"},
		"made up":   {"/", withKey(key[:len(key)-1] + "g"), "identity.invalid_api_key"},
		"the right": {"/", withKey(key), ""},
	} {
		if a := gw.get(t, tc.path, tc.header); a.reason() != tc.reason {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}

// TestKeyUse: when a key was last used is seen by operators.
func TestKeyUse(t *testing.T) {
	b := newBackend(t, nil)
	gw := start(t, "", strings.ReplaceAll(keySite, "BACKEND", b.addr()))
	key, err := gw.command(t, "key", "create", "--id", "watched")
	if err != nil {
		t.Fatal(err)
	}
	line := func() string {
		t.Helper()
		out, err := gw.command(t, "key", "list")
		if err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(out) {
			if strings.HasPrefix(l, "watched") {
				return l
			}
		}
		t.Fatalf("not listed: %s", out)
		return ""
	}
	if l := line(); !regexp.MustCompile(`never +never +live`).MatchString(l) {
		t.Errorf("before the first use: %s", l)
	}
	gw.get(t, "/", withKey(key))
	if l := line(); !strings.Contains(l, time.Now().UTC().Format("2006-01-02T15")) && !strings.Contains(l, time.Now().Add(-time.Minute).UTC().Format("2006-01-02T15")) {
		t.Errorf("after it: %s", l)
	}
	if a := gw.change(t, "GET", "/gatehouse/key_uses", "", nil); a.status != 200 || !strings.Contains(a.body, `"watched":"20`) {
		t.Errorf("over the admin API: %d %s", a.status, a.body)
	}
	if a := gw.change(t, "POST", "/gatehouse/key_uses", "", nil); a.status != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", a.status)
	}
	if _, err := gw.command(t, "key", "revoke", "watched"); err != nil {
		t.Fatal(err)
	}
	if a := gw.change(t, "GET", "/gatehouse/key_uses", "", nil); strings.Contains(a.body, "watched") {
		t.Errorf("a key that is no more: %s", a.body)
	}
}

// eventSink is what an operator's event handler would be.
type eventSink struct{}

var sunk struct {
	sync.Mutex
	events []map[string]any
}

func (eventSink) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.test_sink", New: func() caddy.Module { return new(eventSink) }}
}

func (eventSink) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return nil
}

func (eventSink) Handle(_ context.Context, e caddy.Event) error {
	sunk.Lock()
	defer sunk.Unlock()
	sunk.events = append(sunk.events, e.Data)
	return nil
}

func init() { caddy.RegisterModule(eventSink{}) }

// TestHoneyKey: a key that nobody should have looks unknown to who has it, and
// tells of them.
func TestHoneyKey(t *testing.T) {
	b := newBackend(t, nil)
	gw := start(t, "events {\non gatehouse_honey_key test_sink\n}", strings.ReplaceAll(keySite, "BACKEND", b.addr()))
	key, err := gw.command(t, "key", "create", "--id", "bait", "--tenant", "acme", "--honey")
	if err != nil {
		t.Fatal(err)
	}
	unknown := gw.get(t, "/", withKey("somebody-else"))
	before := gw.metric(t, "gatehouse_identity_honey_keys_total")
	a := gw.get(t, "/stolen", withKey(key))
	id := regexp.MustCompile(`"(request_id|instance)":"[^"]*"`)
	if a.status != 401 || id.ReplaceAllString(a.body, "") != id.ReplaceAllString(unknown.body, "") || b.count() != 0 {
		t.Errorf("it is answered with %d %s, an unknown key with %s", a.status, a.body, unknown.body)
	}
	for name := range unknown.header {
		if name != "X-Request-Id" && name != "Date" && a.header.Get(name) != unknown.header.Get(name) {
			t.Errorf("%s is %q, for an unknown key %q", name, a.header.Get(name), unknown.header.Get(name))
		}
	}
	if n := gw.metric(t, "gatehouse_identity_honey_keys_total") - before; n != 1 {
		t.Errorf("counted %v times", n)
	}
	eventually(t, "the event", func() bool {
		sunk.Lock()
		defer sunk.Unlock()
		return len(sunk.events) == 1 && sunk.events[0]["key"] == "bait" && sunk.events[0]["path"] == "/stolen"
	})
	log := gw.decisions(t)
	if last := log[len(log)-1]; !strings.Contains(gw.log(t), "honey bait") || strings.Contains(gw.log(t), key) {
		t.Errorf("the log: %v", last)
	}
	if list, err := gw.command(t, "key", "list"); err != nil || !strings.Contains(list, "honey") {
		t.Errorf("%v\n%s", err, list)
	}
}
