package reputation

import (
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// ServeHTTP finds out where the request comes from, and whether it may.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	ex, mode := gate.Enter(r, gate.Reputation, h.Mode)
	if mode == gate.Off {
		return next.ServeHTTP(w, r)
	}
	began := gate.Now()
	h.locate(ex, r.UserAgent())
	name, denial := h.decide(ex)
	if denial != nil && denial.Reason == gate.ReputationUnavailable && *h.OnError == gate.Open {
		ex.LetPass(gate.Reputation, mode, name, denial.Reason, began)
		return next.ServeHTTP(w, r)
	}
	if err := ex.Conclude(w, r, gate.Reputation, mode, name, denial, began); err != nil {
		return err
	}
	return next.ServeHTTP(w, r)
}

// locate records what the lists and databases know, for this and later stages.
func (h *Handler) locate(ex *gate.Exchange, agent string) {
	if h.app.bots != nil && agent != "" {
		if l, ok := h.app.bots.load(); ok {
			if ex.Origin.Bot = l.Match(agent); ex.Origin.Bot != "" {
				declared.WithLabelValues(ex.API).Inc()
			}
		}
	}
	if !ex.Client.IsValid() {
		return
	}
	if h.app.country != nil {
		if db, ok := h.app.country.load(); ok {
			ex.Origin.Country = db.Country(ex.Client)
		}
	}
	if h.app.asn != nil {
		if db, ok := h.app.asn.load(); ok {
			ex.Origin.ASN = db.ASN(ex.Client)
		}
	}
}

// decide asks what allows before what denies. A list that was never read can
// only be missed where it would have denied.
func (h *Handler) decide(ex *gate.Exchange) (name string, _ *gate.Denial) {
	for i := range h.allow {
		if yes, _ := h.allow[i].on(ex.Client); yes {
			return h.allow[i].name, nil
		}
	}
	missing := ""
	for i := range h.deny {
		yes, known := h.deny[i].on(ex.Client)
		if yes {
			return h.deny[i].name, &gate.Denial{Reason: gate.ReputationDenied}
		}
		if !known {
			missing = h.deny[i].name
		}
	}
	country := ex.Origin.Country
	if slices.Contains(h.DenyCountries, country) || len(h.AllowCountries) > 0 && !slices.Contains(h.AllowCountries, country) {
		return country, &gate.Denial{Reason: gate.ReputationCountry}
	}
	if missing != "" {
		return missing, &gate.Denial{Reason: gate.ReputationUnavailable}
	}
	return "", nil
}

// Describe tells that the stage may refuse, and nothing of what it looks for.
func (h *Handler) Describe(d *gate.Description) { d.MayRefuse(h.Mode, gate.Reputation) }
