package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/gate/strictjson"
)

func init() { caddy.RegisterModule(Admin{}) }

// Admin is the door to live objects on Caddy's admin endpoint.
//
//	GET    /gatehouse/<kind>[?after=<id>&limit=<n>]
//	POST   /gatehouse/<kind>          for revocations, whose ids follow from them
//	GET    /gatehouse/<kind>/<id>
//	PUT    /gatehouse/<kind>/<id>     the whole object
//	PATCH  /gatehouse/<kind>/<id>     a merge patch (RFC 7396)
//	DELETE /gatehouse/<kind>/<id>
//	GET    /gatehouse/audit           changes, newest first; see askedOf
//
// A change that looks like a mistake is a 409 unless the query says force=true.
// Answers carry an ETag; If-Match and If-None-Match: * (RFC 9110, section 13.1)
// make a change conditional.
type Admin struct{}

// CaddyModule returns the Caddy module information.
func (Admin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.gatehouse_registry",
		New: func() caddy.Module { return new(Admin) },
	}
}

const prefix = "/gatehouse/"

// Routes gives each kind a pattern of its own.
func (Admin) Routes() []caddy.AdminRoute {
	routes := []caddy.AdminRoute{{Pattern: prefix + "audit", Handler: caddy.AdminHandlerFunc(serveAudit)}}
	for _, k := range kinds {
		serve := func(w http.ResponseWriter, r *http.Request) error { return serveKind(w, r, k) }
		routes = append(routes,
			caddy.AdminRoute{Pattern: prefix + k.name(), Handler: caddy.AdminHandlerFunc(serve)},
			caddy.AdminRoute{Pattern: prefix + k.name() + "/", Handler: caddy.AdminHandlerFunc(serve)})
	}
	return routes
}

// running finds the app of the running configuration. The admin endpoint is
// older than the apps, and stays when they change.
func running() (*App, error) {
	app, err := caddy.ActiveContext().AppIfConfigured("gatehouse_registry")
	if err != nil {
		return nil, caddy.APIError{HTTPStatus: http.StatusNotFound, Message: "nothing in the running configuration uses live objects"}
	}
	return app.(*App), nil
}

func serveKind(w http.ResponseWriter, r *http.Request, k kind) error {
	a, err := running()
	if err != nil {
		if refused, ok := errors.AsType[caddy.APIError](err); ok && k.used() != "" {
			refused.Message += "; " + k.name() + " are used by " + k.used()
			return refused
		}
		return err
	}
	who, err := a.caller(r, k.name())
	if err != nil {
		return err
	}
	_, used := a.used.Load(k.name())
	who.idle = !used
	return a.store.route(w, r, k, who)
}

func (s *store) route(w http.ResponseWriter, r *http.Request, k kind, who caller) error {
	if r.Method == http.MethodGet {
		if err := who.may(readVerb, k.name(), ""); err != nil {
			return err
		}
	}
	id := strings.Trim(strings.TrimPrefix(r.URL.Path, prefix+k.name()), "/")
	switch {
	case id == "" && r.Method == http.MethodGet:
		return s.serveList(w, r, k)
	case id == "" && r.Method == http.MethodPost && s.tables[k.name()].parts != nil:
		return s.servePost(w, r, k.(packed), who)
	case id == "" && s.tables[k.name()].parts != nil:
		return notAllowed(w, "GET, POST")
	case id == "":
		return notAllowed(w, "GET")
	case !validID(id):
		return badRequest("%q is no id: at most 128 letters, digits, dots, underscores and hyphens, the first a letter or digit", id)
	case r.Method == http.MethodGet:
		return s.serveOne(w, r, k, id)
	}
	var edit edit
	switch r.Method {
	case http.MethodPut, http.MethodPatch:
		value, err := readValue(r)
		if err != nil {
			return err
		}
		edit = func(old *object) (json.RawMessage, error) {
			if r.Method == http.MethodPut {
				return value, nil
			}
			if old == nil {
				return nil, notFound(k, id)
			}
			return mergePatch(old.Value, value)
		}
	case http.MethodDelete:
		edit = func(old *object) (json.RawMessage, error) {
			if old == nil {
				return nil, notFound(k, id)
			}
			return nil, nil
		}
	default:
		return notAllowed(w, "GET, PUT, PATCH, DELETE")
	}
	return s.serveChange(w, r, k, id, who, edit)
}

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

// changeTimeout bounds how long a change waits for the storage and its lock.
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

const maxPage = 1000

// page is a part of a list.
type page struct {
	Objects []shown `json:"objects"`
	Total   int     `json:"total"`
	Next    string  `json:"next,omitempty"` // what `after` continues with
}

// servePacked lists from the storage what memory does not hold.
func (s *store) servePacked(w http.ResponseWriter, r *http.Request, t *table, after string, limit int) error {
	ctx, cancel := context.WithTimeout(r.Context(), changeTimeout)
	defer cancel()
	objects, more, err := s.page(ctx, t, after, limit)
	if err != nil {
		return away(err)
	}
	page := page{Objects: []shown{}, Total: t.parts.set.Len()}
	now := time.Now()
	for _, o := range objects {
		page.Objects = append(page.Objects, show(t.kind, o, now))
	}
	if more {
		page.Next = objects[len(objects)-1].ID
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(page)
}

// away is the answer while the storage is, unless the error has one of its own.
func away(err error) error {
	if refused, ok := errors.AsType[caddy.APIError](err); ok {
		return refused
	}
	return caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: fmt.Errorf("the storage of live objects cannot be used at the moment: %w", err)}
}

func (s *store) serveList(w http.ResponseWriter, r *http.Request, k kind) error {
	limit, after := maxPage, r.URL.Query().Get("after")
	if word := r.URL.Query().Get("limit"); word != "" {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 || n > maxPage {
			return badRequest("limit %q is not a number from 1 to %d", word, maxPage)
		}
		limit = n
	}
	if t := s.tables[k.name()]; t.parts != nil {
		return s.servePacked(w, r, t, after, limit)
	}
	all := map[string]*object{}
	s.mu.RLock()
	maps.Copy(all, s.tables[k.name()].objects)
	s.mu.RUnlock()
	for id, value := range defined(k) {
		all[id] = &object{ID: id, Source: "config", Value: value}
	}
	ids := slices.Sorted(maps.Keys(all))
	at, found := slices.BinarySearch(ids, after)
	if found {
		at++
	}
	page, now := page{Objects: []shown{}, Total: len(ids)}, time.Now()
	for _, id := range ids[at:min(at+limit, len(ids))] {
		page.Objects = append(page.Objects, show(k, all[id], now))
	}
	if at+limit < len(ids) {
		page.Next = ids[at+limit-1]
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(page)
}

func (s *store) serveOne(w http.ResponseWriter, r *http.Request, k kind, id string) error {
	if t := s.tables[k.name()]; t.parts != nil {
		ctx, cancel := context.WithTimeout(r.Context(), changeTimeout)
		defer cancel()
		_, o, err := s.current(ctx, t, id)
		switch {
		case err != nil:
			return away(err)
		case o == nil:
			return notFound(k, id)
		}
		return answer(w, http.StatusOK, show(k, o, time.Now()))
	}
	if value, ok := defined(k)[id]; ok {
		return answer(w, http.StatusOK, show(k, &object{ID: id, Source: "config", Value: value}, time.Now()))
	}
	s.mu.RLock()
	o := s.tables[k.name()].objects[id]
	s.mu.RUnlock()
	if o == nil {
		return notFound(k, id)
	}
	return answer(w, http.StatusOK, show(k, o, time.Now()))
}

func answer(w http.ResponseWriter, status int, o shown) error {
	w.Header().Set("Content-Type", "application/json")
	if o.Source == "live" {
		w.Header().Set("ETag", etag(o.object))
	}
	w.WriteHeader(status)
	return json.NewEncoder(w).Encode(o)
}

// defined is what the running configuration defines of a kind.
func defined(k kind) map[string]json.RawMessage {
	if k.app() == "" {
		return nil
	}
	app, err := caddy.ActiveContext().AppIfConfigured(k.app())
	definer, ok := app.(Definer)
	if err != nil || !ok {
		return nil
	}
	out := map[string]json.RawMessage{}
	for id, v := range definer.Defined(k.name()) {
		if data, err := json.Marshal(v); err == nil {
			out[id] = data
		}
	}
	return out
}

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

// actor is who makes a change, as well as the admin endpoint knows: the
// certificate of a remote administrator, or else the address.
func actor(r *http.Request) string {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		return r.TLS.PeerCertificates[0].Subject.String()
	}
	if r.RemoteAddr == "" || r.RemoteAddr == "@" {
		return "local"
	}
	return r.RemoteAddr
}

var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

func validID(id string) bool { return idPattern.MatchString(id) }

func badRequest(format string, args ...any) error {
	return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: fmt.Errorf(format, args...)}
}

func notFound(k kind, id string) error {
	return caddy.APIError{HTTPStatus: http.StatusNotFound, Message: fmt.Sprintf("there is no %q among the %s", id, k.name())}
}

func notAllowed(w http.ResponseWriter, methods string) error {
	w.Header().Set("Allow", methods)
	return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Message: "use " + methods}
}

// Interface guards
var (
	_ caddy.AdminRouter = Admin{}
)
