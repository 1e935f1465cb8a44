// Package headroom lets a small heap grow by a stated size before it is
// collected.
//
// Go collects when the heap has doubled, which is early where little is live: a
// gateway that keeps 10 MiB collects after every 10 MiB of requests, some dozens
// of times a second. The percentage that comes to the stated growth is set again
// after each collection; a heap of more than that size is left to Go's own, and
// so is one that nears GOMEMLIMIT.
package headroom

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

var (
	mu    sync.Mutex
	size  *int64 // that is wanted; nil: none
	usual int    // the percentage without any
	now   int    // the percentage that is set
	awake bool   // a sentinel waits for the end of the next collection
)

// Want asks for a growth of so many bytes; with nil, for Go's own. Nothing is done
// where the environment's GOGC decides.
func Want(bytes *int64) {
	if os.Getenv("GOGC") != "" {
		return
	}
	mu.Lock()
	defer mu.Unlock()
	if size == nil {
		usual = int(read("/gc/gogc:percent")) //nolint:gosec // off is all ones, and -1 for SetGCPercent
		now = usual
	}
	size = bytes
	adjust()
}

// adjust sets the percentage for the heap that is live. Doing so stops the world
// for a moment, and is left for differences that matter.
func adjust() {
	percent := usual
	if size != nil {
		percent = growth(int64(read("/gc/heap/live:bytes")), *size, usual) //nolint:gosec // far from the end of an int64
		if !awake {
			awake = true
			runtime.SetFinalizer(new(sentinel), collected)
		}
	}
	if percent == usual && now != usual || abs(percent-now) > now/8 {
		debug.SetGCPercent(percent)
		now = percent
	}
}

// growth is the percentage by which a heap grows by size, if that is more than the
// usual one.
func growth(live, size int64, usual int) int {
	return max(usual, int(min(size*100/max(live, 1), 10_000)))
}

// sentinel is garbage that its finalizer brings back to life: the end of each
// collection is when that runs.
type sentinel struct{ _ [32]byte }

func collected(s *sentinel) {
	mu.Lock()
	defer mu.Unlock()
	if size == nil {
		awake = false
		return
	}
	adjust()
	runtime.SetFinalizer(s, collected)
}

func read(name string) uint64 {
	sample := []metrics.Sample{{Name: name}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func abs(n int) int { return max(n, -n) }
