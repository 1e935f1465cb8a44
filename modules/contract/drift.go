package contract

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/registry"
)

func init() { caddy.RegisterModule(Admin{}) }

// The kinds of drift.
const (
	driftPath      = "undocumented_path"
	driftStatus    = "undocumented_status"
	driftType      = "undocumented_content_type"
	driftMember    = "undocumented_member"
	driftSchema    = "schema"
	driftMalformed = "malformed"
)

// drift is one way in which a backend does not do what its contract says.
type drift struct {
	API       string `json:"api"`
	Operation string `json:"operation,omitempty"`
	Kind      string `json:"kind"`
	Status    int    `json:"status"`
	Where     string `json:"where,omitempty"` // a JSON pointer, or method and path
	Detail    string `json:"detail,omitempty"`
}

// finding is a drift with how often it was met.
type finding struct {
	drift
	Count int       `json:"count"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

// maxFindings bounds what is remembered of one API. What is met beyond that is
// counted in the metric, and as not listed.
const maxFindings = 500

// book is what was found since the process began. APIs come from configurations,
// so their number is bounded.
type book struct {
	mu        sync.Mutex
	findings  map[string]map[drift]*finding
	notListed map[string]int
}

var drifts = &book{findings: make(map[string]map[drift]*finding), notListed: make(map[string]int)}

// note counts a drift and tells whether it is new.
func (b *book) note(d drift, now time.Time) (fresh bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	known := b.findings[d.API]
	if f := known[d]; f != nil {
		f.Count++
		f.Last = now
		return false
	}
	if len(known) == maxFindings {
		b.notListed[d.API]++
		return false
	}
	if known == nil {
		known = make(map[drift]*finding)
		b.findings[d.API] = known
	}
	known[d] = &finding{d, 1, now, now}
	return true
}

// list returns what was found, the most frequent first.
func (b *book) list(api string) (all []finding, notListed int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all = []finding{}
	for name, known := range b.findings {
		if api != "" && name != api {
			continue
		}
		notListed += b.notListed[name]
		for _, f := range known {
			all = append(all, *f)
		}
	}
	slices.SortFunc(all, func(x, y finding) int {
		return cmp.Or(cmp.Compare(y.Count, x.Count), cmp.Compare(x.API, y.API), cmp.Compare(x.Operation, y.Operation),
			cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Status, y.Status), cmp.Compare(x.Where, y.Where), cmp.Compare(x.Detail, y.Detail))
	})
	return all, notListed
}

func (b *book) forget(api string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if api == "" {
		clear(b.findings)
		clear(b.notListed)
		return
	}
	delete(b.findings, api)
	delete(b.notListed, api)
}

// maxWhere bounds names that come from a backend.
const maxWhere = 200

// drifted records a drift, and logs it when it is met first.
func (h *Handler) drifted(d drift) {
	if len(d.Where) > maxWhere {
		d.Where = d.Where[:maxWhere]
	}
	driftTotal.WithLabelValues(d.API, d.Operation, d.Kind).Inc()
	if drifts.note(d, time.Now()) {
		h.logger.Warn("the backend does not do what the contract says", zap.String("api", d.API), zap.String("operation", d.Operation),
			zap.String("kind", d.Kind), zap.Int("status", d.Status), zap.String("where", d.Where), zap.String("detail", d.Detail))
	}
}

var (
	driftTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_contract_drift_total",
		Help: "Ways in which backends did not do what their contract says.",
	}, []string{"api", "operation", "kind"})
	lookedAt = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_contract_responses_total",
		Help: "Responses that were compared with the contract, or why they were not.",
	}, []string{"api", "result"})
)

// Admin shows on Caddy's admin endpoint where backends differ from contracts.
//
//	GET    /gatehouse/drift[?api=<name>]
//	DELETE /gatehouse/drift[?api=<name>]   begins afresh
type Admin struct{}

// CaddyModule returns the Caddy module information.
func (Admin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.gatehouse_drift",
		New: func() caddy.Module { return new(Admin) },
	}
}

// Routes lists the one there is.
func (Admin) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: "/gatehouse/drift", Handler: caddy.AdminHandlerFunc(serveDrift)}}
}

func serveDrift(w http.ResponseWriter, r *http.Request) error {
	api := r.URL.Query().Get("api")
	switch r.Method {
	case http.MethodGet:
		if err := registry.MaySee(r); err != nil {
			return err
		}
		all, notListed := drifts.list(api)
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(map[string]any{"findings": all, "not_listed": notListed})
	case http.MethodDelete:
		if err := registry.MayForget(r); err != nil {
			return err
		}
		drifts.forget(api)
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	w.Header().Set("Allow", "GET, DELETE")
	return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Message: "drift can be read (GET) and forgotten (DELETE)"}
}

// Interface guards
var _ caddy.AdminRouter = (*Admin)(nil)
