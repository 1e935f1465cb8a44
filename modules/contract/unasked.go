package contract

import (
	"encoding/json"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// unasked reports whether a site with the contract has no require that goes by it.
// An api puts one there itself. It looks at what is still JSON: a route is while
// its handlers are made ready, and what stands behind it is as well.
func unasked(routes caddyhttp.RouteList, file string) bool {
	alone := false
	for _, r := range routes {
		var s site
		for _, raw := range r.HandlersRaw {
			var handler any
			if json.Unmarshal(raw, &handler) == nil {
				s.look(handler, file)
			}
		}
		if s.required && (s.contract || len(r.MatcherSetsRaw) == 0) {
			return false
		}
		alone = alone || s.contract
	}
	return alone
}

// site is what a route holds.
type site struct{ contract, required bool }

func (s *site) look(v any, file string) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			s.look(item, file)
		}
	case map[string]any:
		switch v["handler"] {
		case "gatehouse_contract":
			s.contract = s.contract || v["file"] == file
		case "gatehouse_require": // one that asks for something else does not go by the contract
			s.required = s.required || v["scopes"] == nil && v["roles"] == nil && v["expression"] == nil && v["acr"] == nil && v["max_age"] == nil
		}
		for _, item := range v {
			s.look(item, file)
		}
	}
}
