package transcode

import "github.com/prometheus/client_golang/prometheus"

var calls = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "gatehouse_transcode_calls_total",
	Help: "Calls that were translated and reached the service, by the client's protocol and gRPC's code for how they ended.",
}, []string{"protocol", "code"})
