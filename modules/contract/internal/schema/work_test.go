package schema

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/openapi"
	"github.com/gatehouse-caddy/gatehouse/modules/gate/strictjson"
)

// TestAmplification: schemas that visit the same value in several ways at each
// level, by every pair of keywords that can. Each took seconds to minutes at
// some depth below thirty.
func TestAmplification(t *testing.T) {
	nested := `{"$ref":"#"}`
	for range 4 {
		nested = `{"anyOf":[` + nested + `,` + nested + `]}`
	}
	for name, tc := range map[string]struct{ schema, open, end string }{
		"anyOf in anyOf":                   {`{"type":"object","properties":{"a":` + nested + `},"required":["zz"]}`, `{"a":`, `}`},
		"properties and patternProperties": {`{"properties":{"a":{"$ref":"#"}},"patternProperties":{"a":{"$ref":"#"},"^a":{"$ref":"#"}}}`, `{"a":`, `}`},
		"items and contains":               {`{"items":{"$ref":"#"},"contains":{"$ref":"#"}}`, `[`, `]`},
		"allOf and its sibling":            {`{"allOf":[{"properties":{"a":{"$ref":"#"}}}],"properties":{"a":{"$ref":"#"}}}`, `{"a":`, `}`},
		"if and then":                      {`{"if":{"properties":{"a":{"$ref":"#"}}},"then":{"properties":{"a":{"$ref":"#"}}}}`, `{"a":`, `}`},
		"not, twice":                       {`{"allOf":[{"not":{"properties":{"a":{"$ref":"#"}}}},{"not":{"additionalProperties":{"$ref":"#"}}}]}`, `{"a":`, `}`},
		"dependencies":                     {`{"dependencies":{"a":{"properties":{"a":{"$ref":"#"}}}},"properties":{"a":{"$ref":"#"}}}`, `{"a":`, `}`},
	} {
		for _, d := range []Dialect{Draft7, Draft2020} {
			s, err := compileText(t, d, tc.schema)
			if err != nil {
				t.Fatal(err)
			}
			for depth := range 60 {
				value := decode(t, strings.Repeat(tc.open, depth)+"1"+strings.Repeat(tc.end, depth))
				began := time.Now()
				s.Validate(value)
				if took := time.Since(began); took > time.Second { // tens of milliseconds, with room for a slow machine
					t.Errorf("%s, dialect %d, depth %d: %v", name, d, depth, took)
				}
			}
		}
	}
	for name, text := range map[string]string{
		"$dynamicRef": `{"$dynamicAnchor":"n","anyOf":[{"properties":{"a":{"$dynamicRef":"#n"}},"required":["b"]},{"properties":{"a":{"$dynamicRef":"#n"}},"required":["c"]}]}`,
		"$anchor":     `{"$anchor":"n","anyOf":[{"properties":{"a":{"$ref":"#n"}},"required":["b"]},{"properties":{"a":{"$ref":"#n"}},"required":["c"]}]}`,
		"$id":         `{"$id":"http://x.test/n","anyOf":[{"properties":{"a":{"$ref":"http://x.test/n"}},"required":["b"]},{"properties":{"a":{"$ref":"http://x.test/n#"}},"required":["c"]}]}`,
	} {
		s, err := compileText(t, Draft2020, text)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Validate(decode(t, strings.Repeat(`{"a":`, 25)+"1"+strings.Repeat(`}`, 25))); len(got) != 1 || !strings.Contains(got[0].Detail, "too deeply") {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestRecursionIsWelcome: schemas that are recursive without visiting a value
// in several ways take values of any depth and length.
func TestRecursionIsWelcome(t *testing.T) {
	branch := func(word string) string {
		return `{"type":"object","properties":{"` + word + `":{"type":"array","items":{"$ref":"#"}}},"required":["` + word + `"],"additionalProperties":false}`
	}
	filter := `{"oneOf":[` + branch("and") + `,` + branch("or") + `,` + branch("not") + `,{"type":"object","properties":{"field":{"type":"string"}},"required":["field"],"additionalProperties":false}]}`
	tree := `{"type":"object","properties":{"left":{"$ref":"#"},"right":{"$ref":"#"}},"additionalProperties":false}`
	leaves := strings.Repeat(`{"field":"x"},`, 5000) + `{"field":"y"}`
	for _, d := range []Dialect{Draft7, Draft2020} {
		for text, value := range map[string]string{
			filter: strings.Repeat(`{"and":[`, 30) + leaves + strings.Repeat(`]}`, 30),
			tree:   strings.Repeat(`{"right":{},"left":`, 60) + `{}` + strings.Repeat(`}`, 60),
		} {
			s, err := compileText(t, d, text)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := s.(*bounded); !ok {
				t.Errorf("dialect %d: a recursive schema is not counted", d)
			}
			if got := s.Validate(decode(t, value)); got != nil {
				t.Errorf("dialect %d: %v", d, got)
			}
		}
	}
}

// TestCostIsTheCount compares the counting with the obvious one that visits
// everything, on random schemas and values.
func TestCostIsTheCount(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	counted := 0
	for range 1000 {
		var defs []string
		for i := range 3 {
			defs = append(defs, fmt.Sprintf(`"d%d":%s`, i, randomSchema(rnd, 2)))
		}
		text := `{"definitions":{` + strings.Join(defs, ",") + `},"allOf":[` + randomSchema(rnd, 2) + `]}`
		f, err := openapi.ReadBytes("s.json", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		root, err := newGraph().walk(openapi.Node{Files: openapi.NewFiles(f), File: f, Value: f.Root})
		if err != nil {
			continue // a loop
		}
		value, err := strictjson.Decode([]byte(randomValue(rnd, 4)), strictjson.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		visits := 0.0
		if plainCount(root, value, &visits); visits >= 1e5 {
			continue
		}
		counted++
		m := meter{limit: 1e6, memo: make(map[visit]float64)}
		if got := m.cost(root, value); got != visits || m.over {
			t.Fatalf("%s: %v visits, counted %v", text, visits, got)
		}
	}
	if counted < 300 {
		t.Errorf("only %d schemas were compared", counted)
	}
}

func plainCount(v *vertex, value any, n *float64) {
	if *n++; *n >= 1e5 {
		return
	}
	for _, c := range v.inPlace {
		plainCount(c, value, n)
	}
	for _, p := range v.parts {
		switch value := value.(type) {
		case map[string]any:
			for name, item := range value {
				_, own := p.known[name]
				switch {
				case p.which == names:
					plainCount(p.to, name, n)
				case p.which == member && name == p.name, p.which == others && !own, p.which == matching && p.names.MatchString(name):
					plainCount(p.to, item, n)
				}
			}
		case []any:
			for i, item := range value {
				if p.which == element && i == p.index || p.which == rest && i >= p.index {
					plainCount(p.to, item, n)
				}
			}
		}
	}
}

func randomSchema(rnd *rand.Rand, depth int) string {
	if depth == 0 || rnd.IntN(4) == 0 {
		return fmt.Sprintf(`{"$ref":"#/definitions/d%d"}`, rnd.IntN(3))
	}
	sub := func() string { return randomSchema(rnd, depth-1) }
	words := []string{
		`"anyOf":[` + sub() + `,` + sub() + `]`, `"not":` + sub(), `"properties":{"a":` + sub() + `,"b":` + sub() + `}`, `"patternProperties":{"^[ab]":` + sub() + `}`,
		`"additionalProperties":` + sub(), `"items":` + sub(), `"prefixItems":[` + sub() + `]`, `"contains":` + sub(), `"propertyNames":` + sub(), `"type":"object"`,
	}
	rnd.Shuffle(len(words), func(i, j int) { words[i], words[j] = words[j], words[i] })
	return `{` + strings.Join(words[:1+rnd.IntN(3)], ",") + `}`
}

func randomValue(rnd *rand.Rand, depth int) string {
	if depth == 0 {
		return "1"
	}
	switch rnd.IntN(4) {
	case 0:
		return `"x"`
	case 1:
		return `[` + randomValue(rnd, depth-1) + `,` + randomValue(rnd, depth-1) + `]`
	}
	return `{"a":` + randomValue(rnd, depth-1) + `,"c":` + randomValue(rnd, depth-1) + `}`
}

func TestPatterns(t *testing.T) {
	for _, d := range []Dialect{Draft4, Draft7, Draft2020, OpenAPI30} {
		for _, c := range []struct{ pattern, yes, no string }{
			{`^[\u00e0-\u00ff]+$`, "éà", "ea"},
			{`^(?!aws:)[a-z:]+$`, "a:b", "aws:b"},
			{`^.{1,2000}$`, strings.Repeat("é", 2000), strings.Repeat("a", 2001)},
			{`^\p{Alpha}+\Z`, "ab", "a1"},
		} {
			text, _ := json.Marshal(map[string]any{"pattern": c.pattern})
			s, err := compileText(t, d, string(text))
			if err != nil {
				t.Fatal(err)
			}
			if s.Validate(c.yes) != nil {
				t.Errorf("dialect %d: %s does not match %.20q", d, c.pattern, c.yes)
			}
			if v := s.Validate(c.no); len(v) != 1 || v[0].Detail != "must match the pattern "+c.pattern && d >= Draft2019 && d != OpenAPI30 {
				t.Errorf("dialect %d: %s: %v", d, c.pattern, v)
			}
		}
		for _, schema := range []string{"{\n\"properties\":{\n\"a\":{\n\"pattern\":\"(x)\\\\1\"}}}", "{\n\n\"patternProperties\":{\n\"(x)\\\\1\":{}}}"} {
			if _, err := compileText(t, d, schema); err == nil || !strings.Contains(err.Error(), "schema.json:4: pattern \"(x)") {
				t.Errorf("dialect %d: %v", d, err)
			}
		}
		_, err := compileText(t, d, `{"patternProperties":{"^(?!x)":{"type":"string"}}}`)
		if newer := d == Draft2019 || d == Draft2020; newer != (err == nil) {
			t.Errorf("dialect %d: %v", d, err)
		}
		s, err := compileText(t, d, `{"enum":["a","a",1]}`)
		if err != nil || s.Validate("a") != nil || s.Validate("b") == nil {
			t.Errorf("dialect %d: an enum with a value twice: %v", d, err)
		}
	}
}

// BenchmarkCount: what a recursive schema costs beside its validation.
func BenchmarkCount(b *testing.B) {
	s, err := compileText(b, Draft2020, `{"type":"object","properties":{"left":{"$ref":"#"},"right":{"$ref":"#"},"name":{"type":"string"}},"additionalProperties":false}`)
	if err != nil {
		b.Fatal(err)
	}
	value := decode(b, strings.Repeat(`{"name":"x","right":{},"left":`, 30)+`{}`+strings.Repeat(`}`, 30))
	b.Run("count-and-validate", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Validate(value)
		}
	})
	b.Run("validate", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.(*bounded).Schema.Validate(value)
		}
	})
}
