package console

import (
	_ "embed"
	"net/http"
	"strconv"
)

// The page is three files of our own: no framework, nothing from elsewhere.
// Caddy's admin endpoint refuses what browsers fetch in the mode no-cors, so the
// script is a module and the style sheet is marked crossorigin.
var (
	//go:embed page/index.html
	indexHTML []byte
	//go:embed page/console.css
	consoleCSS []byte
	//go:embed page/console.js
	consoleJS []byte
)

type asset struct {
	path, mime string
	data       []byte
}

var assets = []asset{
	{"console", "text/html; charset=utf-8", indexHTML},
	{"console/console.css", "text/css; charset=utf-8", consoleCSS},
	{"console/console.js", "text/javascript; charset=utf-8", consoleJS},
}

// policy lets the page load its own script and style and ask its own origin,
// and nothing else: what strangers send must stay text even if the script is
// wrong about it.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

func (a asset) serve(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	h.Set("Content-Type", a.mime)
	h.Set("Content-Length", strconv.Itoa(len(a.data)))
	h.Set("Content-Security-Policy", policy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "same-origin") // Caddy looks at it
	h.Set("X-Frame-Options", "DENY")
	if r.Method != http.MethodHead {
		_, _ = w.Write(a.data) // a browser that went away is no error of ours
	}
	return nil
}
