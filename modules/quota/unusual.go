package quota

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/quota/internal/habit"
)

// Habit tightens the limit of a caller who sends far more than it usually does.
// Habits are those that this process has seen.
type Habit struct {
	// How many times its habit is too much for a caller. Fewer than 20 requests
	// a minute never are. Required.
	Above float64 `json:"above,omitempty"`

	// The part of its limit that such a caller gets, above 0 and below 1.
	// Default: 0.5.
	Tighten float64 `json:"tighten,omitempty"`

	// How long a caller is watched before it has a habit, and what the habit
	// looks back at; at least 10m. Default: 24h.
	Learn caddy.Duration `json:"learn,omitempty"`

	// Whether the tightened limit is enforced: `shadow`, `enforce` or `off`.
	// Default: `shadow`.
	Mode *gate.Mode `json:"mode,omitempty"`
}

func (h *Habit) ready() error {
	if h.Tighten == 0 {
		h.Tighten = 0.5
	}
	if h.Learn == 0 {
		h.Learn = caddy.Duration(24 * time.Hour)
	}
	if h.Mode == nil {
		h.Mode = new(gate.Mode)
		*h.Mode = gate.Shadow
	}
	switch {
	case !(h.Above > 1 && h.Above <= 1e6):
		return fmt.Errorf("habit above %g is not more than 1 and at most a million", h.Above)
	case !(h.Tighten > 0 && h.Tighten < 1):
		return fmt.Errorf("habit tighten %g is not above 0 and below 1", h.Tighten)
	case h.Learn < caddy.Duration(10*time.Minute):
		return errors.New("habit learn must be at least 10m")
	}
	return nil
}

// unusual takes note of a request that the limit allows, and spends one of the
// tightened limit if the caller sends far more than it usually does.
func (h *Handler) unusual(who caller, p *plan, now time.Time) *gate.Denial {
	s := habit.Settings{Above: h.Habit.Above, Learn: time.Duration(h.Habit.Learn)}
	if !h.app.habits.Note(who.key(h.app.table), s, now) {
		return nil
	}
	limit := p.limit.Part(h.Habit.Tighten)
	if h.app.shared != nil {
		limit = limit.Share(h.app.shared.link.Nodes())
	}
	who.zone += "|habit"
	o := h.app.table.Take(who.key(h.app.table), limit, now)
	if o.Allowed {
		return nil
	}
	return &gate.Denial{
		Reason: gate.QuotaUnusual,
		Header: http.Header{"Retry-After": {strconv.FormatInt(seconds(o.Wait), 10)}},
	}
}

// unmarshal reads the option. Syntax:
//
//	habit <times>x {
//	    tighten <percent>
//	    learn   <duration>
//	    mode    shadow|enforce|off
//	}
func (h *Habit) unmarshal(d *caddyfile.Dispenser) error {
	var word string
	if !d.AllArgs(&word) {
		return d.Err("habit needs to know how many times is too much, for example: habit 10x")
	}
	times, ok := strings.CutSuffix(word, "x")
	n, err := strconv.ParseFloat(times, 64)
	if !ok || err != nil || !(n > 1 && n <= 1e6) {
		return d.Errf("habit %q is not a number of times above 1; write for example 10x", word)
	}
	h.Above = n
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch opt := d.Val(); opt {
		case "tighten":
			if err = parse.Percent(d, &h.Tighten); err == nil && !(h.Tighten > 0 && h.Tighten < 1) {
				err = d.Err("tighten must be more than nothing and less than all")
			}
		case "learn":
			err = parse.Duration(d, &h.Learn)
		case "mode":
			h.Mode = new(gate.Mode)
			err = parse.Into(d, h.Mode)
		default:
			err = parse.Unknown(d, "habit option", opt, "tighten", "learn", "mode")
		}
		if err != nil {
			return err
		}
	}
	return nil
}
