package guard

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// overriding are header fields by which frameworks take a request for another
// than it is: of another method, or to another path, than was matched, allowed
// and logged here.
var overriding = [...]string{
	"x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url", "x-original-uri", "x-original-method",
}

func (h *Handler) override(ex *gate.Exchange, r *http.Request, enforce bool) *gate.Denial {
	for name := range r.Header {
		if len(name) >= len("x-http-method") && name[0] == 'X' && slices.ContainsFunc(overriding[:], func(o string) bool { return gate.Alike(name, o) }) {
			return &gate.Denial{Reason: gate.GuardOverride, Detail: "The field " + name + " is not accepted here."}
		}
	}
	if r.Method != http.MethodPost {
		return nil
	}
	if overrides(r.URL.RawQuery) {
		return &gate.Denial{Reason: gate.GuardOverride, Detail: "The parameter _method is not accepted here."}
	}
	if !hasBody(r) || mediaType(r) != "application/x-www-form-urlencoded" {
		return nil
	}
	form, denial := h.whole(ex, r, enforce)
	if denial == nil && overrides(string(form)) {
		denial = &gate.Denial{Reason: gate.GuardOverride, Detail: "The member _method is not accepted here."}
	}
	return denial
}

// overrides looks for a parameter called _method, by which frameworks take a POST
// for another method. PHP knows it by some other names.
func overrides(form string) bool {
	for member := range strings.FieldsFuncSeq(form, func(c rune) bool { return c == '&' || c == ';' }) {
		name, _, _ := strings.Cut(member, "=")
		if !strings.HasSuffix(name, "method") && strings.IndexByte(name, '%') < 0 {
			continue
		}
		if plain, err := url.QueryUnescape(name); err == nil {
			name, _, _ = strings.Cut(strings.TrimLeft(plain, " "), "\x00")
		}
		if len(name) == len("_method") && name[1:] == "method" && strings.IndexByte("_.[ ", name[0]) >= 0 {
			return true
		}
	}
	return false
}
