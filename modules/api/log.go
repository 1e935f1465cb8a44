package api

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// Log entries are written behind the requests' backs: Caddy's log writes at
// once, and whoever reads its pipe or disk may stop doing so. Requests put
// records into a queue; when it is full, entries are dropped and counted, and
// traffic goes on.

// line is an entry on its way to the log of the configuration it came from.
type line struct {
	to    *zap.Logger
	level zapcore.Level
	rec   *gate.Record
}

// queue holds what a log that stands still has cost us: some 4 MB.
const queueLength = 4096

var (
	queue   = make(chan line, queueLength)
	writing atomic.Bool              // a writer is there
	put     atomic.Uint64            // lines that went into the queue
	written atomic.Uint64            // lines that the log has taken
	stuck   atomic.Uint64            // how many were written when a log was last given up
	hurry   = make(chan struct{}, 1) // tells the writer not to rest

	dropped = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "gatehouse_log_dropped_total",
		Help: "Decision log entries dropped because the log did not take them fast enough.",
	})
)

const (
	// A writer that has nothing to do rests a little: to be woken for each
	// entry costs more than to write it.
	rest = 5 * time.Millisecond

	// After so many rests with nothing to do, it goes home.
	rests = 20
)

// log has a record written, soon.
func log(l line) {
	put.Add(1)
	select {
	case queue <- l:
	default:
		put.Add(^uint64(0))
		dropped.Inc()
		return
	}
	if !writing.Load() && writing.CompareAndSwap(false, true) {
		go write()
	}
}

// write empties the queue until nothing comes any more.
func write() {
	timer := time.NewTimer(rest)
	defer timer.Stop()
	for idle := 0; ; {
		select {
		case l := <-queue:
			l.write()
			idle = 0
			continue
		default:
		}
		if idle++; idle > rests {
			writing.Store(false)
			// One that came just now saw a writer and started none.
			if len(queue) == 0 || !writing.CompareAndSwap(false, true) {
				return
			}
			idle = 0
		}
		timer.Reset(rest)
		select {
		case <-timer.C:
		case <-hurry:
		}
	}
}

func (l line) write() {
	defer written.Add(1)
	if c := l.to.Check(l.level, "decided"); c != nil {
		c.Time = l.rec.Began.Add(l.rec.Took) // not when it was written
		c.Write(zap.Inline((*entry)(l.rec)))
	}
}

// patience is how long a log that takes nothing is waited for.
const patience = 250 * time.Millisecond

// Flush waits until the entries of all requests that have ended are written, or
// the log stands still. It is called before the log of a configuration closes.
func Flush() {
	until := put.Load()
	seen := written.Load()
	if seen == stuck.Load() && seen > 0 {
		return // it is still given up
	}
	for deadline := time.Now().Add(patience); seen < until && time.Now().Before(deadline); {
		select {
		case hurry <- struct{}{}:
		default:
		}
		time.Sleep(time.Millisecond / 2)
		if now := written.Load(); now != seen {
			seen, deadline = now, time.Now().Add(patience)
		}
	}
	if seen < until {
		stuck.Store(seen)
	}
}
