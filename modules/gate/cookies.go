package gate

import (
	"net/http"
	"slices"
	"strings"
)

// SessionCookie begins the name of every cookie that holds a session of the
// gateway, after what browsers want before it and with `_`, `.` or nothing behind
// it. Such cookies are the gateway's alone: a browser sends them to all APIs of
// the host, whose upstreams could use them as the person does.
const SessionCookie = "gatehouse_session"

// takeCookies takes the cookies of sessions out of the request, and returns them
// as they came, each as name=value. Others stay as they are.
func takeCookies(h http.Header) (taken []string) {
	lines := h["Cookie"]
	if !slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, SessionCookie) }) {
		return nil
	}
	kept := make([]string, 0, len(lines)) // not in place: the request may have copies
	for _, line := range lines {
		var rest []string
		for part := range strings.SplitSeq(line, ";") {
			switch part = strings.Trim(part, " \t"); {
			case part == "":
			case OfSession(part):
				taken = append(taken, part)
			default:
				rest = append(rest, part)
			}
		}
		if len(rest) > 0 {
			kept = append(kept, strings.Join(rest, "; "))
		}
	}
	if delete(h, "Cookie"); len(kept) > 0 {
		h["Cookie"] = kept
	}
	return taken
}

// OfSession reports whether a cookie, as name=value, is one of a session.
func OfSession(cookie string) bool {
	name, _, _ := strings.Cut(cookie, "=")
	name = strings.TrimRight(name, " \t")
	tail, is := strings.CutPrefix(strings.TrimPrefix(strings.TrimPrefix(name, "__Host-"), "__Secure-"), SessionCookie)
	return is && (tail == "" || tail[0] == '_' || tail[0] == '.')
}
