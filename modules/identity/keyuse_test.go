package identity

import (
	"maps"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// TestKeyUses: uses are counted to the minute, stored, and found again by
// another gateway that shares the storage.
func TestKeyUses(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	if _, err := caddy.InstanceID(); err != nil {
		t.Fatal(err)
	}
	storage := &certmagic.FileStorage{Path: t.TempDir()}
	fresh := func() *useTable {
		return &useTable{byID: map[string]*keyUse{}, stored: map[string]time.Time{}, written: map[string]map[string]int64{}}
	}
	one, two := fresh(), fresh()
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	u := one.of("ci", true)
	one.of("idle", true)
	u.touch(at)
	u.touch(at.Add(59 * time.Second))
	if got := u.at.Load(); got != at.Unix() {
		t.Errorf("within a minute it was written again: %d", got-at.Unix())
	}
	u.touch(at.Add(time.Minute))
	if err := one.exchange(t.Context(), storage, "s"); err != nil || len(one.written["s"]) != 1 {
		t.Fatalf("%v %v", one.written, err)
	}
	two.of("ci", true)
	if err := two.exchange(t.Context(), storage, "s"); err != nil {
		t.Fatal(err)
	}
	if got := two.snapshot(); !maps.Equal(got, map[string]int64{"ci": at.Add(time.Minute).Unix()}) {
		t.Errorf("another gateway knows %v", got)
	}
	// What is used after that is there once the configuration has ended.
	u.touch(at.Add(time.Hour))
	one.last(storage, "s", zap.NewNop())
	three := fresh()
	three.of("ci", true)
	if err := three.exchange(t.Context(), storage, "s"); err != nil || three.snapshot()["ci"] != at.Add(time.Hour).Unix() {
		t.Errorf("the next process knows %v, %v", three.snapshot(), err)
	}
	if !one.due("s") || one.due("s") {
		t.Error("the storage is to be written to once a minute")
	}
	one.retain(map[string]*keyEntry{"idle": {}})
	if len(one.byID) != 1 {
		t.Error("a key that is no more is remembered")
	}
	if n := testing.AllocsPerRun(100, func() { u.touch(at.Add(2 * time.Hour)) }); n > 0 {
		t.Errorf("touch allocates %v times", n)
	}
}
