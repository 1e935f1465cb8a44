package contract

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// TestPanicInValidation: a fault of a schema library refuses the request, and
// takes down nothing.
func TestPanicInValidation(t *testing.T) {
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/", strings.NewReader("{}"))
	r.Header.Set("Content-Type", "application/json")
	var broken *check // has no body to look at, nor anything else
	d := broken.guarded(new(gate.Exchange), r)
	if d == nil || d.Reason != gate.InputUnavailable || d.Reason.Status() != 500 || !strings.Contains(d.Err.Error(), "panicked") {
		t.Errorf("%+v", d)
	}
}
