package desk

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var limits = Limits{Room: 100, Share: 50, Waiting: 6, Queue: 3}

// TestDesk: who comes in, in which order. A + enters, a - leaves.
func TestDesk(t *testing.T) {
	type event struct {
		who  string
		size int // negative: leaves
	}
	for _, c := range []struct {
		name   string
		events []event
		want   string // who came in, in order; in capitals who was refused at once
	}{
		{"one who asks for little comes in", []event{{"a", 5}, {"a", 5}}, "aa"},
		{"nobody holds more than a share", []event{{"a", 40}, {"a", 40}, {"b", 40}}, "ab"},
		{"and is let in when it is done", []event{{"a", 40}, {"a", 40}, {"b", 40}, {"a", -40}}, "aba"},
		{"work larger than all the room is done alone", []event{{"a", 500}, {"b", 20}, {"a", -500}}, "ab"},
		{"nobody goes ahead of large work", []event{{"a", 50}, {"b", 100}, {"c", 20}, {"a", -50}, {"b", -100}}, "abc"},
		{"but of one who waits for itself", []event{{"a", 50}, {"a", 50}, {"b", 20}}, "ab"},
		{"callers take turns", []event{{"a", 100}, {"b", 60}, {"b", 60}, {"b", 60}, {"c", 60}, {"a", -100}, {"b", -60}, {"c", -60}}, "abcb"},
		{"a queue is bounded", []event{{"a", 50}, {"a", 50}, {"a", 50}, {"a", 50}, {"a", 50}}, "aA"},
		{"and all of them", []event{{"a", 100}, {"b", 50}, {"c", 50}, {"d", 50}, {"e", 50}, {"f", 50}, {"g", 50}, {"h", 50}}, "aH"},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := New[string](limits)
			ctx, cancel := context.WithCancel(t.Context())
			var mu sync.Mutex
			var got strings.Builder
			var wg sync.WaitGroup
			for _, e := range c.events {
				if e.size < 0 {
					d.Leave(e.who, -e.size)
				} else {
					wg.Go(func() {
						err := d.Enter(ctx, e.who, e.size, time.Minute)
						mu.Lock()
						defer mu.Unlock()
						switch {
						case err == nil:
							got.WriteString(e.who)
						case ctx.Err() == nil:
							got.WriteString(strings.ToUpper(e.who))
						}
					})
				}
				synctest.Wait()
			}
			cancel()
			wg.Wait()
			if got.String() != c.want {
				t.Errorf("%s: %s, want %s", c.name, got.String(), c.want)
			}
		})
	}
}

// TestPatience: who waits too long is refused, takes nothing, and lets others by.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New[string](limits)
		ctx := t.Context()
		if err := d.Enter(ctx, "a", 50, 0); err != nil {
			t.Fatal(err)
		}
		if err := d.Enter(ctx, "a", 50, 0); !errors.Is(err, ErrBusy) {
			t.Error("without patience", err)
		}
		done := make(chan error, 2)
		go func() { done <- d.Enter(ctx, "b", 100, time.Second) }()
		synctest.Wait()
		go func() { done <- d.Enter(ctx, "c", 50, time.Minute) }()
		synctest.Wait()
		began := time.Now()
		if err := <-done; !errors.Is(err, ErrBusy) || time.Since(began) != time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if err := <-done; err != nil {
			t.Error("whom it stood in the way of:", err)
		}
		d.Leave("a", 50)
		d.Leave("c", 50)
		if callers, waiting := d.Len(); callers+waiting != 0 || d.used != 0 || len(d.turns) != 0 {
			t.Errorf("%d callers, %d waiting, %d used, %d turns are left", callers, waiting, d.used, len(d.turns))
		}
	})
}

// TestBounds: whatever comes, no more is done at a time than there is room for,
// everybody gets out again, and nothing is left behind.
func TestBounds(t *testing.T) {
	d := New[int](limits)
	var large, many atomic.Int64
	var wg sync.WaitGroup
	for who := range 16 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(who)))
			for range 300 {
				size := 1 + rnd.IntN(120)
				if d.Enter(t.Context(), who/4, size, time.Duration(rnd.IntN(3))*time.Millisecond) != nil {
					continue
				}
				if n := large.Add(int64(size)); many.Add(1) > 1 && n > int64(limits.Room) {
					t.Errorf("%d at a time", n)
				}
				if rnd.IntN(8) == 0 {
					time.Sleep(50 * time.Microsecond)
				}
				many.Add(-1)
				large.Add(-int64(size))
				d.Leave(who/4, size)
			}
		})
	}
	wg.Wait()
	if callers, waiting := d.Len(); callers+waiting != 0 || d.used != 0 || len(d.turns) != 0 {
		t.Errorf("%d callers, %d waiting, %d used, %d turns are left", callers, waiting, d.used, len(d.turns))
	}
}
