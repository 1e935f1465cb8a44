package gate

import (
	"net/http"
	"slices"
	"strings"

	"github.com/gatehouse-caddy/gatehouse/modules/gate/latest"
)

// Asserted is the prefix of the headers that the gateway asserts upstream.
// Inbound copies are removed when the Exchange opens.
const Asserted = "X-Gatehouse-"

// declineUpgrades takes the wish for another protocol off the request, as a
// server may (RFC 9110, section 7.8), unless it is a handshake for WebSockets
// (RFC 6455, section 4.1). An upstream that switched to h2c, or to a tunnel,
// would be talked to directly from then on, with requests that no stage sees.
func declineUpgrades(r *http.Request) {
	wishes := r.Header["Upgrade"]
	if wishes == nil {
		return
	}
	delete(r.Header, "Http2-Settings")
	if r.Method == http.MethodGet && len(r.Header["Sec-Websocket-Key"]) == 1 && slices.ContainsFunc(wishes, wishesWebSocket) {
		r.Header["Upgrade"] = []string{webSocket} // and nothing beside it
		return
	}
	delete(r.Header, "Upgrade")
}

const webSocket = "websocket"

func wishesWebSocket(line string) bool {
	for protocol := range strings.SplitSeq(line, ",") {
		if strings.EqualFold(strings.Trim(protocol, " \t"), webSocket) {
			return true
		}
	}
	return false
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

// strip removes what only the gateway may say, and what only a proxy in front may
// say of the client, unless this peer is trusted and known to say it: others of a
// proxy's fields come from its own client, and pass through it. Trailers go
// too, because Caddy's proxy forwards them past every header rule.
func strip(r *http.Request, trusted bool) {
	for name := range r.Header {
		if asserted(name) || hearsay(name) && (!trusted || !believes(name)) {
			delete(r.Header, name)
		}
	}
	r.Trailer = nil
	delete(r.Header, "Trailer")
	delete(r.Header, "Proxy") // names a proxy for the upstream's own requests, where that is a CGI program
}

func asserted(name string) bool {
	const prefix = "x-gatehouse-"
	return len(name) >= len(prefix) && Alike(name[:len(prefix)], prefix)
}

// claims are header fields by which proxies say who the client is and where it
// is: upstreams believe them. Client-Cert is RFC 9440, which asks for this.
var claims = [...]string{
	"cf-connecting-ip", "cf-connecting-ipv6", "client-cert", "client-cert-chain", "fastly-client-ip", "forwarded", "true-client-ip",
	"x-client-ip", "x-cluster-client-ip", "x-original-forwarded-for", "x-originating-ip", "x-real-ip", "x-remote-addr", "x-remote-ip",
}

// believed are those of these fields that trusted proxies set.
var believed latest.Of[[]string]

// Believe says which fields trusted proxies set or take off, so that they are kept
// where one sends them, and returns what takes that back.
func Believe(fields []string) (undo func()) {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = http.CanonicalHeaderKey(f)
	}
	return believed.Claim(names)
}

func believes(name string) bool {
	names := believed.Load()
	return names != nil && slices.Contains(*names, name)
}

// Hearsay reports a field that is taken off unless a trusted proxy is known to set it.
func Hearsay(name string) bool { return hearsay(http.CanonicalHeaderKey(name)) }

// hearsay reports a field that is worth as much as whoever sends it. Three of
// those that begin with X-Forwarded- are Caddy's own business.
func hearsay(name string) bool {
	const prefix = "x-forwarded-"
	switch name[:min(1, len(name))] {
	case "X", "x":
		if len(name) >= len(prefix) && Alike(name[:len(prefix)], prefix) {
			return name != "X-Forwarded-For" && name != "X-Forwarded-Proto" && name != "X-Forwarded-Host"
		}
	case "C", "F", "T", "c", "f", "t":
	default:
		return false
	}
	for _, claim := range claims {
		if Alike(name, claim) {
			return true
		}
	}
	return false
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
