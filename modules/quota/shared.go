package quota

import (
	"errors"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-caddy/gatehouse/modules/cluster"
	"github.com/gatehouse-caddy/gatehouse/modules/quota/internal/bucket"
	"github.com/gatehouse-caddy/gatehouse/modules/quota/internal/lease"
)

// shared is what this node has leased of allowances that several nodes share.
// It is kept over reloads, one for each link.
type shared struct {
	*lease.Book
	link *cluster.Link
	stop chan struct{}
}

// leasing bounds the callers that events are leased for at a time.
const leasing = 1 << 17

var books = caddy.NewUsagePool()

func openShared(link *cluster.Link) (*shared, error) {
	v, _, err := books.LoadOrNew(link, func() (caddy.Destructor, error) {
		s := &shared{link: link, stop: make(chan struct{})}
		s.Book = lease.NewBook(s, leasing)
		go s.sweep()
		return s, nil
	})
	if err != nil {
		return nil, err
	}
	return v.(*shared), nil
}

func (s *shared) sweep() {
	tick := time.NewTicker(lease.Term / 2)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case now := <-tick.C:
			_ = s.Sweep(now) // what cannot be given back, the server counts as spent
		}
	}
}

// Destruct ends the sweeping. Requests may still be on their way.
func (s *shared) Destruct() error {
	close(s.stop)
	return nil
}

// take spends one event of what all nodes together may spend, or, while they
// cannot be asked, of this node's share.
func (a *App) take(who caller, p *plan, queue int, now time.Time) (o bucket.Outcome, rule string) {
	id := who.key(a.table)
	if a.shared != nil {
		o, err := a.shared.Take(id, who.name, lease.Terms{Limit: p.limit, Queue: queue, Most: p.ahead(*a.MaxOvershoot)}, now)
		limit := p.limit.Share(a.shared.link.Nodes())
		limit = limit.Among(limit.Ahead(p.queue)) // which others may wait for
		if err == nil {
			if o.Allowed { // what is spent together is spent of the share too, or each hiccup would give it anew
				a.table.Take(id, limit, now)
			}
			return o, p.rule
		}
		alone.Inc()
		if queue > 0 {
			return a.table.Queue(id, limit, queue, now), p.share
		}
		return a.table.Take(id, limit, now), p.share
	}
	if queue > 0 {
		return a.table.Queue(id, p.limit, queue, now), p.rule
	}
	return a.table.Take(id, p.limit, now), p.rule
}

// ahead is how many events of a caller all nodes together may have leased: a
// leaky quota gives each its turn, and has none.
func (p *plan) ahead(overshoot float64) int {
	if p.queue > 0 {
		return 0
	}
	return int(overshoot * float64(p.limit.Burst()))
}

// grant keeps a bucket as its theoretical arrival time t, as bucket.Table does,
// in microseconds of the server's clock since 2026; and how many events are
// leased and not known to be spent: n in the current period, o in the one
// before. What was leased before that is over, whatever became of its node.
//
//	ARGV: step and depth of the limit and patience, in microseconds; 1 if one is
//	waited for; how many ahead; how many were spent; how many come back; the most
//	that may be leased; the length of a period, and how far a caller can be ahead,
//	in microseconds.
var grant = cluster.NewScript(`
local time = redis.call('TIME')
local now = (time[1] - 1767225600) * 1000000 + time[2]
local step, depth, patience = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local one, ahead, over, most, length = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] + ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])

local kept = redis.call('HMGET', KEYS[1], 't', 'o', 'n', 'p')
local tat = tonumber(kept[1]) or 0
local old, new = tonumber(kept[2]) or 0, tonumber(kept[3]) or 0
local period = math.floor(now / length)
local passed = period - (tonumber(kept[4]) or period)
if passed == 1 then
	old, new = new, 0
elseif passed ~= 0 then
	old, new = 0, 0
end
local first = math.min(old, over)
old, new = old - first, math.max(0, new - (over - first))

tat = math.min(tat, now + tonumber(ARGV[10]))
tat = math.max(tat - ARGV[7] * step, now)
local allowed, wait = 0, 0
if one == 1 then
	local late = tat + step - now - depth
	if late <= patience then
		allowed, wait, tat = 1, math.max(0, late), tat + step
	else
		wait = late - patience
	end
end
local leased = math.floor(math.min(ahead, most - old - new, (now + depth - tat) / step))
if leased > 0 then
	tat, new = tat + leased * step, new + leased
else
	leased = 0
end

redis.call('HSET', KEYS[1], 't', string.format('%.3f', tat), 'o', old, 'n', new, 'p', period)
redis.call('PEXPIRE', KEYS[1], math.ceil((tat - now) / 1000 + 2 * length / 1000))
local remaining = math.max(0, math.floor((now + depth - tat) / step))
return {allowed, leased, math.ceil(wait), remaining, math.ceil(tat - now)}`)

// period is how long a lease counts at least: as long as it may be spent, and a
// little longer, for what is on its way.
const period = 2*lease.Term + time.Second

// Lease asks the server.
func (s *shared) Lease(r lease.Request) (g lease.Grant, err error) {
	step := float64(r.Limit.Step()) / float64(time.Microsecond)
	one := "0"
	if r.Now {
		one = "1"
	}
	answer, err := s.link.Run(grant, r.Key,
		micros(step), micros(step*float64(r.Limit.Burst())), micros(step*float64(r.Queue)), one, strconv.Itoa(r.Ahead),
		strconv.Itoa(r.Spent), strconv.Itoa(r.Back), strconv.Itoa(r.Most), strconv.FormatInt(period.Microseconds(), 10),
		micros(float64(r.Limit.Most(r.Queue))/float64(time.Microsecond)))
	if err != nil {
		return g, err
	}
	if len(answer) != 5 {
		return g, errors.New("the server's answer is not that of the script")
	}
	return lease.Grant{
		Now: answer[0] == 1, Ahead: int(answer[1]),
		Wait:      time.Duration(answer[2]) * time.Microsecond,
		Remaining: int(answer[3]), Reset: time.Duration(answer[4]) * time.Microsecond,
	}, nil
}

func micros(f float64) string { return strconv.FormatFloat(f, 'f', 3, 64) }

var (
	alone = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "gatehouse_quota_alone_total",
		Help: "Requests counted by this node's share, since the cluster's server could not be asked.",
	})
	leased = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gatehouse_quota_leased",
		Help: "Requests that this node has leased and not spent.",
	}, func() float64 {
		sum := 0
		books.Range(func(_, v any) bool {
			_, tokens := v.(*shared).Len()
			sum += tokens
			return true
		})
		return float64(sum)
	})
)
