package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/registry"
)

// How a key stands, in the word that operators are shown.
const (
	keyActive      = "active"      // until it expires, if it does
	keyOverlapping = "overlapping" // until the secret of before a rotation ends
	keyExpired     = "expired"
	keyRevoked     = "revoked" // until the revocation is over
	keyHoney       = "honey"
	keyUnreadable  = "unreadable" // a newer gateway may have written it
)

// keyState tells how a key stands. It goes by what is stored, and leaves no
// trace of its own.
func keyState(id string, value json.RawMessage, now time.Time) (word string, until time.Time) {
	var k apiKey
	if registry.Strict(value, &k) != nil {
		return keyUnreadable, until
	}
	k.ID = id
	e, err := k.entry()
	if err != nil {
		return keyUnreadable, until
	}
	if e.honey {
		return keyHoney, until
	}
	if set, ok := revocations.Running(); ok {
		if _, r, is := set.standing(e.who, now); is {
			return keyRevoked, time.Unix(int64(r.Until), 0).UTC()
		}
	}
	return e.state(now)
}

// state is how a key stands that was not revoked.
func (e *keyEntry) state(now time.Time) (word string, until time.Time) {
	if who, _ := e.good(now); who == nil {
		return keyExpired, until
	}
	for _, old := range e.old {
		if who, _ := old.good(now); who != nil && old.expires.After(until) {
			until = old.expires
		}
	}
	if !until.IsZero() {
		return keyOverlapping, until
	}
	return keyActive, e.expires
}

// They ask about keys, and so cannot be there when those are declared.
func init() { keys.Admit, keys.Doubt = admitKey, doubtKey }

// admitKey refuses a secret that is, or was until lately, another key's: of two,
// one would count as the other. Nobody can mean that, so it cannot be forced.
func admitKey(id string, is *keyEntry) error {
	live, filed := keys.Running().Load(), hashes(nil)
	if app, err := caddy.ActiveContext().AppIfConfigured("gatehouse_identity"); err == nil && app.(*App).keys != nil {
		filed = app.(*App).keys.byHash
	}
	for _, e := range append([]*keyEntry{is}, is.old...) {
		for _, others := range []hashes{live, filed} {
			if other := others[e.hash]; other != nil && other.who.principal.Client != id {
				return caddy.APIError{HTTPStatus: http.StatusConflict, Err: errors.New("another key has its sha256, and one of them would never be found")}
			}
		}
	}
	return nil
}

// doubtKey asks back about keys that would be refused, or count as somebody
// else's or nobody's, though their maker thinks otherwise.
func doubtKey(_ registry.Has, id string, was, is *keyEntry) (doubts []string) {
	now, p := time.Now(), is.who.principal
	doubt := func(format string, args ...any) { doubts = append(doubts, fmt.Sprintf(format, args...)) }
	fresh := was == nil || was.hash != is.hash // a secret that somebody is about to be given
	if fresh {
		if who, _ := is.good(now); who == nil {
			doubt("the key would be refused: its time was over at %s", is.expires.UTC().Format(time.RFC3339))
		}
	}
	if fresh || is.outlives(was) {
		if set, ok := revocations.Running(); ok {
			if what, e, revoked := set.standing(is.who, now); revoked {
				doubt("the key would be refused: revocation %s of its %s stands %s", e.Mark, what, span(e))
			}
		}
	}
	if plans := knownPlans(caddy.ActiveContext()); p.Plan != "" && len(plans) > 0 && !slices.Contains(plans, p.Plan) && (was == nil || was.who.principal.Plan != p.Plan) {
		doubt("plan %q is not defined, and the default would count; expected %s", p.Plan, strings.Join(plans, ", "))
	}
	for _, s := range p.Scopes {
		if wrong := scopeDoubt(s); wrong != "" && (was == nil || !slices.Contains(was.who.principal.Scopes, s)) {
			doubt("%s", wrong)
		}
	}
	return doubts
}

// outlives reports whether a key is good for longer than it was: a revocation
// that was to last as long as the key may be over before.
func (e *keyEntry) outlives(was *keyEntry) bool {
	return !was.expires.IsZero() && (e.expires.IsZero() || e.expires.After(was.expires))
}

// scopeDoubt says what is odd about a scope. A comma may be in one (RFC 6749,
// section 3.3), and hardly ever is: it is what somebody writes between two.
func scopeDoubt(s string) string {
	odd := func(r rune) bool { return r < '!' || r > '~' || r == '"' || r == '\\' }
	switch {
	case s == "" || strings.ContainsFunc(s, odd):
		return fmt.Sprintf("scope %q cannot be one: it is printable ASCII without spaces, quotes and backslashes", s)
	case strings.Contains(s, ","):
		return fmt.Sprintf("scope %q is one with a comma in it; several are separated by spaces, or given one by one", s)
	}
	return ""
}

// warnOfPlans tells of keys of the file whose plan nobody has defined: the default
// one would count, and nobody would notice.
func (a *App) warnOfPlans(ctx caddy.Context) {
	plans := knownPlans(ctx)
	if a.keys == nil || len(plans) == 0 {
		return
	}
	for id, v := range a.keys.entries {
		if k, ok := v.(apiKey); ok && k.Plan != "" && !slices.Contains(plans, k.Plan) {
			a.logger.Warn("a key has a plan that is not defined, and the default counts", zap.String("key", id), zap.String("plan", k.Plan), zap.Strings("plans", plans), zap.String("file", a.Keys))
		}
	}
}

// knownPlans are the plans of a configuration; none if it has no quota. Its
// settings are all that this package knows of that one.
func knownPlans(ctx caddy.Context) (names []string) {
	app, err := ctx.AppIfConfigured("gatehouse_quota")
	if err != nil {
		return nil
	}
	settings, err := json.Marshal(app)
	var quota struct {
		Plans []struct{ Name string }
	}
	if err != nil || json.Unmarshal(settings, &quota) != nil {
		return nil
	}
	for _, p := range quota.Plans {
		names = append(names, p.Name)
	}
	return names
}
