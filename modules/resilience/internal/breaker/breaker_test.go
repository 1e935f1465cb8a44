package breaker

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

var settings = Settings{Ratio: 0.5, Samples: 20, Window: 10 * time.Second, Consecutive: 5, Open: 10 * time.Second, MaxOpen: time.Minute, Probes: 3}

// clock is a breaker and a time of its own.
type clock struct {
	*Breaker
	now time.Time
}

func begin() *clock {
	now := time.Now()
	return &clock{New(settings, now), now}
}

// send sends n requests, each with the same outcome, and counts those let through.
func (c *clock) send(n int, o Outcome) (through int) {
	for range n {
		if p, ok := c.Enter(c.now); ok {
			through++
			c.Done(p, o, c.now)
		}
	}
	return through
}

func (c *clock) is(t *testing.T, want State) {
	t.Helper()
	if got := c.State(); got != want {
		t.Fatalf("state is %v, want %v", got, want)
	}
}

func TestUnansweredInARow(t *testing.T) {
	c := begin()
	c.send(4, Unanswered)
	c.send(1, Fine)
	c.send(4, Unanswered)
	c.is(t, Closed)
	c.send(1, Unanswered)
	c.is(t, Open)
	if got := c.Look(true, c.now); got != Deaf {
		t.Errorf("an upstream that does not answer looks %v, want Deaf", got)
	}
}

func TestRatio(t *testing.T) {
	c := begin()
	c.send(19, Bad)
	c.is(t, Closed) // not enough samples
	c.send(1, Bad)
	c.is(t, Open)
	if got := c.Look(true, c.now); got != Failing {
		t.Errorf("an upstream that answers badly looks %v, want Failing", got)
	}

	c = begin()
	c.send(30, Fine)
	c.send(29, Bad)
	c.is(t, Closed)
	c.send(1, Bad)
	c.is(t, Open)
}

// An upstream that answers is not deaf for the one request that it did not
// answer, even if that was the last straw.
func TestLastStraw(t *testing.T) {
	c := begin()
	c.send(19, Bad)
	c.send(1, Unanswered)
	c.is(t, Open)
	if got := c.Look(true, c.now); got != Failing {
		t.Errorf("it looks %v, want Failing", got)
	}
	c.now = c.now.Add(10 * time.Second)
	c.send(1, Unanswered) // nor has the probe been answered
	if got := c.Look(true, c.now); got != Deaf {
		t.Errorf("after its probe it looks %v, want Deaf", got)
	}
}

func TestWindowMovesOn(t *testing.T) {
	c := begin()
	c.send(19, Bad)
	c.now = c.now.Add(11 * time.Second)
	c.send(10, Bad)
	c.is(t, Closed)
	c.now = c.now.Add(5 * time.Second)
	c.send(10, Bad)
	c.is(t, Open)
}

func TestHalfOpen(t *testing.T) {
	c := begin()
	c.send(20, Bad)
	if n := c.send(10, Fine); n != 0 {
		t.Fatalf("%d requests went through an open breaker", n)
	}
	if w := c.Wait(c.now); w != 10*time.Second {
		t.Fatalf("waits %v, want 10s", w)
	}
	c.now = c.now.Add(10 * time.Second)
	if got := c.Look(true, c.now); got != Due {
		t.Fatalf("looks %v after its time, want Due", got)
	}
	if got := c.Look(false, c.now); got == Due {
		t.Fatal("a request that cannot be repeated probes at once")
	}
	if got := c.Look(false, c.now.Add(10*time.Second)); got != Due {
		t.Fatal("a request that cannot be repeated never probes")
	}

	first, ok := c.Enter(c.now)
	if !ok {
		t.Fatal("no probe is let through")
	}
	if _, ok := c.Enter(c.now); ok {
		t.Fatal("two probes before one came back")
	}
	c.Done(first, Fine, c.now)
	second, ok2 := c.Enter(c.now)
	third, ok3 := c.Enter(c.now)
	if _, ok4 := c.Enter(c.now); !ok2 || !ok3 || ok4 {
		t.Fatalf("after one good probe there are %v %v %v, want two more", ok2, ok3, ok4)
	}
	c.Done(second, Fine, c.now)
	c.is(t, HalfOpen)
	if s, changed := c.Done(third, Fine, c.now); s != Closed || !changed {
		t.Fatalf("after three good probes it is %v", s)
	}
}

// Each opening that follows the last one soon is twice as long.
func TestOpensLonger(t *testing.T) {
	c := begin()
	c.send(20, Bad)
	for _, want := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, time.Minute, time.Minute} {
		if w := c.Wait(c.now); w != want {
			t.Fatalf("is open for %v, want %v", w, want)
		}
		c.now = c.now.Add(want)
		c.send(1, Unanswered)
		c.is(t, Open)
	}
	c.now = c.now.Add(time.Minute)
	c.send(3, Fine)
	c.is(t, Closed)
	c.now = c.now.Add(3 * time.Minute)
	c.send(5, Unanswered)
	if w := c.Wait(c.now); w != 10*time.Second {
		t.Fatalf("long after, it opens for %v, want 10s", w)
	}
}

// What was sent before a change says nothing about the time after it.
func TestLateResults(t *testing.T) {
	c := begin()
	early, _ := c.Enter(c.now)
	c.send(5, Unanswered)
	if s, changed := c.Done(early, Fine, c.now); s != Open || changed {
		t.Fatalf("a late answer makes it %v", s)
	}
	c.now = c.now.Add(10 * time.Second)
	probe, _ := c.Enter(c.now)
	c.Done(probe, Unanswered, c.now)
	c.now = c.now.Add(20 * time.Second)
	again, ok := c.Enter(c.now)
	if !ok {
		t.Fatal("no second probe")
	}
	c.Done(probe, Fine, c.now) // of the epoch before
	if _, ok := c.Enter(c.now); ok {
		t.Fatal("a result of an earlier epoch freed a probe")
	}
	c.Done(again, Unknown, c.now)
	if _, ok := c.Enter(c.now); !ok {
		t.Fatal("a probe nobody waited for is not given back")
	}
}

// A probe that never comes back must not keep the others out for ever.
func TestLostProbe(t *testing.T) {
	c := begin()
	c.send(20, Bad)
	c.now = c.now.Add(10 * time.Second)
	lost, _ := c.Enter(c.now)
	if n := c.send(1, Fine); n != 0 {
		t.Fatal("two probes before one came back")
	}
	c.now = c.now.Add(10 * time.Second)
	if n := c.send(3, Fine); n != 3 {
		t.Fatalf("%d probes after one was lost, want 3", n)
	}
	c.is(t, Closed)
	c.Done(lost, Unanswered, c.now)
	c.is(t, Closed)
}

// Whatever happens, in any order: it never locks up, and with an upstream that
// is well again it closes.
func TestRandomWalk(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	c := begin()
	var flying []Permit
	for range 100_000 {
		c.now = c.now.Add(time.Duration(rng.Int64N(int64(time.Second))))
		if p, ok := c.Enter(c.now); ok {
			flying = append(flying, p)
		}
		if len(flying) > 0 && rng.IntN(2) == 0 {
			i := rng.IntN(len(flying))
			c.Done(flying[i], Outcome(rng.IntN(4)), c.now)
			flying = append(flying[:i], flying[i+1:]...)
		}
		if c.probing < 0 || c.probing > settings.Probes {
			t.Fatalf("%d probes on their way", c.probing)
		}
	}
	for _, p := range flying {
		c.Done(p, Unknown, c.now)
	}
	c.now = c.now.Add(time.Minute)
	c.send(10, Fine)
	c.is(t, Closed)
}

func TestConcurrent(t *testing.T) {
	b := New(settings, time.Now())
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				if p, ok := b.Enter(time.Now()); ok {
					b.Done(p, Outcome((g+i)%4), time.Now())
				}
				b.Look(i%2 == 0, time.Now())
			}
		})
	}
	wg.Wait()
}

func BenchmarkClosed(b *testing.B) {
	c := begin()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p, _ := c.Enter(c.now)
			c.Done(p, Fine, c.now)
		}
	})
}
