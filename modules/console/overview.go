package console

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	dto "github.com/prometheus/client_model/go"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// overview is how the gateway is at the moment. What is not compiled in or not
// used is left out. All numbers are those of Caddy's /metrics: what the console
// shows and what is alerted on cannot differ.
type overview struct {
	APIs         []api         `json:"apis"`
	Breakers     []breaker     `json:"breakers,omitempty"`
	Quota        *quota        `json:"quota,omitempty"`
	Canaries     []canary      `json:"canaries,omitempty"`
	Feeds        []feed        `json:"feeds,omitempty"`
	Cluster      *cluster      `json:"cluster,omitempty"`
	Certificates []certificate `json:"certificates"`
	LogDropped   float64       `json:"log_dropped"`
	Kept         int           `json:"kept"` // Exchanges of either kind that are remembered
	Streams      int           `json:"streams"`
	Words        words         `json:"words"`
}

// words are what the filters of Exchanges know.
type words struct {
	Stages   []string `json:"stages"`
	Verdicts []string `json:"verdicts"`
	Reasons  []string `json:"reasons"`
}

var vocabulary = func() (w words) {
	for s := range gate.Stages() {
		w.Stages = append(w.Stages, gate.Stage(s).String())
	}
	for _, v := range verdicts {
		w.Verdicts = append(w.Verdicts, v.String())
	}
	for _, r := range gate.Reasons() {
		w.Reasons = append(w.Reasons, r.String())
	}
	return w
}()

type (
	api struct {
		API       string  `json:"api"`
		Passed    float64 `json:"passed"`
		Denied    float64 `json:"denied"`
		WouldDeny float64 `json:"would_deny"`
		Undecided float64 `json:"undecided"`
	}
	breaker struct {
		Upstream string  `json:"upstream"`
		State    string  `json:"state"`
		Opened   float64 `json:"opened"`
	}
	quota struct {
		Keys    float64 `json:"keys"`
		Waiting float64 `json:"waiting"`
		Leased  float64 `json:"leased"`
		Alone   float64 `json:"alone"` // requests counted while the cluster was away
	}
	canary struct {
		API     string  `json:"api"`
		Release string  `json:"release"`
		Weight  float64 `json:"weight"`
	}
	feed struct {
		Source   string  `json:"source"`
		ReadAt   float64 `json:"read_at"` // Unix time; 0: never
		Failures float64 `json:"failures"`
	}
	cluster struct {
		Up    bool    `json:"up"`
		Nodes float64 `json:"nodes"`
	}
)

func serveOverview(w http.ResponseWriter, _ *http.Request) error {
	ctx := caddy.ActiveContext()
	o := overview{APIs: []api{}, Certificates: certificates(ctx), Kept: gate.RecentKept(), Streams: int(streams.Load()), Words: vocabulary}
	if reg := ctx.GetMetricsRegistry(); reg != nil {
		families, err := reg.Gather()
		if err != nil && len(families) == 0 {
			return caddy.APIError{HTTPStatus: http.StatusInternalServerError, Err: err, Message: "the metrics cannot be read"}
		}
		o.read(families)
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(o)
}

// read takes from the metrics what the overview shows.
func (o *overview) read(families []*dto.MetricFamily) {
	apis, breakers, feeds := table[api]{}, table[breaker]{}, table[feed]{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			v := value(m)
			switch family.GetName() {
			case "gatehouse_decisions_total":
				apis.row(label(m, "api")).add(label(m, "api"), label(m, "stage"), label(m, "verdict"), v)
			case "gatehouse_resilience_breaker_state":
				b := breakers.row(label(m, "upstream"))
				b.Upstream, b.State = label(m, "upstream"), breakerState(v)
			case "gatehouse_resilience_breaker_opened_total":
				b := breakers.row(label(m, "upstream"))
				b.Upstream, b.Opened = label(m, "upstream"), v
			case "gatehouse_quota_keys":
				o.quota().Keys = v
			case "gatehouse_quota_waiting":
				o.quota().Waiting = v
			case "gatehouse_quota_leased":
				o.quota().Leased = v
			case "gatehouse_quota_alone_total":
				o.quota().Alone = v
			case "gatehouse_canary_weight":
				o.Canaries = append(o.Canaries, canary{label(m, "api"), label(m, "release"), v})
			case "gatehouse_reputation_read_timestamp_seconds":
				f := feeds.row(label(m, "source"))
				f.Source, f.ReadAt = label(m, "source"), v
			case "gatehouse_reputation_read_failures_total":
				f := feeds.row(label(m, "source"))
				f.Source, f.Failures = label(m, "source"), v
			case "gatehouse_cluster_up":
				o.cluster().Up = v == 1
			case "gatehouse_cluster_nodes":
				o.cluster().Nodes = v
			case "gatehouse_log_dropped_total":
				o.LogDropped = v
			}
		}
	}
	maps.DeleteFunc(breakers, func(_ string, b *breaker) bool { return b.State == "" }) // of upstreams that are gone
	o.APIs, o.Breakers, o.Feeds = apis.rows(), breakers.rows(), feeds.rows()
}

func (o *overview) quota() *quota {
	if o.Quota == nil {
		o.Quota = new(quota)
	}
	return o.Quota
}

func (o *overview) cluster() *cluster {
	if o.Cluster == nil {
		o.Cluster = new(cluster)
	}
	return o.Cluster
}

func (a *api) add(name, stage, verdict string, n float64) {
	a.API = name
	switch verdict {
	case gate.Allowed.String():
		if stage == gate.API.String() { // which has the last word
			a.Passed += n
		}
	case gate.Denied.String():
		a.Denied += n
	case gate.WouldDeny.String():
		a.WouldDeny += n
	case gate.Undecided.String():
		a.Undecided += n
	}
}

func breakerState(v float64) string {
	return [...]string{"closed", "half-open", "open"}[min(max(int(v), 0), 2)]
}

// table collects rows by a key; they are shown in its order.
type table[T any] map[string]*T

func (t table[T]) row(key string) *T {
	if t[key] == nil {
		t[key] = new(T)
	}
	return t[key]
}

func (t table[T]) rows() []T {
	type keyed struct {
		key string
		row T
	}
	all := make([]keyed, 0, len(t))
	for key, row := range t {
		all = append(all, keyed{key, *row})
	}
	slices.SortFunc(all, func(a, b keyed) int { return cmp.Compare(a.key, b.key) })
	out := make([]T, len(all))
	for i := range all {
		out[i] = all[i].row
	}
	return out
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

func value(m *dto.Metric) float64 {
	if g := m.GetGauge(); g != nil {
		return g.GetValue()
	}
	return m.GetCounter().GetValue()
}
