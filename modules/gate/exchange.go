package gate

import (
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strings"
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
	Params    []Param    // path parameters of the operation, decoded
	Modes     LiveModes  // what operators switched for this API
	Decoded   any        // the JSON body as the guard read it; nil if it did not
	Later     any        // what the stage that named the operation has still to do
	Release   Release    // which release answers, as far as canaries have chosen
	Tries     any        // what became of earlier tries to reach an upstream; nil in the first

	Cookies []string // those of sessions, which the upstream never sees, as name=value

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

// Asserted is the prefix of the headers that the gateway asserts upstream.
// Inbound copies are removed when the Exchange opens.
const Asserted = "X-Gatehouse-"

// RequestIDHeader carries Exchange.ID to the upstream and to the client.
const RequestIDHeader = "X-Request-Id"

// Of returns the request's Exchange and opens it on first use.
func Of(r *http.Request) *Exchange {
	vars, _ := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	if ex, ok := vars[varKey].(*Exchange); ok {
		return ex
	}
	ex := &Exchange{Began: Now(), ID: requestID(r, vars)}
	if ip, ok := vars[caddyhttp.ClientIPVarKey].(string); ok {
		if addr, err := netip.ParseAddr(ip); err == nil {
			ex.Client = addr.Unmap().WithZone("")
		}
	}
	r.URL.Opaque = "" // it would go to the upstream in the place of the path, which stages look at
	stayHTTP1(r.Header)
	dropHops(r.Header)
	stripAsserted(r)
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

// stayHTTP1 declines an upgrade to HTTP/2 without TLS, as a server may (RFC 9110,
// section 7.8). An upstream that accepted one would be talked to directly from
// then on, with requests that no stage sees. Other upgrades pass.
func stayHTTP1(h http.Header) {
	lines := h["Upgrade"]
	if !slices.ContainsFunc(lines, func(line string) bool { return slices.ContainsFunc(strings.Split(line, ","), isH2C) }) {
		return
	}
	var kept []string
	for _, line := range lines {
		kept = append(kept, slices.DeleteFunc(strings.Split(line, ","), isH2C)...)
	}
	delete(h, "Http2-Settings")
	if delete(h, "Upgrade"); len(kept) > 0 {
		h["Upgrade"] = []string{strings.Trim(strings.Join(kept, ","), " \t")}
	}
}

func isH2C(protocol string) bool {
	return strings.EqualFold(strings.Trim(protocol, " \t"), "h2c")
}

// dropHops removes the fields that Connection names (RFC 9110, section 7.6.1)
// before anybody looks at them. Caddy's proxy does so too, but after all stages:
// a caller could have it take away what they have checked, or asserted.
func dropHops(h http.Header) {
	lines := h["Connection"]
	if !slices.ContainsFunc(lines, namesFields) {
		return
	}
	var kept []string
	for _, line := range lines {
		for word := range strings.SplitSeq(line, ",") {
			switch word = strings.Trim(word, " \t"); {
			case word == "":
			case ofConnection(word):
				kept = append(kept, word)
			default:
				h.Del(word)
			}
		}
	}
	if delete(h, "Connection"); len(kept) > 0 {
		h["Connection"] = []string{strings.Join(kept, ", ")}
	}
}

func namesFields(line string) bool {
	for word := range strings.SplitSeq(line, ",") {
		if word = strings.Trim(word, " \t"); word != "" && !ofConnection(word) {
			return true
		}
	}
	return false
}

// ofConnection reports options that say something by themselves, or name fields
// that the proxy knows how to treat.
func ofConnection(word string) bool {
	for _, option := range [...]string{"keep-alive", "close", "upgrade", "te"} {
		if strings.EqualFold(word, option) {
			return true
		}
	}
	return false
}

// stripAsserted removes what only the gateway may say. Trailers go too,
// because Caddy's proxy forwards them past every header rule.
func stripAsserted(r *http.Request) {
	for name := range r.Header {
		if asserted(name) {
			delete(r.Header, name)
		}
	}
	r.Trailer = nil
	delete(r.Header, "Trailer")
}

func asserted(name string) bool {
	const prefix = "x-gatehouse-"
	return len(name) >= len(prefix) && Alike(name[:len(prefix)], prefix)
}

// Alike compares the name of a header field with one in lower case, as a backend
// does that folds case and takes an underscore for a hyphen.
func Alike(name, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'A' && c <= 'Z':
			c |= 0x20
		case c == '_':
			c = '-'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// requestID keeps the id that a trusted proxy gave, and makes one otherwise: a
// stranger must not choose the name its request is found by.
func requestID(r *http.Request, vars map[string]any) string {
	if trusted, _ := vars[caddyhttp.TrustedProxyVarKey].(bool); trusted {
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
func (ex *Exchange) Network() netip.Prefix {
	bits := 64
	if ex.Client.Is4() {
		bits = 32
	}
	p, _ := ex.Client.Prefix(bits) // fails for the zero Addr only, and then is the zero Prefix
	return p
}
