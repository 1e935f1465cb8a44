package gate

import (
	"errors"
	"maps"
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

type meters struct {
	count prometheus.Counter
	took  prometheus.Observer
}

// known is copied on write: it grows only when a label set is seen first, and
// label sets are bounded.
var (
	known     atomic.Pointer[map[series]meters]
	knownLock sync.Mutex
)

// board has at hand what counts the commonest decision of all, to let pass.
type board struct {
	passed [stageCount][len(modeNames)]atomic.Pointer[meters]
}

type boardKey struct{ api, operation string }

// boards grow like known does.
var boards atomic.Pointer[map[boardKey]*board]

func count(ex *Exchange, d *Decision) {
	k := series{api: ex.API, stage: d.Stage, verdict: d.Verdict, mode: d.Mode, reason: d.Reason}
	if ex.Operation != nil {
		k.operation = ex.Operation.ID
	}
	if d.Verdict != Allowed {
		m := lookUp(k)
		m.add(d)
		return
	}
	if ex.board == nil || ex.boardOf != ex.Operation {
		ex.board, ex.boardOf = boardOf(boardKey{k.api, k.operation}), ex.Operation
	}
	at := &ex.board.passed[d.Stage][d.Mode]
	m := at.Load()
	if m == nil {
		found := lookUp(k)
		m = &found
		at.Store(m)
	}
	m.add(d)
}

func (m *meters) add(d *Decision) {
	m.count.Inc()
	m.took.Observe(d.Took.Seconds())
}

func lookUp(k series) meters {
	if p := known.Load(); p != nil {
		if m, ok := (*p)[k]; ok {
			return m
		}
	}
	return learn(k)
}

func boardOf(k boardKey) *board {
	if p := boards.Load(); p != nil {
		if b, ok := (*p)[k]; ok {
			return b
		}
	}
	knownLock.Lock()
	defer knownLock.Unlock()
	next := map[boardKey]*board{}
	if p := boards.Load(); p != nil {
		if b, ok := (*p)[k]; ok {
			return b
		}
		next = maps.Clone(*p)
	}
	next[k] = new(board)
	boards.Store(&next)
	return next[k]
}

func learn(k series) meters {
	knownLock.Lock()
	defer knownLock.Unlock()

	next := map[series]meters{}
	if p := known.Load(); p != nil {
		if m, ok := (*p)[k]; ok {
			return m
		}
		next = maps.Clone(*p)
	}
	m := meters{
		count: decisions.WithLabelValues(k.api, k.operation, k.stage.String(), k.verdict.String(), k.reason.String(), k.mode.String()),
		took:  stageSeconds.WithLabelValues(k.api, k.stage.String()),
	}
	next[k] = m
	known.Store(&next)
	return m
}
