package gate

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// The collectors are package-level so that they keep their values over reloads,
// and are registered again on each config's registry. Labels are bounded: API
// and operation come from the configuration, the rest from closed lists.
var (
	decisions = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_decisions_total",
		Help: "Decisions of the gateway's stages.",
	}, []string{"api", "operation", "stage", "verdict", "reason", "mode"})

	stageSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "gatehouse_stage_seconds",
		Help:    "Time spent in each stage.",
		Buckets: []float64{1e-6, 5e-6, 2.5e-5, 1e-4, 5e-4, 2.5e-3, 1e-2, 0.1, 1},
	}, []string{"api", "stage"})
)

// RegisterMetrics makes the shared collectors, and more, visible on the
// registry of the config being loaded. Every stage calls it in Provision.
func RegisterMetrics(ctx caddy.Context, more ...prometheus.Collector) error {
	reg := ctx.GetMetricsRegistry()
	if reg == nil {
		return nil
	}
	for _, c := range append([]prometheus.Collector{decisions, stageSeconds}, more...) {
		var again prometheus.AlreadyRegisteredError
		if err := reg.Register(c); err != nil && !errors.As(err, &again) {
			return err
		}
	}
	return nil
}

// series is one label set of a decision; a lookup by it saves Prometheus's own
// hashing of six strings on every decision.
type series struct {
	api, operation string
	stage          Stage
	verdict        Verdict
	mode           Mode
	reason         Reason
}

// meters are the collectors of one label set.
type meters struct {
	series
	count prometheus.Counter
	took  prometheus.Observer
}

var (
	// known are the meters of each stage. A contract may have tens of thousands of
	// operations, each of which is seen first once.
	known [stageCount]struct {
		sync.RWMutex

		of map[series]*meters
	}

	// last saves most look-ups: what a stage concluded last it mostly concludes
	// again.
	last [stageCount]atomic.Pointer[meters]
)

func count(ex *Exchange, d *Decision) {
	k := series{api: ex.API, stage: d.Stage, verdict: d.Verdict, mode: d.Mode, reason: d.Reason}
	if ex.Operation != nil {
		k.operation = ex.Operation.ID
	}
	m := last[d.Stage].Load()
	if m == nil || m.series != k {
		m = find(k)
		last[d.Stage].Store(m)
	}
	m.count.Inc()
	m.took.Observe(d.Took.Seconds())
}

func find(k series) *meters {
	at := &known[k.stage]
	at.RLock()
	m := at.of[k]
	at.RUnlock()
	if m == nil {
		m = learn(k)
	}
	return m
}

func learn(k series) *meters {
	at := &known[k.stage]
	at.Lock()
	defer at.Unlock()
	if m := at.of[k]; m != nil {
		return m
	}
	if at.of == nil {
		at.of = make(map[series]*meters)
	}
	m := &meters{
		series: k,
		count:  decisions.WithLabelValues(k.api, k.operation, k.stage.String(), k.verdict.String(), k.reason.String(), k.mode.String()),
		took:   stageSeconds.WithLabelValues(k.api, k.stage.String()),
	}
	at.of[k] = m
	return m
}
