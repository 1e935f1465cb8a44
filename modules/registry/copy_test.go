package registry

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// TestCopy starts from a copy while the storage is away, and follows the storage
// again when it is back.
func TestCopy(t *testing.T) {
	disk, folder := files(t), t.TempDir()
	to := &certmagic.FileStorage{Path: folder}
	now := time.Now()
	a := open(t, disk)
	a.copier.dirty, a.copier.all = map[string]bool{}, true
	keep := func() {
		t.Helper()
		if err := a.copyTo(t.Context(), to, now); err != nil {
			t.Fatal(err)
		}
	}
	a.ask("PUT", "colours/red", `{"depth":1}`)
	keep()
	a.ask("PUT", "colours/red", `{"depth":2}`)
	a.ask("PUT", "colours/blue", `{"depth":3}`)
	a.sow(t, "abc", now.Add(time.Hour))
	gone := a.sow(t, "def", now.Add(time.Hour))
	keep()
	a.ask("DELETE", "colours/blue", "")
	a.ask("DELETE", "grains/"+gone, "")
	keep()

	disk.take(true)
	a.poll(t.Context())
	stamp, _ := to.Load(t.Context(), copyKey)
	now = now.Add(time.Hour)
	keep()
	if again, _ := to.Load(t.Context(), copyKey); string(again) != string(stamp) {
		t.Error("the copy is said to be newer than what the storage could be seen to have")
	}
	from := func(maxAge time.Duration) (*store, error) {
		return openStore(t.Context(), disk, zap.NewNop(), folder, maxAge)
	}
	b, err := from(24 * time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if got := look(b); len(got) != 1 || got["red"].Depth != 2 || b.grains().Len() != 1 || !b.stale {
		t.Errorf("from the copy: %v and %d grains", got, b.grains().Len())
	}
	if w := b.ask("PUT", "colours/red", `{"depth":9}`); w.Code != 503 || !strings.Contains(w.Body.String(), "cannot be used at the moment") || !strings.Contains(w.Body.String(), "disk is gone") {
		t.Errorf("a change while the storage is away: %d %s", w.Code, w.Body)
	}
	disk.take(false)
	a.ask("PUT", "colours/green", `{"depth":4}`)
	b.poll(t.Context())
	if got := look(b); len(got) != 2 || b.stale {
		t.Errorf("when it is back: %v", got)
	}
	if w := b.ask("PUT", "colours/red", `{"depth":9}`); w.Code != 200 {
		t.Errorf("a change when it is back: %d %s", w.Code, w.Body)
	}

	disk.take(true)
	if _, err := from(time.Nanosecond); err == nil || !strings.Contains(err.Error(), "old, and may be 1ns") || !errors.Is(err, errGone) {
		t.Errorf("a copy that is too old: %v", err)
	}
	if _, err := openStore(t.Context(), disk, zap.NewNop(), t.TempDir(), time.Hour); err == nil || !errors.Is(err, errGone) || !strings.Contains(err.Error(), "when the copy was made") {
		t.Errorf("no copy: %v", err)
	}
	if err := to.Store(t.Context(), objectKey("colours", "red"), []byte("{")); err != nil {
		t.Fatal(err)
	}
	if _, err := from(time.Hour); err == nil || !strings.Contains(err.Error(), "reading colours/red") {
		t.Errorf("a broken copy: %v", err)
	}
}

// TestNotMounted: a folder that is empty since its disk is away takes nothing
// back that was revoked, neither later nor, with a copy, at start.
func TestNotMounted(t *testing.T) {
	disk, folder := files(t), t.TempDir()
	a := open(t, disk)
	a.copier.dirty, a.copier.all = map[string]bool{}, true
	a.ask("PUT", "colours/red", `{"depth":1}`)
	if err := a.copyTo(t.Context(), &certmagic.FileStorage{Path: folder}, time.Now()); err != nil {
		t.Fatal(err)
	}
	path := disk.Storage.(*certmagic.FileStorage).Path
	if err := os.Rename(path, path+"-away"); err != nil {
		t.Fatal(err)
	}
	a.poll(t.Context())
	if got := look(a); len(got) != 1 {
		t.Errorf("the last good copy has %v", got)
	}
	if w := a.ask("PUT", "colours/red", `{"depth":2}`); w.Code != 503 || !strings.Contains(w.Body.String(), "the journal of live objects is gone") {
		t.Errorf("a change: %d %s", w.Code, w.Body)
	}
	b, err := openStore(t.Context(), disk, zap.NewNop(), folder, time.Hour)
	if err != nil || len(look(b)) != 1 {
		t.Fatalf("from the copy: %v", err)
	}
	if w := b.ask("DELETE", "colours/red", ""); w.Code != 503 {
		t.Errorf("a change: %d %s", w.Code, w.Body)
	}
	if err := errors.Join(os.RemoveAll(path), os.Rename(path+"-away", path)); err != nil {
		t.Fatal(err)
	}
	if w := b.ask("DELETE", "colours/red", ""); w.Code != 204 {
		t.Errorf("when it is back: %d %s", w.Code, w.Body)
	}
}
