// Package lease spends an allowance that several nodes share.
//
// The allowance is kept elsewhere, in a [Store]. A caller's first requests are
// asked for one by one; one who sends many is leased some ahead, and spends
// them here. What is leased and not spent yet can be spent later than it was
// counted, so that the most that all nodes together have leased to a caller is
// the most by which its limit can be passed. The store holds them to that.
package lease

import (
	"sync"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/quota/internal/bucket"
)

// Terms are what a caller may have.
type Terms struct {
	Limit bucket.Limit
	Queue int // how many may wait for their turn
	Most  int // what all nodes together may have leased ahead
}

// Request is what a node asks of the store.
type Request struct {
	Key string
	Terms
	Now   bool // one event is waited for
	Ahead int  // events to be spent later
	Spent int  // of those leased earlier
	Back  int  // of those leased earlier, and not to be spent
}

// Grant is the store's answer.
type Grant struct {
	Now       bool          // the event that is waited for is allowed
	Ahead     int           // how many are leased
	Wait      time.Duration // if not allowed: when to come back; else when it is its turn
	Remaining int           // in the bucket after this
	Reset     time.Duration // until it is full again
}

// Store keeps the allowances. After an error it is not known whether it has
// done what it was asked for.
type Store interface {
	Lease(Request) (Grant, error)
}

// Term is how long a lease lasts: a caller who goes away keeps the other nodes
// waiting for its events no longer than that. What is left of a lease may be
// added to the next, and so be spent after twice as long.
const Term = 2 * time.Second

// remember is how long a refusal is answered here.
const remember = time.Second

// Book is what a node knows of the callers that it has asked for lately. It may
// be used concurrently. Callers that do not fit are asked for one by one.
type Book struct {
	store  Store
	size   int // per shard
	shards [shards]shard
}

const shards = 64

type shard struct {
	mu      sync.Mutex
	callers map[uint64]*caller
	_       [40]byte // keeps neighbours off the cache line
}

// caller is what is leased to one.
type caller struct {
	key    string
	terms  Terms
	tokens int       // leased, to be spent until the lease ends
	ends   time.Time // the lease
	batch  int       // how many to lease next
	asking bool      // for more, and the answer is not here
	asked  time.Time // last
	spent  int       // and the store was not told
	back   int       // not spent in time, and the store was not told
	denied time.Time // the store is not asked until then
	turn   time.Time // there is something again, as last heard

	remaining int       // in the bucket, as last heard
	full      time.Time // when it will be, as last heard
}

// NewBook makes a book for up to size callers at a time.
func NewBook(store Store, size int) *Book {
	return &Book{store: store, size: max(size/shards, 1)}
}

// Take spends one event of the caller that this node knows as id, and the
// store by the key, at time now. An error means that the store could not be
// asked.
func (b *Book) Take(id uint64, key func() string, t Terms, now time.Time) (bucket.Outcome, error) {
	s := &b.shards[id%shards]
	s.mu.Lock()
	c := s.find(id, key, b.size)
	if c == nil {
		s.mu.Unlock()
		g, err := b.store.Lease(Request{Key: key(), Terms: t, Now: true})
		return g.outcome(), err
	}
	if back := c.change(t); back.Back > 0 {
		go func() { _, _ = b.store.Lease(back) }() // what it does not hear of, it counts as spent
	}
	c.lapse(now)
	switch {
	case c.tokens > 0:
		o := c.spend(now)
		var more Request
		if c.tokens <= c.batch/4 && !c.asking {
			more = c.ask(false, now)
		}
		s.mu.Unlock()
		if more.Ahead > 0 {
			go func() { _, _ = b.put(s, c, more, now) }() // after an error, whoever comes next asks
		}
		return o, nil
	case now.Before(c.denied):
		o := bucket.Outcome{Wait: c.turn.Sub(now), Reset: max(0, c.full.Sub(now))}
		s.mu.Unlock()
		return o, nil
	}
	req := c.ask(true, now)
	s.mu.Unlock()
	g, err := b.put(s, c, req, now)
	return g.outcome(), err
}

func (s *shard) find(id uint64, key func() string, most int) *caller {
	c := s.callers[id]
	if c == nil && len(s.callers) < most {
		if s.callers == nil {
			s.callers = make(map[uint64]*caller)
		}
		c = &caller{key: key()}
		s.callers[id] = c
	}
	return c
}

// change gives back what is leased under other terms: an event of the one limit
// is not worth as much as an event of the other.
func (c *caller) change(t Terms) (back Request) {
	if c.terms.Limit != t.Limit && c.tokens+c.back > 0 {
		back = Request{Key: c.key, Terms: c.terms, Spent: c.spent, Back: c.back + c.tokens}
		c.spent, c.back, c.tokens = 0, 0, 0
	}
	c.terms = t
	return back
}

// lapse ends a lease that was not spent in time. Less is leased from then on.
func (c *caller) lapse(now time.Time) {
	if c.tokens > 0 && !now.Before(c.ends) {
		c.back += c.tokens
		c.tokens = 0
		c.batch /= 2
	}
}

func (c *caller) spend(now time.Time) bucket.Outcome {
	c.tokens--
	c.spent++
	return bucket.Outcome{Allowed: true, Remaining: c.remaining + c.tokens, Reset: max(0, c.full.Sub(now))}
}

// ask makes the next question. One who asks again soon is leased more.
func (c *caller) ask(one bool, now time.Time) Request {
	if soon := now.Sub(c.asked) < Term/2; soon {
		c.batch = min(max(1, 2*c.batch), c.terms.Most)
	}
	c.asked = now
	r := Request{Key: c.key, Terms: c.terms, Now: one, Spent: c.spent, Back: c.back}
	// They are told once. After an error the store may know or not; to tell it
	// twice would let it lend too much.
	c.spent, c.back = 0, 0
	if !c.asking {
		r.Ahead = min(c.batch, c.terms.Most)
		c.asking = r.Ahead > 0
	}
	return r
}

// put puts a question and writes down what is answered.
func (b *Book) put(s *shard, c *caller, r Request, now time.Time) (Grant, error) {
	g, err := b.store.Lease(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Ahead > 0 {
		c.asking = false
	}
	if err != nil {
		return g, err
	}
	c.remaining, c.full = g.Remaining, now.Add(g.Reset)
	switch {
	case g.Ahead > 0 && c.terms.Limit != r.Limit:
		c.spent += g.Ahead // under terms that are over
	case g.Ahead > 0:
		c.tokens += g.Ahead
		c.ends = now.Add(Term)
	}
	if r.Now && !g.Now {
		c.denied, c.turn = now.Add(min(g.Wait, remember)), now.Add(g.Wait)
	}
	return g, nil
}

func (g Grant) outcome() bucket.Outcome {
	return bucket.Outcome{Allowed: g.Now, Wait: g.Wait, Remaining: g.Remaining, Reset: g.Reset}
}

// Sweep gives back what callers who went away have not spent, and forgets
// them. It ends at the first error.
func (b *Book) Sweep(now time.Time) error {
	for i := range b.shards {
		for _, r := range b.shards[i].sweep(now) {
			if _, err := b.store.Lease(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *shard) sweep(now time.Time) (back []Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, c := range s.callers {
		c.lapse(now)
		if c.back > 0 {
			back = append(back, Request{Key: c.key, Terms: c.terms, Spent: c.spent, Back: c.back})
			c.spent, c.back = 0, 0
		}
		if c.tokens == 0 && !c.asking && now.Sub(c.asked) > Term && !now.Before(c.denied) {
			delete(s.callers, id)
		}
	}
	return back
}

// Len counts the callers that are known, and what they have left.
func (b *Book) Len() (callers, tokens int) {
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.Lock()
		callers += len(s.callers)
		for _, c := range s.callers {
			tokens += c.tokens
		}
		s.mu.Unlock()
	}
	return callers, tokens
}
