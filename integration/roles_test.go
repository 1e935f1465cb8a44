package integration

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestOperators: who may change what over the admin API, by token, and how it is
// read afterwards.
func TestOperators(t *testing.T) {
	t.Setenv("ANN_SHA256", fmt.Sprintf("%x\n", sha256.Sum256([]byte("ann's long token"))))
	gw := start(t, livePlans+`registry {
		role support {
			read all
			change revocations
		}
		operator ann support {
			token {env.ANN_SHA256}
		}
		operator root all {
			token `+fmt.Sprintf("%x", sha256.Sum256([]byte("root's long token")))+`
		}
		role writer {
			replace tenants
			create revocations
		}
		operator bob writer {
			token `+fmt.Sprintf("%x", sha256.Sum256([]byte("bob's long token")))+`
		}
		local none
	}`, liveSite)
	as := func(token string) http.Header {
		if token == "" {
			return http.Header{}
		}
		return http.Header{"Authorization": {"Bearer " + token}}
	}
	for _, step := range []struct {
		token, method, path, body string
		status                    int
	}{
		{"", "GET", "keys", "", 403},
		{"", "GET", "audit", "", 403},
		{"", "GET", "key_uses", "", 403},
		{"ann's long token", "GET", "key_uses", "", 200},
		{"", "GET", "exchanges", "", 403},
		{"", "GET", "exchanges/x", "", 403},
		{"", "GET", "exchanges/stream", "", 403},
		{"", "GET", "overview", "", 403},
		{"", "GET", "drift", "", 403},
		{"", "DELETE", "drift", "", 403},
		{"", "GET", "console", "", 200}, // which tells nothing
		{"guess", "GET", "exchanges", "", 401},
		{"ann's long token", "GET", "exchanges", "", 200},
		{"ann's long token", "GET", "overview", "", 200},
		{"ann's long token", "GET", "drift", "", 200},
		{"ann's long token", "DELETE", "drift", "", 403},
		{"root's long token", "DELETE", "drift", "", 204},
		{"guess", "GET", "keys", "", 401},
		{"ann's long token", "GET", "keys", "", 200},
		{"ann's long token", "PUT", "tenants/acme", `{"plan":"pro"}`, 403},
		{"ann's long token", "POST", "revocations", `{"tenant":"evil","expires":"2030-01-01T00:00:00Z"}`, 201},
		{"root's long token", "PUT", "tenants/acme", `{"plan":"pro"}`, 201},
		{"ann's long token", "GET", "audit?action=read", "", 400},
	} {
		if a := gw.change(t, step.method, "/gatehouse/"+step.path, step.body, as(step.token)); a.status != step.status {
			t.Errorf("%.4s %s %s: %d %s", step.token, step.method, step.path, a.status, a.body)
		}
	}
	if _, err := gw.command(t, "audit-log"); err == nil || !strings.Contains(err.Error(), "GATEHOUSE_ADMIN_TOKEN, which is not set (403 Forbidden)") {
		t.Errorf("without a token: %v", err)
	}
	t.Setenv("GATEHOUSE_ADMIN_TOKEN", "ann's long token")
	log, err := gw.command(t, "audit-log", "--since", "1h", "--limit", "2")
	if lines := strings.Split(log, "\n"); err != nil || len(lines) != 3 || !strings.Contains(lines[1], "root  create  tenants/acme") || !strings.Contains(lines[2], "ann   create  revocations/") {
		t.Errorf("%v\n%s", err, log)
	}
	log, err = gw.command(t, "audit-log", "--action", "refused", "--by", "ann")
	if err != nil || !strings.Contains(log, "tenants/acme  may not create") || strings.Count(log, "\n") != 2 {
		t.Errorf("%v\n%s", err, log)
	}
	log, err = gw.command(t, "audit-log", "--action", "refused", "--since", "1d")
	if err != nil || !strings.Contains(log, "refused read    keys      ") || !strings.Contains(log, "refused create  tenants/acme") {
		t.Errorf("%v\n%s", err, log)
	}
	for line := range strings.Lines(gw.log(t)) {
		if read := strings.Contains(line, `"action":"read"`); strings.Contains(line, "gatehouse_registry.audit") && (read && !strings.Contains(line, "reading refused") || !read && strings.Contains(line, "reading refused")) {
			t.Errorf("a refusal is told as %s", line)
		}
	}
	if strings.Contains(gw.log(t), "long token") || strings.Contains(gw.change(t, "GET", "/config/", "", nil).body, "long token") {
		t.Error("a token is in the log or the configuration")
	}
	// Who may revoke may do so again, and for longer; to weaken it is another matter.
	id := ""
	const again = `{"tenant":"again","expires":"%s"}`
	for _, step := range []struct {
		method, path, expires string
		status                int
	}{{"POST", "", "2030-01-01T00:00:00Z", 201}, {"POST", "", "2031-01-01T00:00:00Z", 200}, {"PUT", "/id", "2029-01-01T00:00:00Z", 403}, {"DELETE", "/id", "", 403}} {
		path := "/gatehouse/revocations" + strings.Replace(step.path, "id", id, 1)
		a := gw.change(t, step.method, path, fmt.Sprintf(again, step.expires), as("bob's long token"))
		if a.status != step.status {
			t.Errorf("%s %s: %d %s", step.method, path, a.status, a.body)
		}
		if step.path == "" {
			id = a.header.Get("Location")[strings.LastIndexByte(a.header.Get("Location"), '/')+1:]
		}
	}
	// Whoever may not read is told what they did, and nothing of what was there.
	if a := gw.change(t, "POST", "/gatehouse/revocations", `{"tenant":"again","before":"2026-01-01T00:00:00Z","expires":"2032-01-01T00:00:00Z"}`, as("bob's long token")); a.status != 409 || strings.Contains(a.body, "2031") {
		t.Errorf("one that is neither stronger nor weaker: %d %s", a.status, a.body)
	}
	t.Setenv("GATEHOUSE_ADMIN_TOKEN", "bob's long token")
	if said, err := gw.told(t, "revoke", "tenant", "again", "--expires", "2030-06-01"); err != nil || !strings.HasPrefix(said, "revoked at least until 2030-06-01T00:00:00Z: ") || strings.Contains(said, "stood") {
		t.Errorf("what stood already: %s %v", said, err)
	}
	if a := gw.change(t, "PATCH", "/gatehouse/tenants/acme", `{}`, as("bob's long token")); a.status != 200 || strings.Contains(a.body, "pro") || a.header.Get("ETag") == "" {
		t.Errorf("who may not read: %d %s", a.status, a.body)
	}
	if n := gw.metric(t, "gatehouse_registry_changes_total", `action="refused"`); n != 11 {
		t.Errorf("%v refusals were counted", n)
	}
}
