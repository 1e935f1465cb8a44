package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

// The trail is the journal's changes, and before them those of blocks, which are
// written whenever the journal has that many that are in none.
const (
	maxBlocks = 128
	blockSize = maxJournal / 2 // the other half is time to try again
)

// maxRefusals bounds the refusals that a node remembers. They are none of the
// trail's: whoever is refused must not push changes out of it.
const maxRefusals = 1 << 10

func blockKey(last uint64) string { return fmt.Sprintf("%s/audit/%020d.json", root, last) }

// archive writes a block if it is time, and takes the oldest away. What cannot be
// written is tried again with the next change.
func (s *store) archive(ctx context.Context, j *journal) {
	if j.Revision-j.Archived < blockSize {
		return
	}
	var block journal
	for _, c := range j.Changes {
		if c.Revision > j.Archived {
			block.Changes = append(block.Changes, c)
		}
	}
	block.Revision = j.Revision
	data, err := json.Marshal(block)
	if err == nil {
		err = s.storage.Store(ctx, blockKey(j.Revision), data)
	}
	if err == nil {
		j.Archived = j.Revision
		var blocks []uint64
		if blocks, err = s.blocks(ctx); err == nil && len(blocks) > maxBlocks {
			for _, last := range blocks[maxBlocks:] {
				err = errors.Join(err, s.storage.Delete(ctx, blockKey(last)))
			}
		}
	}
	if err != nil {
		s.logger.Load().Warn("older changes could not be put away", zap.Error(err))
	}
}

// blocks lists the last revisions of the blocks there are, newest first.
func (s *store) blocks(ctx context.Context) (last []uint64, err error) {
	keys, err := s.storage.List(ctx, root+"/audit", false)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing older changes: %w", err)
	}
	for _, key := range keys {
		if n, err := strconv.ParseUint(strings.TrimSuffix(path.Base(key), ".json"), 10, 64); err == nil {
			last = append(last, n)
		}
	}
	slices.Sort(last)
	slices.Reverse(last)
	return last, nil
}

// question is what somebody wants to know of the trail. Empty members match all.
type question struct {
	kind, id, by, action string
	since                time.Time
	before               uint64 // only revisions that are lower; 0 means all
	limit                int
}

func (q *question) matches(c change) bool {
	return (q.kind == "" || c.Kind == q.kind) && (q.id == "" || c.ID == q.id) && (q.by == "" || c.By == q.by) &&
		(q.action == "" || c.Action == q.action) && !c.At.Before(q.since)
}

const refusedAction = "refused"

var actions = []string{"create", "replace", "delete", refusedAction}

func askedOf(values url.Values, now time.Time) (q question, err error) {
	q.limit = 100
	for name, given := range values {
		if len(given) != 1 {
			return q, badRequest("%s may be given once", name)
		}
		word := given[0]
		switch name {
		case "kind":
			q.kind = word
		case "id":
			q.id = word
		case "by":
			q.by = word
		case "action":
			if q.action = word; !slices.Contains(actions, word) {
				return q, badRequest("action %q is none of %s", word, strings.Join(actions, ", "))
			}
		case "since":
			if q.since, err = time.Parse(time.RFC3339, word); err != nil {
				ago, err := caddy.ParseDuration(word)
				if err != nil || ago <= 0 {
					return q, badRequest("since %q is neither a time such as 2027-01-01T00:00:00Z nor a duration such as 24h or 7d", word)
				}
				q.since = now.Add(-ago)
			}
		case "before":
			if q.before, err = strconv.ParseUint(word, 10, 64); err != nil || q.before == 0 {
				return q, badRequest("before %q is no revision", word)
			}
		case "limit":
			if q.limit, err = strconv.Atoi(word); err != nil || q.limit < 1 || q.limit > maxPage {
				return q, badRequest("limit %q is not a number from 1 to %d", word, maxPage)
			}
		default:
			return q, badRequest("unrecognized filter %q; expected kind, id, by, action, since, before, limit", name)
		}
	}
	return q, nil
}

// found is a part of the trail, newest first.
type found struct {
	Changes []change `json:"changes"`
	Next    uint64   `json:"next,omitempty"` // what `before` continues with
}

// take adds what matches among changes that stand oldest first, and reports
// whether it has all that was asked for. Blocks may overlap.
func (f *found) take(q *question, changes []change) (done bool) {
	for _, c := range slices.Backward(changes) {
		if q.before > 0 && c.Revision >= q.before {
			continue
		}
		if c.At.Before(q.since) {
			return true
		}
		if q.matches(c) {
			if len(f.Changes) == q.limit {
				f.Next = f.Changes[q.limit-1].Revision
				return true
			}
			f.Changes = append(f.Changes, c)
		}
		q.before = c.Revision
	}
	return false
}

// trail answers a question. It reads as many blocks as it has to, of which there
// are few.
func (s *store) trail(ctx context.Context, q question) (found, error) {
	f := found{Changes: []change{}}
	s.mu.RLock()
	recent := s.journal.Changes
	if q.action == refusedAction {
		recent = s.refusals
	}
	recent = slices.Clone(recent)
	s.mu.RUnlock()
	if f.take(&q, recent) || q.action == refusedAction {
		return f, nil
	}
	blocks, err := s.blocks(ctx)
	if err != nil {
		return f, err
	}
	for i, last := range blocks {
		if i+1 < len(blocks) && q.before > 0 && q.before <= blocks[i+1]+1 {
			continue // all of it is newer than what is asked for
		}
		data, err := s.storage.Load(ctx, blockKey(last))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just become too old
		}
		var block journal
		if err == nil {
			err = json.Unmarshal(data, &block)
		}
		if err != nil {
			return f, fmt.Errorf("reading older changes: %w", err)
		}
		if f.take(&q, block.Changes) {
			break
		}
	}
	return f, nil
}

// refuse remembers that somebody was refused, and leaves a record.
func (s *store) refuse(by, verb, kind, id, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused++
	c := change{Revision: s.refused, At: time.Now().UTC(), By: by, Action: refusedAction, Verb: verb, Kind: kind, ID: id, Why: why}
	s.refusals = append(s.refusals[max(0, len(s.refusals)+1-maxRefusals):], c)
	changes.WithLabelValues(kind, refusedAction).Inc()
	message := "change of a live object refused"
	if verb == readVerb {
		message = "reading refused"
	}
	s.logger.Load().Named("audit").Warn(message,
		zap.String("action", verb), zap.String("kind", kind), zap.String("id", id), zap.String("by", by), zap.String("why", why))
}

func serveAudit(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		return notAllowed(w, "GET")
	}
	a, err := running()
	if err != nil {
		return err
	}
	who, err := a.caller(r, auditKind)
	if err != nil {
		return err
	}
	if err := who.may(readVerb, auditKind, ""); err != nil {
		return err
	}
	return a.store.serveTrail(w, r)
}

func (s *store) serveTrail(w http.ResponseWriter, r *http.Request) error {
	q, err := askedOf(r.URL.Query(), time.Now())
	if err != nil {
		return err
	}
	if q.kind != "" && s.tables[q.kind] == nil && q.kind != auditKind {
		return caddy.APIError{HTTPStatus: http.StatusBadRequest, Message: fmt.Sprintf("there is no kind %q; expected %s", q.kind, strings.Join(kindNames(), ", "))}
	}
	ctx, cancel := context.WithTimeout(r.Context(), changeTimeout)
	defer cancel()
	f, err := s.trail(ctx, q)
	if err != nil {
		return away(err)
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(f)
}
