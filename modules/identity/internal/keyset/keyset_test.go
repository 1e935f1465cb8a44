package keyset

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
)

func newSet(t *testing.T) *jwt.Set {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return jwt.NewSet("k", &key.PublicKey)
}

// issuer is a fetch whose answer a test sets.
type issuer struct {
	mu    sync.Mutex
	set   *jwt.Set
	takes time.Duration
	calls int
}

func (i *issuer) fetch(ctx context.Context) (*jwt.Set, error) {
	i.mu.Lock()
	i.calls++
	set, takes := i.set, i.takes
	i.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if set == nil {
		return nil, errors.New("down")
	}
	return set, nil
}

func TestManyRequestsOneFetch(t *testing.T) {
	set := newSet(t)
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{set: set, takes: time.Second}
		s := New(i.fetch)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if got, err := s.Keys(t.Context()); got != set || err != nil {
					t.Errorf("%v %v", got, err)
				}
			})
		}
		wg.Wait()
		if i.calls != 1 {
			t.Errorf("%d fetches, want 1", i.calls)
		}
	})
}

func TestIssuerThatIsDownAndRecovers(t *testing.T) {
	set := newSet(t)
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{}
		s := New(i.fetch)
		for range 1000 {
			if _, err := s.Keys(t.Context()); !errors.Is(err, ErrAway) {
				t.Fatalf("keys of an issuer that is down: %v", err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		// 100 seconds with waits of 1, 2, 4, 8, 16, 30, 30 …
		if i.calls < 6 || i.calls > 9 {
			t.Errorf("%d fetches in 100 seconds", i.calls)
		}
		i.set = set
		time.Sleep(lastRetry)
		if got, err := s.Keys(t.Context()); got != set || err != nil {
			t.Errorf("it recovered, and still %v", err)
		}
	})
}

func TestSlowIssuerDoesNotStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{takes: time.Hour}
		s := New(i.fetch)
		began := time.Now()
		if _, err := s.Keys(t.Context()); !errors.Is(err, ErrAway) || time.Since(began) > patience {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		time.Sleep(Deadline) // the fetch ends by itself
	})
}

// TestPanic: a key set that the reader panics at is one that cannot be read.
func TestPanic(t *testing.T) {
	set := newSet(t)
	synctest.Test(t, func(t *testing.T) {
		bad := true
		s := New(func(context.Context) (*jwt.Set, error) {
			if bad {
				panic("bad public key length")
			}
			return set, nil
		})
		if _, err := s.Keys(t.Context()); !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), "bad public key length") {
			t.Error(err)
		}
		bad = false
		time.Sleep(lastRetry)
		if got, err := s.Keys(t.Context()); got != set || err != nil {
			t.Error(got, err)
		}
	})
}

func TestOldKeysServeForADay(t *testing.T) {
	first, second := newSet(t), newSet(t)
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{set: first}
		s := New(i.fetch)
		keys := func() *jwt.Set {
			got, _ := s.Keys(t.Context())
			synctest.Wait()
			return got
		}
		if keys() != first {
			t.Fatal("no keys")
		}
		i.set = second
		time.Sleep(fresh + time.Second)
		if keys() != first {
			t.Error("a request waited for a refresh")
		}
		if keys() != second {
			t.Error("the refresh behind the request is not there")
		}
		i.set = nil
		time.Sleep(stale - time.Hour)
		if keys() != second {
			t.Error("the last good keys are gone before a day")
		}
		time.Sleep(2 * time.Hour)
		if _, err := s.Keys(t.Context()); !errors.Is(err, ErrAway) {
			t.Errorf("keys are used for ever: %v", err)
		}
	})
}

// TestRememberedTokensKeepKeysFresh: where every token is remembered, only
// Current is called, and it must notice what the issuer changed all the same.
func TestRememberedTokensKeepKeysFresh(t *testing.T) {
	first, second := newSet(t), newSet(t)
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{set: first}
		s := New(i.fetch)
		current := func() *jwt.Set {
			got := s.Current(time.Now())
			synctest.Wait()
			return got
		}
		if current() != nil {
			t.Fatal("keys before any fetch")
		}
		if _, err := s.Keys(t.Context()); err != nil {
			t.Fatal(err)
		}
		if current() != first || i.calls != 1 {
			t.Fatalf("%d fetches", i.calls)
		}
		i.set = second
		time.Sleep(fresh + time.Second)
		current()
		if current() != second || i.calls != 2 {
			t.Errorf("the issuer took its keys back, and they are still used; %d fetches", i.calls)
		}
		i.set = nil
		time.Sleep(stale)
		if current() != nil {
			t.Error("keys are used for ever")
		}
	})
}

// TestSameKeysAreTheSameSet: a refresh that finds nothing new must not forget
// every token that was verified.
func TestSameKeysAreTheSameSet(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		s := New(func(context.Context) (*jwt.Set, error) {
			calls++
			return jwt.NewSet("k", &key.PublicKey), nil
		})
		first, _ := s.Keys(t.Context())
		time.Sleep(fresh + time.Second)
		s.Current(time.Now())
		synctest.Wait()
		if s.Current(time.Now()) != first || calls != 2 {
			t.Errorf("another set after %d fetches of the same keys", calls)
		}
	})
}

func TestUnknownKeysAskOnceInThirtySeconds(t *testing.T) {
	first, second := newSet(t), newSet(t)
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{set: first}
		s := New(i.fetch)
		if _, err := s.Keys(t.Context()); err != nil {
			t.Fatal(err)
		}
		i.set = second
		if got := s.Missing(t.Context(), first); got != second {
			t.Error("the first token of a new key is refused")
		}
		for range 1000 {
			if got := s.Missing(t.Context(), second); got != second {
				t.Fatal("the keys changed")
			}
		}
		if i.calls != 2 {
			t.Errorf("%d fetches, want 2", i.calls)
		}
		time.Sleep(missEvery)
		s.Missing(t.Context(), second)
		if i.calls != 3 {
			t.Errorf("%d fetches after 30 seconds, want 3", i.calls)
		}
	})
}
