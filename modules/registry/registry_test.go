package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// A kind of the tests' own: colours with a depth from 1 to 9.
type colour struct {
	Depth int    `json:"depth"`
	Note  string `json:"note,omitempty"`
}

var colours = NewKind(Kind[colour, map[string]colour]{
	Name: "colours",
	Read: func(_ string, value json.RawMessage) (c colour, err error) {
		if err = Strict(value, &c); err == nil && (c.Depth < 1 || c.Depth > 9) {
			err = errors.New("depth must be from 1 to 9")
		}
		return c, err
	},
	Admit: func(id string, _ colour) error {
		if id == "octarine" {
			return errors.New("there is no such colour")
		}
		return nil
	},
	Doubt: func(has Has, id string, was, is colour) (doubts []string) {
		if is.Note == "as "+id && was.Note != is.Note {
			doubts = append(doubts, "it is like itself")
		}
		if other, alike := strings.CutPrefix(is.Note, "like "); alike && !has("colours", other) {
			doubts = append(doubts, "there is no "+other)
		}
		return doubts
	},
	State: func(_ string, value json.RawMessage, now time.Time) (string, time.Time) {
		if strings.Contains(string(value), "fading") {
			return "fading", now.Add(time.Hour)
		}
		return "", time.Time{}
	},
	Used:  "painters",
	Index: func(all map[string]colour) map[string]colour { return all },
})

// storage is a real file storage that can be taken away.
type storage struct {
	certmagic.Storage
	mu   sync.Mutex
	gone bool
}

var errGone = errors.New("the disk is gone")

func (s *storage) away() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return errGone
	}
	return nil
}

func (s *storage) take(gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = gone
}

func (s *storage) Load(ctx context.Context, key string) ([]byte, error) {
	if err := s.away(); err != nil {
		return nil, err
	}
	return s.Storage.Load(ctx, key)
}

func (s *storage) Store(ctx context.Context, key string, value []byte) error {
	if err := s.away(); err != nil {
		return err
	}
	return s.Storage.Store(ctx, key, value)
}

func open(t *testing.T, on certmagic.Storage) *store {
	t.Helper()
	s, err := openStore(t.Context(), on, zap.NewNop(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func files(t *testing.T) *storage {
	t.Helper()
	return &storage{Storage: &certmagic.FileStorage{Path: t.TempDir()}}
}

// look is what requests would see.
func look(s *store) map[string]colour {
	return Live[map[string]colour]{&s.tables["colours"].snapshot}.Load()
}

// ask makes a request of the admin endpoint.
func (s *store) ask(method, path, body string, header ...string) *httptest.ResponseRecorder {
	return s.askAs(caller{name: "192.0.2.1:1234", store: s}, method, path, body, header...)
}

// askAs is ask by somebody.
func (s *store) askAs(who caller, method, path, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, prefix+path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	var k kind = colours
	if strings.HasPrefix(path, "grains") {
		k = grains
	}
	if err := s.route(w, r, k, who); err != nil {
		var refused caddy.APIError
		if !errors.As(err, &refused) {
			panic(err)
		}
		w.Code = refused.HTTPStatus
		w.Body = bytes.NewBufferString(refused.Error())
	}
	return w
}

func TestChanges(t *testing.T) {
	s := open(t, files(t))
	for _, step := range []struct {
		name, method, path, body string
		header                   []string
		status                   int
		says                     string
	}{
		{"nothing is there at first", "GET", "colours/red", "", nil, 404, `there is no "red" among the colours`},
		{"an object is made", "PUT", "colours/red", `{"depth":3}`, nil, 201, `"version":1`},
		{"and read", "GET", "colours/red", "", nil, 200, `"value":{"depth":3}`},
		{"not made again when it must be new", "PUT", "colours/red", `{"depth":4}`, []string{"If-None-Match", "*"}, 412, "has changed"},
		{"replaced by who has seen it", "PUT", "colours/red", `{"depth":5,"note":"warm"}`, []string{"If-Match", `"1"`}, 200, `"version":2`},
		{"not by who has not", "PUT", "colours/red", `{"depth":6}`, []string{"If-Match", `"1"`}, 412, "has changed"},
		{"weak tags match nothing", "PUT", "colours/red", `{"depth":6}`, []string{"If-Match", `W/"2"`}, 412, "has changed"},
		{"one of several tags will do", "PUT", "colours/red", `{"depth":6,"note":"warm"}`, []string{"If-Match", `"1", "2"`}, 200, `"version":3`},
		{"patched", "PATCH", "colours/red", `{"depth":7}`, nil, 200, `{"depth":7,"note":"warm"}`},
		{"a null takes a member out", "PATCH", "colours/red", `{"note":null}`, nil, 200, `"value":{"depth":7}`},
		{"what is not there cannot be patched", "PATCH", "colours/blue", `{}`, nil, 404, "there is no"},
		{"nor deleted", "DELETE", "colours/blue", ``, nil, 404, "there is no"},
		{"a wrong value is named", "PUT", "colours/blue", `{"depth":12}`, nil, 400, "depth must be from 1 to 9"},
		{"a misspelt member too", "PUT", "colours/blue", `{"dept":1}`, nil, 400, `unrecognized member "dept"; expected depth, note`},
		{"a wrong type too", "PUT", "colours/blue", `{"depth":"1"}`, nil, 400, `member "depth" cannot be a string`},
		{"a member twice", "PUT", "colours/blue", `{"depth":1,"depth":2}`, nil, 400, "not JSON"},
		{"a list", "PUT", "colours/blue", `[]`, nil, 400, "an object is expected"},
		{"no body", "PUT", "colours/blue", ``, nil, 400, "not JSON"},
		{"a patch that makes no object", "PATCH", "colours/red", `[]`, nil, 400, "an object is expected"},
		{"what the owner does not admit", "PUT", "colours/octarine", `{"depth":1}`, nil, 400, "no such colour"},
		{"an id that leaves the folder", "PUT", "colours/..%2f..%2fx", `{"depth":1}`, nil, 400, "is no id"},
		{"a huge body", "PUT", "colours/blue", strings.Repeat(" ", maxValue+1), nil, 413, "64 KiB"},
		{"an unknown method", "POST", "colours/red", `{}`, nil, 405, "use GET, PUT, PATCH, DELETE"},
		{"a change of all", "DELETE", "colours", ``, nil, 405, "use GET"},
		{"a wrong limit", "GET", "colours?limit=0", ``, nil, 400, "limit"},
		{"deleting what one has not seen", "DELETE", "colours/red", ``, []string{"If-Match", `"1"`}, 412, "has changed"},
		{"deleting", "DELETE", "colours/red", ``, []string{"If-Match", `"5"`}, 204, ""},
		{"it is gone", "GET", "colours/red", ``, nil, 404, "there is no"},
		{"one made again is another", "PUT", "colours/red", `{"depth":3}`, nil, 201, `"version":7`},
	} {
		w := s.ask(step.method, step.path, step.body, step.header...)
		if w.Code != step.status || !strings.Contains(w.Body.String(), step.says) {
			t.Errorf("%s: %d %s, want %d with %q", step.name, w.Code, w.Body, step.status, step.says)
		}
	}
	if got := look(s); len(got) != 1 || got["red"].Depth != 3 {
		t.Errorf("requests see %v", got)
	}
}

// TestDoubts: a change that its owner doubts is made when somebody insists, and
// not otherwise.
func TestDoubts(t *testing.T) {
	s := open(t, files(t))
	for _, step := range []struct {
		name, method, path, body string
		status                   int
		says                     string
	}{
		{"a doubt", "PUT", "colours/red", `{"depth":3,"note":"as red"}`, 409, "it is like itself; if that is meant, say so with ?force=true"},
		{"nothing was done", "GET", "colours/red", "", 404, ""},
		{"not forced", "PUT", "colours/red?force=false", `{"depth":3,"note":"as red"}`, 409, "like itself"},
		{"a word that is neither", "PUT", "colours/red?force=please", `{"depth":3,"note":"as red"}`, 400, "neither true nor false"},
		{"forced", "PUT", "colours/red?force=true", `{"depth":3,"note":"as red"}`, 201, `"warnings":["it is like itself"]`},
		{"the owner sees what there was", "PATCH", "colours/red", `{"depth":4}`, 200, `"depth":4`},
		{"and what else there is", "PUT", "colours/pink", `{"depth":1,"note":"like red"}`, 201, `"version":3`},
		{"or is not", "PUT", "colours/blue", `{"depth":1,"note":"like green"}`, 409, "there is no green"},
		{"what is wrong stays wrong", "PUT", "colours/blue?force=true", `{"depth":0,"note":"like green"}`, 400, "from 1 to 9"},
		{"and what is not admitted", "PUT", "colours/octarine?force=true", `{"depth":1,"note":"like green"}`, 400, "no such colour"},
		{"taking away is never in doubt", "DELETE", "colours/red", "", 204, ""},
		{"how it stands is shown", "PUT", "colours/grey", `{"depth":1,"note":"fading"}`, 201, `"state":"fading","until":"20`},
		{"in lists, too", "GET", "colours", "", 200, `"state":"fading"`},
	} {
		w := s.ask(step.method, step.path, step.body)
		if w.Code != step.status || !strings.Contains(w.Body.String(), step.says) {
			t.Errorf("%s: %d %s, want %d with %q", step.name, w.Code, w.Body, step.status, step.says)
		}
	}
	if data, err := s.storage.Load(t.Context(), objectKey("colours", "grey")); err != nil || strings.Contains(string(data), "state") {
		t.Errorf("what is shown is stored: %s %v", data, err)
	}
	w := s.askAs(caller{name: "ann", store: s, idle: true}, "PUT", "colours/idle", `{"depth":1}`)
	if w.Code != 201 || !strings.Contains(w.Body.String(), "nothing in the running configuration uses colours") || !strings.Contains(w.Body.String(), "used by painters") {
		t.Errorf("a kind that nothing uses: %d %s", w.Code, w.Body)
	}
}

func TestList(t *testing.T) {
	s := open(t, files(t))
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		s.ask("PUT", "colours/"+id, `{"depth":1}`)
	}
	var got []string
	for after, pages := "", 0; pages < 5; pages++ {
		var page struct {
			Objects []object
			Total   int
			Next    string
		}
		if err := json.Unmarshal(s.ask("GET", "colours?limit=2&after="+after, "").Body.Bytes(), &page); err != nil || page.Total != 5 {
			t.Fatal(page, err)
		}
		for _, o := range page.Objects {
			got = append(got, o.ID)
		}
		if after = page.Next; after == "" {
			break
		}
	}
	if !slices.Equal(got, []string{"a", "b", "c", "d", "e"}) {
		t.Errorf("pages held %v", got)
	}
}

// TestNodes runs two stores on one storage.
func TestNodes(t *testing.T) {
	disk := files(t)
	a, b := open(t, disk), open(t, disk)
	a.ask("PUT", "colours/red", `{"depth":1}`)
	if len(look(b)) != 0 {
		t.Fatal("b knew before it looked")
	}
	b.poll(t.Context())
	if look(b)["red"].Depth != 1 {
		t.Error("b did not follow a change")
	}
	// A change is made on the newest state, also when this node has not seen it.
	a.ask("PUT", "colours/red", `{"depth":2}`)
	if w := b.ask("PUT", "colours/red", `{"depth":3}`, "If-Match", `"1"`); w.Code != http.StatusPreconditionFailed {
		t.Errorf("b overwrote what it had not seen: %d %s", w.Code, w.Body)
	}
	if look(b)["red"].Depth != 2 {
		t.Error("b was told that it is behind, and is still")
	}
	// Further behind than the journal reaches.
	for range maxJournal + 5 {
		if _, err := a.change(t.Context(), "colours", "green", "test", func(*object) (json.RawMessage, error) {
			return json.RawMessage(`{"depth":4}`), nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	a.ask("DELETE", "colours/red", "")
	b.poll(t.Context())
	if got := slices.Sorted(maps.Keys(look(b))); !slices.Equal(got, []string{"green"}) {
		t.Errorf("b sees %v", got)
	}
	if n := len(b.journal.Changes); n > maxJournal {
		t.Errorf("the journal has %d lines", n)
	}
	// Both write at once: nothing is lost.
	var both sync.WaitGroup
	for _, s := range []*store{a, b} {
		both.Go(func() {
			for _, id := range []string{"p", "q", "r"} {
				if w := s.ask("PUT", "colours/"+id, `{"depth":5}`); w.Code >= 300 {
					t.Errorf("%d %s", w.Code, w.Body)
				}
			}
		})
	}
	both.Wait()
	a.poll(t.Context())
	b.poll(t.Context())
	if !maps.Equal(look(a), look(b)) || len(look(a)) != 4 {
		t.Errorf("a sees %v, b %v", look(a), look(b))
	}
}

// TestStorageAway holds what is promised of a dead storage.
func TestStorageAway(t *testing.T) {
	disk := files(t)
	s := open(t, disk)
	s.ask("PUT", "colours/red", `{"depth":1}`)
	disk.take(true)
	s.poll(t.Context())
	if look(s)["red"].Depth != 1 {
		t.Error("the last good copy is gone")
	}
	if w := s.ask("PUT", "colours/red", `{"depth":2}`); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "disk is gone") {
		t.Errorf("a change without storage: %d %s", w.Code, w.Body)
	}
	if look(s)["red"].Depth != 1 {
		t.Error("a change was seen that was not stored")
	}
	if _, err := openStore(t.Context(), disk, zap.NewNop(), "", 0); !errors.Is(err, errGone) {
		t.Errorf("a gateway without a copy opened with %v", err)
	}
	disk.take(false)
	if w := s.ask("PUT", "colours/red", `{"depth":2}`); w.Code != http.StatusOK {
		t.Errorf("after it came back: %d %s", w.Code, w.Body)
	}
}

// TestUnreadable holds that one bad object hurts nobody but itself.
func TestUnreadable(t *testing.T) {
	disk := files(t)
	s := open(t, disk)
	s.ask("PUT", "colours/red", `{"depth":1}`)
	newer := `{"version":9,"value":{"depth":2,"shine":true}}`
	if err := disk.Store(t.Context(), objectKey("colours", "blue"), []byte(newer)); err != nil {
		t.Fatal(err)
	}
	again := open(t, disk)
	if got := slices.Sorted(maps.Keys(look(again))); !slices.Equal(got, []string{"red"}) {
		t.Errorf("requests see %v", got)
	}
	if w := again.ask("GET", "colours/blue", ""); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "shine") {
		t.Errorf("it is not shown: %d %s", w.Code, w.Body)
	}
	if w := again.ask("DELETE", "colours/blue", ""); w.Code != http.StatusNoContent {
		t.Errorf("it cannot be deleted: %d %s", w.Code, w.Body)
	}
	if _, err := disk.Load(t.Context(), objectKey("colours", "blue")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still stored: %v", err)
	}
	// Versions go on behind the newest object, also when its journal was lost.
	if w := again.ask("PUT", "colours/green", `{"depth":1}`); !strings.Contains(w.Body.String(), `"version":11`) {
		t.Errorf("version after 9 and a deletion: %s", w.Body)
	}
}

func TestAudit(t *testing.T) {
	s := open(t, files(t))
	s.ask("PUT", "colours/red", `{"depth":1}`)
	s.ask("PUT", "colours/red", `{"depth":2}`)
	s.ask("DELETE", "colours/red", ``)
	var got []string
	for _, c := range s.journal.Changes {
		got = append(got, c.Action+" "+c.Kind+"/"+c.ID+" "+c.By)
	}
	want := []string{"create colours/red 192.0.2.1:1234", "replace colours/red 192.0.2.1:1234", "delete colours/red 192.0.2.1:1234"}
	if !slices.Equal(got, want) {
		t.Errorf("the trail says %q", got)
	}
}

func BenchmarkLoad(b *testing.B) {
	s, err := openStore(b.Context(), &certmagic.FileStorage{Path: b.TempDir()}, zap.NewNop(), "", 0)
	if err != nil {
		b.Fatal(err)
	}
	live := Live[map[string]colour]{&s.tables["colours"].snapshot}
	b.ReportAllocs()
	for b.Loop() {
		_ = live.Load()
	}
}

// TestWriter: what the gateway writes itself is stored, seen and in the trail
// as what operators write, and its edit sees the newest state.
func TestWriter(t *testing.T) {
	on := files(t)
	s := open(t, on)
	w := Writer{s, "colours"}
	s.ask(http.MethodPut, "colours/red", `{"depth":3}`)
	if err := w.Change(t.Context(), "red", "the gateway", func(old json.RawMessage) (json.RawMessage, error) {
		if string(old) != `{"depth":3}` {
			t.Errorf("the edit got %s", old)
		}
		return json.RawMessage(`{"depth":4}`), nil
	}); err != nil {
		t.Fatal(err)
	}
	if got := look(s)["red"].Depth; got != 4 {
		t.Errorf("depth %d is seen", got)
	}
	if got := look(open(t, on))["red"].Depth; got != 4 {
		t.Errorf("depth %d is stored", got)
	}
	if last := s.journal.Changes[len(s.journal.Changes)-1]; last.By != "the gateway" || last.Action != "replace" {
		t.Errorf("the trail says %+v", last)
	}
	refuse := errors.New("no")
	if err := w.Change(t.Context(), "blue", "the gateway", func(old json.RawMessage) (json.RawMessage, error) {
		if old != nil {
			t.Errorf("the edit got %s", old)
		}
		return nil, refuse
	}); !errors.Is(err, refuse) {
		t.Errorf("an edit that ends the matter: %v", err)
	}
	on.take(true)
	if err := w.Change(t.Context(), "red", "the gateway", func(json.RawMessage) (json.RawMessage, error) { return []byte(`{"depth":5}`), nil }); !errors.Is(err, errGone) {
		t.Errorf("with the storage away: %v", err)
	}
}
