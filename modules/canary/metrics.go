package canary

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-caddy/gatehouse/modules/canary/internal/release"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// APIs and releases are labels as the configuration names them.
var (
	requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_canary_requests_total",
		Help: "Requests by the release that answered and what became of them: ok, failed, or left by the client.",
	}, []string{"api", "release", "outcome"})

	weights = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "gatehouse_canary_weight",
		Help: "Percentage of callers that are on a release.",
	}, []string{"api", "release"})

	rolledBacks = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_canary_rolled_back_total",
		Help: "How often a release was found worse than the stable one; in shadow mode it kept its callers.",
	}, []string{"api", "release", "why", "mode"})
)

var outcomes = [3]string{release.Fine: "ok", release.Failed: "failed", release.Left: "left"}

// meter finds the counters that requests need.
func (h *Handler) meter(ctx caddy.Context) error {
	for o, name := range outcomes {
		h.own[o] = requests.WithLabelValues(h.Name, h.Release, name)
		h.stable[o] = requests.WithLabelValues(h.Name, stableName, name)
	}
	return gate.RegisterMetrics(ctx, requests, weights, rolledBacks)
}
