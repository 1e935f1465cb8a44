// Package signer signs what the gateway says, with keys that are kept in a
// storage which several gateways share. They agree because the storage says of
// each key from when on it signs: a new one is published long before.
package signer

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"
)

// Timing of keys.
const (
	MinRotate  = time.Hour
	MaxRotate  = 365 * 24 * time.Hour
	MaxLife    = time.Hour               // of a token
	keep       = MaxLife + 5*time.Minute // how long a key is published that signs no more
	longest    = 24 * time.Hour          // for which a key is published before it signs
	MaxAge     = 5 * time.Minute         // for which others may keep what is published
	fresh      = time.Minute             // after which the storage is read again behind a request
	deadline   = 10 * time.Second        // of one reading, with the lock that it may need
	patience   = 3 * time.Second         // of a request that needs the first
	firstRetry = time.Second             // after a failure; doubles with each that follows
	lastRetry  = 30 * time.Second
	path       = "gatehouse/identity/signer/keys.json"
)

// ErrAway means that there is no key to sign with.
var ErrAway = errors.New("the keys for signing are not available")

// Store is what is used of a storage; certmagic's is one.
type Store interface {
	Lock(ctx context.Context, name string) error
	Unlock(ctx context.Context, name string) error
	Store(ctx context.Context, name string, value []byte) error
	Load(ctx context.Context, name string) ([]byte, error)
}

// Signer signs. It may be used concurrently.
type Signer struct {
	Store  Store
	Alg    string        // ES256 or EdDSA
	Rotate time.Duration // how long a key signs

	// Kept is what was read last. It may be shared with who comes after this
	// Signer, for the same storage.
	Kept *Kept

	mu       sync.Mutex
	running  chan struct{}
	failures int       // in a row
	retry    time.Time // nothing is read before
	last     error
}

// Kept holds keys. The zero value has none.
type Kept struct{ at atomic.Pointer[ring] }

// Destruct has nothing to stop.
func (*Kept) Destruct() error { return nil }

// ring is what the storage had. It is immutable.
type ring struct {
	keys []*key // by when they begin to sign
	read time.Time
	doc  []byte
	etag string
}

// lead is how long a key is published before it signs: longer than others keep
// what was published, and than other gateways take to read the storage.
func (s *Signer) lead() time.Duration { return min(longest, s.Rotate/4) }

// Sign makes a token of claims, which are a JSON object.
func (s *Signer) Sign(ctx context.Context, claims []byte, now time.Time) (string, error) {
	r, err := s.ring(ctx, now)
	if err != nil {
		return "", err
	}
	return r.current(now).sign(claims)
}

// Published returns the key set with what changes when it does. It makes the
// first key if there is none.
func (s *Signer) Published(ctx context.Context, now time.Time) (doc []byte, etag string, err error) {
	r, err := s.ring(ctx, now)
	if err != nil {
		return nil, "", err
	}
	return r.doc, r.etag, nil
}

// ring waits for the first reading only; later ones run behind the requests.
// When they fail, the keys that are known sign on for as long as no other
// gateway can have begun with one that this one does not know and publish.
func (s *Signer) ring(ctx context.Context, now time.Time) (*ring, error) {
	r := s.Kept.at.Load()
	if r != nil && now.Sub(r.read) < fresh {
		return r, nil
	}
	done := s.start(now) //nolint:contextcheck // others wait for the same keys
	if r != nil && now.Sub(r.read) < s.lead() {
		return r, nil
	}
	if done != nil {
		limit := time.NewTimer(patience)
		defer limit.Stop()
		select {
		case <-done:
		case <-limit.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if r = s.Kept.at.Load(); r != nil && now.Sub(r.read) < s.lead() {
		return r, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil {
		return nil, fmt.Errorf("%w: %w", ErrAway, s.last)
	}
	return nil, ErrAway
}

// start begins a reading unless one runs or the last failure is too young. It
// returns the end of the one that runs, or nil.
func (s *Signer) start(now time.Time) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil || now.Before(s.retry) {
		return s.running
	}
	done := make(chan struct{})
	s.running = done
	go func() {
		// Not a request's context: others wait for the same keys.
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		r, err := s.read(ctx, now)

		s.mu.Lock()
		defer s.mu.Unlock()
		s.running, s.last = nil, err
		if err != nil {
			s.retry = now.Add(min(firstRetry<<min(s.failures, 5), lastRetry))
			s.failures++
		} else {
			s.failures, s.retry = 0, time.Time{}
		}
		if r != nil {
			s.Kept.at.Store(r)
		}
		close(done)
	}()
	return done
}

// Err says why the newest reading failed.
func (s *Signer) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// read reads the keys, and adds the next one when it is time. Keys that cannot
// be followed by a new one, because the storage takes nothing, are still keys:
// then there is a result beside the error.
func (s *Signer) read(ctx context.Context, now time.Time) (*ring, error) {
	keys, err := load(ctx, s.Store)
	if err != nil {
		return nil, err
	}
	if s.due(keys, now) {
		more, err := s.add(ctx, now)
		if err != nil {
			if len(keys) == 0 {
				return nil, err
			}
			return newRing(keys, now), err
		}
		keys = more
	}
	return newRing(keys, now), nil
}

// due reports whether it is time to publish the next key: one that is published
// and does not sign yet is the next.
func (s *Signer) due(keys []*key, now time.Time) bool {
	if len(keys) == 0 {
		return true
	}
	last := keys[len(keys)-1]
	return !last.from.After(now) && (last.alg != s.Alg || !now.Before(last.from.Add(s.Rotate-s.lead())))
}

// add makes a key under a lock that all gateways share through the storage.
func (s *Signer) add(ctx context.Context, now time.Time) (_ []*key, err error) {
	if err := s.Store.Lock(ctx, path); err != nil {
		return nil, fmt.Errorf("locking %q: %w", path, err)
	}
	defer func() { _ = s.Store.Unlock(context.WithoutCancel(ctx), path) }() // a lock that is left goes stale
	keys, err := load(ctx, s.Store)
	if err != nil || !s.due(keys, now) {
		return keys, err // another gateway was first
	}
	from := now
	if len(keys) > 0 {
		from = now.Add(s.lead())
	}
	k, err := newKey(s.Alg, from)
	if err != nil {
		return nil, err
	}
	keys = append(published(keys, now), k)
	data, err := encode(keys)
	if err != nil {
		return nil, err
	}
	if err := s.Store.Store(ctx, path, data); err != nil {
		return nil, fmt.Errorf("storing %q: %w", path, err)
	}
	return keys, nil
}

func load(ctx context.Context, store Store) ([]*key, error) {
	data, err := store.Load(ctx, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("loading %q: %w", path, err)
	}
	keys, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("%q in the storage: %w; delete it to have new keys made", path, err)
	}
	return keys, nil
}

// published leaves out keys whose last token has ended.
func published(keys []*key, now time.Time) []*key {
	for i := range keys {
		if i == len(keys)-1 || now.Before(keys[i+1].from.Add(keep)) {
			return keys[i:]
		}
	}
	return nil
}

func newRing(keys []*key, now time.Time) *ring {
	r := &ring{keys: keys, read: now}
	var set struct {
		Keys []map[string]string `json:"keys"`
	}
	for _, k := range published(keys, now) {
		set.Keys = append(set.Keys, k.jwk)
	}
	r.doc, _ = json.Marshal(set) // texts only
	sum := sha256.Sum256(r.doc)
	r.etag = `"` + hex.EncodeToString(sum[:8]) + `"`
	return r
}

// current is the key that signs now: the last that has begun. The clock of who
// made the first key may be ahead of ours.
func (r *ring) current(now time.Time) *key {
	k := r.keys[0]
	for _, next := range r.keys[1:] {
		if next.from.After(now) {
			break
		}
		k = next
	}
	return k
}

var b64 = base64.RawURLEncoding.EncodeToString
