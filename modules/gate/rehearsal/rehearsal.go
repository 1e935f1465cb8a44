// Package rehearsal holds the time that stages read, for a program that runs
// requests through a policy without serving it. No configuration reaches it:
// integration/imports_test.go says who may import it.
package rehearsal

import (
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/gate/internal/clock"
)

// Hold holds the time of the whole process at t.
func Hold(t time.Time) { clock.Set(t) }

// Release lets the time go on as usual.
func Release() { clock.Release() }

// Advance lets a time that is held go by.
func Advance(d time.Duration) { clock.Skip(d) }
