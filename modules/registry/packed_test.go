package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// A packed kind of the tests' own: grains, whose id is 32 digits they are given.
type grain struct {
	Digits  string    `json:"digits"`
	Expires time.Time `json:"expires"`
}

// heap is a set that keeps what it is given.
type heap struct {
	mu    sync.Mutex
	parts [PackedParts][]grain
}

func (h *heap) Replace(part int, objects []grain) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.parts[part] = objects
}

func (h *heap) Len() (n int) {
	for at := range h.parts {
		n += h.PartLen(at)
	}
	return n
}

func (h *heap) PartLen(part int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.parts[part])
}

func (h *heap) Over(now time.Time, limit int) (parts []int) {
	for at, objects := range h.parts {
		for _, g := range objects {
			if !now.Before(g.Expires) && len(parts) < limit {
				parts = append(parts, at)
				break
			}
		}
	}
	return parts
}

var grains = NewPacked(Packed[grain, *heap]{
	Name: "grains",
	Read: func(value json.RawMessage) (g grain, err error) {
		if err = Strict(value, &g); err == nil && len(g.Digits) != 32 {
			err = errors.New("32 digits are required")
		}
		return g, err
	},
	ID:      func(g grain) string { return g.Digits },
	Expires: func(g grain) time.Time { return g.Expires },
	New:     func() *heap { return new(heap) },
})

func (s *store) grains() *heap { return s.tables["grains"].parts.set.(*heap) }

// sow puts a grain; its digits begin with begin.
func (s *store) sow(t *testing.T, begin string, expires time.Time) (id string) {
	t.Helper()
	id = begin + strings.Repeat("0", 32-len(begin))
	w := s.ask("POST", "grains", fmt.Sprintf(`{"digits":%q,"expires":%q}`, id, expires.Format(time.RFC3339Nano)))
	if w.Code >= 300 || w.Header().Get("Location") != prefix+"grains/"+id {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return id
}

func TestPacked(t *testing.T) {
	disk := files(t)
	a, b := open(t, disk), open(t, disk)
	later := time.Now().Add(time.Hour)
	for _, begin := range []string{"abc1", "abc2", "fff1", "0001"} {
		a.sow(t, begin, later)
	}
	if a.grains().Len() != 4 || b.grains().Len() != 0 {
		t.Errorf("a has %d, b %d", a.grains().Len(), b.grains().Len())
	}
	b.poll(t.Context())
	if b.grains().Len() != 4 || b.grains().PartLen(0xabc) != 2 {
		t.Errorf("b has %d", b.grains().Len())
	}
	id := "abc1" + strings.Repeat("0", 28)
	for _, step := range []struct {
		name, method, path, body string
		header                   []string
		status                   int
		says                     string
	}{
		{"it is shown", "GET", "grains/" + id, "", nil, 200, `"version":1`},
		{"in order, a page at a time", "GET", "grains?limit=2", "", nil, 200, `"total":4,"next":"abc1`},
		{"the next page", "GET", "grains?limit=2&after=" + id, "", nil, 200, `"abc2`},
		{"behind nothing", "GET", "grains?after=xyz", "", nil, 400, "no id of this kind"},
		{"it keeps its id", "PUT", "grains/" + id, `{"digits":"` + strings.Repeat("1", 32) + `","expires":"2030-01-01T00:00:00Z"}`, nil, 400, "POST it to /gatehouse/grains"},
		{"no other has it", "PUT", "grains/other", `{"digits":"` + strings.Repeat("1", 32) + `","expires":"2030-01-01T00:00:00Z"}`, nil, 400, "the id of this object is 1111"},
		{"it is changed by who has seen it", "PATCH", "grains/" + id, `{"expires":"2030-01-01T00:00:00Z"}`, []string{"If-Match", `"9"`}, 412, "has changed"},
		{"or by who need not", "PATCH", "grains/" + id, `{"expires":"2035-01-01T00:00:00Z"}`, nil, 200, `"version":5`},
		{"what is wrong is named", "POST", "grains", `{"digit":1}`, nil, 400, "unrecognized member"},
		{"not by another method", "PUT", "grains", `{}`, nil, 405, "GET, POST"},
		{"it is taken away", "DELETE", "grains/" + id, "", nil, 204, ""},
		{"once", "DELETE", "grains/" + id, "", nil, 404, "there is no"},
		{"it is gone", "GET", "grains/" + id, "", nil, 404, "there is no"},
	} {
		w := b.ask(step.method, step.path, step.body, step.header...)
		if w.Code != step.status || !strings.Contains(w.Body.String(), step.says) {
			t.Errorf("%s: %d %s, want %d with %q", step.name, w.Code, w.Body, step.status, step.says)
		}
	}
	a.poll(t.Context())
	if a.grains().Len() != 3 || open(t, disk).grains().Len() != 3 {
		t.Errorf("a has %d", a.grains().Len())
	}
	// Away: what was known stays, changes are refused and say why.
	disk.take(true)
	a.poll(t.Context())
	if w := a.ask("DELETE", "grains/abc2"+strings.Repeat("0", 28), ""); w.Code != 503 || !strings.Contains(w.Body.String(), "disk is gone") || a.grains().Len() != 3 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := a.ask("GET", "grains", ""); w.Code != 503 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// counting counts what is read.
type counting struct {
	certmagic.Storage
	loads atomic.Int64
}

func (s *counting) Load(ctx context.Context, key string) ([]byte, error) {
	if strings.Contains(key, "/grains/") {
		s.loads.Add(1)
	}
	return s.Storage.Load(ctx, key)
}

// TestPackedReread: looking at everything reads the parts that were written
// since, and those only.
func TestPackedReread(t *testing.T) {
	disk := &counting{Storage: files(t).Storage}
	a, later := open(t, disk), time.Now().Add(time.Hour)
	a.sow(t, "111", later)
	a.sow(t, "222", later)
	old := time.Now().Add(-time.Minute)
	touch(t, disk.Storage, partKey("grains", 0x111), old)
	touch(t, disk.Storage, partKey("grains", 0x222), old)
	b := open(t, disk)
	before := disk.loads.Load()
	b.complete = time.Time{} // look at everything
	b.poll(t.Context())
	if n := disk.loads.Load() - before; n != 0 {
		t.Errorf("%d parts were read again that nobody wrote", n)
	}
	// A writer that dies before the journal.
	if err := disk.Store(t.Context(), partKey("grains", 0x222), []byte(`{"objects":[null,{"id":"zzz"}]}`)); err != nil {
		t.Fatal(err)
	}
	if err := disk.Delete(t.Context(), partKey("grains", 0x111)); err != nil {
		t.Fatal(err)
	}
	b.complete = time.Time{}
	b.poll(t.Context())
	if n := disk.loads.Load() - before; n != 1 || b.grains().Len() != 0 {
		t.Errorf("%d parts were read, %d grains are left", n, b.grains().Len())
	}
}

// TestSweep: what has expired leaves the storage and the memory of all nodes.
func TestSweep(t *testing.T) {
	disk := files(t)
	a, b := open(t, disk), open(t, disk)
	soon := time.Now().Add(time.Minute)
	a.sow(t, "111", soon)
	a.sow(t, "1112", soon.Add(time.Hour))
	a.sow(t, "222", soon)
	b.poll(t.Context())
	for _, s := range []*store{a, b} {
		s.sweep(t.Context(), soon)
		if s.grains().Len() != 1 {
			t.Errorf("%d are left", s.grains().Len())
		}
	}
	if _, err := disk.Load(t.Context(), partKey("grains", 0x222)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a part of nothing is stored: %v", err)
	}
	if n := len(a.journal.Changes); n != 3 {
		t.Errorf("the trail has %d changes; nobody made one when they expired", n)
	}
}

// touch makes a part look as if it was written at a time.
func touch(t *testing.T, disk certmagic.Storage, key string, at time.Time) {
	t.Helper()
	if err := os.Chtimes(disk.(*certmagic.FileStorage).Filename(key), at, at); err != nil {
		t.Fatal(err)
	}
}

// TestStopWhileLocked: apps come and go at once while another node holds the
// storage's lock, which a sweep and a change wait for.
func TestStopWhileLocked(t *testing.T) {
	files := files(t)
	synctest.Test(t, func(t *testing.T) {
		disk := &locked{Storage: files}
		s := open(t, disk)
		s.sow(t, "111", time.Now().Add(time.Second))
		disk.taken.Store(true)
		old, young := &App{store: s, logger: zap.NewNop(), Poll: caddy.Duration(time.Hour)}, &App{store: s, logger: zap.NewNop(), Poll: caddy.Duration(time.Hour)}
		if err := old.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // the sweep begins
		synctest.Wait()
		if disk.waiting.Load() != 1 {
			t.Fatal("the sweep does not wait for the lock")
		}
		began := time.Now()
		patient, cancel := context.WithTimeout(t.Context(), changeTimeout)
		defer cancel()
		changed := make(chan error)
		go func() {
			_, err := s.change(patient, "colours", "red", "me", func(*object) (json.RawMessage, error) { return json.RawMessage(`{"depth":1}`), nil })
			changed <- err
		}()
		if err := errors.Join(young.Start(), old.Stop(), young.Stop()); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("a reload and a stop took %v", took)
		}
		if err := <-changed; !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > changeTimeout {
			t.Errorf("after %v the change has %v", time.Since(began), err)
		}
		time.Sleep(time.Minute) // the file storage's own goroutines end
	})
}

// TestChangesWaitTogether: who waits behind another change waits no longer than
// it would for the storage, and the sweep gives up as well.
func TestChangesWaitTogether(t *testing.T) {
	files := files(t)
	synctest.Test(t, func(t *testing.T) {
		disk := &locked{Storage: files}
		s := open(t, disk)
		s.sow(t, "111", time.Now().Add(time.Second))
		disk.taken.Store(true)
		time.Sleep(10 * time.Second)
		swept := make(chan struct{})
		go func() {
			s.sweep(t.Context(), time.Now())
			close(swept)
		}()
		synctest.Wait()
		began := time.Now()
		if w := s.ask("PUT", "colours/red", `{"depth":1}`); w.Code != 503 || time.Since(began) > changeTimeout {
			t.Errorf("after %v: %d %s", time.Since(began), w.Code, w.Body)
		}
		<-swept
		if took := time.Since(began); took > changeTimeout {
			t.Errorf("the sweep took %v", took)
		}
		time.Sleep(time.Minute)
	})
}

// locked is a storage whose lock another node may hold.
type locked struct {
	certmagic.Storage
	taken   atomic.Bool
	waiting atomic.Int64
}

func (l *locked) Lock(ctx context.Context, name string) error {
	if !l.taken.Load() {
		return l.Storage.Lock(ctx, name)
	}
	l.waiting.Add(1)
	defer l.waiting.Add(-1)
	<-ctx.Done()
	return ctx.Err()
}
