package schema

import (
	"regexp"
	"strings"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/openapi"
)

// usable reports a pattern that Go's regular expressions do not understand, at
// its place. They take linear time, which is why nothing else is used: what a
// client sends must not decide how long a match takes.
func usable(n openapi.Node, word, pattern string) error {
	_, err := regexp.Compile(translate(pattern))
	if err == nil {
		return nil
	}
	at, _ := n.Child(word)
	if strings.Contains(pattern, "(?=") || strings.Contains(pattern, "(?!") || strings.Contains(pattern, "(?<=") || strings.Contains(pattern, "(?<!") {
		return at.Errorf("pattern %q looks around, which is not supported; write it as allOf with several patterns", pattern)
	}
	return at.Errorf("pattern %q: %w", pattern, err)
}

// translate says in Go's syntax what JSON Schema's, which is JavaScript's,
// writes differently: \u00e9 and \cA.
func translate(pattern string) string {
	if !strings.Contains(pattern, `\u`) && !strings.Contains(pattern, `\c`) {
		return pattern
	}
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		if pattern[i] != '\\' || i+1 == len(pattern) {
			b.WriteByte(pattern[i])
			continue
		}
		i++ // the escaped character
		switch c := pattern[i]; {
		case c == 'u' && i+4 < len(pattern) && isHex(pattern[i+1:i+5]):
			b.WriteString(`\x{` + pattern[i+1:i+5] + `}`)
			i += 4
		case c == 'c' && i+1 < len(pattern) && pattern[i+1]|0x20 >= 'a' && pattern[i+1]|0x20 <= 'z':
			const hex = "0123456789abcdef"
			b.WriteString(`\x` + string(hex[pattern[i+1]&0x1f>>4]) + string(hex[pattern[i+1]&0xf]))
			i++
		default:
			b.WriteByte('\\')
			b.WriteByte(c)
		}
	}
	return b.String()
}

func isHex(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
			return false
		}
	}
	return true
}
