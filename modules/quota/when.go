package quota

import (
	"errors"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // time zones where the machine has none, as in a bare container

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// When is another rate of a plan for requests from certain countries, at
// certain hours, or both. It counts in the same counter as the plan.
type When struct {
	// The countries, by ISO 3166-1 alpha-2 code, as reputation finds them. A
	// request whose country is not known is from none of them. Default: all.
	Country []string `json:"country,omitempty"`

	// The time of the day, as `22:00-06:00`: from the first minute on, and
	// before the second. Default: all day.
	Hours string `json:"hours,omitempty"`

	// The time zone of hours, by its name in the IANA database.
	// Default: UTC.
	TimeZone string `json:"time_zone,omitempty"`

	Rate
}

// condition is a When made ready.
type condition struct {
	countries map[string]bool // nil: all
	from, to  int             // minutes of the day; alike: all
	zone      *time.Location
	plan      *plan
}

// at is the plan for a request: what the first condition that holds says, or
// else the plan itself.
func (p *plan) at(ex *gate.Exchange, now time.Time) *plan {
	for i := range p.when {
		if c := &p.when[i]; c.holds(ex, now) {
			return c.plan
		}
	}
	return p
}

func (c *condition) holds(ex *gate.Exchange, now time.Time) bool {
	if c.countries != nil && !c.countries[ex.Origin.Country] {
		return false
	}
	if c.from == c.to {
		return true
	}
	hour, minute, _ := now.In(c.zone).Clock()
	at := hour*60 + minute
	if c.from < c.to {
		return c.from <= at && at < c.to
	}
	return c.from <= at || at < c.to // over midnight
}

// ready checks a When and turns it into a condition.
func (w When) ready(plan string) (c condition, err error) {
	if len(w.Country) == 0 && w.Hours == "" {
		return c, errors.New("when needs country or hours")
	}
	var words []string
	if len(w.Country) > 0 {
		c.countries = make(map[string]bool, len(w.Country))
		for _, code := range w.Country {
			if !isCountry(code) {
				return c, fmt.Errorf("%q is not a country's code such as DE", code)
			}
			c.countries[code] = true
		}
		words = append(words, w.Country...)
	}
	if w.Hours != "" {
		if c.from, c.to, err = hours(w.Hours); err != nil {
			return c, err
		}
		words = append(words, w.Hours)
	}
	switch {
	case w.TimeZone == "":
		c.zone = time.UTC
	case w.Hours == "":
		return c, errors.New("time_zone needs hours")
	default:
		if c.zone, err = time.LoadLocation(w.TimeZone); err != nil || w.TimeZone == "Local" {
			return c, fmt.Errorf("%q is not a time zone such as Europe/Berlin", w.TimeZone)
		}
	}
	if c.plan, err = w.Rate.ready(plan); err != nil {
		return c, err
	}
	c.plan.named(plan + ", " + strings.Join(words, " "))
	return c, nil
}

func isCountry(code string) bool {
	return len(code) == 2 && code[0] >= 'A' && code[0] <= 'Z' && code[1] >= 'A' && code[1] <= 'Z'
}

// hours reads 22:00-06:00 into minutes of the day.
func hours(word string) (from, to int, err error) {
	first, second, ok := strings.Cut(word, "-")
	a, errA := time.Parse("15:04", first)
	b, errB := time.Parse("15:04", second)
	if !ok || errA != nil || errB != nil || a.Equal(b) {
		return 0, 0, fmt.Errorf("hours %q are not a time of the day; write for example 22:00-06:00", word)
	}
	return a.Hour()*60 + a.Minute(), b.Hour()*60 + b.Minute(), nil
}

// unmarshal reads the rest of the line. Syntax:
//
//	when [country <code...>] [hours <from>-<to> [<time zone>]] rate <rate> [burst <n>] [leaky <queue>]
func (w *When) unmarshal(d *caddyfile.Dispenser) error {
	more := d.NextArg()
	for more {
		switch word := d.Val(); word {
		case "country":
			for more = d.NextArg(); more && d.Val() != "hours" && d.Val() != "rate"; more = d.NextArg() {
				code := strings.ToUpper(d.Val())
				if !isCountry(code) {
					return d.Errf("%q is not a country's code such as DE", d.Val())
				}
				w.Country = append(w.Country, code)
			}
		case "hours":
			if !d.NextArg() {
				return d.ArgErr()
			}
			w.Hours = d.Val()
			if _, _, err := hours(w.Hours); err != nil {
				return d.Err(err.Error())
			}
			if more = d.NextArg(); more && d.Val() != "country" && d.Val() != "rate" {
				w.TimeZone = d.Val()
				if _, err := time.LoadLocation(w.TimeZone); err != nil || w.TimeZone == "Local" {
					return d.Errf("%q is not a time zone such as Europe/Berlin", w.TimeZone)
				}
				more = d.NextArg()
			}
		case "rate":
			if len(w.Country) == 0 && w.Hours == "" {
				return d.Err("when needs country or hours before rate")
			}
			if !d.NextArg() {
				return d.ArgErr()
			}
			return w.Rate.unmarshal(d)
		default:
			return parse.Unknown(d, "word", word, "country", "hours", "rate")
		}
	}
	return d.Err("when needs a rate, for example: when country KP rate 10/m")
}
