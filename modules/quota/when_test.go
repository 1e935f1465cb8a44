package quota

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/quota/internal/bucket"
	"github.com/gatehouse-caddy/gatehouse/modules/quota/internal/habit"
)

func rate(events int) Rate { return Rate{Events: events, Window: caddy.Duration(time.Minute)} }

func TestWhen(t *testing.T) {
	at := func(clock string) time.Time {
		when, err := time.Parse(time.DateTime, clock)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	for _, c := range []struct {
		name    string
		when    When
		country string
		at      time.Time
		want    bool
	}{
		{"a country that is named", When{Country: []string{"KP", "RU"}}, "RU", at("2026-11-25 12:00:00"), true},
		{"a country that is not", When{Country: []string{"KP", "RU"}}, "DE", at("2026-11-25 12:00:00"), false},
		{"a country that nobody knows", When{Country: []string{"KP", "RU"}}, "", at("2026-11-25 12:00:00"), false},
		{"the first minute", When{Hours: "09:00-17:30"}, "", at("2026-11-25 09:00:00"), true},
		{"before it", When{Hours: "09:00-17:30"}, "", at("2026-11-25 08:59:59"), false},
		{"the last minute", When{Hours: "09:00-17:30"}, "", at("2026-11-25 17:29:59"), true},
		{"after it", When{Hours: "09:00-17:30"}, "", at("2026-11-25 17:30:00"), false},
		{"before midnight", When{Hours: "22:00-06:00"}, "", at("2026-11-25 23:59:59"), true},
		{"after midnight", When{Hours: "22:00-06:00"}, "", at("2026-11-25 00:00:00"), true},
		{"in the morning", When{Hours: "22:00-06:00"}, "", at("2026-11-25 06:00:00"), false},
		{"another zone in winter", When{Hours: "09:00-10:00", TimeZone: "Europe/Berlin"}, "", at("2026-11-25 08:30:00"), true},
		{"another zone in summer", When{Hours: "09:00-10:00", TimeZone: "Europe/Berlin"}, "", at("2026-07-25 08:30:00"), false},
		{"both", When{Country: []string{"DE"}, Hours: "09:00-10:00"}, "DE", at("2026-11-25 09:30:00"), true},
		{"only one of both", When{Country: []string{"DE"}, Hours: "09:00-10:00"}, "FR", at("2026-11-25 09:30:00"), false},
	} {
		c.when.Rate = rate(1)
		cond, err := c.when.ready("free")
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		ex := &gate.Exchange{Origin: gate.Origin{Country: c.country}}
		if got := cond.holds(ex, c.at); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestWhenFirstFits: the first condition that holds counts, or else the plan.
func TestWhenFirstFits(t *testing.T) {
	p, err := rate(60).ready("free")
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []When{{Country: []string{"KP"}, Rate: rate(1)}, {Country: []string{"KP", "RU"}, Rate: rate(10)}} {
		c, err := w.ready("free")
		if err != nil {
			t.Fatal(err)
		}
		p.when = append(p.when, c)
	}
	for country, want := range map[string]string{"KP": "free, KP", "RU": "free, KP RU", "DE": "free", "": "free"} {
		if got := p.at(&gate.Exchange{Origin: gate.Origin{Country: country}}, time.Now()).rule; got != want {
			t.Errorf("from %q it is %q, want %q", country, got, want)
		}
	}
}

func TestBadWhen(t *testing.T) {
	for want, w := range map[string]When{
		"needs country or hours":     {},
		"is not a country's code":    {Country: []string{"Korea"}},
		"are not a time of the day":  {Hours: "9-17"},
		"hours \"09:00-09:00\"":      {Hours: "09:00-09:00"},
		"is not a time zone":         {Hours: "09:00-17:00", TimeZone: "Mars/Olympus"},
		"time_zone needs hours":      {Country: []string{"DE"}, TimeZone: "Europe/Berlin"},
		"events must be at least 1":  {Country: []string{"DE"}, Rate: Rate{}},
		"window must be longer than": {Country: []string{"DE"}, Rate: Rate{Events: 1}},
	} {
		if w.Events == 0 && !strings.Contains(want, "events") && !strings.Contains(want, "window") {
			w.Rate = rate(1)
		}
		if _, err := w.ready("free"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", w, err, want)
		}
	}
}

// TestUnusual: one who sends a hundred times what it did for days is tightened
// where that is enforced, and only noted by default.
func TestUnusual(t *testing.T) {
	for _, mode := range []gate.Mode{gate.Shadow, gate.Enforce} {
		h := &Handler{
			Per: "address", zone: "z", who: attributes["address"],
			app:   &App{table: bucket.NewTable(1000), habits: habit.New(1000)},
			Habit: &Habit{Above: 10, Tighten: 0.1},
		}
		if mode == gate.Enforce {
			h.Habit.Mode = &mode
		}
		if err := h.Habit.ready(); err != nil {
			t.Fatal(err)
		}
		var err error
		if h.rate, err = rate(600).ready("rate"); err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		id := h.caller(&gate.Exchange{}, nil, h.zone)
		for ago := 48 * time.Hour; ago > time.Minute; ago -= time.Minute {
			h.app.habits.Note(id.key(h.app.table), habit.Settings{Above: 10, Learn: time.Duration(h.Habit.Learn)}, now.Add(-ago))
		}
		statuses, unusual := map[int]int{}, 0
		for range 300 {
			r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/", nil)
			w := httptest.NewRecorder()
			r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, nil)
			gate.Of(r).Client = id.network.Addr()
			err := h.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil }))
			status := 200
			if errors.As(err, new(caddyhttp.HandlerError)) {
				status = http.StatusTooManyRequests
			}
			statuses[status]++
			for _, d := range gate.Of(r).Decisions() {
				if d.Reason == gate.QuotaUnusual {
					unusual++
				}
			}
		}
		want429 := 0
		if mode == gate.Enforce {
			want429 = unusual
		}
		// The first 20 are nothing to think about, and 60 of the others fit
		// into a tenth of the limit.
		if unusual < 210 || unusual > 235 || statuses[429] != want429 || statuses[200] != 300-want429 {
			t.Errorf("mode %v: %d unusual, %v", mode, unusual, statuses)
		}
	}
}
