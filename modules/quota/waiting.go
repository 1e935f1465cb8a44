package quota

import (
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// maxWaiting bounds the requests of all leaky quotas that wait for their turn:
// each holds a goroutine and a connection.
const maxWaiting = 4096

// fewWaiting is how many one waiter may have at least, if it has several callers.
const fewWaiting = 256

// places are those of requests that wait, or are about to find out whether.
var places waitingRoom

// waitingRoom hands out places. A quota may have as many as are free besides:
// half of all if it is the only one, a third each if there are two. So some are
// always left to a quota that has few. It remembers those that have any.
type waitingRoom struct {
	mu      sync.Mutex
	taken   int
	quotas  map[string]int
	waiters map[waiterIn]int
}

type waiterIn struct {
	quota string
	waiter
}

// waiter is who waits: the principal, or the customer's network, or its addresses
// would take the place of everybody's.
type waiter struct {
	issuer, subject, client string
	network                 netip.Prefix
}

func waiterOf(ex *gate.Exchange) waiter {
	if p := ex.Principal; p != nil {
		return waiter{issuer: p.Issuer, subject: p.Subject, client: p.Client}
	}
	return waiter{network: ex.Customer()}
}

// Take takes a place, if there is one. One caller may have a whole queue, with
// the one whose turn it is.
func (p *waitingRoom) Take(quota string, by waiter, queue int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := waiterIn{quota, by}
	if p.quotas[quota] >= maxWaiting-p.taken || p.waiters[w] >= max(fewWaiting, queue+1) {
		return false
	}
	if p.quotas == nil {
		p.quotas, p.waiters = make(map[string]int), make(map[waiterIn]int)
	}
	p.taken++
	p.quotas[quota]++
	p.waiters[w]++
	return true
}

// Leave gives a place back.
func (p *waitingRoom) Leave(quota string, by waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	less(p.quotas, quota)
	less(p.waiters, waiterIn{quota, by})
}

func less[K comparable](counts map[K]int, key K) {
	if counts[key]--; counts[key] <= 0 {
		delete(counts, key)
	}
}

// Len counts the places that are taken.
func (p *waitingRoom) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

// wait lets a request wait for its turn, or until the client goes away.
func wait(r *http.Request, d time.Duration) {
	if gate.Skip(d) {
		return
	}
	turn := time.NewTimer(d)
	defer turn.Stop()
	select {
	case <-turn.C:
	case <-r.Context().Done():
	}
}
