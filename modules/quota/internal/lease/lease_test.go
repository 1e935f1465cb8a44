package lease

import (
	"errors"
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/quota/internal/bucket"
)

// model is a store that follows the rules of the server's script, with a time
// of its own.
type model struct {
	mu       sync.Mutex
	now      time.Time
	down     bool
	tat      time.Time
	old, new int
	period   int64
	calls    int
}

const period = 2*Term + time.Second

func (m *model) Lease(r Request) (g Grant, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return g, errors.New("down")
	}
	m.calls++
	p := m.now.UnixNano() / int64(period)
	switch p - m.period {
	case 0:
	case 1:
		m.old, m.new = m.new, 0
	default:
		m.old, m.new = 0, 0
	}
	m.period = p
	over := r.Spent + r.Back
	first := min(m.old, over)
	m.old, m.new = m.old-first, max(0, m.new-(over-first))

	step, depth := r.Limit.Step(), r.Limit.Step()*time.Duration(r.Limit.Burst())
	m.tat = m.tat.Add(-time.Duration(r.Back) * step)
	if m.tat.Before(m.now) {
		m.tat = m.now
	}
	if r.Now {
		if late := m.tat.Add(step).Sub(m.now) - depth; late <= 0 {
			g.Now, m.tat = true, m.tat.Add(step)
		} else {
			g.Wait = late
		}
	}
	g.Ahead = max(0, min(r.Ahead, r.Most-m.old-m.new, int(m.now.Add(depth).Sub(m.tat)/step)))
	m.new += g.Ahead
	m.tat = m.tat.Add(time.Duration(g.Ahead) * step)
	g.Remaining = max(0, int(m.now.Add(depth).Sub(m.tat)/step))
	g.Reset = m.tat.Sub(m.now)
	if m.old+m.new > r.Most && g.Ahead > 0 {
		panic("the model lends too much")
	}
	return g, nil
}

// take is Take, but what is asked in the background is answered before it
// returns: the timeline stays one.
func take(t *testing.T, b *Book, terms Terms, now time.Time) bucket.Outcome {
	t.Helper()
	o, err := b.Take(7, func() string { return "k" }, terms, now)
	if err != nil {
		t.Fatal(err)
	}
	s := &b.shards[7%shards]
	for {
		s.mu.Lock()
		asking := s.callers[7] != nil && s.callers[7].asking
		s.mu.Unlock()
		if !asking {
			return o
		}
		time.Sleep(10 * time.Microsecond)
	}
}

// TestBound: whatever several nodes are asked for, in whatever order, no stretch
// of time sees more than burst, rate and what may be leased ahead; and who asks
// all the time gets all but that.
func TestBound(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			burst := 1 + rng.IntN(200)
			terms := Terms{Limit: bucket.NewLimit(burst, 10*time.Second, burst), Most: rng.IntN(burst + 1)}
			m := &model{now: time.Unix(1_800_000_000, 0)}
			nodes := []*Book{NewBook(m, 64), NewBook(m, 64), NewBook(m, 64)}
			start := m.now
			var admitted []time.Duration
			pause := int64(1+rng.IntN(60)) * int64(time.Millisecond)
			for m.now.Sub(start) < 60*time.Second {
				n := nodes[rng.IntN(len(nodes))]
				if rng.IntN(400) == 0 { // a node that is gone takes what it had leased with it
					nodes[rng.IntN(len(nodes))] = NewBook(m, 64)
				}
				if rng.IntN(50) == 0 {
					if err := n.Sweep(m.now); err != nil {
						t.Fatal(err)
					}
				}
				if o := take(t, n, terms, m.now); o.Allowed {
					admitted = append(admitted, m.now.Sub(start))
				}
				m.mu.Lock()
				m.now = m.now.Add(time.Duration(rng.Int64N(pause)))
				m.mu.Unlock()
			}
			// Of all stretches of time, the worst one: events admitted in it,
			// less what the rate gives in it.
			rated := func(at time.Duration) float64 { return float64(at) / float64(terms.Limit.Step()) }
			worst, lowest := 0.0, math.Inf(1)
			for i, at := range admitted {
				lowest = min(lowest, float64(i)-rated(at))
				worst = max(worst, float64(i+1)-rated(at)-lowest)
			}
			if most := float64(burst + terms.Most + 1); worst > most {
				t.Fatalf("burst %d, most %d: %.1f beyond the rate, at most %.1f may be", burst, terms.Most, worst, most)
			}
		})
	}
}

// TestAsksLittle: one who sends a lot costs few questions, and is not refused
// what it may have.
func TestAsksLittle(t *testing.T) {
	terms := Terms{Limit: bucket.NewLimit(1000, time.Second, 1000), Most: 100}
	m := &model{now: time.Unix(1_800_000_000, 0)}
	b := NewBook(m, 64)
	allowed := 0
	for range 9000 { // 900 a second
		if take(t, b, terms, m.now).Allowed {
			allowed++
		}
		m.mu.Lock()
		m.now = m.now.Add(10 * time.Second / 9000)
		m.mu.Unlock()
	}
	if allowed != 9000 || m.calls > 250 {
		t.Errorf("%d of 9000 allowed with %d questions", allowed, m.calls)
	}
	if _, tokens := b.Len(); tokens == 0 {
		t.Error("nothing is leased ahead")
	}

	// What is left goes back, and the caller is forgotten.
	m.now = m.now.Add(3 * Term)
	if err := b.Sweep(m.now); err != nil {
		t.Fatal(err)
	}
	if callers, tokens := b.Len(); callers != 0 || tokens != 0 || m.old+m.new != 0 {
		t.Errorf("%d callers, %d tokens, %d leased", callers, tokens, m.old+m.new)
	}
}

func TestWithoutLeases(t *testing.T) {
	terms := Terms{Limit: bucket.NewLimit(5, time.Minute, 5)}
	m := &model{now: time.Unix(1_800_000_000, 0)}
	a, b := NewBook(m, 64), NewBook(m, 64)
	for i := range 5 {
		o := take(t, []*Book{a, b}[i%2], terms, m.now)
		if !o.Allowed || o.Remaining != 4-i {
			t.Errorf("request %d: %+v", i, o)
		}
	}
	if o := take(t, b, terms, m.now); o.Allowed || o.Wait != 12*time.Second {
		t.Errorf("the sixth: %+v", o)
	}
	// A refusal is remembered for a moment: a flood is not the store's burden.
	calls := m.calls
	for range 1000 {
		if o := take(t, b, terms, m.now); o.Allowed {
			t.Fatal("allowed")
		}
	}
	if m.calls != calls {
		t.Errorf("1000 refused requests asked %d times", m.calls-calls)
	}
}

func TestStoreDown(t *testing.T) {
	m := &model{now: time.Unix(1_800_000_000, 0), down: true}
	b := NewBook(m, 64)
	terms := Terms{Limit: bucket.NewLimit(5, time.Minute, 5), Most: 2}
	for range 3 {
		if _, err := b.Take(7, func() string { return "k" }, terms, m.now); err == nil {
			t.Fatal("an answer came from nowhere")
		}
	}
	m.down = false
	if o := take(t, b, terms, m.now); !o.Allowed {
		t.Errorf("%+v", o)
	}
}

func TestBounded(t *testing.T) {
	m := &model{now: time.Unix(1_800_000_000, 0)}
	b := NewBook(m, 128)
	for id := range uint64(10_000) {
		if _, err := b.Take(id, func() string { return "k" }, Terms{Limit: bucket.NewLimit(1000, time.Second, 1000)}, m.now); err != nil {
			t.Fatal(err)
		}
	}
	if callers, _ := b.Len(); callers != 128 {
		t.Errorf("%d callers are known", callers)
	}
}

func BenchmarkLeased(b *testing.B) {
	m := &model{now: time.Unix(1_800_000_000, 0)}
	book := NewBook(m, 64)
	terms := Terms{Limit: bucket.NewLimit(1<<30, time.Second, 1<<30), Most: 1 << 29}
	name := func() string { return "k" }
	b.ReportAllocs()
	for b.Loop() {
		if o, err := book.Take(7, name, terms, m.now); err != nil || !o.Allowed {
			b.Fatal(o, err)
		}
	}
}

// What is leased under one limit is not given back as events of another, which
// are worth more: a caller with two plans would be paid for changing between
// them.
func TestChangedTerms(t *testing.T) {
	m := &model{now: time.Unix(1_800_000_000, 0)}
	b := NewBook(m, 64)
	fast := Terms{Limit: bucket.NewLimit(6000, time.Minute, 6000), Most: 600}
	slow := Terms{Limit: bucket.NewLimit(60, time.Minute, 60), Most: 6}
	start, allowed := m.now, 0
	for m.now.Sub(start) < 30*time.Second {
		for range 2000 {
			if take(t, b, fast, m.now).Allowed {
				allowed++
			}
		}
		take(t, b, slow, m.now)
		m.mu.Lock()
		m.now = m.now.Add(Term + 100*time.Millisecond)
		m.mu.Unlock()
		if err := b.Sweep(m.now); err != nil {
			t.Fatal(err)
		}
	}
	if most := 6000 + 100*32 + fast.Most; allowed > most {
		t.Errorf("%d events in 30s, at most %d may be", allowed, most)
	}
}

// The second refusal says when there is something again, as the first does.
func TestRefusedAgain(t *testing.T) {
	m := &model{now: time.Unix(1_800_000_000, 0)}
	b := NewBook(m, 64)
	terms := Terms{Limit: bucket.NewLimit(1, time.Minute, 1)}
	take(t, b, terms, m.now)
	if first, again := take(t, b, terms, m.now), take(t, b, terms, m.now); first.Wait != time.Minute || again.Wait != time.Minute {
		t.Errorf("wait %v, then %v", first.Wait, again.Wait)
	}
}
