package ask

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

const (
	maxAsking  = 64      // questions on their way
	maxWaiting = 1 << 10 // and those that wait for a place among them, with those on their way
	share      = 4       // a customer may have one part in so many of either
)

// ErrBusy means that too much is asked, or takes long, at an endpoint that answers:
// callers can bring that about alone, and nothing may be had by it.
var ErrBusy = errors.New("too many questions to the issuer")

// Places are an endpoint's: so many questions may be on their way, and so many wait.
// They may be used concurrently.
type Places struct {
	asking chan struct{}

	mu        sync.Mutex
	taken     int
	customers map[netip.Prefix]*customer
}

// customer is who has questions on their way.
type customer struct {
	by     netip.Prefix
	asking chan struct{}
	taken  int
}

// NewPlaces makes the places of an endpoint.
func NewPlaces() *Places {
	return &Places{asking: make(chan struct{}, maxAsking), customers: map[netip.Prefix]*customer{}}
}

// Do puts a customer's question when it is its turn. It fails with ErrBusy if that
// does not come.
func (p *Places) Do(by netip.Prefix, question func() error) error {
	c, err := p.take(by)
	if err != nil {
		return err
	}
	defer p.leave(c)
	return p.ask(c, question)
}

// take takes a place among those who wait.
func (p *Places) take(by netip.Prefix) (*customer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.customers[by]
	switch {
	case p.taken >= maxWaiting:
		return nil, fmt.Errorf("%w: %d wait", ErrBusy, p.taken)
	case c == nil:
		c = &customer{by: by, asking: make(chan struct{}, maxAsking/share)}
		p.customers[by] = c
	case c.taken >= maxWaiting/share:
		return nil, fmt.Errorf("%w: %d of %v wait", ErrBusy, c.taken, by)
	}
	p.taken++
	c.taken++
	return c, nil
}

func (p *Places) leave(c *customer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if c.taken--; c.taken == 0 {
		delete(p.customers, c.by)
	}
}

// ask waits for its turn among the customer's questions, and then among all.
func (p *Places) ask(c *customer, question func() error) error {
	limit := time.NewTimer(Patience) // nobody waits longer for what is asked then
	defer limit.Stop()
	for _, turn := range [...]chan struct{}{c.asking, p.asking} {
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
		case <-limit.C:
			return fmt.Errorf("%w: there was no place for it", ErrBusy)
		}
	}
	return question()
}
