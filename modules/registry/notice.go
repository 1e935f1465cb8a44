package registry

import (
	"context"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// topic is what changes are told under on the cluster's link.
const topic = "registry"

// notices is what this node has heard from others and not looked at yet.
type notices struct {
	told   atomic.Uint64 // the highest revision that somebody spoke of
	missed atomic.Bool   // somebody may have spoken before we listened
	wake   chan struct{}
}

// heard takes a notice: the revision that a node has written. Whatever it says,
// it makes this node look, and no more.
func (n *notices) heard(text string) {
	revision, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return
	}
	noticed.WithLabelValues("heard").Inc()
	n.told.Store(revision)
	n.nudge()
}

func (n *notices) begin() {
	n.missed.Store(true)
	n.nudge()
}

func (n *notices) nudge() {
	select {
	case n.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// soon is how long a node waits before it looks, so that many changes at once
// are looked at together.
const soon = 5 * time.Millisecond

// follow looks at the storage every once in a while, and soon after a notice.
// Where a storage does not show at once what another node wrote, it looks again,
// less and less often, until it would look anyway.
func (a *App) follow(ctx context.Context) {
	tick, look := time.NewTicker(time.Duration(a.Poll)), time.NewTimer(time.Hour)
	defer tick.Stop()
	defer look.Stop()
	look.Stop()
	pause, waiting := soon, false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			a.store.poll(ctx)
		case <-a.notices.wake:
			pause = soon
			if !waiting {
				look.Reset(pause)
				waiting = true
			}
		case <-look.C:
			waiting = false
			told := a.notices.told.Load()
			if a.notices.missed.Swap(false) || !a.store.reached(told) {
				a.store.poll(ctx)
			}
			if pause *= 2; !a.store.reached(told) && pause < time.Duration(a.Poll) {
				look.Reset(pause)
				waiting = true
			}
		}
	}
}

// reached reports whether this node knows of a revision.
func (s *store) reached(revision uint64) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.journal.Revision >= revision
}

// serve adds an app to those that have started, or takes it out. A reload that
// fails stops the newer one, and the older one goes on, with its log. It waits for no storage,
// since Caddy loads nothing else, and does not end, before it has returned.
func (s *store) serve(a *App, starts bool) {
	s.serving.Lock()
	defer s.serving.Unlock()
	var apps []*App
	if old := s.running.Load(); old != nil {
		apps = slices.DeleteFunc(slices.Clone(*old), func(other *App) bool { return other == a })
	}
	if starts {
		apps = append(apps, a)
	}
	s.running.Store(&apps)
	if len(apps) > 0 { // who has only been made ready may yet be refused
		s.logger.Store(apps[len(apps)-1].logger)
	}
}

// spread tells the other nodes of a change. They find out by themselves, only
// later, if they cannot be told.
func (s *store) spread(revision uint64) {
	apps := s.running.Load()
	if apps == nil || len(*apps) == 0 {
		return
	}
	a := (*apps)[len(*apps)-1]
	if a.link == nil {
		return
	}
	outcome := "sent"
	if a.link.Tell(topic, strconv.FormatUint(revision, 10)) != nil {
		outcome = "failed"
	}
	noticed.WithLabelValues(outcome).Inc()
}

var noticed = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "gatehouse_registry_notices_total",
	Help: "Notices of changes over the cluster's link: sent, failed when the link was down, heard.",
}, []string{"outcome"})
