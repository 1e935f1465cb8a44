package latest_test

import (
	"slices"
	"testing"

	"github.com/gatehouse-caddy/gatehouse/modules/gate/latest"
)

// TestClaims: of several the newest that is left counts, whichever goes first.
func TestClaims(t *testing.T) {
	var seen []int
	o := latest.Of[int]{Changed: func(v *int) {
		if v == nil {
			seen = append(seen, 0)
			return
		}
		seen = append(seen, *v)
	}}
	if o.Load() != nil {
		t.Error("somebody has said something")
	}
	one := o.Claim(1)
	two := o.Claim(2)
	one() // a reload
	if v := o.Load(); v == nil || *v != 2 {
		t.Errorf("%v", v)
	}
	three := o.Claim(3)
	three() // a load that failed
	three()
	if v := o.Load(); v == nil || *v != 2 {
		t.Errorf("%v", v)
	}
	two()
	if o.Load() != nil || !slices.Equal(seen, []int{1, 2, 3, 2, 0}) {
		t.Errorf("%v, then %v", seen, o.Load())
	}
}
