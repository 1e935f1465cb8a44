package api

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// maxHeader bounds the header block of an answer. Clients stand less than an
// upstream may send, each in its own way.
const maxHeader = 64 << 10

var (
	errStatus      = errors.New("the upstream's status is none that HTTP has")
	errLargeHeader = errors.New("the upstream's header block is larger than 64 KiB")
	errUnanswered  = errors.New("a handler ended the request without an answer; a proxy does so when the upstream switches to a protocol that nobody asked for")
)

// telltales are header fields that say what the backend is made of or what went
// wrong in it, or that are for a server in front of it alone, which serves them a
// file. Those that end in a hyphen stand for all that begin so.
var telltales = [...]string{
	"powered-by", "server", "sourcemap", "via",
	"x-accel-redirect", "x-aspnet-version", "x-aspnetmvc-version", "x-backend", "x-backend-", "x-cms", "x-debug", "x-debug-", "x-envoy-",
	"x-framework", "x-generated-by", "x-generator", "x-lighttpd-send-file", "x-litespeed-", "x-php-version", "x-powered-", "x-redirect-by",
	"x-reproxy-url", "x-runtime", "x-sendfile", "x-served-by", "x-server", "x-server-powered-by", "x-sourcefiles", "x-sourcemap", "x-upstream", "x-upstream-",
	"x-varnish",
}

// maskHeader also takes out what is the gateway's alone to say: an upstream has
// no word in who the caller is, nor in the sessions of any API of the host,
// whose cookies are none but those given. It returns how large the rest is.
func maskHeader(h http.Header, given []string) (size int) {
	for name, lines := range h {
		if withheld(name) {
			delete(h, name)
			continue
		}
		for _, line := range lines {
			size += len(name) + len(line)
		}
	}
	for _, name := range [...]string{"Content-Type", "Location"} { // of two, the stages have seen the first
		if lines := h[name]; len(lines) > 1 {
			h[name] = lines[:1:1]
		}
	}
	if foreign := func(line string) bool { return ofSession(line) && !slices.Contains(given, line) }; slices.ContainsFunc(h["Set-Cookie"], foreign) {
		if kept := slices.DeleteFunc(slices.Clone(h["Set-Cookie"]), foreign); len(kept) > 0 {
			h["Set-Cookie"] = kept
		} else {
			delete(h, "Set-Cookie")
		}
	}
	return size
}

// ofSession also knows a cookie without a name, which browsers send back as its
// value alone: that of `=a=b` comes back as `a=b`.
func ofSession(line string) bool { return gate.OfSession(strings.TrimLeft(line, "= \t")) }

// withheld reports a field that no client gets to see from an upstream.
func withheld(name string) bool {
	if name == "" {
		return true
	}
	switch name[0] | 0x20 {
	case 'p', 's', 'v', 'x':
		return asserted(name) || telltale(name)
	}
	return false
}

func asserted(name string) bool {
	const prefix = "x-gatehouse-"
	return len(name) >= len(prefix) && gate.Alike(name[:len(prefix)], prefix) ||
		strings.IndexByte(name, '_') >= 0 && gate.Alike(name, "x-request-id")
}

func telltale(name string) bool {
	for _, t := range telltales {
		if len(name) > len(t) && t[len(t)-1] == '-' && gate.Alike(name[:len(t)], t) || gate.Alike(name, t) {
			return true
		}
	}
	return false
}

// mayTrail reports what of an upstream's trailers passes.
func mayTrail(name string) bool {
	return !withheld(name) && name != "Set-Cookie" && name != gate.RequestIDHeader
}

// isGRPC reports an answer as gRPC has it, with messages of any kind. One of
// gRPC-Web has its outcome in the body.
func isGRPC(h http.Header) bool {
	return gate.IsType(first(h["Content-Type"]), "application/grpc")
}

// maskAddress makes what points to the upstream's own address relative, and
// reports whether that was a redirect.
func (w *response) maskAddress(header http.Header) (redirect bool) {
	location, content, refresh, links := header["Location"], header["Content-Location"], header["Refresh"], header["Link"]
	if location == nil && content == nil && refresh == nil && links == nil {
		return false
	}
	repl, ok := w.r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return false
	}
	upstream, _ := repl.GetString("http.reverse_proxy.upstream.hostport")
	if upstream == "" {
		return false
	}
	if here, its := within(first(location), upstream); its {
		header["Location"], redirect = []string{here}, true
	}
	if here, its := within(first(content), upstream); its {
		header["Content-Location"] = []string{here}
	}
	rewrite(header, "Refresh", refresh, upstream, refreshed)
	rewrite(header, "Link", links, upstream, linked)
	return redirect
}

func first(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return lines[0]
}

// rewrite replaces lines in which a part points to the upstream. A line that
// names it in another way is taken out.
func rewrite(header http.Header, name string, lines []string, upstream string, by func(line, upstream string) string) {
	if !slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, "//") }) {
		return
	}
	kept := make([]string, 0, len(lines))
	for _, line := range lines {
		if line = by(line, upstream); !contains(line, upstream) {
			kept = append(kept, line)
		}
	}
	if delete(header, name); len(kept) > 0 {
		header[name] = kept
	}
}

func contains(line, upstream string) bool {
	return strings.Contains(strings.ToLower(line), "//"+strings.ToLower(upstream))
}

// refreshed makes the target of a Refresh relative, which has no specification:
// `5; url=http://…`, for browsers also with a comma, spaces and quotes.
func refreshed(line, upstream string) string {
	at := strings.IndexAny(line, ";,")
	if at < 0 {
		return line
	}
	url := strings.Trim(line[at+1:], " \t")
	if name, value, ok := strings.Cut(url, "="); ok && strings.EqualFold(strings.Trim(name, " \t"), "url") {
		url = value
	}
	if here, its := within(strings.Trim(url, " \t\"'"), upstream); its {
		return line[:at] + ";url=" + here
	}
	return line
}

// linked makes the targets of a Link relative (RFC 8288, section 3).
func linked(line, upstream string) string {
	var b strings.Builder
	for {
		before, rest, open := strings.Cut(line, "<")
		target, after, closed := strings.Cut(rest, ">")
		if !open || !closed {
			b.WriteString(line)
			return b.String()
		}
		if here, its := within(strings.Trim(target, " \t"), upstream); its {
			target = here
		}
		b.WriteString(before + "<" + target + ">")
		line = after
	}
}

// within makes a reference to the upstream one to where the client is.
func within(reference, upstream string) (relative string, its bool) {
	target, err := url.Parse(reference)
	if err != nil || target.Host == "" || !same(target, upstream) {
		return "", false
	}
	target.Scheme, target.Host, target.User = "", "", nil
	if !strings.HasPrefix(target.Path, "/") || strings.HasPrefix(target.Path, "//") {
		target.Path = "/" + strings.TrimLeft(target.Path, "/") // never another authority
		target.RawPath = ""
	}
	return target.String(), true
}

// same compares a host with the upstream's, which always has a port.
func same(target *url.URL, upstream string) bool {
	if strings.EqualFold(target.Host, upstream) {
		return true
	}
	if target.Port() != "" {
		return false
	}
	host := strings.TrimSuffix(target.Host, ":")
	return target.Scheme != "https" && strings.EqualFold(host+":80", upstream) || target.Scheme != "http" && strings.EqualFold(host+":443", upstream)
}
