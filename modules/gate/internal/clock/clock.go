// Package clock is the time as stages read it: the real one, unless a rehearsal
// holds it still.
package clock

import (
	"sync/atomic"
	"time"
)

// held is nil while the time goes on.
var held atomic.Pointer[time.Time]

// Now is the time. Where none is held it costs one load more than time.Now.
func Now() time.Time {
	if t := held.Load(); t != nil {
		return *t
	}
	return time.Now()
}

// Set holds the time at t.
func Set(t time.Time) { held.Store(&t) }

// Release lets the time go on.
func Release() { held.Store(nil) }

// Skip lets a time that is held go by at once. It reports false when none is.
func Skip(d time.Duration) bool {
	for {
		t := held.Load()
		if t == nil {
			return false
		}
		later := t.Add(d)
		if held.CompareAndSwap(t, &later) {
			return true
		}
	}
}
