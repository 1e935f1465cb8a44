package resilience

import (
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/resilience/internal/breaker"
)

// Upstreams are labels as far as a configuration names them; all others are
// "dynamic".
var (
	breakerState = states{prometheus.NewDesc("gatehouse_resilience_breaker_state",
		"State of an upstream's breaker: 0 closed, 1 half-open, 2 open; the worst if there are several.",
		[]string{"upstream"}, nil)}

	breakersOpened = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_resilience_breaker_opened_total",
		Help: "How often an upstream's breaker opened.",
	}, []string{"upstream"})

	retries = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_resilience_retries_total",
		Help: "Failed tries by what came next: granted, or why there was no other.",
	}, []string{"outcome"})
)

// states collects what breakers there are and how they are when it is asked,
// so that none is shown whose upstream is gone.
type states struct{ desc *prometheus.Desc }

func (s states) Describe(to chan<- *prometheus.Desc) { to <- s.desc }

// Collect shows one state for each label: an upstream has a breaker for each of
// the settings that it is used under, and so have dynamic ones.
func (s states) Collect(to chan<- prometheus.Metric) {
	worst := map[string]breaker.State{}
	pool.Range(func(_, value any) bool {
		t := value.(*target)
		worst[t.label] = max(worst[t.label], t.State())
		return true
	})
	for label, state := range worst {
		to <- prometheus.MustNewConstMetric(s.desc, prometheus.GaugeValue, float64(state), label)
	}
}

// note tells an upstream's breaker what became of a request, and everybody
// else when that changes its state.
func (t *Transport) note(of *target, permit breaker.Permit, r breaker.Result) {
	now := gate.Now()
	state, changed := of.Done(permit, r, now)
	if !changed {
		return
	}
	data := map[string]any{"upstream": of.dial, "state": state.String()}
	if state == breaker.Open {
		data["failure"] = of.failure()
		breakersOpened.WithLabelValues(of.label).Inc()
		t.logger.Warn("breaker opened", zap.String("upstream", of.dial), zap.Duration("for", of.Wait(now)), zap.String("failure", of.failure()))
	} else {
		t.logger.Info("breaker closed", zap.String("upstream", of.dial))
	}
	t.events.Emit(t.ctx, "gatehouse_breaker", data)
}
