package schema

import (
	"os"
	"strings"
	"testing"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/openapi"
	"github.com/gatehouse-caddy/gatehouse/modules/gate/strictjson"
)

// shortcutOf is what stands before the library, if anything.
func shortcutOf(s Schema) *shortcut {
	if b, ok := s.(*bounded); ok {
		s = b.Schema
	}
	short, _ := s.(*shortcut)
	return short
}

// TestShortcutAccepts: what it was made for does not reach the library, and what
// it has to doubt does.
func TestShortcutAccepts(t *testing.T) {
	for _, c := range []struct{ schema, accepts, doubts string }{
		{`{"type":"string"}`, `"a"`, `1`},
		{`{"type":["integer","null"]}`, `null`, `"1"`},
		{`{"type":"integer"}`, `123456789012345678901234567890`, `1.0`},
		{`{"type":"integer","minimum":1,"maximum":9}`, `9`, `10`},
		{`{"type":"number","minimum":0.5}`, `0.6`, `0.5`},
		{`{"type":"number","maximum":9007199254740993}`, `9007199254740993`, `9007199254740994`},
		{`{"type":"number","maximum":0.1}`, `0.09`, `0.10000000000000000001`},
		{`{"multipleOf":3}`, `9`, `10`},
		{`{"multipleOf":3}`, `-9`, `9e0`},
		{`{"enum":["a",1,null]}`, `1`, `1.0`},
		{`{"minLength":2,"maxLength":2}`, `"éé"`, `"ééé"`},
		{`{"pattern":"^[a-z]+$"}`, `"abc"`, `"ABC"`},
		{`{"format":"uuid"}`, `"00000000-0000-0000-0000-00000000000A"`, `"00000000-0000-0000-0000-00000000000G"`},
		{`{"format":"date-time"}`, `"2026-11-24T10:21:47.123Z"`, `"2026-02-30T10:21:47Z"`},
		{`{"format":"none-such"}`, `"x"`, ``},
		{`{"type":"array","items":{"type":"boolean"},"maxItems":2}`, `[true,false]`, `[true,0]`},
		{`{"uniqueItems":true}`, `["a","b"]`, `["a","a"]`},
		{`{"uniqueItems":true}`, `[{}]`, `[{},[]]`},
		{`{"required":["a"],"properties":{"a":{"type":"string"}},"additionalProperties":false}`, `{"a":"x"}`, `{"a":"x","b":1}`},
		{`{"additionalProperties":{"type":"integer"},"minProperties":1}`, `{"a":1}`, `{}`},
		{`{"allOf":[{"type":"string"},{"minLength":1}]}`, `"x"`, `""`},
		{`{"anyOf":[{"type":"string"},{"type":"null"}]}`, `null`, `1`},
		{`{"properties":{"a":{"oneOf":[{"type":"string"}]}}}`, `{}`, `{"a":"x"}`}, // only without the member
		{`{"properties":{"child":{"$ref":"#"},"n":{"type":"integer"}},"additionalProperties":false}`, `{"child":{"child":{"n":1}}}`, `{"child":{"child":{"n":"1"}}}`},
		{`{"definitions":{"a":{"type":"string"}},"items":{"$ref":"#/definitions/a"}}`, `["x"]`, `[1]`},
	} {
		for _, d := range []Dialect{Draft7, OpenAPI30, Draft2020} {
			s, err := compileText(t, d, c.schema)
			if err != nil {
				t.Fatal(c.schema, err)
			}
			short := shortcutOf(s)
			if short == nil {
				t.Errorf("dialect %d: no shortcut for %s", d, c.schema)
				continue
			}
			if !short.root.accepts(decode(t, c.accepts)) {
				t.Errorf("dialect %d: %s leaves %s to the library", d, c.schema, c.accepts)
			}
			if c.doubts != "" && short.root.accepts(decode(t, c.doubts)) {
				t.Errorf("dialect %d: %s accepts %s", d, c.schema, c.doubts)
			}
		}
	}
	for _, unknown := range []string{`{"oneOf":[{}]}`, `{"not":{}}`, `{"if":{}}`, `{"patternProperties":{"a":{}}}`, `{"contains":{}}`, `{"items":[{}]}`, `{"nonsense":1}`} {
		if s, err := compileText(t, Draft7, unknown); err != nil || shortcutOf(s) != nil {
			t.Errorf("%s has a shortcut (%v)", unknown, err)
		}
	}
}

// TestShortcutTakesTheOrder: the body that the figures are measured with is one
// that a shortcut accepts.
func TestShortcutTakesTheOrder(t *testing.T) {
	doc, err := openapi.ReadFile("../../../../bench/orders.openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	order, err := os.ReadFile("../../../../bench/order1k.json")
	if err != nil {
		t.Fatal(err)
	}
	n := openapi.Node{Files: openapi.NewFiles(doc), File: doc, Value: doc.Root}
	for _, word := range []string{"components", "schemas", "Order"} {
		n, _ = n.Child(word)
	}
	for _, d := range []Dialect{OpenAPI30, Draft2020} {
		s, err := compileOne(d, n)
		if err != nil {
			t.Fatal(err)
		}
		if short := shortcutOf(s); short == nil || !short.root.accepts(decode(t, string(order))) {
			t.Errorf("dialect %d: the order goes to the library", d)
		}
	}
}

// TestFormatsAgree: a format means the same whichever library serves.
func TestFormatsAgree(t *testing.T) {
	for format, values := range map[string]map[string]bool{
		"date-time": {"2026-11-24": false, "2026-11-24T10:21:47Z": true, "2026-11-24t10:21:47+02:00": true, "2026-11-24T10:21:47": false, "2016-12-31T23:59:60Z": true, "2026-11-24T1:21:47Z": false, "2026-11-24T10:21:47,5Z": false},
		"date":      {"2026-11-24": true, "2026-13-24": false, "2026-1-24": false},
		"time":      {"10:21:47Z": true, "10:21": false},
		"uuid":      {"00000000-0000-0000-0000-00000000000A": true, "00000000000000000000000000000000": false},
		"email":     {"a@example.com": true, "a": false},
		"ipv4":      {"192.0.2.1": true, "192.0.2.01": false},
		"ipv6":      {"2001:db8::1": true, "192.0.2.1": false},
		"hostname":  {"example.com": true, "-": false},
		"uri":       {"https://example.com/": true, "/a": false},
		"regex":     {`^\u0061$`: true, "(": false},
		"period":    {"monthly": true}, // not a format of JSON Schema
		"semver":    {"latest": true},
		"color":     {"green": true},
		"idn-email": {"x": true},
	} {
		for value, want := range values {
			for _, d := range []Dialect{Draft4, Draft7, OpenAPI30, Draft2019, Draft2020} {
				s, err := compileText(t, d, `{"format":"`+format+`"}`)
				if err != nil {
					t.Fatal(err)
				}
				found := s.Validate(value)
				if (found == nil) != want {
					t.Errorf("dialect %d, %s: %q is %v", d, format, value, found)
				}
				if found != nil && found[0].Detail != "must be in the format "+format {
					t.Errorf("dialect %d: %q", d, found[0].Detail)
				}
				if s.Validate(decode(t, `7`)) != nil {
					t.Errorf("dialect %d: %s speaks of numbers", d, format)
				}
			}
		}
	}
	for _, d := range []Dialect{OpenAPI30, Draft2020} {
		for text, want := range map[string]bool{`2147483647`: true, `2147483648`: false, `-2147483648`: true, `-2147483649`: false, `3e10`: false, `-3e10`: false, `1e3`: true, `"x"`: true} {
			s, err := compileText(t, d, `{"format":"int32"}`)
			if err != nil {
				t.Fatal(err)
			}
			if (s.Validate(decode(t, text)) == nil) != want {
				t.Errorf("dialect %d: int32 %s", d, text)
			}
		}
	}
}

// FuzzShortcut: what a shortcut accepts, the library accepts.
func FuzzShortcut(f *testing.F) {
	for _, seed := range [][2]string{
		{`{"type":"integer","minimum":1,"exclusiveMaximum":9.5,"multipleOf":2}`, `8`},
		{`{"type":"number","maximum":0.1}`, `0.1`},
		{`{"enum":[1,"a",null,true],"minLength":1}`, `"a"`},
		{`{"const":{"a":1}}`, `{"a":1}`},
		{`{"type":"array","items":{"$ref":"#/definitions/a"},"uniqueItems":true,"minItems":1,"definitions":{"a":{"type":"string","maxLength":3}}}`, `["a","b"]`},
		{`{"type":"object","required":["a"],"properties":{"a":{"anyOf":[{"type":"string"},{"$ref":"#"}]}},"additionalProperties":{"type":"boolean"}}`, `{"a":{"a":"x"},"b":true}`},
		{`{"allOf":[{"minProperties":1},true],"maxProperties":2}`, `{"a":1}`},
		{`{"minimum":1,"exclusiveMinimum":true}`, `1`},
		{`{"format":"int32"}`, `2147483648`},
		{`{"minimum":-0.0}`, `-0`},
	} {
		f.Add(seed[0], seed[1])
	}
	for _, value := range []string{"2026-11-24T10:21:47Z", "a@b.c", "::1", "1.2.3.4", "00000000-0000-0000-0000-00000000000A", "10:00:00Z", "P1D", "/a~0", "http://[::1]/"} {
		for format := range formats {
			f.Add(`{"format":"`+format+`"}`, `"`+value+`"`)
		}
	}
	f.Fuzz(func(t *testing.T, schema, value string) {
		v, err := strictjson.Decode([]byte(value), strictjson.Limits{})
		if err != nil || len(schema) > 2000 {
			return
		}
		file, err := openapi.ReadBytes("schema.json", []byte(schema))
		if err != nil {
			return
		}
		for _, d := range []Dialect{Draft4, OpenAPI30, Draft7, Draft2020} {
			s, err := compileOne(d, openapi.Node{Files: openapi.NewFiles(file), File: file, Value: file.Root})
			if err != nil {
				continue
			}
			short := shortcutOf(s)
			if short == nil || !short.root.accepts(v) {
				continue
			}
			if found := short.Schema.Validate(v); found != nil {
				t.Errorf("dialect %d: %s is accepted by the shortcut of %s, and refused by the library: %v", d, value, schema, found)
			}
		}
	})
}

// FuzzPlainForms: the plain forms of formats are within what the library takes.
func FuzzPlainForms(f *testing.F) {
	for _, s := range []string{"2026-11-24", "2026-11-24T10:21:47Z", "2026-11-24T10:21:47.5Z", "2016-12-31T23:59:60Z", strings.Repeat("a", 36), "00000000-0000-0000-0000-00000000000A"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for format, plain := range map[string]func(string) bool{"date": plainDate, "date-time": plainDateTime, "uuid": plainUUID} {
			if plain(s) && !libraryFormat(format)(s) {
				t.Errorf("%q is no %s", s, format)
			}
		}
	})
}
