package catalog

import (
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// ServeHTTP answers what belongs to the catalog and lets all else pass.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead || !h.mine(r.URL.Path) {
		return next.ServeHTTP(w, r)
	}
	if h.Index {
		h.once.Do(h.list)
	}
	kind, answered := h.site.serve(w, r)
	if !answered {
		return next.ServeHTTP(w, r)
	}
	api := ""
	if h.about != nil {
		api = h.about.API
	}
	requests.WithLabelValues(api, kind).Inc()
	return nil
}

const wellKnown = "/.well-known/api-catalog"

func (h *Handler) mine(path string) bool {
	rest, ok := strings.CutPrefix(path, h.Path)
	return ok && (rest == "" || rest[0] == '/') || path == wellKnown
}

// list makes the list of the APIs that stand in the same site.
func (h *Handler) list() {
	app, err := h.ctx.AppIfConfigured("http")
	if err != nil {
		h.ctx.Logger().Error("listing APIs", zap.Error(err))
		return
	}
	var found []*about
	for _, server := range app.(*caddyhttp.App).Servers {
		around, ok := beside(server.Routes, h)
		if !ok {
			continue
		}
		gate.Visit(around, func(m caddyhttp.MiddlewareHandler) {
			if page, ok := m.(*Handler); ok && page.about != nil {
				found = append(found, page.about)
			}
		})
		break
	}
	if h.site.pages, err = listPages(h.Path, found); err != nil {
		h.ctx.Logger().Error("listing APIs", zap.Error(err))
	}
}

// beside finds the routes among which a handler stands. Those that are for
// another host are another site's.
func beside(routes caddyhttp.RouteList, target *Handler) (caddyhttp.RouteList, bool) {
	for _, route := range routes {
		for _, m := range route.Handlers {
			if m == caddyhttp.MiddlewareHandler(target) {
				return own(routes), true
			}
			var inner caddyhttp.RouteList
			switch m := m.(type) {
			case *caddyhttp.Subroute:
				inner = m.Routes
			case gate.Container:
				inner = m.Inner()
			}
			if found, ok := beside(inner, target); ok {
				return found, true
			}
		}
	}
	return nil, false
}

func own(routes caddyhttp.RouteList) (out caddyhttp.RouteList) {
	for _, route := range routes {
		if !forHost(route) {
			out = append(out, route)
		}
	}
	return out
}

func forHost(route caddyhttp.Route) bool {
	for _, set := range route.MatcherSets {
		for _, m := range set {
			switch m.(type) {
			case caddyhttp.MatchHost, *caddyhttp.MatchHost:
				return true
			}
		}
	}
	return false
}
