package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
)

// parts are the objects of a packed kind as this node holds them.
type parts struct {
	set    packedSet
	stamps []stamp // guarded by store.mu
}

// stamp tells whether a part has been written since it was read.
type stamp struct {
	modified time.Time
	size     int64
	version  uint64 // the highest in it
}

// storedPart is a part as it lies in the storage.
type storedPart struct {
	Objects []*object `json:"objects"` // by id

	at int
}

func partKey(kind string, at int) string { return fmt.Sprintf("%s/%s/%03x.json", root, kind, at) }

// partOf is the part of an id, or -1 if it is none of a packed kind's.
func partOf(id string) int {
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		return -1
	}
	at, _ := strconv.ParseInt(id[:3], 16, 32) // which are digits
	return int(at)
}

func (p *storedPart) search(id string) (int, bool) {
	return slices.BinarySearchFunc(p.Objects, id, func(o *object, id string) int { return strings.Compare(o.ID, id) })
}

func (p *storedPart) find(id string) *object {
	if at, found := p.search(id); found {
		return p.Objects[at]
	}
	return nil
}

// put puts an object in its place, or takes it out if it is nil.
func (p *storedPart) put(id string, o *object) {
	at, found := p.search(id)
	switch {
	case o == nil && found:
		p.Objects = slices.Delete(p.Objects, at, at+1)
	case o != nil && found:
		p.Objects[at] = o
	case o != nil:
		p.Objects = slices.Insert(p.Objects, at, o)
	}
}

// drop takes out what has expired. What cannot be understood stays: a newer
// gateway may know when it expires.
func (p *storedPart) drop(k packed, now time.Time) (dropped int) {
	had := len(p.Objects)
	p.Objects = slices.DeleteFunc(p.Objects, func(o *object) bool {
		return o.ready != nil && !now.Before(k.expires(o.ready))
	})
	return had - len(p.Objects)
}

func (t *table) held() int {
	if t.parts != nil {
		return t.parts.set.Len()
	}
	return len(t.objects)
}

// show makes a part what requests see.
func (t *table) show(p *storedPart) {
	t.kind.(packed).replace(t.parts.set, p.at, p.Objects)
}

// loadPart reads a part; one that is not there is empty.
func (s *store) loadPart(ctx context.Context, t *table, at int) (*storedPart, error) {
	p := &storedPart{at: at}
	if at < 0 { // no id of this kind, and so the id of nothing
		return p, nil
	}
	data, err := s.storage.Load(ctx, partKey(t.kind.name(), at))
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(data, p)
	}
	if err != nil {
		return nil, fmt.Errorf("reading part %03x of %s: %w", at, t.kind.name(), err)
	}
	p.Objects = slices.DeleteFunc(p.Objects, func(o *object) bool { return o == nil || partOf(o.ID) != at })
	slices.SortFunc(p.Objects, func(a, b *object) int { return strings.Compare(a.ID, b.ID) })
	for _, o := range p.Objects {
		s.understand(t, o)
		if o.ready != nil && t.kind.(packed).idOf(o.ready) != o.ID {
			o.ready = nil // it is not what its id says
		}
	}
	return p, nil
}

// storePart writes a part without what has expired.
func (s *store) storePart(ctx context.Context, t *table, p *storedPart) error {
	p.drop(t.kind.(packed), time.Now())
	key := partKey(t.kind.name(), p.at)
	s.copier.touched(key)
	if len(p.Objects) == 0 {
		if !s.storage.Exists(ctx, key) {
			return nil
		}
		return s.storage.Delete(ctx, key)
	}
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return s.storage.Store(ctx, key, data)
}

// stampAge is how old a part must have been when it was read for its stamp to
// be believed: storages tell times in steps.
const stampAge = 2 * time.Second

// readParts reads the parts that were written since they were read, and returns
// the highest version among them. What is read takes effect part by part: each
// is good by itself.
func (s *store) readParts(ctx context.Context, t *table) (version uint64, err error) {
	name := t.kind.name()
	keys, err := s.storage.List(ctx, root+"/"+name, false)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("listing %s: %w", name, err)
	}
	there := make([]bool, PackedParts)
	for _, key := range keys {
		word, ok := strings.CutSuffix(path.Base(key), ".json")
		at, err := strconv.ParseUint(word, 16, 32)
		if !ok || len(word) != 3 || err != nil {
			continue
		}
		there[at] = true
		now := time.Now()
		info, err := s.storage.Stat(ctx, key)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, fmt.Errorf("looking at part %s of %s: %w", word, name, err)
		}
		known := &t.parts.stamps[at]
		if !known.modified.IsZero() && known.modified.Equal(info.Modified) && known.size == info.Size {
			version = max(version, known.version)
			continue
		}
		p, err := s.loadPart(ctx, t, int(at))
		if err != nil {
			return 0, err
		}
		t.show(p)
		*known = stamp{size: info.Size}
		if now.Sub(info.Modified) > stampAge {
			known.modified = info.Modified
		}
		for _, o := range p.Objects {
			known.version = max(known.version, o.Version)
		}
		version = max(version, known.version)
	}
	for at, is := range there {
		if !is && t.parts.set.PartLen(at) > 0 {
			t.show(&storedPart{at: at})
			t.parts.stamps[at] = stamp{}
		}
	}
	return version, nil
}

// readPart follows a change of another node.
func (s *store) readPart(ctx context.Context, t *table, c change) error {
	at := partOf(c.ID)
	if at < 0 {
		return nil
	}
	p, err := s.loadPart(ctx, t, at)
	if err != nil {
		return err
	}
	s.copier.touched(partKey(t.kind.name(), at))
	t.show(p)
	return nil
}

// sweepAtOnce bounds how many parts are written for what has expired, each time.
const sweepAtOnce = 64

// sweep takes what has expired out of memory and storage. It is no change of
// anybody's: it had no effect any more, and other nodes find it out themselves.
func (s *store) sweep(ctx context.Context, now time.Time) {
	for _, t := range s.tables {
		if t.parts == nil {
			continue
		}
		over := t.parts.set.Over(now, sweepAtOnce)
		if len(over) == 0 {
			continue
		}
		if err := s.sweepParts(ctx, t, over, now); err != nil && ctx.Err() == nil {
			s.logger.Load().Warn("what has expired stays in the storage", zap.String("kind", t.kind.name()), zap.Error(err))
		}
	}
}

func (s *store) sweepParts(ctx context.Context, t *table, over []int, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	release, err := s.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range over {
		p, err := s.loadPart(ctx, t, at)
		if err != nil {
			return err
		}
		if p.drop(t.kind.(packed), now) > 0 {
			if err := s.storePart(ctx, t, p); err != nil {
				return err
			}
		}
		t.show(p)
	}
	t.publish()
	return nil
}

// page reads the objects of a packed kind behind an id, from the storage.
func (s *store) page(ctx context.Context, t *table, after string, limit int) (objects []*object, more bool, err error) {
	first := 0
	if after != "" {
		if first = partOf(after); first < 0 {
			return nil, false, badRequest("after %q is no id of this kind", after)
		}
	}
	for at := first; at < PackedParts; at++ {
		if t.parts.set.PartLen(at) == 0 {
			continue
		}
		p, err := s.loadPart(ctx, t, at)
		if err != nil {
			return nil, false, err
		}
		for _, o := range p.Objects {
			if o.ID <= after {
				continue
			}
			if len(objects) == limit {
				return objects, true, nil
			}
			objects = append(objects, o)
		}
	}
	return objects, false, nil
}
