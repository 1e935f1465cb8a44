package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/gate/strictjson"
)

// servePost creates an object whose id follows from what it is, or joins it with
// the one there is.
func (s *store) servePost(w http.ResponseWriter, r *http.Request, k packed, who caller) error {
	value, err := readValue(r)
	if err != nil {
		return err
	}
	ready, err := k.read("", value)
	if err != nil {
		return badRequest("%w", err)
	}
	id := k.idOf(ready)
	w.Header().Set("Location", prefix+k.name()+"/"+id)
	return s.serveChange(w, r, k, id, who, func(old *object) (json.RawMessage, error) {
		if old == nil {
			return value, nil
		}
		joined, err := k.join(old.Value, value)
		if err != nil && !who.able(readVerb, k.name()) {
			err = errors.New("there is one already, and neither is the stronger one")
		}
		if err != nil {
			return nil, caddy.APIError{HTTPStatus: http.StatusConflict, Err: fmt.Errorf("%s/%s: %w", k.name(), id, err)}
		}
		return joined, nil
	})
}

// changeTimeout bounds how long a change waits for others, for the storage and
// for its lock.
const changeTimeout = 15 * time.Second

func (s *store) serveChange(w http.ResponseWriter, r *http.Request, k kind, id string, who caller, edit edit) error {
	// Whether it creates or replaces is known under the lock only, which nobody
	// gets who may do neither; and who may not look learns nothing of what is there.
	verb := deleteVerb
	if r.Method != http.MethodDelete {
		if verb = createVerb; r.Method == http.MethodPatch || who.role.may(replaceVerb, k.name()) {
			verb = replaceVerb
		}
	}
	if err := who.may(verb, k.name(), id); err != nil {
		return err
	}
	if _, taken := defined(k)[id]; taken {
		return caddy.APIError{HTTPStatus: http.StatusConflict, Message: fmt.Sprintf("%s/%s is defined in the configuration; change it there", k.name(), id)}
	}
	force, err := forced(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), changeTimeout)
	defer cancel()
	var (
		created bool
		lacks   string
		doubts  []string
		kept    *object
	)
	o, err := s.change(ctx, k.name(), id, who.name, func(old *object) (json.RawMessage, error) {
		if err := precondition(r, old); err != nil {
			return nil, err
		}
		created = old == nil
		// What is joined with the one there is takes nothing from it.
		if exact := map[bool]string{true: createVerb, false: replaceVerb}[created || r.Method == http.MethodPost && joins(k)]; verb != deleteVerb && r.Method != http.MethodPatch && !who.able(exact, k.name()) {
			lacks = exact
			return nil, errLacks
		}
		value, err := edit(old)
		if err != nil || value == nil {
			return value, err
		}
		if old != nil && r.Method == http.MethodPost && bytes.Equal(value, old.Value) {
			kept = old
			return nil, errKept
		}
		if doubts = s.doubts(k, id, old, value); len(doubts) > 0 && !force {
			return nil, caddy.APIError{HTTPStatus: http.StatusConflict, Err: errors.New(strings.Join(doubts, "; ") + forceHint)}
		}
		return value, nil
	})
	if errors.Is(err, errKept) {
		o, err = kept, nil
	}
	if errors.Is(err, errLacks) {
		return who.may(lacks, k.name(), id) // outside the lock, which the record needs
	}
	switch {
	case errors.Is(err, errPrecondition):
		return caddy.APIError{HTTPStatus: http.StatusPreconditionFailed, Err: err}
	case err != nil:
		return away(err)
	}
	if o == nil {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	out := show(k, o, time.Now())
	if !who.able(readVerb, k.name()) { // a change of nothing must not show what is there
		out = shown{object: &object{ID: o.ID, Version: o.Version, Source: o.Source}}
	} else {
		out.Kept = kept != nil
	}
	if out.Warnings = doubts; len(doubts) > 0 {
		s.logger.Load().Named("audit").Warn("change of a live object was in doubt and forced",
			zap.String("kind", k.name()), zap.String("id", id), zap.Uint64("revision", o.Version), zap.String("by", who.name), zap.Strings("doubts", doubts))
	}
	out.Warnings = append(out.Warnings, k.warn(id, o.ready)...)
	if who.idle {
		warning := "nothing in the running configuration uses " + k.name() + ": this is stored, and has no effect here"
		if k.used() != "" {
			warning += "; they are used by " + k.used()
		}
		out.Warnings = append(out.Warnings, warning)
	}
	return answer(w, status, out)
}

func joins(k kind) bool {
	p, is := k.(packed)
	return is && p.joins()
}

// errKept means that the object there is stays as it is.
var errKept = errors.New("nothing changes")

// errLacks means that the caller may not do what the change turned out to be.
var errLacks = errors.New("the role lacks the verb")

// precondition holds a change to the state that it was made for.
func precondition(r *http.Request, old *object) error {
	if match := r.Header.Get("If-Match"); match != "" && (old == nil || match != "*" && !lists(match, etag(old))) {
		return errPrecondition
	}
	if none := r.Header.Get("If-None-Match"); none != "" && old != nil && (none == "*" || lists(none, etag(old))) {
		return errPrecondition
	}
	return nil
}

func lists(tags, tag string) bool {
	for t := range strings.SplitSeq(tags, ",") {
		if strings.TrimSpace(t) == tag {
			return true
		}
	}
	return false
}

func etag(o *object) string { return `"` + strconv.FormatUint(o.Version, 10) + `"` }

// readValue reads a bounded body that is one JSON value.
func readValue(r *http.Request) (json.RawMessage, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxValue+1))
	switch {
	case err != nil:
		return nil, badRequest("reading the body: %w", err)
	case len(body) > maxValue:
		return nil, caddy.APIError{HTTPStatus: http.StatusRequestEntityTooLarge, Message: "an object may have 64 KiB"}
	}
	if _, err := strictjson.Decode(body, strictjson.Limits{}); err != nil {
		return nil, badRequest("the body is not JSON: %w", err)
	}
	return body, nil
}

// mergePatch applies an RFC 7396 patch.
func mergePatch(target, patch json.RawMessage) (json.RawMessage, error) {
	t, err := decode(target)
	if err != nil {
		return nil, err
	}
	p, err := decode(patch)
	if err != nil {
		return nil, err
	}
	return json.Marshal(merge(t, p))
}

// decode keeps numbers as they are written.
func decode(data []byte) (v any, err error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return nil, badRequest("%w", err)
	}
	return v, nil
}

func merge(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	t, ok := target.(map[string]any)
	if !ok {
		t = map[string]any{}
	}
	for name, v := range p {
		if v == nil {
			delete(t, name)
			continue
		}
		t[name] = merge(t[name], v)
	}
	return t
}
