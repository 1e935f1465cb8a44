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
	breakerState = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "gatehouse_resilience_breaker_state",
		Help: "State of an upstream's breaker: 0 closed, 1 half-open, 2 open.",
	}, []string{"upstream"})

	breakersOpened = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_resilience_breaker_opened_total",
		Help: "How often an upstream's breaker opened.",
	}, []string{"upstream"})

	retries = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_resilience_retries_total",
		Help: "Failed tries by what came next: granted, or why there was no other.",
	}, []string{"outcome"})
)

// note tells an upstream's breaker what became of a request, and everybody
// else when that changes its state.
func (t *Transport) note(of *target, permit breaker.Permit, r breaker.Result) {
	now := gate.Now()
	state, changed := of.Done(permit, r, now)
	if !changed {
		return
	}
	breakerState.WithLabelValues(of.label).Set(float64(state))
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
