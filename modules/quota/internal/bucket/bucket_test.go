package bucket

import (
	"strconv"
	"testing"
	"time"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestTake(t *testing.T) {
	const s = time.Second
	type event struct {
		at, wait  time.Duration // after t0; zero wait means allowed
		remaining int
	}
	for _, tc := range []struct {
		name   string
		events []event
	}{
		{"the whole burst at once", []event{{0, 0, 2}, {0, 0, 1}, {0, 0, 0}, {0, 20 * s, 0}}},
		{"one event comes back per step", []event{{0, 0, 2}, {0, 0, 1}, {0, 0, 0}, {20 * s, 0, 0}, {20 * s, 20 * s, 0}}},
		{"a refused event costs nothing", []event{{0, 0, 2}, {0, 0, 1}, {0, 0, 0}, {5 * s, 15 * s, 0}, {5 * s, 15 * s, 0}, {20 * s, 0, 0}}},
		{"an idle caller is full again", []event{{0, 0, 2}, {0, 0, 1}, {0, 0, 0}, {60 * s, 0, 2}, {60 * s, 0, 1}, {60 * s, 0, 0}, {60 * s, 20 * s, 0}}},
		{"a clock that goes back locks nobody out", []event{{3600 * s, 0, 2}, {3600 * s, 0, 1}, {0, 20 * s, 0}, {20 * s, 0, 0}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			table, l := NewTable(8), NewLimit(3, time.Minute, 3)
			for i, e := range tc.events {
				o := table.Take(7, l, t0.Add(e.at))
				if o.Allowed != (e.wait == 0) || o.Wait != e.wait || o.Remaining != e.remaining {
					t.Errorf("event %d at %v: %+v, want wait %v, remaining %d", i, e.at, o, e.wait, e.remaining)
				}
			}
		})
	}
}

func TestQueue(t *testing.T) {
	table, l := NewTable(8), NewLimit(1, time.Second, 1)
	for i, want := range []Outcome{
		{Allowed: true, Reset: time.Second},
		{Allowed: true, Wait: time.Second, Reset: 2 * time.Second},
		{Allowed: true, Wait: 2 * time.Second, Reset: 3 * time.Second},
		{Wait: time.Second, Reset: 3 * time.Second},
	} {
		if o := table.Queue(1, l, 2, t0); o != want {
			t.Errorf("request %d: %+v, want %+v", i, o, want)
		}
	}
	if o := table.Queue(1, l, 2, t0.Add(time.Second)); !o.Allowed {
		t.Errorf("who waits as told is let in: %+v", o)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	table, l := NewTable(640), NewLimit(1, time.Hour, 1)
	for i := range 100_000 {
		table.Take(table.Key("l", "", strconv.Itoa(i)), l, t0)
	}
	if n := table.Len(); n > 2*640 {
		t.Errorf("%d callers are remembered, want at most %d", n, 2*640)
	}
}

func TestKeysAreApart(t *testing.T) {
	table := NewTable(8)
	if table.Key("a", "b", "c") == table.Key("ab", "", "c") || table.Key("a", "bc", "") == table.Key("a", "b", "c") {
		t.Error("limit and caller run together")
	}
}

// FuzzTake checks the promise users rely on: whatever the rate and the arrival
// times, no stretch of one window lets a caller have more than burst + events,
// and whoever waits as told is let in.
func FuzzTake(f *testing.F) {
	f.Add(4, int64(8*time.Second), 4, []byte{0, 0, 0, 0, 1, 2, 3})
	f.Add(1<<40, int64(1), 1<<60, []byte{255, 0})
	f.Fuzz(func(t *testing.T, events int, window int64, burst int, gaps []byte) {
		l := NewLimit(events, time.Duration(window), burst)
		table, now := NewTable(2), t0
		var allowed []time.Time
		for _, g := range gaps {
			now = now.Add(time.Duration(g) * 100 * time.Millisecond)
			o := table.Take(1, l, now)
			if o.Allowed {
				allowed = append(allowed, now)
			}
			if o.Wait < 0 || o.Remaining < 0 || o.Reset < 0 || o.Allowed && l.step == 0 {
				t.Fatalf("%+v", o)
			}
			if !o.Allowed && l.step != 0 {
				if again := table.Take(1, l, now.Add(o.Wait)); !again.Allowed {
					t.Fatalf("told to wait %v, then %+v", o.Wait, again)
				}
				now = now.Add(o.Wait)
				allowed = append(allowed, now)
			}
		}
		for i := range allowed {
			n := 0
			for _, a := range allowed[i:] {
				if a.Sub(allowed[i]) < time.Duration(window) {
					n++
				}
			}
			// One more than the two, for a rate that does not divide its window.
			if n > l.burst+int(min(int64(events), window/max(l.step, 1)))+1 {
				t.Fatalf("%d events allowed in one window of %d + %d", n, burst, events)
			}
		}
	})
}

func TestTakeDoesNotAllocate(t *testing.T) {
	table, l := NewTable(8), NewLimit(1<<20, time.Minute, 1<<20)
	table.Take(table.Key("plan", "main", "acme"), l, t0)
	if n := testing.AllocsPerRun(100, func() { table.Take(table.Key("plan", "main", "acme"), l, t0) }); n > 0 {
		t.Errorf("Take allocates %v times on a known caller, want 0", n)
	}
}

func BenchmarkTakeHotKey(b *testing.B) {
	table, l := NewTable(1024), NewLimit(1<<30, time.Minute, 1<<30)
	b.ReportAllocs()
	for b.Loop() {
		table.Take(table.Key("plan", "main", "acme"), l, t0)
	}
}

// BenchmarkTake1M is a million callers in random order: cache misses, which
// any stranger can cause by having many addresses.
func BenchmarkTake1M(b *testing.B) {
	table, l := NewTable(1<<20), NewLimit(1<<30, time.Minute, 1<<30)
	key := uint64(1)
	b.ReportAllocs()
	for b.Loop() {
		key = key*6364136223846793005 + 1442695040888963407
		table.Take(key>>44, l, t0)
	}
}

// Who may spend under two limits must not be forgiven under the one what was
// spent under the other.
func TestAmong(t *testing.T) {
	table, now := NewTable(64), time.Unix(1_800_000_000, 0)
	deep, flat := NewLimit(60, time.Minute, 60), NewLimit(600, time.Minute, 100)
	ahead := max(deep.Ahead(0), flat.Ahead(0))
	deep, flat = deep.Among(ahead), flat.Among(ahead)
	allowed := 0
	for range 200 {
		if table.Take(1, deep, now).Allowed {
			allowed++
		}
		o := table.Take(1, flat, now)
		if !o.Allowed && o.Wait > 0 && !table.Take(1, flat, now.Add(o.Wait)).Allowed {
			t.Fatal("who waits exactly that long is not let in")
		}
		table.Take(1, flat, now)
	}
	if allowed > 60 {
		t.Errorf("%d of 60", allowed)
	}
}
