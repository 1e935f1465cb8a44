package headroom

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestGrowth(t *testing.T) {
	for _, c := range []struct {
		live, size int64
		want       int
	}{
		{16 << 20, 32 << 20, 200},
		{32 << 20, 32 << 20, 100},
		{1 << 30, 32 << 20, 100}, // as Go does it
		{1 << 20, 32 << 20, 3200},
		{0, 32 << 20, 10_000}, // before the first collection
	} {
		if got := growth(c.live, c.size, 100); got != c.want {
			t.Errorf("%d live, %d more: %d, want %d", c.live, c.size, got, c.want)
		}
	}
}

func percent() int {
	p := debug.SetGCPercent(100)
	debug.SetGCPercent(p)
	return p
}

var kept []byte

// TestWant: what is wanted follows the heap, and leaves everything as it was.
func TestWant(t *testing.T) {
	t.Setenv("GOGC", "")
	before := percent()
	kept = make([]byte, 8<<20)
	runtime.GC()
	first, second := int64(64<<20), int64(640<<20)
	Want(&first)
	small := percent()
	if small <= before {
		t.Fatalf("%d percent of a small heap, %d before", small, before)
	}
	Want(&second)
	if p := percent(); p <= small {
		t.Errorf("the second asks for more and gets %d", p)
	}
	Want(&first)
	if p := percent(); p < small/2 || p > small*2 {
		t.Errorf("back at the first, %d percent, %d before", p, small)
	}
	kept = make([]byte, 64<<20) // more than the headroom is live
	if !soon(func() bool { return percent() == before }) {
		t.Errorf("a large heap has %d percent", percent())
	}
	kept = nil
	if !soon(func() bool { return percent() > before }) {
		t.Errorf("a heap that is small again has %d percent", percent())
	}
	Want(nil)
	if p := percent(); p != before {
		t.Errorf("%d percent is left, %d before", p, before)
	}
	if !soon(func() bool { mu.Lock(); defer mu.Unlock(); return !awake }) {
		t.Error("the sentinel is still awake")
	}
}

func TestTheEnvironmentDecides(t *testing.T) {
	t.Setenv("GOGC", "100")
	before := percent()
	much := int64(1 << 30)
	Want(&much)
	if p := percent(); p != before {
		t.Errorf("%d percent, %d before", p, before)
	}
}

// soon collects until something is so.
func soon(is func() bool) bool {
	for range 500 {
		if is() {
			return true
		}
		runtime.GC()
		time.Sleep(2 * time.Millisecond)
	}
	return false
}
