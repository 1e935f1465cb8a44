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
func (c *clock) send(n int, o Outcome) (through int) { return c.from(0, n, o) }

// from sends the requests of one caller.
func (c *clock) from(caller uint64, n int, o Outcome) (through int) {
	for range n {
		if p, ok := c.Enter(c.now); ok {
			through++
			c.done(p, Result{Outcome: o, Caller: caller})
		}
	}
	return through
}

// done ends a request that began just now.
func (c *clock) done(p Permit, r Result) (State, bool) {
	r.Began = c.now
	return c.Done(p, r, c.now)
}

// pass sends a request of one caller in spite of an open breaker.
func (c *clock) pass(caller uint64, o Outcome) bool {
	p, ok := c.Pass(caller)
	if ok {
		c.done(p, Result{Outcome: o, Caller: caller})
	}
	return ok
}

func (c *clock) is(t *testing.T, want State) {
	t.Helper()
	if got := c.State(); got != want {
		t.Fatalf("state is %v, want %v", got, want)
	}
}

func TestUnansweredInARow(t *testing.T) {
	for _, o := range []Outcome{Unanswered, Unreached} {
		c := begin()
		c.send(4, o)
		c.send(1, Fine)
		c.send(4, o)
		c.is(t, Closed)
		c.send(1, o)
		c.is(t, Open)
		if got := c.Look(true, c.now); got != Deaf {
			t.Errorf("an upstream that does not answer looks %v, want Deaf", got)
		}
	}
}

// Who sends what makes the upstream drop the connection does not make it deaf,
// and tries of one request count once.
func TestBroken(t *testing.T) {
	c := begin()
	for range 19 {
		c.done(Permit{}, Result{Outcome: Broken})
		c.done(Permit{}, Result{Outcome: Broken, Again: true})
		c.done(Permit{}, Result{Outcome: Bad, Again: true})
	}
	c.is(t, Closed)
	c.send(1, Broken)
	c.is(t, Open)
	if got := c.Look(true, c.now); got != Failing {
		t.Errorf("it looks %v, want Failing", got)
	}
	if !c.pass(1, Fine) || !c.pass(0, Broken) {
		t.Error("not all may pass")
	}
	// That it is gone by now shows as well.
	for range 5 {
		c.pass(1, Unreached)
	}
	if c.pass(2, Fine) || c.Look(true, c.now) != Deaf {
		t.Error("it is not seen that it cannot be reached")
	}
}

// Nor does who asks for what takes too long while others are answered.
func TestSlowForOne(t *testing.T) {
	c := begin()
	began := c.now
	c.now = c.now.Add(time.Second)
	c.from(1, 50, Fine)
	c.now = c.now.Add(time.Second)
	for range 40 {
		c.Done(Permit{}, Result{Outcome: Unanswered, Caller: 2, Began: began}, c.now)
	}
	c.is(t, Closed)
	// Nobody is answered after that, whoever asks.
	for i := range uint64(5) {
		c.from(i, 1, Unanswered)
	}
	c.is(t, Open)
	if got := c.Look(true, c.now); got != Deaf {
		t.Errorf("it looks %v, want Deaf", got)
	}
}

// Where nobody else asks, the one who is not answered closes it for itself: the
// first answer to another opens it for all.
func TestMute(t *testing.T) {
	c := begin()
	c.from(1, 5, Unanswered)
	c.is(t, Open)
	if _, ok := c.Pass(1); ok {
		t.Error("who was not answered may ask again")
	}
	var asking []Permit
	for range 5 {
		p, ok := c.Pass(2)
		if !ok {
			t.Fatal("another may not ask")
		}
		asking = append(asking, p)
	}
	if _, ok := c.Pass(2); ok {
		t.Error("another may ask without end")
	}
	c.done(asking[0], Result{Outcome: Unknown, Caller: 2})
	if !c.pass(2, Fine) {
		t.Error("one that left is still counted")
	}
	for caller := range uint64(3) {
		if !c.pass(caller, Fine) {
			t.Errorf("after an answer, caller %d may not pass", caller)
		}
	}
	c.is(t, Open)

	// If it is mute indeed, each finds out once.
	c = begin()
	c.from(1, 5, Unanswered)
	through := 0
	for range 10 {
		for caller := range uint64(1000) {
			if c.pass(caller, Unanswered) {
				through++
			}
		}
	}
	if through != places-1 {
		t.Errorf("%d requests passed", through)
	}
	c.now = c.now.Add(10 * time.Second)
	c.from(3, 1, Unanswered) // nor is the probe answered
	if got := c.Look(true, c.now); got != Deaf {
		t.Errorf("after its probe it looks %v, want Deaf", got)
	}

	// One that cannot be reached is left alone by all.
	c = begin()
	c.from(1, 5, Unreached)
	if c.pass(2, Fine) {
		t.Error("somebody may ask one that is gone")
	}
}

// One caller who provokes failures decides nothing while others are answered
// well, however many they are; several do, and so does one who is alone.
func TestOneCaller(t *testing.T) {
	for name, test := range map[string]struct {
		others, fail int // a second, and how many of these fail
		loud         int
		want         State
	}{
		"others are well":       {20, 0, 100, Closed},
		"others fail a little":  {20, 4, 100, Closed},
		"others fail":           {20, 14, 100, Open},
		"nobody else is there":  {0, 0, 100, Open},
		"hardly anyone is":      {1, 0, 100, Open},
		"everything is failing": {20, 20, 0, Open},
	} {
		t.Run(name, func(t *testing.T) {
			c := begin()
			for i := range 300 {
				c.now = c.now.Add(100 * time.Millisecond)
				if i%10 == 0 {
					for k := range test.others {
						o := Fine
						if k < test.fail {
							o = Bad
						}
						c.from(uint64(k+1), 1, o)
					}
				}
				c.from(0, test.loud/10, Bad)
				if c.State() != Closed {
					break
				}
			}
			c.is(t, test.want)
		})
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
	c.done(first, Result{Outcome: Fine})
	second, ok2 := c.Enter(c.now)
	third, ok3 := c.Enter(c.now)
	if _, ok4 := c.Enter(c.now); !ok2 || !ok3 || ok4 {
		t.Fatalf("after one good probe there are %v %v %v, want two more", ok2, ok3, ok4)
	}
	c.done(second, Result{Outcome: Fine})
	c.is(t, HalfOpen)
	if s, changed := c.done(third, Result{Outcome: Fine}); s != Closed || !changed {
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
	if s, changed := c.done(early, Result{Outcome: Fine}); s != Open || changed {
		t.Fatalf("a late answer makes it %v", s)
	}
	c.now = c.now.Add(10 * time.Second)
	probe, _ := c.Enter(c.now)
	c.done(probe, Result{Outcome: Unanswered})
	c.now = c.now.Add(20 * time.Second)
	again, ok := c.Enter(c.now)
	if !ok {
		t.Fatal("no second probe")
	}
	c.done(probe, Result{Outcome: Fine}) // of the epoch before
	if _, ok := c.Enter(c.now); ok {
		t.Fatal("a result of an earlier epoch freed a probe")
	}
	c.done(again, Result{Outcome: Unknown})
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
	c.done(lost, Result{Outcome: Unanswered})
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
			c.done(flying[i], Result{Outcome: Outcome(rng.IntN(6)), Caller: rng.Uint64()})
			flying = append(flying[:i], flying[i+1:]...)
		}
		if c.probing < 0 || c.probing > settings.Probes {
			t.Fatalf("%d probes on their way", c.probing)
		}
	}
	for _, p := range flying {
		c.done(p, Result{Outcome: Unknown})
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
				now := time.Now()
				p, ok := b.Enter(now)
				if !ok {
					p, ok = b.Pass(uint64(i))
				}
				if ok {
					b.Done(p, Result{Outcome: Outcome((g + i) % 6), Caller: uint64(i), Began: now}, time.Now())
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
			c.done(p, Result{Outcome: Fine})
		}
	})
}
