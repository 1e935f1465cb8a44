package habit

import (
	"math/rand/v2"
	"testing"
	"time"
)

var settings = Settings{Above: 10, Learn: time.Hour}

// send notes events at a rate for a while and counts those that are unusual.
func send(h *Habits, key uint64, now *time.Time, perMinute float64, length time.Duration) (events, unusual int) {
	gap := time.Duration(float64(time.Minute) / perMinute)
	for end := now.Add(length); now.Before(end); *now = now.Add(gap) {
		events++
		if h.Note(key, settings, *now) {
			unusual++
		}
	}
	return events, unusual
}

func TestHabit(t *testing.T) {
	h, now := New(1000), time.Unix(1_800_000_000, 0)

	if _, n := send(h, 1, &now, 6, 30*time.Minute); n > 0 {
		t.Errorf("%d events of a newcomer are unusual", n)
	}
	if _, n := send(h, 1, &now, 600, 10*time.Minute); n > 0 {
		t.Errorf("%d events are unusual before there is a habit", n)
	}

	now = now.Add(time.Hour)
	if _, n := send(h, 2, &now, 6, 3*time.Hour); n > 0 {
		t.Errorf("%d events of a habit are unusual", n)
	}
	if _, n := send(h, 2, &now, 30, 5*time.Minute); n > 0 {
		t.Errorf("five times the habit is unusual %d times", n)
	}
	if events, n := send(h, 2, &now, 600, 5*time.Minute); n < events*9/10 {
		t.Errorf("a hundred times the habit is unusual %d times of %d", n, events)
	}
	// Nor does it become the habit soon.
	if events, n := send(h, 2, &now, 600, time.Hour); n < events*9/10 {
		t.Errorf("after an hour it is unusual %d times of %d", n, events)
	}
	// A while after it is over, all is well again.
	_, _ = send(h, 2, &now, 6, 10*time.Minute)
	if _, n := send(h, 2, &now, 6, 10*time.Minute); n > 0 {
		t.Errorf("%d events are unusual after it is over", n)
	}
}

// Few events are never unusual, whatever the habit.
func TestFew(t *testing.T) {
	h, now := New(1000), time.Unix(1_800_000_000, 0)
	_, _ = send(h, 1, &now, 0.02, 10*time.Hour)
	if _, n := send(h, 1, &now, 15, 5*time.Minute); n > 0 {
		t.Errorf("%d of a few events are unusual", n)
	}
}

// Whatever comes, at whatever times, also backwards: rates stay numbers.
func TestRandomTimes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var c caller
	now := int64(1_800_000_000_000_000_000)
	for range 100_000 {
		now += rng.Int64N(int64(2*time.Minute)) - int64(time.Minute)/2
		c.note(settings, now)
		if !(c.now >= 0 && c.now < 1e6 && c.usual >= 0 && c.usual < 1e6) {
			t.Fatalf("%+v", c)
		}
	}
}

func BenchmarkNote(b *testing.B) {
	h, now := New(1000), time.Unix(1_800_000_000, 0)
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Second)
		h.Note(7, settings, now)
	}
}
