package canary

import (
	"math/rand/v2"
	"net/http"
	"strings"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// ticketLength is that of the ids in cookies: 130 bits.
const ticketLength = 26

// ticket is the random id that a caller's cookie holds, or a new one that is
// given to it. It proves nothing, and who invents one gets the release that
// goes with it; sealing it would not help, as whoever asks without one is given
// another each time.
func (h *Handler) ticket(w http.ResponseWriter, r *http.Request, mode gate.Mode) string {
	if id := find(r.Header["Cookie"], h.Cookie); wellFormed(id) {
		return id
	}
	// Another canary may have given one to this very request.
	for _, set := range w.Header()["Set-Cookie"] {
		if rest, ok := strings.CutPrefix(set, h.Cookie+"="); ok && len(rest) >= ticketLength && wellFormed(rest[:ticketLength]) {
			return rest[:ticketLength]
		}
	}
	id := newTicket()
	if mode == gate.Enforce {
		cookie := http.Cookie{Name: h.Cookie, Value: id, Path: "/", Secure: r.TLS != nil, HttpOnly: true, SameSite: http.SameSiteLaxMode} //nolint:gosec // secure where the connection is; the id guards nothing
		w.Header()["Set-Cookie"] = append(w.Header()["Set-Cookie"], cookie.String())
	}
	return id
}

const alphabet = "0123456789abcdefghjkmnpqrstvwxyz" // Crockford's base 32

func newTicket() string {
	var id [ticketLength]byte
	n := uint64(0)
	for i := range id {
		if i%12 == 0 {
			n = rand.Uint64() //nolint:gosec // ChaCha8 from the runtime; an id, not a secret
		}
		id[i] = alphabet[n&31]
		n >>= 5
	}
	return string(id[:])
}

func wellFormed(id string) bool {
	if len(id) != ticketLength {
		return false
	}
	for i := range len(id) {
		if strings.IndexByte(alphabet, id[i]) < 0 {
			return false
		}
	}
	return true
}

// find looks for a cookie without parsing all the others.
func find(lines []string, name string) string {
	for _, line := range lines {
		for line != "" {
			var part string
			part, line, _ = strings.Cut(line, ";")
			part = strings.Trim(part, " \t")
			if len(part) > len(name) && part[len(name)] == '=' && part[:len(name)] == name {
				return part[len(name)+1:]
			}
		}
	}
	return ""
}
