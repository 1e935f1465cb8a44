package quota

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/quota/internal/bucket"
)

// describe prepares what does not change of the response fields of the IETF
// draft "RateLimit header fields for HTTP" (draft-ietf-httpapi-ratelimit-headers).
// A full bucket and the time it takes to fill are the quota and its window.
func (p *plan) describe(name string, r Rate) {
	window := time.Duration(int64(r.Window) / int64(r.Events) * int64(p.limit.Burst()))
	p.member = quoted(name)
	p.policy = p.member + ";q=" + strconv.Itoa(p.limit.Burst()) + ";w=" + strconv.FormatInt(max(seconds(window), 1), 10)
}

// quoted writes a structured-field string (RFC 9651, section 3.3.3).
func quoted(s string) string {
	b := []byte{'"'}
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= ' ' && c <= '~':
			b = append(b, c)
		default:
			b = append(b, '?')
		}
	}
	return string(append(b, '"'))
}

// announce tells the client what it has left. Several quotas, and the upstream,
// add members to the same lists.
func (p *plan) announce(h http.Header, o bucket.Outcome) {
	buf := make([]byte, 0, 64)
	buf = append(buf, p.member...)
	buf = append(buf, ";r="...)
	buf = strconv.AppendInt(buf, int64(o.Remaining), 10)
	buf = append(buf, ";t="...)
	buf = strconv.AppendInt(buf, seconds(o.Reset), 10)
	fields := []string{p.policy, string(buf)}
	h["Ratelimit-Policy"] = joined(h["Ratelimit-Policy"], fields[:1:1])
	h["Ratelimit"] = joined(h["Ratelimit"], fields[1:])
}

// joined saves an allocation where there is nothing to join.
func joined(before, field []string) []string {
	if before == nil {
		return field
	}
	return append(before, field...)
}

var (
	keysRemembered = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gatehouse_quota_keys",
		Help: "Callers that quotas remember.",
	}, func() float64 {
		n := 0
		tables.Range(func(_, v any) bool {
			n += v.(sharedTable).Len()
			return true
		})
		return float64(n)
	})
	waiting = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gatehouse_quota_waiting",
		Help: "Requests that wait for their turn in leaky quotas.",
	}, func() float64 { return float64(places.Len()) })
)

// Describe tells consumers what they may have. A limit for unusual callers is
// not told, since who knows it stays just below.
func (h *Handler) Describe(d *gate.Description) {
	d.MayRefuse(h.Mode, gate.Quota)
	if h.Mode == gate.Off {
		return
	}
	per := h.Per
	if strings.Contains(per, "{") {
		per = "caller"
	}
	if h.Rate != nil {
		d.Limits = append(d.Limits, gate.Limit{Rate: h.Rate.words(), Per: per})
		return
	}
	for _, p := range h.app.Plans {
		note := ""
		if h.app.plans[p.Name] == h.app.fallback {
			note = "for callers without a plan"
		}
		d.Limits = append(d.Limits, gate.Limit{Plan: p.Name, Rate: p.words(), Per: per, Note: note})
		for _, w := range p.When {
			d.Limits = append(d.Limits, gate.Limit{Plan: p.Name, Rate: w.words(), Per: per, Note: w.note()})
		}
	}
}

// words says a rate as people do: 600 per minute, up to 100 at once.
func (r Rate) words() string {
	window, plain := map[time.Duration]string{time.Second: "second", time.Minute: "minute", time.Hour: "hour", 24 * time.Hour: "day"}[time.Duration(r.Window)]
	if !plain {
		window = time.Duration(r.Window).String()
	}
	text := strconv.Itoa(r.Events) + " per " + window
	switch {
	case r.Leaky > 0:
		text += ", " + strconv.Itoa(r.Leaky) + " may wait"
	case r.Burst > 0 && r.Burst != r.Events:
		text += ", up to " + strconv.Itoa(r.Burst) + " at once"
	}
	return text
}

// note says when a rate holds.
func (w When) note() string {
	var parts []string
	if len(w.Country) > 0 {
		parts = append(parts, "from "+strings.Join(w.Country, ", "))
	}
	if w.Hours != "" {
		zone := w.TimeZone
		if zone == "" {
			zone = "UTC"
		}
		parts = append(parts, w.Hours+" "+zone)
	}
	return strings.Join(parts, ", ")
}
