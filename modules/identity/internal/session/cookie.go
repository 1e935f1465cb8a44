package session

import (
	"slices"
	"strconv"
	"strings"
)

// Bounds of cookies. Browsers keep 4 KiB of each, with its name and attributes;
// servers take 16 KiB of header fields, and there are others in them.
const (
	chunk     = 3800
	MaxChunks = 3
	MaxSealed = chunk*MaxChunks - 2
)

// Cookies are those of one name in a request.
type Cookies struct {
	Value  string   // of the whole, put together; empty if it is not there
	Broken bool     // something is there that cannot be put together
	Chunks int      // how many pieces came
	Logins []Cookie // those of logins on their way, at most maxLogins
}

// Cookie is one of a request.
type Cookie struct{ Name, Value string }

// maxLogins bounds what is looked at: a browser keeps as many as it likes.
const maxLogins = 16

// loginMark is between the name, which has no dot, and what tells one login from
// another.
const loginMark = ".login."

// LoginName is the name of a login's cookie.
func LoginName(name, state string) string { return name + loginMark + state[:min(len(state), 10)] }

// chunkName is the name of a piece.
func chunkName(name string, i int) string {
	if i == 0 {
		return name
	}
	return name + "." + strconv.Itoa(i)
}

// Take finds the cookies of a name among parts, each of which is name=value.
func Take(parts []string, name string) (c Cookies) {
	var pieces [MaxChunks]string
	var twice, stray bool
	for _, part := range parts {
		n, v, _ := strings.Cut(part, "=")
		tail, is := strings.CutPrefix(n, name)
		switch {
		case is && strings.HasPrefix(tail, loginMark):
			if len(c.Logins) < maxLogins {
				c.Logins = append(c.Logins, Cookie{n, v})
			}
		case is && (tail == "" || tail[0] == '.'):
			i := 0
			if tail != "" {
				var err error
				if i, err = strconv.Atoi(tail[1:]); err != nil || i < 1 || i >= MaxChunks || tail != "."+strconv.Itoa(i) {
					stray = true
					continue
				}
			}
			twice = twice || pieces[i] != ""
			pieces[i] = v
			c.Chunks = max(c.Chunks, i+1)
		}
	}
	c.Value, c.Broken = join(&pieces)
	if twice || stray && c.Value == "" { // two of a name: one is somebody else's
		c.Value, c.Broken = "", true
	}
	return c
}

// join puts pieces together. The first begins with how many there are, so that
// one left over from a longer session does no harm.
func join(pieces *[MaxChunks]string) (value string, broken bool) {
	if pieces[0] == "" {
		return "", pieces[1] != "" || pieces[2] != ""
	}
	count, first, ok := strings.Cut(pieces[0], ".")
	n, err := strconv.Atoi(count)
	if !ok || err != nil || n < 1 || n > MaxChunks {
		return "", true
	}
	if n == 1 {
		return first, first == ""
	}
	if slices.Contains(pieces[1:n], "") {
		return "", true
	}
	return first + strings.Join(pieces[1:n], ""), false
}

// Split makes cookies' names and values of a sealed text. It reports false if
// the text is too long for any browser.
func Split(name, sealed string) (pieces []Cookie, ok bool) {
	if len(sealed) > MaxSealed {
		return nil, false
	}
	n := (len(sealed) + 2 + chunk - 1) / chunk
	text := strconv.Itoa(n) + "." + sealed
	for i := range n {
		end := min(len(text), (i+1)*chunk)
		pieces = append(pieces, Cookie{chunkName(name, i), text[i*chunk : end]})
	}
	return pieces, true
}

// Leftover names the pieces that came and are not written anew.
func Leftover(name string, came, written int) (names []string) {
	for i := written; i < came; i++ {
		names = append(names, chunkName(name, i))
	}
	return names
}
