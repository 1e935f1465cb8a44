package reputation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/gate/fetch"
)

const (
	lookEvery    = 10 * time.Second // at files
	fetchTimeout = time.Minute
	maxList      = 128 << 20 // bytes of a list
	maxDB        = 1 << 30   // bytes of a database
	retryAfter   = time.Minute
)

// sources outlive reloads, so that a list from a URL is there at once, and the
// last good copy stays.
var sources = caddy.NewUsagePool()

// source is a list or database as it was last read.
type source[T any] struct {
	key, at string
	name    string // of at, for logs and labels
	parse   func([]byte) (T, error)
	refresh time.Duration // 0: a file
	current atomic.Pointer[T]

	mu      sync.Mutex // held while reading, so that two configurations do not both
	seen    os.FileInfo
	fetched time.Time
	failed  bool
	unkept  bool // the storage failed
}

// Destruct implements caddy.Destructor.
func (s *source[T]) Destruct() error {
	readAt.DeleteLabelValues(s.name)
	return nil
}

// open takes a source. Files are read now, since what is wrong with one is an
// error of the configuration.
func open[T any](name string, parse func([]byte) (T, error), refresh time.Duration) (*source[T], error) {
	s := &source[T]{key: fmt.Sprintf("%T|%s", *new(T), name), at: name, name: name, parse: parse}
	if strings.Contains(name, "://") {
		s.name = fetch.Name(name)
		s.refresh = refresh
		s.key += "|" + refresh.String()
	}
	v, loaded, err := sources.LoadOrNew(s.key, func() (caddy.Destructor, error) {
		if s.refresh > 0 {
			return s, nil
		}
		return s, s.read()
	})
	if err != nil {
		return nil, err
	}
	held := v.(*source[T])
	if loaded && held.refresh == 0 {
		// The file may have changed since, and then perhaps for the worse.
		if err := held.read(); err != nil {
			_, _ = sources.Delete(s.key) // of what was just taken
			return nil, err
		}
	}
	return held, nil
}

func (s *source[T]) release() error {
	_, err := sources.Delete(s.key)
	return err
}

// load returns what was last read; ok is false while nothing was.
func (s *source[T]) load() (v T, ok bool) {
	if p := s.current.Load(); p != nil {
		return *p, true
	}
	return v, false
}

// follow reads again whenever it is time, until ctx ends.
func (s *source[T]) follow(ctx context.Context, storage certmagic.Storage, logger *zap.Logger) {
	timer := time.NewTimer(s.look(ctx, storage, logger))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			timer.Reset(s.look(ctx, storage, logger))
		}
	}
}

// look reads what has changed and returns when to look again.
func (s *source[T]) look(ctx context.Context, storage certmagic.Storage, logger *zap.Logger) time.Duration {
	err := s.update(ctx, storage, logger)
	if ctx.Err() != nil {
		return lookEvery
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		failures.WithLabelValues(s.name).Inc()
		if !s.failed {
			logger.Error("a reputation source cannot be read; the last good copy stays", zap.String("source", s.name), zap.Error(err))
		}
	} else if s.failed {
		logger.Info("a reputation source can be read again", zap.String("source", s.name))
	}
	s.failed = err != nil
	switch {
	case s.refresh == 0:
		return lookEvery
	case err != nil:
		return min(retryAfter, s.refresh)
	}
	return max(time.Second, s.refresh-time.Since(s.fetched))
}

func (s *source[T]) update(ctx context.Context, storage certmagic.Storage, logger *zap.Logger) error {
	if s.refresh == 0 {
		return s.read()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current.Load() == nil {
		s.restore(ctx, storage, logger)
	}
	if time.Since(s.fetched) < s.refresh {
		return nil // by another configuration that has it too, or before a restart
	}
	limited, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	data, err := fetch.Get(limited, s.at, "text/plain, application/json, */*", maxList)
	if err != nil {
		return err
	}
	now := time.Now()
	if err := s.swap(data, now); err != nil {
		return err
	}
	s.keep(ctx, storage, logger, data, now)
	return nil
}

// read reads the file if it has changed.
func (s *source[T]) read() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	info, err := os.Stat(s.name)
	if err != nil {
		return err
	}
	if s.seen != nil && os.SameFile(s.seen, info) && s.seen.ModTime().Equal(info.ModTime()) && s.seen.Size() == info.Size() {
		return nil
	}
	if info.Size() > maxDB {
		return errors.New(s.name + " is larger than 1 GiB")
	}
	// Into memory: a mapped file that is cut short in place kills the process.
	data, err := os.ReadFile(s.name)
	if err != nil {
		return err
	}
	if err := s.swap(data, time.Now()); err != nil {
		return err
	}
	s.seen = info
	return nil
}

// swap takes over what was read at a time.
func (s *source[T]) swap(data []byte, at time.Time) error {
	v, err := s.parse(data)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	s.current.Store(&v)
	s.fetched = at
	readAt.WithLabelValues(s.name).Set(float64(at.UnixMilli()) / 1000)
	return nil
}

var (
	failures = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_reputation_read_failures_total",
		Help: "Times a list or database could not be read.",
	}, []string{"source"})
	readAt = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "gatehouse_reputation_read_timestamp_seconds",
		Help: "When a list or database was last read.",
	}, []string{"source"})
	declared = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_reputation_bots_total",
		Help: "Requests whose User-Agent is that of a known bot.",
	}, []string{"api"})
)
