package identity

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

func TestKeepPrivate(t *testing.T) {
	for _, c := range []struct {
		said []string
		want string
	}{
		{nil, "private"},
		{[]string{"public, max-age=600"}, "private, max-age=600"},
		{[]string{"PUBLIC", "s-maxage = 600, must-revalidate"}, "private, must-revalidate"},
		{[]string{"no-store"}, "private, no-store"},
		{[]string{"private,max-age=5"}, "private, max-age=5"},
		{[]string{`private="X-Name, Set-Cookie", public`}, "private, no-cache"},
		{[]string{`no-cache="a", No-Store`}, "private, no-cache, no-store"},
		{[]string{",, "}, "private"},
	} {
		h := http.Header{"Surrogate-Control": {"max-age=600"}, "Cdn-Cache-Control": {"max-age=600"}, "Some-Cdn-Cache-Control": {"max-age=600"}}
		if c.said != nil {
			h["Cache-Control"] = c.said
		}
		if keepPrivate(h); len(h) != 1 || len(h["Cache-Control"]) != 1 || h["Cache-Control"][0] != c.want {
			t.Errorf("%q: %v, want %q", c.said, h, c.want)
		}
	}
}

// TestUnshared: however an answer begins, it begins with what caches have to know.
func TestUnshared(t *testing.T) {
	for name, begin := range map[string]func(http.ResponseWriter){
		"header": func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) },
		"body":   func(w http.ResponseWriter) { _, _ = w.Write([]byte("x")) },
		"flush":  func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() },
	} {
		for given, want := range map[string]string{"": "public", "a=b": "private"} {
			v := &visit{ex: &gate.Exchange{}}
			if given != "" {
				v.ex.Given = []string{given}
			}
			rec := httptest.NewRecorder()
			w := v.ours(rec)
			w.Header().Set("Cache-Control", "public")
			begin(w)
			if got := rec.Result().Header.Get("Cache-Control"); got != want {
				t.Errorf("%s, given %q: %q, want %q", name, given, got, want)
			}
		}
	}
}
