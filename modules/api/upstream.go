package api

import (
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// lbRetries is how often a reverse_proxy in an api that says nothing else tries
// again; the transport's budget and rules are what bounds it.
const lbRetries = "2"

// resilient gives every reverse_proxy of a directive, however deep it stands,
// our transport, selection policy and retries, unless it names its own.
func resilient(tokens caddyfile.Segment) caddyfile.Segment {
	if _, err := caddy.GetModule("http.reverse_proxy.transport.gatehouse"); err != nil {
		return tokens // this package was compiled without it
	}
	var out caddyfile.Segment
	for i := 0; i < len(tokens); {
		if tokens[i].Text != "reverse_proxy" || !begins(tokens, i) {
			out = append(out, tokens[i])
			i++
			continue
		}
		end := i + length(tokens[i:])
		out = append(out, complete(tokens[i:end])...)
		i = end
	}
	return out
}

// begins reports whether a token is the first of its line, as Caddy tells it:
// what was imported starts lines of its own, wherever it stands.
func begins(tokens caddyfile.Segment, i int) bool {
	if i == 0 {
		return true
	}
	d := caddyfile.NewDispenser(tokens[i-1 : i+1])
	return d.Next() && d.NextLine()
}

// length counts the tokens of the directive that stands first: its line, and
// the block that its line may open.
func length(tokens caddyfile.Segment) int {
	depth := 0
	for i, t := range tokens {
		if i > 0 && depth == 0 && begins(tokens, i) {
			return i
		}
		switch t.Text {
		case "{":
			depth++
		case "}":
			depth--
		}
	}
	return len(tokens)
}

// complete adds to one reverse_proxy what it does not say itself. What it adds
// claims a file of its own, which is how Caddy tells lines apart.
func complete(proxy caddyfile.Segment) caddyfile.Segment {
	open := slices.IndexFunc(proxy, func(t caddyfile.Token) bool { return t.Text == "{" })
	says := map[string]string{}
	if open >= 0 {
		for i := open + 1; i < len(proxy)-1; {
			n := length(proxy[i:])
			says[proxy[i].Text] = strings.Join(texts(proxy[i+1:i+n]), " ")
			i += n
		}
	}
	if open >= 0 { // what its handle_response holds
		proxy = slices.Concat(proxy[:open+1], resilient(proxy[open+1:]))
	}
	transport, named := says["transport"]
	if named && !strings.HasPrefix(transport+" ", "gatehouse ") {
		return proxy
	}
	var lines []string
	if !named {
		lines = append(lines, "transport gatehouse")
	}
	if _, ok := says["lb_policy"]; !ok {
		lines = append(lines, "lb_policy gatehouse")
	}
	_, retries := says["lb_retries"]
	if _, duration := says["lb_try_duration"]; !retries && !duration {
		lines = append(lines, "lb_retries "+lbRetries)
	}
	const file = "implied by api"
	var added caddyfile.Segment
	for n, line := range lines {
		for word := range strings.FieldsSeq(line) {
			added = append(added, caddyfile.Token{File: file, Line: n + 1, Text: word})
		}
	}
	if open >= 0 {
		return slices.Concat(proxy[:open+1], added, proxy[open+1:])
	}
	brace := proxy[len(proxy)-1] // on the same line, also of what was imported
	brace.Text = "{"
	return slices.Concat(proxy, caddyfile.Segment{brace}, added, caddyfile.Segment{{File: file, Line: len(lines) + 1, Text: "}"}})
}

func texts(tokens caddyfile.Segment) []string {
	words := make([]string, len(tokens))
	for i, t := range tokens {
		words[i] = t.Text
	}
	return words
}
