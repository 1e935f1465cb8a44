package reputation

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/reputation/internal/feed"
)

// TestFile changes a list under a running gateway.
func TestFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "list")
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		at = at.Add(time.Second) // two writes may fall into one tick of the file system's clock
		if err := os.Chtimes(name, at, at); err != nil {
			t.Fatal(err)
		}
	}
	write("192.0.2.1\n")
	s, err := open(name, feed.Parse, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.release(); err != nil {
			t.Error(err)
		}
	})
	on := func(addr string) bool {
		set, ok := s.load()
		return ok && set.Contains(netip.MustParseAddr(addr))
	}
	look := func() {
		if next := s.look(t.Context(), nil, zap.NewNop()); next != lookEvery {
			t.Errorf("the next look is in %v", next)
		}
	}
	if !on("192.0.2.1") {
		t.Fatal("the list was not read")
	}
	write("192.0.2.2\n")
	if look(); on("192.0.2.1") || !on("192.0.2.2") {
		t.Error("a change was not followed")
	}
	write("not a list\n")
	if look(); !on("192.0.2.2") || !s.failed {
		t.Error("a broken list took the place of a good one")
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if look(); !on("192.0.2.2") {
		t.Error("the list went with its file")
	}
	write("192.0.2.3\n")
	if look(); !on("192.0.2.3") || s.failed {
		t.Error("it did not recover")
	}
	// A second configuration shares it.
	again, err := open(name, feed.Parse, time.Hour)
	if err != nil || again != s {
		t.Errorf("%p is not %p: %v", again, s, err)
	}
	if err := again.release(); err != nil {
		t.Error(err)
	}
}

func TestAbsentFile(t *testing.T) {
	if _, err := open(filepath.Join(t.TempDir(), "none"), feed.Parse, time.Hour); err == nil {
		t.Error("an absent file is no error")
	}
}
