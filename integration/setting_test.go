package integration

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestSettingCommands sets, lists and resets modes, tenants and weights of
// canaries at the command line, while the gateway runs.
func TestSettingCommands(t *testing.T) {
	gw := start(t, livePlans, `
	api orders {
		identity {
			keys
		}
		quota per tenant
		firewall
		canary next {
			weight 5%
			respond next
		}
		reverse_proxy localhost:1
	}
`)
	for _, c := range []struct{ args, says string }{
		{"mode set orders.firewall shadow", "orders.firewall: shadow"},
		{"mode list", "orders.firewall  shadow"},
		{"mode list --json", `"id":"orders.firewall"`},
		{"mode reset orders.firewall", "orders.firewall: as the configuration says"},
		{"tenant set acme plan pro", "acme: plan pro"},
		{"tenant set zoo rate 5000/h burst 100", "zoo: rate 5000/h burst 100"},
		{"tenant list", "zoo         5000/1h burst 100"},
		{"tenant list", "acme  pro"},
		{"tenant reset zoo", "zoo: as the configuration says"},
		{"canary set orders.next 20%", "orders.next: 20%"},
		{"canary list", "orders.next  20%"},
		{"canary reset orders.next", "orders.next: as the configuration says"},
	} {
		out, err := gw.command(t, strings.Fields(c.args)...)
		if err != nil || !strings.Contains(out, c.says) {
			t.Errorf("%s: %v\n%s", c.args, err, out)
		}
	}
	for _, c := range []struct{ args, says string }{
		{"mode set orders.firewall", "expected: set <api>.<stage> enforce|shadow|off"},
		{"mode set orders.firewall shadwo", `unrecognized mode "shadwo"; expected enforce, shadow or off`},
		{"mode set orders.firewall shadow off", "one mode is enough"},
		{"mode set ordres.firewall shadow", `no API "ordres" is running; expected orders`},
		{"mode set orders.firewal shadow", `"firewal" is no stage that has a mode; expected reputation, guard,`},
		{"mode reset orders.guard", `there is no "orders.guard" among the modes`},
		{"mode", "mode needs a command"},
		{"tenant set acme", "expected: set <tenant> plan <plan> | rate <rate>"},
		{"tenant set acme plan", "plan needs a value"},
		{"tenant set acme plan pro gold", "one plan is enough"},
		{"tenant set acme plan gold", `plan "gold" is not defined; expected free, pro`},
		{"tenant set acme rate 60", `"60" is not a rate; write for example 10/s, 600/m or 1000/d`},
		{"tenant set acme rate 60/m brust 3", `unrecognized word "brust"`},
		{"tenant set acme weight 3", `expected plan or rate, not "weight"`},
		{"canary set orders.next 20", `"20" is not a share of the callers; write for example 20%`},
		{"canary set orders.nxt 20%", `no release "orders.nxt" is running`},
		{"canary set orders.next 120%", "weight 120 is not from 0 to 100"},
	} {
		out, err := gw.command(t, strings.Fields(c.args)...)
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), ":0") {
			t.Errorf("%s: %v\n%s", c.args, err, out)
		}
	}
	// What opens an API is done, and said.
	a := gw.change(t, http.MethodPut, "/gatehouse/modes/orders.identity", `{"mode":"off"}`, nil)
	if a.status != 201 || !strings.Contains(a.body, "orders lets in whom it refuses otherwise") {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, stage := range []string{"guard", "require", "transcode"} {
		if a := gw.change(t, http.MethodPut, "/gatehouse/modes/orders."+stage, `{"mode":"off"}`, nil); a.status != 201 || !strings.Contains(a.body, "no "+stage+" stands in orders") {
			t.Errorf("%s, which is not there: %d %s", stage, a.status, a.body)
		}
	}
	for _, stage := range []string{"quota", "canary", "resilience", "firewall"} {
		if a := gw.change(t, http.MethodPut, "/gatehouse/modes/orders."+stage, `{"mode":"enforce"}`, nil); a.status != 201 || strings.Contains(a.body, "warnings") {
			t.Errorf("%s: %d %s", stage, a.status, a.body)
		}
	}
	if a := gw.change(t, http.MethodPut, "/gatehouse/modes/orders.identity", `{"mode":"enforce"}`, nil); strings.Contains(a.body, "warnings") {
		t.Errorf("%d %s", a.status, a.body)
	}
	// What answers may be another's server: nothing is asked of it but whether it
	// is a gateway's admin endpoint.
	asked := make(chan string, 16)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.URL.Path + r.Header.Get("Authorization")
		_, _ = w.Write([]byte(`{"objects":[]}`))
	}))
	defer backend.Close()
	t.Setenv("GATEHOUSE_ADMIN_TOKEN", "secret")
	for _, args := range []string{"mode set orders.firewall shadow", "key revoke ci", "key create --id ci", "revoke tenant acme --expires 1d", "explain abc", "key list", "audit-log"} {
		out, err := gw.commandAt(t, backend.Listener.Addr().String(), strings.Fields(args)...)
		if err == nil || !strings.Contains(err.Error(), "is no gateway's admin endpoint") || out != "" {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
		if got := <-asked; got != "GET /gatehouse/" || len(asked) > 0 {
			t.Errorf("%s asks for %s, and more", args, got)
		}
	}
	for address, says := range map[string]string{"2019": "write localhost:2019", "localhost:1": "no gateway answers at the admin endpoint localhost:1", ":1": "localhost:1"} {
		if _, err := gw.commandAt(t, address, "key", "list"); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", address, err)
		}
	}
}
