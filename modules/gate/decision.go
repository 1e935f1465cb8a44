package gate

import (
	"maps"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// Decision is what one stage concluded.
type Decision struct {
	Stage   Stage
	Verdict Verdict
	Mode    Mode
	Reason  Reason        // None when allowed
	Rule    string        // which rule, plan, issuer or expression; may be empty
	At      time.Duration // when the stage began, counted from the Exchange's beginning
	Took    time.Duration // time spent in the stage
}

// Decisions returns what the stages concluded so far, in order.
func (ex *Exchange) Decisions() []Decision { return ex.decisions[:ex.decided] }

// Refused reports whether a stage has denied the request. One that is passed
// on the way back, as a canary is, may conclude something after that.
func (ex *Exchange) Refused() bool {
	for _, d := range ex.Decisions() {
		if d.Verdict == Denied {
			return true
		}
	}
	return false
}

// Dropped counts the decisions that did not fit into the record.
func (ex *Exchange) Dropped() int { return int(ex.dropped) }

// Conclude records what a stage decided and returns what its ServeHTTP must
// return: nil means go on to the next handler. A nil denial allows; in shadow
// mode a denial is recorded and let pass. It does not allocate unless it denies.
//
// Where no api stands around the stage to answer for it, the denial's headers
// are set on w and its placeholders on r, for the site's own handle_errors, and
// the Exchange is remembered as it is: nobody will say that it has ended. For
// the same reason, what such stages let pass is not remembered.
func (ex *Exchange) Conclude(w http.ResponseWriter, r *http.Request, s Stage, m Mode, rule string, d *Denial, began time.Time) error {
	err := ex.Decide(s, m, rule, d, began)
	if err != nil && ex.API == "" {
		ex.Publish(r, d)
		w.Header()[RequestIDHeader] = []string{ex.ID}
		maps.Copy(w.Header(), d.Header)
		if RecentKept() > 0 {
			Remember(ex.Record(r, d.Reason.Status(), d))
		}
	}
	return err
}

// Decide is Conclude for a stage that has no response to set headers on.
func (ex *Exchange) Decide(s Stage, m Mode, rule string, d *Denial, began time.Time) error {
	dec := Decision{Stage: s, Mode: m, Rule: rule, At: began.Sub(ex.Began), Took: Since(began)}
	switch {
	case d == nil:
		ex.record(dec)
		return nil
	case m == Shadow:
		dec.Verdict, dec.Reason = WouldDeny, d.Reason
		ex.record(dec)
		return nil
	}
	dec.Verdict, dec.Reason = Denied, d.Reason
	ex.record(dec)
	return Deny(d)
}

// Close records, for the api itself, how the Exchange ended: with a denial that
// no stage gave, or with none.
func (ex *Exchange) Close(d *Denial) {
	dec := Decision{Stage: API, Took: Since(ex.Began)}
	if d != nil {
		dec.Verdict, dec.Reason = Denied, d.Reason
	}
	ex.record(dec)
}

// LetPass records that a stage could not decide and that on_error open, the
// user's choice, lets the request go on.
func (ex *Exchange) LetPass(s Stage, m Mode, rule string, why Reason, began time.Time) {
	ex.record(Decision{Stage: s, Verdict: Undecided, Mode: m, Reason: why, Rule: rule, At: began.Sub(ex.Began), Took: Since(began)})
}

func (ex *Exchange) record(d Decision) {
	count(ex, &d)
	if ex.decided == maxDecisions {
		// The last place is kept for the decision that ends the Exchange.
		if d.Verdict != Denied {
			ex.dropped++
			return
		}
		ex.decided--
		ex.dropped++
	}
	ex.decisions[ex.decided] = d
	ex.decided++
}

// Publish makes the denial readable as placeholders for the site's own
// handle_errors: {gatehouse.reason}, {gatehouse.detail}, {gatehouse.request_id}.
func (ex *Exchange) Publish(r *http.Request, d *Denial) {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return
	}
	repl.Set("gatehouse.reason", d.Reason.String())
	repl.Set("gatehouse.detail", d.Sentence())
	repl.Set("gatehouse.request_id", ex.ID)
}

// Sentence is what the client reads: the detail, or the reason's title.
func (d *Denial) Sentence() string {
	if d.Detail != "" {
		return d.Detail
	}
	return d.Reason.Title()
}
