package schema

import (
	"errors"
	"strings"
	"sync"

	"github.com/xeipuuv/gojsonschema"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/openapi"
	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/pattern"
)

// usable reports a pattern that cannot be matched in linear time, at its place:
// what a client sends must not decide how long a match takes.
func usable(n openapi.Node, word, text string) error {
	if _, err := pattern.Compile(text); err != nil {
		at, _ := n.Child(word)
		return at.Errorf("pattern %q: %w", text, err)
	}
	return nil
}

// gojsonschema compiles patterns by itself, so that what Go's syntax cannot say
// reaches it as a format with the pattern in its name.
const patternFormat = olderPrefix + "pattern:"

// maxOwn bounds the patterns of that kind over all contracts and reloads: the
// library knows formats for the whole process.
const maxOwn = 20_000

var (
	ownLock sync.Mutex
	own     = make(map[string]bool)
)

// asFormat makes a pattern known under the name of a format.
func asFormat(p *pattern.Pattern) (string, error) {
	name := patternFormat + p.String()
	ownLock.Lock()
	defer ownLock.Unlock()
	if !own[name] {
		if len(own) == maxOwn {
			return "", errors.New("too many different patterns that look around; restart the gateway to forget those of earlier contracts")
		}
		own[name] = true
		gojsonschema.FormatCheckers.Add(name, checker(p.MatchString))
	}
	return name, nil
}

// olderPattern writes a pattern for gojsonschema into the copy of a schema.
func olderPattern(out map[string]any) error {
	text, ok := out["pattern"].(string)
	if !ok {
		return nil
	}
	p, err := pattern.Compile(text)
	if err != nil {
		return err
	}
	if plain, ok := p.Plain(); ok {
		out["pattern"] = plain
		return nil
	}
	name, err := asFormat(p)
	if err != nil {
		return err
	}
	delete(out, "pattern")
	all, _ := out["allOf"].([]any)
	out["allOf"] = append([]any{map[string]any{"format": name}}, all...)
	return nil
}

// patternOf is the pattern that a format of ours stands for.
func patternOf(format string) (*pattern.Pattern, bool) {
	text, ok := strings.CutPrefix(format, patternFormat)
	if !ok {
		return nil, false
	}
	p, err := pattern.Compile(text)
	return p, err == nil
}
