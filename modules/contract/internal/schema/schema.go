// Package schema validates values against JSON Schema, in every dialect that
// contracts use, by the library that serves each best. It is the seam behind
// which a compiled validator may stand one day.
package schema

import (
	"fmt"
	"math"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/openapi"
)

// Violation is one thing wrong with a value. It does not repeat the value.
type Violation struct {
	Pointer string // JSON pointer, empty for the whole value
	Detail  string // one sentence without a period
}

// Schema validates values as strictjson decodes them. It may be used
// concurrently.
type Schema interface {
	// Validate returns what is wrong, at most MaxViolations, or nil.
	Validate(value any) []Violation
}

// MaxViolations bounds what is reported of one value.
const MaxViolations = 10

// Dialect is a version of JSON Schema.
type Dialect uint8

// The dialects.
const (
	Draft4 Dialect = iota
	Draft6
	Draft7
	Draft2019
	Draft2020
	OpenAPI30
)

// DialectOf reads $schema. Without one, the newest is meant.
func DialectOf(root any) (Dialect, error) {
	m, _ := root.(map[string]any)
	uri, ok := m["$schema"].(string)
	if !ok {
		return Draft2020, nil
	}
	for known, d := range map[string]Dialect{
		"http://json-schema.org/draft-04/schema": Draft4, "http://json-schema.org/draft-06/schema": Draft6,
		"http://json-schema.org/draft-07/schema": Draft7, "https://json-schema.org/draft/2019-09/schema": Draft2019,
		"https://json-schema.org/draft/2020-12/schema": Draft2020,
	} {
		if uri == known || uri == known+"#" {
			return d, nil
		}
	}
	return 0, fmt.Errorf("$schema %q is not known; expected draft 4, 6, 7, 2019-09 or 2020-12", uri)
}

// Compiler compiles the schemas of one contract.
type Compiler struct {
	dialect Dialect
	newer   *newer
}

// NewCompiler compiles schemas in a dialect.
func NewCompiler(d Dialect) *Compiler { return &Compiler{dialect: d} }

// Compile makes the schema at a node ready.
func (c *Compiler) Compile(n openapi.Node) (Schema, error) {
	g := &graph{seen: make(map[string]*vertex)}
	if err := g.walk(n); err != nil {
		return nil, err
	}
	var s Schema
	var err error
	if c.dialect == Draft2019 || c.dialect == Draft2020 {
		if c.newer == nil {
			c.newer = newNewer(c.dialect)
		}
		s, err = c.newer.compile(n)
	} else {
		s, err = compileOlder(n, c.dialect)
	}
	if err != nil {
		return nil, n.Errorf("compiling the schema: %w", err)
	}
	if b := g.branching(); b > 1 {
		s = &bounded{s, b}
	}
	return s, nil
}

// bounded limits the work of one validation. A schema that comes back to
// itself through several branches is tried branches^depth times on a value of
// some depth, so that 150 bytes could keep a core busy for minutes.
type bounded struct {
	Schema
	branches int
}

// maxWork is how many visits of a value one validation may make by estimate;
// a visit takes a microsecond or two.
const maxWork = 100_000

func (b *bounded) Validate(value any) []Violation {
	if work(value, float64(b.branches), 1) > maxWork {
		return []Violation{{Detail: "is nested too deeply for a schema that branches this often"}}
	}
	return b.Schema.Validate(value)
}

func work(value any, branches, times float64) float64 {
	sum := times
	if math.IsInf(times, 1) {
		return times
	}
	switch v := value.(type) {
	case map[string]any:
		for _, item := range v {
			if sum += work(item, branches, times*branches); sum > maxWork {
				break
			}
		}
	case []any:
		for _, item := range v {
			if sum += work(item, branches, times*branches); sum > maxWork {
				break
			}
		}
	}
	return sum
}
