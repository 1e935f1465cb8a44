package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// shown is an object as answers show it, which is more than is stored.
type shown struct {
	*object
	State    string    `json:"state,omitempty"` // how it stands, in a word of its kind's
	Until    time.Time `json:"until,omitzero"`  // until when, if that ends by itself
	Kept     bool      `json:"kept,omitempty"`  // what was posted is covered by this one, which was there
	Warnings []string  `json:"warnings,omitempty"`
}

func show(k kind, o *object, now time.Time) shown {
	out := shown{object: o}
	out.State, out.Until = k.state(o.ID, o.Value, now)
	return out
}

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
