package registry

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// PackedParts is how many parts the objects of a packed kind are kept in.
const PackedParts = 1 << 12

// Packed is a kind of which there may be a million, such as revocations. Its
// owner keeps in memory what it needs of them, and nobody else does; in the
// storage they lie together in parts, and a change costs one part. T is one
// object as its owner reads it, S what the owner looks things up in.
//
// The id of such an object follows from what it is, so that one thing has one:
// it is 32 hexadecimal digits, evenly spread. The first three choose the part.
type Packed[T any, S PackedSet[T]] struct {
	// Name stands in the path of the admin API, e.g. revocations.
	Name string

	// Read makes an object of its JSON, or says what is wrong with it.
	Read func(value json.RawMessage) (T, error)

	// ID is the id of an object.
	ID func(object T) string

	// Expires is when an object is dropped.
	Expires func(object T) time.Time

	// Admit may refuse a change that Read would accept. May be nil.
	Admit func(object T) error

	// Doubt names what speaks against a change, as that of a Kind. May be nil.
	Doubt func(has Has, was, is T) []string

	// Join is what a POST makes of the object that is there and the one that was
	// posted. An error is a conflict of the two, and may tell of both. May be
	// nil: the posted one replaces it.
	Join func(old, posted json.RawMessage) (json.RawMessage, error)

	// Used says what of a configuration uses the kind. May be empty.
	Used string

	// New makes the owner's set.
	New func() S
}

// PackedSet is what the owner looks things up in. Requests ask it while Replace
// is called, which is never called twice at once.
type PackedSet[T any] interface {
	// Replace makes a part hold these objects and no others.
	Replace(part int, objects []T)

	// Len counts what all parts hold, and PartLen what one does.
	Len() int
	PartLen(part int) int

	// Over lists at most limit parts with objects that have expired.
	Over(now time.Time, limit int) []int
}

// packed is a Packed without its type parameters.
type packed interface {
	kind
	newSet() packedSet
	idOf(object any) string
	joins() bool
	join(old, posted json.RawMessage) (json.RawMessage, error)
	expires(object any) time.Time
	replace(set packedSet, part int, objects []*object)
}

type packedSet interface {
	Len() int
	PartLen(part int) int
	Over(now time.Time, limit int) []int
}

// NewPacked declares a packed kind; call it once, for a variable of the package.
func NewPacked[T any, S PackedSet[T]](k Packed[T, S]) *Packed[T, S] {
	declare(&k)
	return &k
}

func (k *Packed[T, S]) name() string { return k.Name }
func (*Packed[T, S]) app() string    { return "" }

func (k *Packed[T, S]) read(_ string, value json.RawMessage) (any, error) { return k.Read(value) }

func (k *Packed[T, S]) born(any, uint64) {}
func (k *Packed[T, S]) admit(id string, object any) error {
	if is := k.ID(object.(T)); is != id {
		return fmt.Errorf("the id of this object is %s: it follows from what it is about; POST it to %s%s, and it gets it", is, prefix, k.Name)
	}
	if k.Admit == nil {
		return nil
	}
	return k.Admit(object.(T))
}

// index is not called: a set is no snapshot.
func (*Packed[T, S]) index(map[string]*object) any { return nil }

func (k *Packed[T, S]) used() string { return k.Used }

func (k *Packed[T, S]) warn(string, any) []string { return nil }

func (k *Packed[T, S]) doubt(has Has, _ string, was, is any) []string {
	if k.Doubt == nil {
		return nil
	}
	old, _ := was.(T)
	return k.Doubt(has, old, is.(T))
}

func (*Packed[T, S]) state(string, json.RawMessage, time.Time) (string, time.Time) {
	return "", time.Time{}
}

func (k *Packed[T, S]) newSet() packedSet            { return k.New() }
func (k *Packed[T, S]) idOf(object any) string       { return k.ID(object.(T)) }
func (k *Packed[T, S]) expires(object any) time.Time { return k.Expires(object.(T)) }

func (k *Packed[T, S]) joins() bool { return k.Join != nil }

func (k *Packed[T, S]) join(old, posted json.RawMessage) (json.RawMessage, error) {
	if k.Join == nil {
		return posted, nil
	}
	return k.Join(old, posted)
}

func (k *Packed[T, S]) replace(set packedSet, part int, objects []*object) {
	typed := make([]T, 0, len(objects))
	for _, o := range objects {
		if o.ready != nil {
			typed = append(typed, o.ready.(T))
		}
	}
	set.(S).Replace(part, typed)
}

// Open gives a module of the configuration being loaded the set. It stays good
// for as long as that configuration runs.
func (k *Packed[T, S]) Open(ctx caddy.Context) (set S, err error) {
	app, err := ctx.App("gatehouse_registry")
	if err != nil {
		return set, err
	}
	app.(*App).used.Store(k.Name, true)
	return app.(*App).store.tables[k.Name].parts.set.(S), nil
}

// Running is the set of the configuration that runs, which may have none.
func (k *Packed[T, S]) Running() (set S, ok bool) {
	a, err := running()
	if err != nil {
		return set, false
	}
	return a.store.tables[k.Name].parts.set.(S), true
}

// declare adds a kind to those there are.
func declare(k kind) {
	if slices.ContainsFunc(kinds, func(other kind) bool { return other.name() == k.name() }) {
		panic("registry: kind " + k.name() + " is declared twice")
	}
	kinds = append(kinds, k)
}
