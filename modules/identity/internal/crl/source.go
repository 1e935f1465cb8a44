package crl

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/safe"
)

const (
	deadline   = time.Minute     // of one fetch
	patience   = 2 * time.Second // of a request that comes before the first list
	firstRetry = time.Second     // doubles with each failure
)

// Fetch gets the list and those who may have signed it, from wherever they are.
type Fetch func(context.Context) (data []byte, issuers []*x509.Certificate, err error)

// Source keeps a list up to date in the background. The last good one stays
// until its time is over. It may be used concurrently.
type Source struct {
	fetch  Fetch
	every  time.Duration
	report func(*List, error) // after each attempt

	current atomic.Pointer[List]
	begin   sync.Once
	first   chan struct{} // closed after the first attempt
	stop    context.CancelFunc
	ctx     context.Context
	done    sync.WaitGroup

	seen [sha256.Size]byte // what the current list was read from
}

// NewSource makes a source that looks again every so often. It does nothing
// before Start.
func NewSource(fetch Fetch, every time.Duration, report func(*List, error)) *Source {
	ctx, stop := context.WithCancel(context.Background())
	return &Source{fetch: fetch, every: every, report: report, first: make(chan struct{}), ctx: ctx, stop: stop}
}

// Start begins to look; a second call does nothing.
func (s *Source) Start() {
	s.begin.Do(func() { s.done.Go(s.run) })
}

// Destruct ends what Start began.
func (s *Source) Destruct() error {
	s.stop()
	s.done.Wait()
	return nil
}

func (s *Source) run() {
	for failures := 0; ; {
		_, err := safe.Call(func() (struct{}, error) { return struct{}{}, s.refresh() })
		if s.ctx.Err() != nil {
			return
		}
		s.report(s.current.Load(), err)
		pause := s.every
		if failures++; err == nil {
			failures = 0
		} else {
			pause = min(pause, firstRetry<<min(failures-1, 8))
		}
		select {
		case <-s.first:
		default:
			close(s.first)
		}
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// refresh swaps the list whole, if there is a newer one.
func (s *Source) refresh() error {
	ctx, cancel := context.WithTimeout(s.ctx, deadline)
	defer cancel()
	data, issuers, err := s.fetch(ctx)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, _ = h.Write(data)
	for _, ca := range issuers {
		_, _ = h.Write(ca.Raw)
	}
	sum := [sha256.Size]byte(h.Sum(nil))
	have := s.current.Load()
	if have != nil && sum == s.seen && have.Fresh(time.Now()) {
		return nil
	}
	l, err := Read(data, issuers, time.Now())
	if err != nil {
		return err
	}
	if l.Older(have) {
		return errors.New("the list is older than the one that is known")
	}
	s.seen = sum
	s.current.Store(l)
	return nil
}

// Load returns the list, or nil. A request that comes before the first attempt
// is over waits for it, for a moment.
func (s *Source) Load(ctx context.Context) *List {
	if l := s.current.Load(); l != nil {
		return l
	}
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-s.first:
	case <-limit.C:
	case <-ctx.Done():
	}
	return s.current.Load()
}
