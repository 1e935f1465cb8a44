package identity

import (
	"io"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// unshared keeps an answer that gives a session to one person out of the caches
// that many share. An upstream may call it public: it knows nothing of the cookie.
type unshared struct {
	*caddyhttp.ResponseWriterWrapper

	done bool
}

// ours is w for what is behind identity, which has given the answer a cookie or not.
func (v *visit) ours(w http.ResponseWriter) http.ResponseWriter {
	if v == nil || len(v.ex.Given) == 0 {
		return w
	}
	return &unshared{ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}}
}

func (u *unshared) mark() {
	if !u.done {
		u.done = true
		keepPrivate(u.Header())
	}
}

func (u *unshared) WriteHeader(status int) {
	if status >= http.StatusOK || status == http.StatusSwitchingProtocols {
		u.mark()
	}
	u.ResponseWriterWrapper.WriteHeader(status)
}

func (u *unshared) Write(b []byte) (int, error) {
	u.mark()
	return u.ResponseWriterWrapper.Write(b)
}

// ReadFrom keeps the server's fast path for files.
func (u *unshared) ReadFrom(src io.Reader) (int64, error) {
	u.mark()
	return u.ResponseWriterWrapper.ReadFrom(src)
}

// FlushError is what http.ResponseController looks for.
func (u *unshared) FlushError() error {
	u.mark()
	return http.NewResponseController(u.ResponseWriter).Flush()
}

// keepPrivate says that only the browser may keep an answer, and leaves what the
// upstream has said to the browser. What is said to single caches goes before
// Cache-Control there (RFC 9213), and so has to go.
func keepPrivate(header http.Header) {
	for name := range header {
		switch {
		case strings.HasSuffix(name, "Cdn-Cache-Control"), name == "Surrogate-Control", name == "Edge-Control", name == "X-Accel-Expires":
			delete(header, name)
		}
	}
	said := strings.Join(header["Cache-Control"], ",")
	kept := []string{"private"}
	if strings.Contains(said, `"`) { // fields are named; what holds for them may hold for all
		said, kept = storable(said), append(kept, "no-cache")
	}
	for part := range strings.SplitSeq(said, ",") {
		part = strings.Trim(part, " \t")
		name, _, _ := strings.Cut(part, "=")
		switch strings.ToLower(strings.Trim(name, " \t")) {
		case "", "private", "public", "s-maxage", "proxy-revalidate":
		default:
			kept = append(kept, part)
		}
	}
	header["Cache-Control"] = []string{strings.Join(kept, ", ")}
}

// storable is what is left of directives that cannot be told apart.
func storable(said string) string {
	if strings.Contains(strings.ToLower(said), "no-store") {
		return "no-store"
	}
	return ""
}
