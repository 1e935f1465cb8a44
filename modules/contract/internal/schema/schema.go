// Package schema validates values against JSON Schema, in every dialect that
// contracts use, by the library that serves each best. It is the seam behind
// which a compiled validator may stand one day.
package schema

import (
	"fmt"

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

// Compiler compiles the schemas of one contract. It may not be used
// concurrently.
type Compiler struct {
	dialect Dialect
	absent  string // members marked so need not be there
	newer   *newer
	older   *collector
	graph   *graph
	ready   map[openapi.Identity]Schema // operations share components, and much else
}

// NewCompiler compiles schemas in a dialect, for requests: members that are
// readOnly need not be there.
func NewCompiler(d Dialect) *Compiler {
	return &Compiler{dialect: d, absent: "readOnly", graph: newGraph(), ready: make(map[openapi.Identity]Schema)}
}

// NewResponseCompiler is NewCompiler for responses: members that are writeOnly
// need not be there.
func NewResponseCompiler(d Dialect) *Compiler {
	c := NewCompiler(d)
	c.absent = "writeOnly"
	return c
}

// Compile makes the schema at a node ready, to be used after Finish.
func (c *Compiler) Compile(n openapi.Node) (Schema, error) {
	at := n
	if m, ok := n.Value.(map[string]any); ok && len(m) == 1 {
		if ref, ok := m["$ref"].(string); ok && !isName(ref) {
			var err error
			if at, err = n.Step(); err != nil {
				return nil, err
			}
		}
	}
	key := at.Identity()
	if c.newer != nil && c.newer.inPlace {
		key = at.Place() // names mean what they mean at a place
	}
	if s, ok := c.ready[key]; ok {
		return s, nil
	}
	root, err := c.graph.walk(at)
	if err != nil {
		return nil, err
	}
	var s Schema
	if c.dialect == Draft2019 || c.dialect == Draft2020 {
		if c.newer == nil {
			c.newer = newNewer(c.dialect, c.absent)
		}
		s, err = c.newer.compile(at)
	} else {
		if c.older == nil {
			c.older = newCollector(c.dialect, c.absent)
		}
		s, err = c.older.compile(at)
	}
	if err != nil {
		return nil, at.Errorf("compiling the schema: %w", err)
	}
	if root != nil && root.boundless() {
		s = &bounded{s, root}
	}
	if c.newer != nil && c.newer.inPlace {
		key = at.Place()
	}
	c.ready[key] = s
	return s, nil
}

// Finish completes the compiled schemas and lets go of the contract's files. No
// more may be compiled.
func (c *Compiler) Finish() error {
	if c.older != nil {
		if err := c.older.finish(); err != nil {
			return err
		}
		c.older = nil
	}
	for _, v := range c.graph.all {
		v.at = openapi.Node{}
	}
	c.graph, c.newer, c.ready = nil, nil, nil
	return nil
}
