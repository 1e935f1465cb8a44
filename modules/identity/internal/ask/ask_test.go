package ask

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// endpoint is one that is asked, and remembers what it answered.
type endpoint struct {
	*Asker[string]

	mu    sync.Mutex
	asked int
	fails func(name string) error
	takes time.Duration
}

func newEndpoint() *endpoint { return &endpoint{Asker: New[string]()} }

func (e *endpoint) ask(ctx context.Context, name string) (string, error) {
	return e.Do(ctx, name, time.Now(), func() (string, bool) { return "", false }, func(ctx context.Context) (string, error) {
		e.mu.Lock()
		e.asked++
		fails, takes := e.fails, e.takes
		e.mu.Unlock()
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return "", ctx.Err()
		}
		if fails != nil {
			if err := fails(name); err != nil {
				return "", err
			}
		}
		return "about " + name, nil
	})
}

// TestOnce: one question for all who wait for its answer.
func TestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint()
		e.takes = time.Second
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if got, err := e.ask(t.Context(), "ann"); got != "about ann" || err != nil {
					t.Error(got, err)
				}
			})
		}
		wg.Wait()
		if e.asked != 1 {
			t.Errorf("asked %d times", e.asked)
		}
		if got, err := e.Do(t.Context(), "bob", time.Now(), func() (string, bool) { return "known", true }, nil); got != "known" || err != nil {
			t.Error(got, err)
		}
	})
}

// TestAway: an endpoint that does not answer is asked by one request in a while,
// and by all when it does again.
func TestAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint()
		down := errors.New("down")
		e.fails = func(string) error { return down }
		for i := range 600 {
			if _, err := e.ask(t.Context(), strconv.Itoa(i)); !errors.Is(err, ErrAway) || !errors.Is(err, down) {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if e.asked != 6 { // at 0, 1, 3, 7, 15 and 31 seconds
			t.Errorf("asked %d times in a minute", e.asked)
		}
		e.fails = nil
		time.Sleep(longestStop)
		for i := range 10 {
			if _, err := e.ask(t.Context(), strconv.Itoa(i)); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestOdd: what an endpoint cannot make sense of keeps nobody else from asking,
// however many such questions a stranger thinks of, and is not asked on and on.
func TestOdd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint()
		for _, down := range []bool{false, true} {
			e.asked = 0
			e.fails = func(name string) error {
				if name[0] == 'x' {
					return &Odd{errors.New("answered 500"), down}
				}
				return nil
			}
			for i := range 1000 {
				name := "x" + strconv.Itoa(i%10) + strconv.FormatBool(down)
				_, err := e.ask(t.Context(), name)
				if _, odd := errors.AsType[*Odd](err); !odd || errors.Is(err, ErrAway) != down {
					t.Fatal(err)
				}
				if _, err := e.ask(t.Context(), "ann"); err != nil {
					t.Fatalf("another: %v", err)
				}
				time.Sleep(60 * time.Millisecond)
			}
			if odd := e.asked - 1000; odd < 50 || odd > 70 { // ten questions, six times a minute each
				t.Errorf("odd questions were put %d times in a minute", odd)
			}
		}
	})
}

// TestPanic: a question that panics has an error of its own, and ends nothing else.
func TestPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint()
		e.fails = func(name string) error {
			if name == "x" {
				panic("at the disco")
			}
			return nil
		}
		_, err := e.ask(t.Context(), "x")
		if _, odd := errors.AsType[*Odd](err); !odd || errors.Is(err, ErrAway) || !strings.Contains(err.Error(), "at the disco") {
			t.Error(err)
		}
		if _, err := e.ask(t.Context(), "ann"); err != nil {
			t.Error(err)
		}
	})
}

// TestSlow: nobody waits for long, no more questions are on their way than an
// endpoint bears, and those beyond wait for a place.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint()
		e.takes = time.Hour
		began := time.Now()
		if _, err := e.ask(t.Context(), "slow"); !errors.Is(err, ErrAway) || time.Since(began) != Patience {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := e.ask(ctx, "slow"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		time.Sleep(time.Minute)

		e.mu.Lock()
		e.takes = time.Second
		e.mu.Unlock()
		var wg sync.WaitGroup
		for i := range 2 * maxAsking {
			wg.Go(func() {
				if _, err := e.ask(t.Context(), strconv.Itoa(i)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()

		e.mu.Lock()
		e.takes, e.asked = 2*time.Hour, 0
		e.mu.Unlock()
		var mu sync.Mutex
		full := 0
		for i := range maxWaiting + 10 {
			wg.Go(func() {
				began := time.Now()
				if _, err := e.ask(t.Context(), strconv.Itoa(i)); !errors.Is(err, ErrAway) {
					t.Error(err)
				} else if time.Since(began) == 0 {
					mu.Lock()
					full++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		e.mu.Lock()
		if e.asked != maxAsking || full != 10 {
			t.Errorf("%d were on their way, %d refused at once", e.asked, full)
		}
		e.mu.Unlock()
		time.Sleep(time.Minute)
		e.Asker.mu.Lock()
		defer e.Asker.mu.Unlock()
		if len(e.flights) != 0 {
			t.Errorf("%d are left", len(e.flights))
		}
	})
}

func TestStatus(t *testing.T) {
	for _, c := range []struct {
		status    int
		code      string
		odd, down bool
		text      string
	}{
		{400, "", true, false, "it answered 400"},
		{400, "invalid_request", true, false, "it answered 400 invalid_request"},
		{400, "invalid_client", false, false, "it answered 400 invalid_client"},
		{400, "<script>", true, false, "it answered 400"},
		{413, "", true, false, "it answered 413"},
		{500, "", true, true, "it answered 500"},
		{401, "", false, false, "it answered 401"},
		{302, "", false, false, "it answered 302"},
		{http.StatusTooManyRequests, "", false, false, "it answered 429"},
		{http.StatusBadGateway, "", false, false, "it answered 502"},
	} {
		err := Status("it", c.status, c.code)
		o, odd := errors.AsType[*Odd](err)
		if odd != c.odd || odd && o.Down != c.down || err.Error() != c.text {
			t.Errorf("%d %s: %v", c.status, c.code, err)
		}
	}
}
