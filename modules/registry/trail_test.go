package registry

import (
	"encoding/json"
	"fmt"
	"net/url"
	"testing"
	"time"
)

// TestTrail reads the trail a page at a time, through the journal and blocks,
// and finds every change once.
func TestTrail(t *testing.T) {
	disk := files(t)
	s := open(t, disk)
	const many = maxJournal + 156
	for i := range many {
		id := "red"
		if i%10 == 0 {
			id = "blue"
		}
		if _, err := s.change(t.Context(), "colours", id, fmt.Sprint("by", i%3), func(*object) (json.RawMessage, error) {
			return json.RawMessage(`{"depth":4}`), nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, disk) // what another node finds
	for query, want := range map[string]int{"": many, "id=blue": many/10 + 1, "by=by1": many / 3, "kind=grains": 0, "action=create": 2, "since=1h": many, "action=refused": 0} {
		values, _ := url.ParseQuery(query)
		q, err := askedOf(values, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		n, last := 0, uint64(1<<62)
		for q.limit = 37; ; {
			f, err := s.trail(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range f.Changes {
				if c.Revision >= last {
					t.Fatalf("%q: %d comes behind %d", query, c.Revision, last)
				}
				last = c.Revision
				n++
			}
			if q.before = f.Next; q.before == 0 {
				break
			}
		}
		if n != want {
			t.Errorf("%q finds %d, want %d", query, n, want)
		}
	}
	for _, query := range []string{"limit=0", "limit=1001", "since=noon", "before=x", "before=0", "action=look", "knd=keys", "id=a&id=b"} {
		values, _ := url.ParseQuery(query)
		if _, err := askedOf(values, time.Now()); err == nil {
			t.Errorf("%q is accepted", query)
		}
	}
}

// TestRoles: who may do what, and that refusals are remembered and bounded.
func TestRoles(t *testing.T) {
	s := open(t, files(t))
	roles := map[string]Role{
		"all": nil, "none": {}, "reader": {"read": {"all"}}, "creator": {"create": {"colours"}},
		"replacer": {"replace": {"colours"}}, "changer": {"change": {"colours"}}, "other": {"change": {"grains"}, "read": {"grains"}},
	}
	for _, step := range []struct {
		role, method, body string
		status             int
	}{
		{"none", "GET", "", 403},
		{"none", "PUT", `{"depth":1}`, 403},
		{"other", "GET", "", 403},
		{"other", "PUT", `{"depth":1}`, 403},
		{"reader", "PUT", `{"depth":1}`, 403},
		{"replacer", "PUT", `{"depth":1}`, 403},
		{"creator", "PUT", `{"depth":1}`, 201},
		{"creator", "PUT", `{"depth":2}`, 403},
		{"creator", "PATCH", `{"depth":2}`, 403},
		{"creator", "DELETE", "", 403},
		{"creator", "GET", "", 403},
		{"replacer", "PUT", `{"depth":2}`, 200},
		{"replacer", "PATCH", `{"depth":3}`, 200},
		{"replacer", "DELETE", "", 403},
		{"reader", "GET", "", 200},
		{"reader", "DELETE", "", 403},
		{"changer", "DELETE", "", 204},
		{"changer", "PUT", `{"depth":1}`, 201},
		{"all", "DELETE", "", 204},
	} {
		before := s.refused
		who := caller{name: step.role, role: roles[step.role], store: s}
		if w := s.askAs(who, step.method, "colours/red", step.body); w.Code != step.status {
			t.Errorf("%s %s: %d %s, want %d", step.role, step.method, w.Code, w.Body, step.status)
		}
		if (s.refused != before) != (step.status == 403) {
			t.Errorf("%s %s: %d refusals", step.role, step.method, s.refused-before)
		}
	}
	for range maxRefusals + 10 {
		s.refuse("eve", "delete", "colours", "red", "may not delete")
	}
	f, err := s.trail(t.Context(), question{action: refusedAction, limit: 2})
	if err != nil || len(s.refusals) != maxRefusals || len(f.Changes) != 2 || f.Changes[0].By != "eve" || f.Next == 0 {
		t.Errorf("%d are remembered: %+v %v", len(s.refusals), f, err)
	}
}
