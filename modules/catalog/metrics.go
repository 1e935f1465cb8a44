package catalog

import "github.com/prometheus/client_golang/prometheus"

var requests = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "gatehouse_catalog_requests_total",
	Help: "Requests that the catalog answered: page, document, links or asset.",
}, []string{"api", "what"})
