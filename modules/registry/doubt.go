package registry

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// forceHint ends the answer to a change that is in doubt: its kind's owner thinks
// that it is a mistake, which would look like a change that works. It is made when
// the request says that it is meant.
const forceHint = "; if that is meant, say so with ?force=true"

// forced reports whether a change is to be made that looks like a mistake.
func forced(r *http.Request) (bool, error) {
	if !r.URL.Query().Has("force") {
		return false, nil
	}
	force, err := strconv.ParseBool(r.URL.Query().Get("force"))
	if err != nil {
		return false, badRequest("force is neither true nor false")
	}
	return force, nil
}

// doubts is what the owner of a kind has against a change. What is not accepted
// anyway raises none. The lock must be held.
func (s *store) doubts(k kind, id string, old *object, value json.RawMessage) []string {
	ready, err := k.read(id, value)
	if err != nil || k.admit(id, ready) != nil {
		return nil
	}
	var was any
	if old != nil {
		was = old.ready
	}
	return k.doubt(s.has, id, was, ready)
}

// has is what a kind may ask for others. The lock must be held.
func (s *store) has(name, id string) bool {
	t := s.tables[name]
	if t == nil {
		return false
	}
	_, configured := defined(t.kind)[id]
	return configured || t.objects[id] != nil
}
