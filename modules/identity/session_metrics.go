package identity

import "github.com/prometheus/client_golang/prometheus"

// Labels are from closed lists.
var (
	sessionLogins = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_identity_session_logins_total",
		Help: "Logins by browsers: begun, ok, refused, unknown to the browser, or with an issuer that is away.",
	}, []string{"outcome"})

	sessionRefreshes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_identity_session_refreshes_total",
		Help: "Sessions that were to be renewed: ok, refused, or with an issuer that is away.",
	}, []string{"outcome"})

	sessionEvents = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_identity_session_events_total",
		Help: "What else happened to sessions: logout, backchannel, backchannel_refused, cross_origin.",
	}, []string{"event"})
)

func logins(outcome string) { sessionLogins.WithLabelValues(outcome).Inc() }

func refreshes(outcome string) { sessionRefreshes.WithLabelValues(outcome).Inc() }
