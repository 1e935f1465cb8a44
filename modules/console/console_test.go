package console

import (
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"

	dto "github.com/prometheus/client_model/go"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

func refused() *gate.Record {
	return &gate.Record{
		ID: "rmtb", API: "orders", Operation: "createOrder", Began: time.Date(2027, 1, 1, 12, 0, 0, 0, time.UTC), Took: 1500 * time.Microsecond,
		Method: "POST", Path: "/orders\x1b[2J", Status: 400, Reason: gate.InputBody, Faults: "body #/quantity: must be at least 1",
		Principal: gate.Proven{Subject: "ann", Tenant: "acme", Method: gate.Bearer},
		Decisions: []gate.Decision{
			{Stage: gate.Identity, Rule: "main", Took: 40 * time.Microsecond},
			{Stage: gate.Require, Verdict: gate.WouldDeny, Mode: gate.Shadow, Reason: gate.RequireRole, Rule: "clerk", Took: time.Microsecond},
			{Stage: gate.Input, Verdict: gate.Denied, Reason: gate.InputBody, At: 50 * time.Microsecond, Took: 80 * time.Microsecond},
		},
	}
}

func TestExplainPrints(t *testing.T) {
	var out strings.Builder
	if err := view(refused()).print(&out); err != nil {
		t.Fatal(err)
	}
	want := `request  POST /orders�[2J
id       rmtb
time     2027-01-01T12:00:00Z
api      orders, operation createOrder
caller   principal ann, tenant acme, proven by bearer
answer   400 after 1.5ms
verdict  deny, input.body
         The request body does not match the API's contract.
         body #/quantity: must be at least 1

STAGE     VERDICT     REASON        RULE   MODE     µs
identity  allow       -             main   enforce  40
require   would_deny  require.role  clerk  shadow   1
input     deny        input.body    -      enforce  80

require.role: The caller lacks a role this operation needs.
It passed because require is in shadow mode. In earnest: give the caller one of the roles that the rule names, or name one that it has; where tokens have them, claims roles of the issuer says.

input.body: The request body does not match the API's contract.
To let it pass: have the client send what the contract says, or change the contract.
`
	if got := out.String(); got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
}

// TestExplainPrintsLines: what has several lines is readable, and nobody's line can
// look like one of explain's own.
func TestExplainPrintsLines(t *testing.T) {
	rec := refused()
	rec.Err = "first\r\n\tsecond\n\nverdict  allow\x1b[2J\n"
	rec.Detail = "one\ntwo"
	rec.Decisions[1].Rule = "cel a &&\n\t\tb\r\n"
	var out strings.Builder
	if err := view(rec).print(&out); err != nil {
		t.Fatal(err)
	}
	want := `verdict  deny, input.body
         The request body does not match the API's contract.
         one
         two
         body #/quantity: must be at least 1
error    first
             second
         verdict  allow�[2J
`
	if got := out.String(); !strings.Contains(got, want) || !strings.Contains(got, "  cel a && b  shadow") || strings.Count(got, "�") != 2 {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
}

// TestExplainPrintsLongRules: a long rule leaves the table readable, and is said
// whole where it refused.
func TestExplainPrintsLongRules(t *testing.T) {
	rec := refused()
	rule := "role " + strings.Repeat("clerk ", 20) + "admin"
	rec.Decisions[1].Rule = rule
	var out strings.Builder
	if err := view(rec).print(&out); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "  "+rule[:39]+"…  shadow") || !strings.Contains(got, "\nThe rule is: "+rule+"\nIt passed because") {
		t.Errorf("printed\n%s", got)
	}
}

// TestEveryStageHasARemedy: explain knows what to do about every stage.
func TestEveryStageHasARemedy(t *testing.T) {
	for s := range gate.Stages() {
		if name := gate.Stage(s).String(); remedies[name] == "" {
			t.Errorf("explain does not say what to do about %s", name)
		}
	}
	known := map[string]bool{}
	for s := range gate.Stages() {
		known[gate.Stage(s).String()] = true
	}
	for _, r := range gate.Reasons() {
		known[r.String()] = true
	}
	// Who asks and what they may is refused for many reasons, with one remedy each.
	for _, r := range gate.Reasons() {
		if s := r.Stage(); (s == "identity" || s == "require") && remedies[r.String()] == "" {
			t.Errorf("explain does not say what to do about %s", r)
		}
	}
	for name := range remedies {
		if !known[name] {
			t.Errorf("nothing is refused for %s", name)
		}
	}
}

func FuzzFilter(f *testing.F) {
	for _, q := range []string{"", "stage=quota&verdict=deny", "status=4xx&limit=1000", "since=5m&reason=quota.exhausted", "limit=-1", "status=+5xx", "a=%ff"} {
		f.Add(q)
	}
	rec := refused()
	f.Fuzz(func(t *testing.T, query string) {
		q, _ := url.ParseQuery(query)
		got, err := parseFilter(q, rec.Began)
		if err != nil {
			if len(err.Error()) > 1000 {
				t.Errorf("%d bytes of error for %q", len(err.Error()), query)
			}
			return
		}
		if got.limit < 1 || got.limit > maxLimit {
			t.Errorf("limit %d for %q", got.limit, query)
		}
		if fits := got.match(rec); fits && got.status > 5 && got.status != rec.Status {
			t.Errorf("%q fits", query)
		}
	})
}

func FuzzPlain(f *testing.F) {
	f.Add("a\x1b[31mb\u202ec\u0085")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range plain(s) {
			if unicode.IsControl(r) || r >= 0x202a && r <= 0x202e {
				t.Errorf("%q keeps %q", s, r)
			}
		}
	})
}

func TestCursorID(t *testing.T) {
	c := gate.Cursor{Passed: 12, Refused: 7}
	if got, ok := parseCursor(cursorID(c)); !ok || got != c {
		t.Errorf("%v", got)
	}
	for _, bad := range []string{"", "12", "a-b", "-1-2", "1-", "1-2-3"} {
		if _, ok := parseCursor(bad); ok {
			t.Errorf("%q is read", bad)
		}
	}
}

// TestOverviewReads: gauges of rooms that are not compiled in here are found by
// their names.
func TestOverviewReads(t *testing.T) {
	metric := func(name string, v float64, labels ...string) *dto.MetricFamily {
		m := &dto.Metric{Gauge: &dto.Gauge{Value: &v}}
		for i := 0; i < len(labels); i += 2 {
			m.Label = append(m.Label, &dto.LabelPair{Name: &labels[i], Value: &labels[i+1]})
		}
		return &dto.MetricFamily{Name: &name, Metric: []*dto.Metric{m}}
	}
	var o overview
	o.read([]*dto.MetricFamily{
		metric("gatehouse_canary_weight", 25, "api", "orders", "release", "next"),
		metric("gatehouse_resilience_breaker_state", 1, "upstream", "a:1"),
		metric("gatehouse_reputation_read_timestamp_seconds", 1700000000, "source", "drop.txt"),
		metric("gatehouse_cluster_up", 1),
		metric("go_goroutines", 5),
	})
	if len(o.Canaries) != 1 || o.Canaries[0] != (canary{"orders", "next", 25}) {
		t.Errorf("canaries %v", o.Canaries)
	}
	if len(o.Breakers) != 1 || o.Breakers[0].State != "half-open" || len(o.Feeds) != 1 || o.Feeds[0].ReadAt == 0 || !o.Cluster.Up || o.Quota != nil {
		t.Errorf("%+v", o)
	}
}

// TestRefusedReload: a configuration that failed to start leaves what the running
// one says.
func TestRefusedReload(t *testing.T) {
	before := gate.RecentKept()
	defer gate.KeepRecent(before)
	running := &App{Off: true}
	for _, next := range []*App{{Keep: 10}, {Keep: 20}, {Keep: 30}} {
		if running.release == nil {
			_ = running.Start()
		}
		_ = next.Start()
		if n := gate.RecentKept(); n != next.Keep {
			t.Errorf("%d are kept while it starts, want %d", n, next.Keep)
		}
		_ = next.Stop()
		if n := gate.RecentKept(); n != 0 {
			t.Errorf("%d are kept after one that failed", n)
		}
	}
	_ = running.Stop()
	if n := gate.RecentKept(); n != defaultKeep {
		t.Errorf("%d are kept where nobody says anything", n)
	}
}
