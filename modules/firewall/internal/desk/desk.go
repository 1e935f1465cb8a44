// Package desk bounds the work that is done at a time, by its size, and shares
// it out among those it is done for.
package desk

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// ErrBusy means that there was no room in time.
var ErrBusy = errors.New("too much is being inspected at the moment")

// Limits say how much there is room for. Work that is larger than a limit is
// done when nothing else counts against it.
type Limits struct {
	Room    int // of all work
	Share   int // of the work of one caller
	Waiting int // how many may wait
	Queue   int // of one caller
}

// Desk hands out room. It may be used concurrently. It remembers callers that
// have room or wait for it, and no others.
type Desk[K comparable] struct {
	limits Limits

	mu      sync.Mutex
	used    int
	waiting int
	callers map[K]*caller
	turns   []*caller // those of whom somebody waits, whose turn it is first
}

type caller struct {
	held  int
	queue []*waiter
}

type waiter struct {
	size int
	turn chan struct{} // closed when there is room
}

// New makes a desk.
func New[K comparable](l Limits) *Desk[K] {
	return &Desk[K]{limits: l, callers: make(map[K]*caller)}
}

// Enter takes room for work of a size, and waits for it as long as patience
// says and ctx lasts. Callers who wait take turns. After ErrBusy, nothing was
// taken; otherwise Leave gives it back.
func (d *Desk[K]) Enter(ctx context.Context, who K, size int, patience time.Duration) error {
	d.mu.Lock()
	c := d.callers[who]
	if c == nil {
		c = new(caller)
		d.callers[who] = c
	}
	// Nobody goes ahead of the own queue, nor of others who wait for room: large
	// work would never find enough of it.
	if len(c.queue) == 0 && d.fits(c, size) && !d.scarce() {
		d.take(c, size)
		d.mu.Unlock()
		return nil
	}
	if patience <= 0 || d.waiting >= d.limits.Waiting || len(c.queue) >= d.limits.Queue {
		d.forget(who, c)
		d.mu.Unlock()
		return ErrBusy
	}
	w := &waiter{size: size, turn: make(chan struct{})}
	if len(c.queue) == 0 {
		d.turns = append(d.turns, c)
	}
	c.queue = append(c.queue, w)
	d.waiting++
	d.mu.Unlock()

	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-w.turn:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.Index(c.queue, w)
	if i < 0 {
		return nil // it got its turn just now
	}
	c.queue = slices.Delete(c.queue, i, i+1)
	d.waiting--
	if len(c.queue) == 0 {
		d.turns = slices.DeleteFunc(d.turns, func(other *caller) bool { return other == c })
	}
	d.forget(who, c)
	d.next() // it may have stood in the way
	return ErrBusy
}

// Leave gives room back.
func (d *Desk[K]) Leave(who K, size int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.callers[who]
	c.held -= size
	d.used -= size
	d.forget(who, c)
	d.next()
}

// next lets in whoever may come in, one of each caller in turn. The first that
// only lacks room keeps the others from taking it.
func (d *Desk[K]) next() {
	for i := 0; i < len(d.turns); {
		c := d.turns[i]
		w := c.queue[0]
		switch {
		case d.fits(c, w.size):
			d.take(c, w.size)
			c.queue = c.queue[1:]
			d.waiting--
			close(w.turn)
			d.turns = slices.Delete(d.turns, i, i+1)
			if len(c.queue) > 0 {
				d.turns = append(d.turns, c)
			}
		case d.within(c, w.size):
			return
		default:
			i++ // waits for its own work to be done
		}
	}
}

// scarce reports whether somebody waits for room, and not for own work.
func (d *Desk[K]) scarce() bool {
	return slices.ContainsFunc(d.turns, func(c *caller) bool { return d.within(c, c.queue[0].size) })
}

func (d *Desk[K]) fits(c *caller, size int) bool {
	return d.within(c, size) && (d.used == 0 || d.used+size <= d.limits.Room)
}

func (d *Desk[K]) within(c *caller, size int) bool {
	return c.held == 0 || c.held+size <= d.limits.Share
}

func (d *Desk[K]) take(c *caller, size int) {
	c.held += size
	d.used += size
}

func (d *Desk[K]) forget(who K, c *caller) {
	if c.held == 0 && len(c.queue) == 0 {
		delete(d.callers, who)
	}
}

// Len counts the callers that are known, and what waits.
func (d *Desk[K]) Len() (callers, waiting int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.callers), d.waiting
}
