package cluster

import "github.com/prometheus/client_golang/prometheus"

var (
	// What is there is asked when it is to be told, of the link that serves: one
	// that ends beside it says nothing any more.
	up = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gatehouse_cluster_up",
		Help: "1 while the cluster's server can be asked.",
	}, func() float64 {
		if served().Up() {
			return 1
		}
		return 0
	})
	nodesSeen = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gatehouse_cluster_nodes",
		Help: "Gateways that share, as last seen.",
	}, func() float64 {
		if l := served(); l != nil {
			return float64(l.nodes.Load())
		}
		return 0
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
