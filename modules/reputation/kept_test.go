package reputation

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/gatehouse-caddy/gatehouse/modules/reputation/internal/feed"
)

// restarted is a source as a process that starts has it, which looks once.
func restarted(t *testing.T, url string, storage certmagic.Storage) (*source[*feed.Set], *observer.ObservedLogs) {
	t.Helper()
	s, err := open(url, feed.Parse, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zapcore.WarnLevel)
	s.look(t.Context(), storage, zap.New(core))
	if err := s.release(); err != nil {
		t.Fatal(err)
	}
	return s, logs
}

// TestKept: a list outlives its feed and the process.
func TestKept(t *testing.T) {
	var asked atomic.Int64
	var down atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("192.0.2.0/24\n"))
	}))
	defer srv.Close()
	url := srv.URL + "/list?key=secret"
	dir := t.TempDir()
	storage := &certmagic.FileStorage{Path: dir}
	addr := netip.MustParseAddr("192.0.2.1")
	has := func(s *source[*feed.Set]) bool {
		set, ok := s.load()
		return ok && set.Contains(addr)
	}

	s, logs := restarted(t, url, storage)
	if !has(s) || logs.Len() != 0 || asked.Load() != 1 {
		t.Fatalf("the first fetch: %v, asked %d times", logs.All(), asked.Load())
	}
	kept := filepath.Join(dir, filepath.FromSlash(s.keptKey()))
	if data, err := os.ReadFile(kept); err != nil || !strings.HasSuffix(string(data), "Z\n192.0.2.0/24\n") {
		t.Fatalf("%q is kept: %v", data, err)
	}
	if strings.Contains(s.keptKey(), "secret") {
		t.Errorf("the key %s shows the URL's", s.keptKey())
	}

	// A copy that is fresh saves the fetch.
	if s, _ = restarted(t, url, storage); !has(s) || asked.Load() != 1 {
		t.Errorf("after a restart within an hour the feed was asked %d times", asked.Load())
	}

	down.Store(true)
	at := func(when time.Time, list string) {
		t.Helper()
		if err := os.WriteFile(kept, []byte(when.UTC().Format(time.RFC3339)+"\n"+list), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// One that is old is asked for again, and serves while the feed is down.
	old := time.Now().Add(-48 * time.Hour).Truncate(time.Second)
	at(old, "192.0.2.0/24\n")
	if s, _ = restarted(t, url, storage); !has(s) || asked.Load() != 2 || !s.failed || !s.fetched.Equal(old) {
		t.Errorf("an old copy: there %v, of %v, asked %d times, failed %v", has(s), s.fetched, asked.Load(), s.failed)
	}

	// A copy from the future does not put off the fetch.
	at(time.Now().Add(48*time.Hour), "192.0.2.0/24\n")
	if s, _ = restarted(t, url, storage); !has(s) || asked.Load() != 3 {
		t.Errorf("a copy from the future: there %v, asked %d times", has(s), asked.Load())
	}

	for name, content := range map[string]string{"a broken list": time.Now().UTC().Format(time.RFC3339) + "\nhello\n", "no time": "192.0.2.0/24\n", "nothing": ""} {
		if err := os.WriteFile(kept, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		s, logs := restarted(t, url, storage)
		if has(s) || logs.FilterMessage("the kept copy of a reputation source cannot be read").Len() != 1 {
			t.Errorf("%s: %v", name, logs.All())
		}
	}

	// A storage that fails is a warning, once, and the list is there.
	down.Store(false)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, logs = restarted(t, url, storage)
	if !has(s) || logs.Len() != 1 || logs.All()[0].Level != zapcore.WarnLevel || strings.Contains(logs.All()[0].Message+logs.All()[0].ContextMap()["source"].(string), "secret") {
		t.Errorf("a storage that fails: there %v, %v", has(s), logs.All())
	}
}
