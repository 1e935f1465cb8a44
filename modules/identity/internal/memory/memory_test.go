package memory

import (
	"strconv"
	"strings"
	"testing"
)

func TestMemory(t *testing.T) {
	m := New[int](64)
	m.Put("a", 1)
	if v, ok := m.Get("a"); !ok || v != 1 {
		t.Errorf("%d %v", v, ok)
	}
	if _, ok := m.Get("b"); ok {
		t.Error("b was never put")
	}
	for i := range 10_000 {
		m.Put(strconv.Itoa(i), i)
		if v, ok := m.Get("a"); !ok || v != 1 {
			t.Fatalf("what is asked for all the time is forgotten after %d others", i)
		}
	}
	if n := m.Len(); n > 2*64 {
		t.Errorf("%d are remembered, want at most %d", n, 2*64)
	}
	if _, ok := m.Get("5"); ok {
		t.Error("what nobody asked for is still remembered")
	}
}

func TestGetDoesNotAllocate(t *testing.T) {
	m, token := New[int](64), strings.Repeat("t", 700)
	m.Put(token, 1)
	if n := testing.AllocsPerRun(100, func() { m.Get(token) }); n > 0 {
		t.Errorf("Get allocates %v times, want 0", n)
	}
}

// BenchmarkRemembered is a token of usual length that was seen before.
func BenchmarkRemembered(b *testing.B) {
	m, token := New[int](1<<16), strings.Repeat("t", 700)
	m.Put(token, 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := m.Get(token); !ok {
			b.Fatal("forgotten")
		}
	}
}
