package gate

import (
	"math/rand/v2"
	"net/http"
	"net/netip"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Exchange is the gateway's record of one request. It belongs to the
// goroutine that serves the request and is not pooled, so that a finished one
// may be kept and looked at.
type Exchange struct {
	ID        string     // the request id: Problem instance, log, upstream header
	API       string     // the API's name; empty outside of an api block
	Began     time.Time  // when the first stage met the request
	Client    netip.Addr // Caddy's client_ip, unmapped and without zone
	Origin    Origin     // where Client is, as far as reputation knows
	Principal *Principal // nil while nobody is proven
	Operation *Operation // nil while nothing is matched
	Otherwise *Operation // what the contract asks for of requests that it does not know, where they pass
	Params    []Param    // path parameters of the operation, decoded
	Modes     LiveModes  // what operators switched for this API
	Decoded   any        // the JSON body as the guard read it; nil if it did not
	Later     any        // what the stage that named the operation has still to do
	Release   Release    // which release answers, as far as canaries have chosen
	Tries     any        // what became of earlier tries to reach an upstream; nil in the first

	Cookies []string // those of sessions, which the upstream never sees, as name=value
	Given   []string // the values of Set-Cookie by which the gateway itself gives or takes such

	Ways     []Challenge // how callers may prove who they are, as far as identity has said
	Scheme   string      // which of them the credential was sent by; empty: another, or none
	Metadata string      // where clients find out about the issuers; empty: nowhere

	Own bool // it is for a page of the gateway itself, which no contract knows

	ProblemType string // the prefix of a problem's type; empty: DefaultProblemType

	body      body
	decisions [maxDecisions]Decision
	decided   uint8
	dropped   uint8
}

// Origin is where a request comes from.
type Origin struct {
	Country string // ISO 3166-1 alpha-2; empty: unknown
	ASN     uint32 // autonomous system; 0: unknown
	Bot     string // who the User-Agent says it is; empty: none that is known
}

// Release is what the canaries of a request have chosen so far.
type Release struct {
	Name  string  // empty while there was no canary
	Taken float64 // percent of the callers that went to releases passed by
}

// maxDecisions bounds the record of one Exchange. The walk has ten stages, and
// a stage may stand several times; what does not fit is counted, not kept.
const maxDecisions = 16

// varKey is where the Exchange rides in Caddy's request variables, which also
// reach the error routes.
const varKey = "gatehouse.exchange"

// RequestIDHeader carries Exchange.ID to the upstream and to the client.
const RequestIDHeader = "X-Request-Id"

// Of returns the request's Exchange and opens it on first use.
func Of(r *http.Request) *Exchange {
	vars, _ := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	if ex, ok := vars[varKey].(*Exchange); ok {
		return ex
	}
	trusted, _ := vars[caddyhttp.TrustedProxyVarKey].(bool)
	ex := &Exchange{Began: Now(), ID: requestID(r, trusted)}
	if ip, ok := vars[caddyhttp.ClientIPVarKey].(string); ok {
		if addr, err := netip.ParseAddr(ip); err == nil {
			ex.Client = addr.Unmap().WithZone("")
		}
	}
	r.URL.Opaque = "" // it would go to the upstream in the place of the path, which stages look at
	declineUpgrades(r)
	dropHops(r.Header)
	strip(r, trusted)
	ex.Cookies = takeCookies(r.Header)
	if vars != nil {
		vars[varKey] = ex
	}
	return ex
}

// Enter returns the request's Exchange and the mode that a stage is in. One
// that is off does nothing, and opens no Exchange for it; one that was switched
// off while the gateway runs, which no configuration tells, is in the record.
func Enter(r *http.Request, s Stage, configured Mode) (*Exchange, Mode) {
	vars, _ := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	if ex, ok := vars[varKey].(*Exchange); ok {
		mode := ex.Mode(s, configured)
		if mode == Off && configured != Off {
			ex.record(Decision{Stage: s, Mode: Off, At: Since(ex.Began)})
		}
		return ex, mode
	}
	if configured == Off {
		return nil, Off
	}
	return Of(r), configured
}

// requestID keeps the id that a trusted proxy gave, and makes one otherwise: a
// stranger must not choose the name its request is found by.
func requestID(r *http.Request, trusted bool) string {
	if trusted {
		if ids := r.Header[RequestIDHeader]; len(ids) == 1 && wellFormedID(ids[0]) {
			return ids[0]
		}
	}
	const alphabet = "0123456789abcdefghjkmnpqrstvwxyz" // Crockford's base 32
	var id [24]byte
	for i := 0; i < len(id); i += 12 {
		n := rand.Uint64() //nolint:gosec // ChaCha8 from the runtime; an id, not a secret
		for j := range 12 {
			id[i+j] = alphabet[n&31]
			n >>= 5
		}
	}
	return string(id[:])
}

func wellFormedID(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for _, c := range []byte(id) {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}

// Network is what a caller without a name is counted by: its address, or for
// IPv6 the /64 that one customer usually holds.
func (ex *Exchange) Network() netip.Prefix { return ex.network(64) }

// Customer is what a caller without a name is held to where many callers together
// could do harm: its address, or for IPv6 the /48, of which one customer may well
// have all.
func (ex *Exchange) Customer() netip.Prefix { return ex.network(48) }

func (ex *Exchange) network(bits int) netip.Prefix {
	if ex.Client.Is4() {
		bits = 32
	}
	p, _ := ex.Client.Prefix(bits) // fails for the zero Addr only, and then is the zero Prefix
	return p
}
