package gate

import (
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/gate/internal/clock"
)

// Now is the time that stages decide by. It is time.Now, except in a policy
// test, which holds it where its case says.
func Now() time.Time { return clock.Now() }

// Since is how long ago t was, by the same clock. A time from Now is not to be
// measured with time.Since: a held one lies elsewhere.
func Since(t time.Time) time.Duration { return clock.Now().Sub(t) }

// Skip is for a stage that would let a request wait: in a policy test the time
// goes by at once. It reports false when the time is real.
func Skip(d time.Duration) bool { return clock.Skip(d) }
