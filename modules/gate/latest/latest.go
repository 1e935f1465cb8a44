// Package latest holds what configurations set for the whole process. Two run for a
// moment when one takes the place of another, and the new one may fail: what counts
// is what the newest one says that still runs.
package latest

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Of is a setting. The zero value is one that nobody has made.
type Of[T any] struct {
	// Changed is called with what counts now, nil when nobody says anything. One
	// call ends before another begins. May be nil.
	Changed func(*T)

	mu     sync.Mutex
	claims []*T
	holds  atomic.Pointer[T]
}

// Claim makes the setting until release is called.
func (o *Of[T]) Claim(value T) (release func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	claim := &value
	o.settle(append(o.claims, claim))
	return sync.OnceFunc(func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.settle(slices.DeleteFunc(o.claims, func(c *T) bool { return c == claim }))
	})
}

func (o *Of[T]) settle(claims []*T) {
	o.claims = claims
	var last *T
	if n := len(claims); n > 0 {
		last = claims[n-1]
	}
	if o.holds.Swap(last) != last && o.Changed != nil {
		o.Changed(last)
	}
}

// Load is what counts now; nil when nobody has said anything.
func (o *Of[T]) Load() *T { return o.holds.Load() }
