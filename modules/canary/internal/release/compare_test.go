package release

import (
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"
)

var usual = Settings{Errors: 0.05, Latency: 1.5, Samples: 100, Window: time.Minute}

// world is a stable release and a canary that a share of many callers is on.
type world struct {
	*Comparison
	rng    *rand.Rand
	now    time.Time
	weight float64
	rate   int                                     // requests a second
	stable func(rng *rand.Rand) (Outcome, float64) // and milliseconds
	canary func(rng *rand.Rand) (Outcome, float64)
	most   int // callers
	sent   int // requests to the canary
}

func newWorld(seed uint64, s Settings, like func(*rand.Rand) (Outcome, float64)) *world {
	t0 := time.Unix(0, 0)
	return &world{Comparison: New(s, t0), rng: rand.New(rand.NewPCG(seed, 1)), now: t0, weight: 0.05, rate: 50, stable: like, canary: like, most: 10_000}
}

// run sends requests for a while, or until the canary is found worse.
func (w *world) run(d time.Duration) (Finding, bool) {
	step := time.Second / time.Duration(w.rate)
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(step)
		caller := Start.Add(strconv.Itoa(w.rng.IntN(w.most))).Mix()
		if !caller.Within(w.weight) {
			o, ms := w.stable(w.rng)
			w.Add(Stable, (caller + 1).Mix(), o, took(ms), w.now)
			continue
		}
		w.sent++
		o, ms := w.canary(w.rng)
		w.Add(Canary, (caller + 1).Mix(), o, took(ms), w.now)
		if f, worse := w.Judge(w.now); worse {
			return f, true
		}
	}
	return Finding{}, false
}

func took(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// noise answers with a share of failures and latencies that scatter widely.
func noise(failures, median, spread float64) func(*rand.Rand) (Outcome, float64) {
	return func(rng *rand.Rand) (Outcome, float64) {
		o := Fine
		if rng.Float64() < failures {
			o = Failed
		}
		return o, median * math.Exp(spread*rng.NormFloat64())
	}
}

// Releases that are equal are not told apart, however noisy they are: fewer
// than 1 in 1,000 windows end in a finding.
func TestEqual(t *testing.T) {
	t.Parallel()
	strict := usual
	strict.Errors, strict.Latency = 0.001, 1.0001
	for name, c := range map[string]struct {
		settings Settings
		weight   float64
		like     func(*rand.Rand) (Outcome, float64)
	}{
		"sound":                       {usual, 0.2, noise(0, 30, 0.3)},
		"1% failures":                 {usual, 0.2, noise(0.01, 30, 1)},
		"20% failures":                {usual, 0.2, noise(0.2, 30, 1.5)},
		"half of all fails":           {usual, 0.5, noise(0.5, 200, 2)},
		"no difference is allowed":    {strict, 0.2, noise(0.01, 30, 1)},
		"none, and failures are many": {strict, 0.2, noise(0.3, 30, 1)},
		"a canary of half":            {strict, 0.5, noise(0.05, 30, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			windows := 1000 / part
			if c.settings == strict {
				windows = 3000 / part
			}
			found := 0
			w := newWorld(7, c.settings, c.like)
			w.weight, w.rate = c.weight, 12
			for range windows {
				if f, worse := w.run(time.Minute); worse {
					t.Logf("%+v", f)
					found++
					w.Reset()
				}
			}
			if w.sent < windows*100 {
				t.Fatalf("only %d requests reached the canary", w.sent)
			}
			if found*1000 >= windows {
				t.Errorf("%d of %d windows ended in a finding", found, windows)
			}
		})
	}
}

// A canary that is clearly worse is found within some requests, in each of
// many worlds.
func TestWorse(t *testing.T) {
	for name, c := range map[string]struct {
		stable, canary func(*rand.Rand) (Outcome, float64)
		why            string
		within         int
	}{
		"it always fails":           {noise(0, 30, 0.5), noise(1, 30, 0.5), "errors", 100},
		"half of it fails":          {noise(0.01, 30, 0.5), noise(0.5, 30, 0.5), "errors", 100},
		"a quarter fails":           {noise(0.01, 30, 0.5), noise(0.25, 30, 0.5), "errors", 160},
		"more fails of what did":    {noise(0.1, 30, 0.5), noise(0.5, 30, 0.5), "errors", 160},
		"it fails fast":             {noise(0.01, 80, 0.5), noise(1, 2, 0.1), "errors", 100},
		"it takes five times":       {noise(0, 30, 0.5), noise(0, 150, 0.5), "latency", 100},
		"it takes three times":      {noise(0, 30, 0.5), noise(0, 90, 0.5), "latency", 250},
		"a quarter of it hangs":     {noise(0, 30, 0.5), func(r *rand.Rand) (Outcome, float64) { return Fine, 30 + 2000*math.Floor(r.Float64()+0.25) }, "latency", 250},
		"clients leave it hanging":  {noise(0, 30, 0.5), func(*rand.Rand) (Outcome, float64) { return Left, 2000 }, "latency", 100},
		"slow and failing together": {noise(0, 30, 0.5), noise(0.6, 300, 0.5), "errors", 100},
	} {
		t.Run(name, func(t *testing.T) {
			const worlds uint64 = max(50/part, 5)
			for seed := range worlds {
				w := newWorld(seed, usual, c.stable)
				w.canary, w.weight = c.canary, 0.1
				f, worse := w.run(5 * time.Minute)
				if !worse || f.Why != c.why || w.sent > c.within {
					t.Fatalf("world %d: %+v after %d requests, want %s within %d", seed, f, w.sent, c.why, c.within)
				}
				if f.Canary.Results+f.Stable.Results > 0 && f.Canary.Failures > f.Canary.Results {
					t.Fatalf("%+v", f)
				}
			}
		})
	}
}

// What is no reason: a little more, a difference of a few milliseconds, and
// too few results.
func TestNotWorse(t *testing.T) {
	for name, c := range map[string]struct {
		stable, canary func(*rand.Rand) (Outcome, float64)
		rate           int
	}{
		"a few points":          {noise(0.01, 30, 0.5), noise(0.04, 30, 0.5), 50},
		"a little slower":       {noise(0, 30, 0.5), noise(0, 37, 0.5), 50},
		"a few milliseconds":    {noise(0, 1, 0.2), noise(0, 5, 0.2), 50},
		"better":                {noise(0.3, 90, 0.5), noise(0.01, 30, 0.5), 50},
		"hardly any requests":   {noise(0, 30, 0.5), noise(1, 3000, 0.5), 5},
		"clients leave at once": {noise(0, 30, 0.5), func(*rand.Rand) (Outcome, float64) { return Left, 1 }, 50},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(10) {
				w := newWorld(seed, usual, c.stable)
				w.canary, w.weight, w.rate = c.canary, 0.1, c.rate
				if f, worse := w.run(5 * time.Minute); worse {
					t.Fatalf("world %d: %+v", seed, f)
				}
			}
		})
	}
}

// One caller who provokes failures, or is slow by itself, does not decide for
// all others; one who is alone does.
func TestOneCaller(t *testing.T) {
	for _, alone := range []bool{false, true} {
		w := newWorld(3, usual, noise(0, 30, 0.5))
		w.weight = 0.1
		loud := Start.Add("mallory").Mix()
		found := false
		for range 60 * 10 { // for ten minutes
			w.now = w.now.Add(time.Second)
			for i := range 40 {
				w.Add(Stable, Point(i).Mix(), Fine, took(20), w.now)
				if i < 8 && !alone {
					w.Add(Canary, Point(w.rng.IntN(400)).Mix(), Fine, took(20), w.now)
				}
			}
			for range 100 {
				w.Add(Canary, loud, Failed, took(20), w.now)
			}
			_, worse := w.Judge(w.now)
			found = found || worse
			if found && w.now.Sub(w.start) > 31*time.Second {
				break
			}
		}
		if found != alone {
			t.Errorf("alone %v: found %v", alone, found)
		}
	}
}

// Nor do a few results of others make one caller's failures those of all, or
// two callers where there are many; and a release that is bad for everybody is
// found however few of the results are of others.
func TestLoudCallers(t *testing.T) {
	const usually, always = 0.01, 1
	for name, test := range map[string]struct {
		loud    int // callers who provoke failures, as much as counts
		others  int // the results of others, in ten seconds
		callers int // how many others there are
		fail    float64
		found   bool
	}{
		"one, and few others":           {1, 5, 30, usually, false},
		"one, and many":                 {1, 200, 300, usually, false},
		"two, among many":               {2, 20, 60, usually, false},
		"three, among many":             {3, 40, 100, usually, false},
		"one and few, and all fails":    {1, 5, 30, always, true},
		"one and few, and half fails":   {1, 5, 30, 0.5, true},
		"two and many, and half fails":  {2, 50, 60, 0.5, true},
		"few callers, and most fail":    {4, 10, 1, usually, true},
		"nobody but one":                {1, 0, 1, usually, true},
		"many, and a quarter is failed": {0, 50, 300, 0.25, true},
	} {
		t.Run(name, func(t *testing.T) {
			const worlds uint64 = max(20/part, 2)
			for seed := range worlds {
				w := newWorld(seed, usual, nil)
				found := false
				for second := range 300 {
					w.now = w.now.Add(time.Second)
					for range 40 {
						w.Add(Stable, Point(w.rng.Uint64()), noisy(w.rng, usually), took(20), w.now)
					}
					for range (second+1)*test.others/10 - second*test.others/10 {
						who := Start.Add(strconv.Itoa(w.rng.IntN(test.callers))).Mix()
						w.Add(Canary, who, noisy(w.rng, test.fail), took(20), w.now)
					}
					for i := range test.loud {
						for range 20 * min(second/60, 1) { // they come when others have
							w.Add(Canary, Start.Add("loud").Add(strconv.Itoa(i)).Mix(), Failed, took(20), w.now)
						}
					}
					if _, worse := w.Judge(w.now); worse {
						if found = true; second > 120 {
							t.Errorf("found after %d seconds only", second)
						}
						break
					}
				}
				if found != test.found {
					t.Fatalf("world %d: found %v", seed, found)
				}
			}
		})
	}
}

func noisy(rng *rand.Rand, failures float64) Outcome {
	if rng.Float64() < failures {
		return Failed
	}
	return Fine
}

// A window forgets: failures of a minute ago do not count.
func TestWindow(t *testing.T) {
	now := time.Unix(0, 0)
	c := New(usual, now)
	fill := func(s Side, o Outcome, n int) {
		for i := range n {
			c.Add(s, Point(i).Mix(), o, took(20), now)
		}
	}
	fill(Stable, Fine, 400)
	fill(Canary, Failed, 99)
	if _, worse := c.Judge(now); worse {
		t.Fatal("99 results are not enough")
	}
	now = now.Add(61 * time.Second)
	fill(Stable, Fine, 400)
	fill(Canary, Fine, 99)
	fill(Canary, Failed, 5)
	if f, worse := c.Judge(now); worse {
		t.Fatalf("old failures count: %+v", f)
	}
	fill(Canary, Failed, 60)
	f, worse := c.Judge(now)
	if !worse || f.Why != "errors" || f.Canary != (Figures{164, 65, f.Canary.Latency}) || f.Stable.Results != 400 {
		t.Fatalf("%+v", f)
	}
	c.Reset()
	fill(Canary, Fine, 50)
	if _, worse := c.Judge(now); worse {
		t.Fatal("Reset forgot nothing")
	}
}

// Answers that break off later are failures, and never more than answers.
func TestSpoil(t *testing.T) {
	now := time.Unix(0, 0)
	c := New(usual, now)
	tickets := make([]Ticket, 150)
	for i := range tickets {
		c.Add(Stable, Point(i).Mix(), Fine, took(20), now)
		tickets[i] = c.Add(Canary, Point(i).Mix(), Fine, took(20), now)
	}
	now = now.Add(30 * time.Second)
	for i := range tickets {
		c.Spoil(Canary, tickets[i], now)
	}
	f, worse := c.Judge(now)
	if !worse || f.Why != "errors" || f.Canary.Failures != 150 {
		t.Errorf("%v %+v", worse, f)
	}
	// One that is gone from the ring spoils nothing, and neither does one that
	// never counted.
	for i := range 2000 {
		c.Add(Canary, Point(i).Mix(), Fine, took(20), now)
	}
	c.Spoil(Canary, tickets[0], now)
	c.Spoil(Canary, 0, now)
	for i := range c.canary {
		if c.canary[i].outcome == Failed {
			t.Fatal("another result was spoilt")
		}
	}
	// The stable release's own may be counted in a slot that is gone.
	for range 200 {
		c.Spoil(Stable, 1, now)
	}
	now = now.Add(35 * time.Second)
	for i := range 100 {
		c.Add(Stable, Point(i).Mix(), Fine, took(20), now)
		c.Add(Canary, Point(i).Mix(), Fine, took(20), now)
	}
	if f, _ := c.Judge(now); f.Stable.Failures > f.Stable.Results {
		t.Errorf("%+v", f)
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	rng := rand.New(rand.NewPCG(1, 2))
	all := make([]time.Duration, 10_000)
	for i := range all {
		all[i] = time.Duration(math.Exp(rng.NormFloat64()*2+3) * float64(time.Millisecond))
		b := bucket(all[i])
		if b < buckets-1 && all[i] > end(b) || b > 0 && all[i] < end(b)*11/12-end(0)/12 {
			t.Fatalf("%v is in the bucket that ends at %v", all[i], end(b))
		}
		h.add(b)
	}
	for _, q := range []float64{0, 0.5, 0.95, 1} {
		d, below := h.quantile(q), 0
		for _, v := range all {
			if v <= d {
				below++
			}
		}
		if float64(below) < q*float64(len(all)) {
			t.Errorf("only %d are within the quantile %v, %v", below, q, d)
		}
	}
	if bucket(time.Hour) != buckets-1 || bucket(-1) != 0 {
		t.Error("what is too long or too short is in no bucket")
	}
	if new(histogram).quantile(0.95) != 0 {
		t.Error("the quantile of nothing is something")
	}
}

// Points are spread evenly, apart for two releases, and stay within a share
// that grows.
func TestPoint(t *testing.T) {
	const n = 100_000
	both, on := 0, [2]int{}
	for i := range n {
		caller := strconv.Itoa(i)
		a := Start.Add("a").Add("issuer").Add(caller).Mix()
		b := Start.Add("b").Add("issuer").Add(caller).Mix()
		if a.Within(0.2) && !a.Within(0.25) || a.Within(0) || !a.Within(1) {
			t.Fatalf("%s leaves a share that grows", caller)
		}
		if a.Within(0.1) {
			on[0]++
		}
		if b.Within(0.1) {
			on[1]++
		}
		if a.Within(0.1) && b.Within(0.1) {
			both++
		}
	}
	if on[0] < 9700 || on[0] > 10300 || on[1] < 9700 || on[1] > 10300 || both < 850 || both > 1150 {
		t.Errorf("%v of %d, and %d both", on, n, both)
	}
	if Start.Add("ab").Add("c") == Start.Add("a").Add("bc") {
		t.Error("words run together")
	}
	// The same on every node, in every version.
	if got := Start.Add("orders").Add("ann").Mix(); got != pinned {
		t.Errorf("%d", got)
	}
}

const pinned Point = 11766101665400919230

func TestConcurrent(t *testing.T) {
	c := New(usual, time.Now())
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				now := time.Now()
				ticket := c.Add(Side(g%2), Point(i).Mix(), Outcome(i%3), took(float64(i%90)), now)
				if g%2 == 1 {
					c.Judge(now)
				}
				if i%500 == 0 {
					c.Spoil(Side(g%2), ticket, now)
					c.Reset()
				}
			}
		})
	}
	wg.Wait()
}

func TestAllocations(t *testing.T) {
	now := time.Now()
	c := New(usual, now)
	if n := testing.AllocsPerRun(1000, func() { c.Add(Stable, Start.Add("ann").Mix(), Fine, took(20), now) }); n > 0 {
		t.Errorf("Add allocates %v times", n)
	}
}

func BenchmarkAdd(b *testing.B) {
	c := New(usual, time.Now())
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			c.Add(Stable, Point(i).Mix(), Fine, 20*time.Millisecond, time.Now())
		}
	})
}

func BenchmarkJudge(b *testing.B) {
	now := time.Now()
	c := New(usual, now)
	for i := range 2000 {
		c.Add(Side(i%2), Point(i).Mix(), Fine, 20*time.Millisecond, now)
	}
	b.ReportAllocs()
	for b.Loop() {
		c.fresh.Store(100)
		c.Judge(now)
	}
}
