package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// A copy is what the storage had when it could last be read, in a folder of this
// node's own, for a process that starts while the storage is away. It lies there
// as it does in the storage.

// copyKey says how good a copy is.
const copyKey = root + "/copied.json"

type copied struct {
	At       time.Time `json:"at"`       // when the storage was last seen to be as the copy is
	Revision uint64    `json:"revision"` // of the journal then
}

// copier follows the storage into a folder. It is the store's, since two
// configurations may have it at once during a reload.
type copier struct {
	mu   sync.Mutex // held while something is copied
	kept time.Time  // when copyKey was last written

	dirty map[string]bool // storage keys that were written since; guarded by store.mu
	all   bool            // nobody knows which; guarded by store.mu
}

const (
	maxDirty  = 1 << 12
	keepEvery = time.Minute
)

// touched notes that a key was written. The lock must be held.
func (c *copier) touched(key string) {
	if c.dirty == nil || c.all {
		return
	}
	if c.dirty[key] = true; len(c.dirty) > maxDirty {
		c.all = true
	}
}

// openCopy reads the copy in a folder, which must not be older than maxAge.
func (s *store) openCopy(ctx context.Context, folder string, maxAge time.Duration, now time.Time) (copied, error) {
	from := &certmagic.FileStorage{Path: folder}
	c, err := readCopied(ctx, from)
	if err != nil {
		return c, err
	}
	if age := now.Sub(c.At); age > maxAge {
		return c, fmt.Errorf("the copy in %q is %v old, and may be %v", folder, age.Round(time.Second), maxAge)
	}
	live := s.storage
	s.storage = from
	defer func() { s.storage = live }()
	if err := s.readAll(ctx); err != nil {
		return c, fmt.Errorf("the copy in %q: %w", folder, err)
	}
	for _, t := range s.tables {
		if t.parts != nil {
			clear(t.parts.stamps) // which are those of the copy's files
		}
	}
	s.complete = time.Time{} // everything is read once the storage is back
	return c, nil
}

func readCopied(ctx context.Context, from certmagic.Storage) (c copied, err error) {
	data, err := from.Load(ctx, copyKey)
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		err = fmt.Errorf("reading when the copy was made: %w", err)
	}
	return c, err
}

// keepCopy follows the storage until ctx ends.
func (s *store) keepCopy(ctx context.Context, folder string) {
	to := &certmagic.FileStorage{Path: folder}
	everything := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.copier.dirty, s.copier.all = map[string]bool{}, true
	}
	everything()
	defer everything() // after a reload that failed, another folder goes on
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	failing := false
	for {
		err := s.copyTo(ctx, to, time.Now())
		if ctx.Err() != nil {
			return
		}
		if err != nil && !failing {
			s.logger.Load().Warn("the copy of live objects is not up to date", zap.String("folder", folder), zap.Error(err))
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// copyTo copies what was written since, and says how good the copy is.
func (s *store) copyTo(ctx context.Context, to certmagic.Storage, now time.Time) error {
	s.copier.mu.Lock()
	defer s.copier.mu.Unlock()
	s.mu.Lock()
	if s.stale { // what the storage has is not known, and the copy is of when it was
		s.mu.Unlock()
		return nil
	}
	dirty, all, revision := s.copier.dirty, s.copier.all, s.journal.Revision
	s.copier.dirty, s.copier.all = map[string]bool{}, false
	s.mu.Unlock()
	if len(dirty) == 0 && !all && now.Sub(s.copier.kept) < keepEvery {
		return nil
	}
	err := s.copyKeys(ctx, to, dirty, all)
	if err == nil {
		var data []byte
		if data, err = json.Marshal(copied{now.UTC(), revision}); err == nil {
			err = to.Store(ctx, copyKey, data)
		}
	}
	if err != nil {
		s.mu.Lock()
		s.copier.all = true
		s.mu.Unlock()
		return err
	}
	s.copier.kept = now
	return nil
}

func (s *store) copyKeys(ctx context.Context, to certmagic.Storage, dirty map[string]bool, all bool) error {
	if all {
		dirty = map[string]bool{}
		for name := range s.tables {
			for _, side := range []certmagic.Storage{s.storage, to} { // theirs to copy, ours to delete
				keys, err := side.List(ctx, root+"/"+name, false)
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("listing %s: %w", name, err)
				}
				for _, key := range keys {
					if strings.HasSuffix(key, ".json") {
						dirty[path.Join(root, name, path.Base(key))] = true
					}
				}
			}
		}
	}
	for _, key := range append(slices.Sorted(maps.Keys(dirty)), journalKey) { // the journal last: it speaks of the others
		if err := copyKeyTo(ctx, s.storage, to, key); err != nil {
			return err
		}
	}
	return nil
}

func copyKeyTo(ctx context.Context, from, to certmagic.Storage, key string) error {
	data, err := from.Load(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		if to.Exists(ctx, key) {
			return to.Delete(ctx, key)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("copying %s: %w", key, err)
	}
	if had, err := to.Load(ctx, key); err == nil && bytes.Equal(had, data) {
		return nil
	}
	return to.Store(ctx, key, data)
}

var staleness = prometheus.NewGauge(prometheus.GaugeOpts{
	Name: "gatehouse_registry_stale",
	Help: "1 while the storage of live objects cannot be read and the last good copy decides.",
})
