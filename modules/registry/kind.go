package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/gatehouse-caddy/gatehouse/modules/gate/strictjson"
)

// Kind is a sort of live object. T is one object as its owner reads it, and S
// what the owner looks things up in: the whole of them.
type Kind[T, S any] struct {
	// Name stands in the path of the admin API, e.g. keys.
	Name string

	// App is the app that shows what the configuration defines of this kind;
	// it implements Definer. Empty where the configuration defines none.
	App string

	// Read makes an object of its JSON, or says what is wrong with it.
	Read func(id string, value json.RawMessage) (T, error)

	// Admit may refuse a change that Read would accept, for what only the
	// running configuration can tell, or what else there is: the registry is
	// locked meanwhile, as for Doubt. The error is a 400 unless it is a
	// caddy.APIError. May be nil.
	Admit func(id string, object T) error

	// Born tells an object which revision created it: of two that claim the same,
	// the older one has it. May be nil.
	Born func(object T, revision uint64)

	// Doubt names what speaks against a change that somebody asks for. It is
	// refused, unless the request says `force`, and then answered with warnings.
	// was is the zero T for an object that is new. The registry is locked
	// meanwhile: has and snapshots are there to be asked. May be nil.
	Doubt func(has Has, id string, was, is T) []string

	// Warn names what a change brings that is easily overlooked. It is made, and
	// answered with warnings. May be nil.
	Warn func(id string, is T) []string

	// State is how an object stands at now, in a word, and until when if that
	// ends by itself. It is shown with the object. May be nil.
	State func(id string, value json.RawMessage, now time.Time) (word string, until time.Time)

	// Used says what of a configuration uses the kind, for whoever changes an
	// object that nothing uses. May be empty.
	Used string

	// Index makes the snapshot.
	Index func(map[string]T) S
}

// Has reports whether there is an object, be it live or of the configuration.
type Has func(kind, id string) bool

// Definer is an app whose configuration defines objects of a kind. They are
// shown beside the live ones and cannot be changed.
type Definer interface {
	Defined(kind string) map[string]any
}

// kind is a Kind without its type parameters.
type kind interface {
	name() string
	app() string
	read(id string, value json.RawMessage) (any, error)
	admit(id string, object any) error
	born(object any, revision uint64)
	doubt(has Has, id string, was, is any) []string
	warn(id string, is any) []string
	state(id string, value json.RawMessage, now time.Time) (string, time.Time)
	used() string
	index(objects map[string]*object) any
}

var kinds []kind

// NewKind declares a kind; call it once, for a variable of the package.
func NewKind[T, S any](k Kind[T, S]) *Kind[T, S] {
	declare(&k)
	return &k
}

func (k *Kind[T, S]) name() string { return k.Name }
func (k *Kind[T, S]) app() string  { return k.App }

func (k *Kind[T, S]) read(id string, value json.RawMessage) (any, error) { return k.Read(id, value) }

func (k *Kind[T, S]) admit(id string, object any) error {
	if k.Admit == nil {
		return nil
	}
	return k.Admit(id, object.(T))
}

func (k *Kind[T, S]) born(object any, revision uint64) {
	if k.Born != nil {
		k.Born(object.(T), revision)
	}
}

func (k *Kind[T, S]) used() string { return k.Used }

func (k *Kind[T, S]) doubt(has Has, id string, was, is any) []string {
	if k.Doubt == nil {
		return nil
	}
	old, _ := was.(T)
	return k.Doubt(has, id, old, is.(T))
}

func (k *Kind[T, S]) warn(id string, is any) []string {
	object, ready := is.(T)
	if k.Warn == nil || !ready {
		return nil
	}
	return k.Warn(id, object)
}

func (k *Kind[T, S]) state(id string, value json.RawMessage, now time.Time) (string, time.Time) {
	if k.State == nil {
		return "", time.Time{}
	}
	return k.State(id, value, now)
}

func (k *Kind[T, S]) index(objects map[string]*object) any {
	typed := make(map[string]T, len(objects))
	for id, o := range objects {
		if o.ready != nil {
			typed[id] = o.ready.(T)
		}
	}
	return k.Index(typed)
}

// Live is the view of a kind that requests look at.
type Live[S any] struct{ current *atomic.Pointer[any] }

// Load returns the snapshot as it is now; that of a view that was not opened is
// the zero S.
func (l Live[S]) Load() (s S) {
	if l.current == nil {
		return s
	}
	return (*l.current.Load()).(S)
}

// Open gives a module of the configuration being loaded its view. The view
// stays good for as long as that configuration runs.
func (k *Kind[T, S]) Open(ctx caddy.Context) (Live[S], error) {
	app, err := ctx.App("gatehouse_registry")
	if err != nil {
		return Live[S]{}, err
	}
	app.(*App).used.Store(k.Name, true)
	return Live[S]{&app.(*App).store.tables[k.Name].snapshot}, nil
}

// Running is the view of the configuration that runs, which may have none.
func (k *Kind[T, S]) Running() Live[S] {
	a, err := running()
	if err != nil {
		return Live[S]{}
	}
	return Live[S]{&a.store.tables[k.Name].snapshot}
}

// Writer changes objects of a kind on behalf of the gateway itself.
type Writer struct {
	store *store
	kind  string
}

// Writer gives a module what it changes objects with. It stays good for as long
// as the process runs.
func (k *Kind[T, S]) Writer(ctx caddy.Context) (Writer, error) {
	app, err := ctx.App("gatehouse_registry")
	if err != nil {
		return Writer{}, err
	}
	return Writer{app.(*App).store, k.Name}, nil
}

// Change applies an edit to an object as a change over the admin API does: on
// its newest state, stored before it is seen, with an audit record. The edit
// gets nil when there is no such object; its error ends the matter. Change waits
// for the storage, so it is nothing for the path of a request.
func (w Writer) Change(ctx context.Context, id, by string, edit func(old json.RawMessage) (json.RawMessage, error)) error {
	_, err := w.store.change(ctx, w.kind, id, by, func(old *object) (json.RawMessage, error) {
		if old == nil {
			return edit(nil)
		}
		return edit(old.Value)
	})
	return err
}

// Strict reads an object's JSON into a struct: no member twice, none that the
// struct lacks, nothing behind it.
func Strict(value json.RawMessage, into any) error {
	decoded, err := strictjson.Decode(value, strictjson.Limits{})
	if err != nil {
		return err
	}
	if err := spelt(decoded, reflect.TypeOf(into)); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(value))
	dec.DisallowUnknownFields()
	if err = dec.Decode(into); err == nil {
		return nil
	}
	if wrong, ok := errors.AsType[*time.ParseError](err); ok {
		return fmt.Errorf("%q is no time such as 2027-01-01T00:00:00Z", strings.Trim(wrong.Value, `"`))
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if wrong.Field == "" {
			return errors.New("an object is expected")
		}
		return fmt.Errorf("member %q cannot be a %s", wrong.Field, wrong.Value)
	}
	return err
}

// spelt holds every member to the letter: Go's reader takes Expires for expires,
// and of two spellings of one member the last.
func spelt(v any, t reflect.Type) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return nil
	}
	object, is := v.(map[string]any)
	switch {
	case t.Kind() == reflect.Slice:
		all, _ := v.([]any)
		for _, item := range all {
			if err := spelt(item, t.Elem()); err != nil {
				return err
			}
		}
	case !is || t.Kind() != reflect.Struct:
	default:
		names, types := members(t)
		for _, name := range slices.Sorted(maps.Keys(object)) {
			at := slices.Index(names, name)
			if at < 0 {
				return fmt.Errorf("unrecognized member %q; expected %s", name, strings.Join(names, ", "))
			}
			if err := spelt(object[name], types[at]); err != nil {
				return err
			}
		}
	}
	return nil
}

// members are those that a struct's JSON may have, in its order.
func members(of reflect.Type) (names []string, types []reflect.Type) {
	for f := range of.Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			names, types = append(names, name), append(types, f.Type)
		}
	}
	return names, types
}
