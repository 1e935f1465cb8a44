package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// Where things are in Caddy's storage.
const (
	root       = "gatehouse/registry"
	journalKey = root + "/journal.json"
	lockName   = "gatehouse_registry"
)

const (
	maxObjects = 1 << 20  // of a kind
	maxValue   = 64 << 10 // bytes of one
	maxJournal = 256      // changes remembered
)

// object is a live object as it is stored and shown.
type object struct {
	ID      string          `json:"id"`
	Version uint64          `json:"version,omitempty"` // the journal's revision that wrote it
	Created uint64          `json:"created,omitempty"` // the one that created it; not kept of a packed kind's
	Updated time.Time       `json:"updated,omitzero"`
	By      string          `json:"by,omitempty"`
	Source  string          `json:"source"` // live or config
	Value   json.RawMessage `json:"value,omitempty"`

	ready any // as the kind reads it; nil if it cannot
}

// change is one line of the journal, and of the audit trail.
type change struct {
	Revision uint64    `json:"revision"`
	At       time.Time `json:"at"`
	By       string    `json:"by"`
	Action   string    `json:"action"` // create, replace or delete; or refused
	Kind     string    `json:"kind"`
	ID       string    `json:"id"`
	Verb     string    `json:"verb,omitempty"` // what was refused
	Why      string    `json:"why,omitempty"`  // it was refused
}

// journal tells other nodes what changed. The revision grows by one each time.
type journal struct {
	Revision uint64   `json:"revision"`
	Changes  []change `json:"changes"`
	Archived uint64   `json:"archived,omitempty"` // the last change that is in a block, too
}

// table holds the objects of one kind: those of a packed one in parts, and
// others in objects.
type table struct {
	kind     kind
	objects  map[string]*object // guarded by store.mu
	snapshot atomic.Pointer[any]
	parts    *parts
}

func (t *table) publish() {
	if t.parts != nil {
		objectsHeld.WithLabelValues(t.kind.name()).Set(float64(t.parts.set.Len()))
		return
	}
	s := t.kind.index(t.objects)
	t.snapshot.Store(&s)
	objectsHeld.WithLabelValues(t.kind.name()).Set(float64(len(t.objects)))
}

// store is what one storage holds. It outlives reloads.
type store struct {
	storage certmagic.Storage
	tables  map[string]*table
	logger  atomic.Pointer[zap.Logger]
	running atomic.Pointer[[]*App] // those that have started, the newest last: two during a reload

	serving  sync.Mutex    // guards what is put into running
	changing chan struct{} // has room for one: who changes something, or waits for the storage's lock; before mu

	mu       sync.RWMutex
	journal  journal
	complete time.Time // when everything was last read
	stale    bool      // the storage could not be read the last time
	copier   copier
	refusals []change // the last ones, of this node
	refused  uint64
}

// Destruct implements caddy.Destructor; pollers belong to apps.
func (*store) Destruct() error { return nil }

// openStore reads everything there is: from the storage, or else from the copy
// in a folder, if one is named and not older than maxAge.
func openStore(ctx context.Context, storage certmagic.Storage, logger *zap.Logger, folder string, maxAge time.Duration) (*store, error) {
	s := &store{storage: storage, tables: make(map[string]*table, len(kinds)), changing: make(chan struct{}, 1)}
	s.logger.Store(logger)
	for _, k := range kinds {
		s.tables[k.name()] = &table{kind: k, objects: map[string]*object{}}
		if p, ok := k.(packed); ok {
			s.tables[k.name()].parts = &parts{set: p.newSet(), stamps: make([]stamp, PackedParts)}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	staleness.Set(0)
	err := s.readAll(ctx)
	if folder == "" {
		if err != nil {
			err = fmt.Errorf("%w (with the option copy, a gateway starts with what it knew last)", err)
			return nil, err
		}
		return s, nil
	}
	if err == nil && s.journal.Revision == 0 {
		// A folder that is not mounted is empty.
		if c, unknown := readCopied(ctx, &certmagic.FileStorage{Path: folder}); unknown == nil && c.Revision > 0 {
			err = fmt.Errorf("the storage has no live objects, and had %d changes when the copy in %q was made; if that is meant, take the copy away", c.Revision, folder)
		}
	}
	if err == nil {
		return s, nil
	}
	c, missing := s.openCopy(context.WithoutCancel(ctx), folder, maxAge, time.Now())
	if missing != nil {
		return nil, errors.Join(err, missing)
	}
	s.markStale(err)
	logger.Error("live objects cannot be read; a copy decides on, and nothing can be changed", zap.Time("copied", c.At), zap.Error(err))
	return s, nil
}

func (s *store) markStale(err error) {
	s.stale = err != nil
	staleness.Set(0)
	if s.stale {
		failures.Inc()
		staleness.Set(1)
	}
}

// rereadEvery bounds how long a node can miss a change whose writer died
// between storing the object and telling of it.
const rereadEvery = 10 * time.Minute

// poll follows what other nodes wrote.
func (s *store) poll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.refresh(ctx) // has logged and counted it
}

// refresh brings the tables up to what is stored. The lock must be held.
func (s *store) refresh(ctx context.Context) error {
	j, err := s.readJournal(ctx)
	switch {
	case err != nil:
	case j.Revision == 0 && s.journal.Revision > 0:
		// A folder that is not mounted is empty: nobody takes away a journal.
		err = errors.New("the journal of live objects is gone; if that is meant, start the gateway again")
	case time.Since(s.complete) > rereadEvery, j.Revision < s.journal.Revision, j.Revision-s.journal.Revision > uint64(len(j.Changes)):
		err = s.readAll(ctx)
	case j.Revision > s.journal.Revision:
		err = s.readChanged(ctx, j)
	}
	if err != nil {
		if !s.stale {
			s.logger.Load().Error("live objects cannot be read; the last good copy decides on", zap.Error(err))
		}
	} else if s.stale {
		s.logger.Load().Info("live objects can be read again")
	}
	s.markStale(err)
	return err
}

func (s *store) readJournal(ctx context.Context) (journal, error) {
	var j journal
	data, err := s.storage.Load(ctx, journalKey)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &j)
	}
	if err != nil {
		return j, fmt.Errorf("reading the journal of live objects: %w", err)
	}
	return j, nil
}

// readAll reads every object. Nothing changes unless all could be read.
func (s *store) readAll(ctx context.Context) error {
	j, err := s.readJournal(ctx)
	if err != nil {
		return err
	}
	all := make(map[string]map[string]*object, len(s.tables))
	for name, t := range s.tables {
		if t.parts != nil {
			version, err := s.readParts(ctx, t)
			if err != nil {
				return err
			}
			j.Revision = max(j.Revision, version)
			continue
		}
		objects := map[string]*object{}
		keys, err := s.storage.List(ctx, root+"/"+name, false)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("listing %s: %w", name, err)
		}
		for _, key := range keys {
			id, ok := strings.CutSuffix(path.Base(key), ".json")
			if !ok || !validID(id) {
				continue
			}
			o, err := s.read(ctx, name, id)
			if err != nil {
				return err
			}
			if o != nil {
				objects[id] = o
				j.Revision = max(j.Revision, o.Version) // its writer may have died before the journal
			}
		}
		all[name] = objects
	}
	for name, t := range s.tables {
		t.objects = all[name]
		t.publish()
	}
	s.journal, s.complete, s.copier.all = j, time.Now(), true
	return nil
}

// readChanged reads what the journal says has changed since ours.
func (s *store) readChanged(ctx context.Context, j journal) error {
	fresh := map[[2]string]*object{}
	touched := map[*table]bool{}
	for _, c := range j.Changes {
		t := s.tables[c.Kind]
		if c.Revision <= s.journal.Revision || t == nil {
			continue
		}
		if t.parts != nil {
			touched[t] = true
			if err := s.readPart(ctx, t, c); err != nil {
				return err
			}
			continue
		}
		o, err := s.read(ctx, c.Kind, c.ID)
		if err != nil {
			return err
		}
		s.copier.touched(objectKey(c.Kind, c.ID))
		fresh[[2]string{c.Kind, c.ID}] = o
	}
	for at, o := range fresh {
		t := s.tables[at[0]]
		put(t.objects, at[1], o)
		touched[t] = true
	}
	for t := range touched {
		t.publish()
	}
	s.journal = j
	return nil
}

func put(objects map[string]*object, id string, o *object) {
	if o == nil {
		delete(objects, id)
		return
	}
	objects[id] = o
}

// read fetches one object; nil means it is not there. One that its kind cannot
// read, perhaps written by a newer gateway, is kept and shown and has no effect.
func (s *store) read(ctx context.Context, kind, id string) (*object, error) {
	data, err := s.storage.Load(ctx, objectKey(kind, id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // absence is an answer here
	}
	o := new(object)
	if err == nil {
		err = json.Unmarshal(data, o)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s/%s: %w", kind, id, err)
	}
	o.ID = id
	s.understand(s.tables[kind], o)
	return o, nil
}

// understand makes of an object what its kind reads in it.
func (s *store) understand(t *table, o *object) {
	o.Source = "live"
	var err error
	if o.ready, err = t.kind.read(o.ID, o.Value); err != nil {
		o.ready = nil
		s.logger.Load().Error("a live object cannot be understood and has no effect", zap.String("kind", t.kind.name()), zap.String("id", o.ID), zap.Error(err))
		return
	}
	t.kind.born(o.ready, o.born())
}

// born is the revision that created the object, or the best that is known of it.
func (o *object) born() uint64 {
	if o.Created == 0 {
		return o.Version
	}
	return o.Created
}

func objectKey(kind, id string) string { return root + "/" + kind + "/" + id + ".json" }

// errPrecondition means that the object is not in the state the change is for.
var errPrecondition = errors.New("the object has changed since; read it again")

// edit is what a change does to an object: old is nil when there is none, and
// a nil result deletes.
type edit func(old *object) (json.RawMessage, error)

// change applies an edit to one object: under the storage's lock, on its
// newest state, stored before it is seen.
func (s *store) change(ctx context.Context, kind, id, by string, edit edit) (*object, error) {
	o, revision, err := s.write(ctx, kind, id, by, edit)
	if revision > 0 {
		s.spread(revision) //nolint:contextcheck // holding nothing; the link has a timeout of its own
	}
	return o, err
}

// write is change before others are told: it returns the revision that there is
// now, or 0 if nothing changed.
func (s *store) write(ctx context.Context, kind, id, by string, edit edit) (*object, uint64, error) {
	release, err := s.hold(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer release()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refresh(ctx); err != nil {
		return nil, 0, err
	}
	t := s.tables[kind]
	p, old, err := s.current(ctx, t, id)
	if err != nil {
		return nil, 0, err
	}
	value, err := edit(old)
	if err != nil {
		return nil, 0, err
	}
	now := time.Now().UTC()
	c := change{Revision: s.journal.Revision + 1, At: now, By: by, Kind: kind, ID: id}
	var o *object
	if value == nil {
		c.Action = "delete"
	} else {
		c.Action = "replace"
		if old == nil {
			c.Action = "create"
			if held := t.held(); held >= maxObjects {
				return nil, 0, badRequest("there are %d %s, which is as many as there may be", held, kind)
			}
		}
		o = &object{ID: id, Version: c.Revision, Updated: now, By: by, Source: "live", Value: value}
		switch {
		case p != nil:
		case old == nil:
			o.Created = c.Revision
		default:
			o.Created = old.born()
		}
		if o.ready, err = t.kind.read(id, value); err == nil {
			t.kind.born(o.ready, o.born())
			err = t.kind.admit(id, o.ready)
		}
		if _, own := errors.AsType[caddy.APIError](err); own {
			return nil, 0, err
		}
		if err != nil {
			return nil, 0, badRequest("%w", err)
		}
	}
	if err := s.keep(ctx, t, p, id, o); err != nil {
		return nil, 0, fmt.Errorf("storing %s/%s: %w", kind, id, err)
	}
	return o, c.Revision, s.tell(ctx, t, p, o, c)
}

// hold keeps all others, here and on other nodes, from changing anything until
// release. Who waits for it goes on following what its holder changes.
func (s *store) hold(ctx context.Context) (release func(), err error) {
	select {
	case s.changing <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for another change: %w", ctx.Err())
	}
	if err := s.storage.Lock(ctx, lockName); err != nil {
		<-s.changing
		return nil, fmt.Errorf("locking the storage: %w", err)
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTimeout)
		defer cancel()
		if err := s.storage.Unlock(ctx, lockName); err != nil {
			s.logger.Load().Error("unlocking the storage", zap.Error(err))
		}
		<-s.changing
	}, nil
}

// current finds the object that a change is for, and the part that it is in if
// its kind is packed.
func (s *store) current(ctx context.Context, t *table, id string) (*storedPart, *object, error) {
	if t.parts == nil {
		return nil, t.objects[id], nil
	}
	p, err := s.loadPart(ctx, t, partOf(id))
	if err != nil {
		return nil, nil, err
	}
	return p, p.find(id), nil
}

// keep stores an object, or takes it away if it is nil.
func (s *store) keep(ctx context.Context, t *table, p *storedPart, id string, o *object) error {
	if p != nil {
		p.put(id, o)
		return s.storePart(ctx, t, p)
	}
	s.copier.touched(objectKey(t.kind.name(), id))
	if o == nil {
		return s.storage.Delete(ctx, objectKey(t.kind.name(), id))
	}
	data, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return s.storage.Store(ctx, objectKey(t.kind.name(), id), data)
}

// tell writes the journal, which other nodes follow, and makes the change seen
// here. The object is stored by now: it is in effect even if the journal
// cannot be written, and other nodes then learn of it when they read everything.
func (s *store) tell(ctx context.Context, t *table, p *storedPart, o *object, c change) error {
	j := journal{Revision: c.Revision, Archived: s.journal.Archived, Changes: append(s.journal.Changes[max(0, len(s.journal.Changes)+1-maxJournal):], c)}
	s.archive(ctx, &j)
	data, err := json.Marshal(j)
	if err == nil {
		err = s.storage.Store(ctx, journalKey, data)
	}
	if err != nil {
		s.complete = time.Time{}
		err = fmt.Errorf("writing the journal of live objects: %w", err)
	}
	s.journal = j
	if p != nil {
		t.show(p)
	} else {
		put(t.objects, c.ID, o)
	}
	t.publish()
	changes.WithLabelValues(c.Kind, c.Action).Inc()
	s.logger.Load().Named("audit").Info("live object changed",
		zap.String("action", c.Action), zap.String("kind", c.Kind), zap.String("id", c.ID),
		zap.Uint64("revision", c.Revision), zap.String("by", c.By))
	return err
}
