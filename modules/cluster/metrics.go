package cluster

import "github.com/prometheus/client_golang/prometheus"

var (
	up = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "gatehouse_cluster_up",
		Help: "1 while the cluster's server can be asked.",
	})
	nodesSeen = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "gatehouse_cluster_nodes",
		Help: "Gateways that share, as last seen.",
	})
	calls = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_cluster_calls_total",
		Help: "Calls to the cluster's server: ok, error, or busy when too many were on their way.",
	}, []string{"outcome"})
	seconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "gatehouse_cluster_call_seconds",
		Help:    "Time that calls to the cluster's server took.",
		Buckets: []float64{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05},
	})
)
