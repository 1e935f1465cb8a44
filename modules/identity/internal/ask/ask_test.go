package ask

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
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

// slow has it take a while from now on.
func (e *endpoint) slow(takes time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.takes, e.asked = takes, 0
}

var somebody = netip.MustParsePrefix("192.0.2.1/32")

// from is one of many customers.
func from(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 32)
}

func (e *endpoint) ask(ctx context.Context, name string) (string, error) {
	return e.askBy(ctx, somebody, name)
}

func (e *endpoint) askBy(ctx context.Context, by netip.Prefix, name string) (string, error) {
	return e.Do(ctx, by, name, time.Now(), func() (string, bool) { return "", false }, func(ctx context.Context) (string, error) {
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
		if got, err := e.Do(t.Context(), somebody, "bob", time.Now(), func() (string, bool) { return "known", true }, nil); got != "known" || err != nil {
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
// endpoint bears, those beyond wait for a place, and none of that is the endpoint's
// failure.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint()
		e.slow(4 * time.Second)
		began := time.Now()
		if _, err := e.ask(t.Context(), "slow"); !errors.Is(err, ErrBusy) || time.Since(began) != Patience {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if _, err := e.ask(ctx, "slow"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		time.Sleep(time.Minute)

		e.slow(time.Second)
		var wg sync.WaitGroup
		for i := range 2 * maxAsking {
			wg.Go(func() {
				if _, err := e.askBy(t.Context(), from(i/8), strconv.Itoa(i)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()

		e.slow(4 * time.Second)
		var mu sync.Mutex
		full := 0
		for i := range maxWaiting + 10 {
			wg.Go(func() {
				began := time.Now()
				if _, err := e.askBy(t.Context(), from(i%128), strconv.Itoa(i)); !errors.Is(err, ErrBusy) || errors.Is(err, ErrAway) {
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
		if len(e.flights) != 0 || len(e.places.customers) != 0 {
			t.Errorf("%d are left, of %d", len(e.flights), len(e.places.customers))
		}
		e.Asker.mu.Unlock()

		// One that has failed since it answered last is away, and not busy.
		e.slow(time.Hour)
		if _, err := e.ask(t.Context(), "first"); !errors.Is(err, ErrBusy) {
			t.Error(err)
		}
		time.Sleep(Deadline)
		if _, err := e.ask(t.Context(), "second"); !errors.Is(err, ErrAway) || errors.Is(err, ErrBusy) {
			t.Error(err)
		}
		time.Sleep(Deadline)
	})
}

// TestShare: one customer can neither take all places of an endpoint nor have it
// thought of as away, however much it asks.
func TestShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint()
		e.slow(time.Second)
		var wg sync.WaitGroup
		var mu sync.Mutex
		answered, full := 0, 0
		for i := range 2 * maxWaiting {
			wg.Go(func() {
				began := time.Now()
				_, err := e.ask(t.Context(), strconv.Itoa(i))
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					answered++
				case !errors.Is(err, ErrBusy):
					t.Error(err)
				case time.Since(began) == 0:
					full++
				}
			})
		}
		time.Sleep(time.Second / 2)
		e.mu.Lock()
		if e.asked != maxAsking/share {
			t.Errorf("%d are on their way", e.asked)
		}
		e.mu.Unlock()
		began := time.Now()
		if got, err := e.askBy(t.Context(), from(1), "ann"); got != "about ann" || err != nil || time.Since(began) != time.Second {
			t.Errorf("another: %q, %v after %v", got, err, time.Since(began))
		}
		wg.Wait()
		if answered == 0 || full != 2*maxWaiting-maxWaiting/share {
			t.Errorf("%d are answered, %d refused at once", answered, full)
		}
		time.Sleep(Deadline)
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
