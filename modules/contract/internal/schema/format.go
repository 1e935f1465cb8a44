package schema

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/xeipuuv/gojsonschema"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/pattern"
)

// formats are those that are asserted, whatever the dialect: both libraries and
// the shortcut are told to ask here. Other formats only describe, as JSON Schema
// and OpenAPI have it.
var formats = func() map[string]func(string) bool {
	all := map[string]func(string) bool{"regex": isRegex}
	for _, name := range []string{
		"date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid",
		"uri", "uri-reference", "iri", "iri-reference", "uri-template", "json-pointer", "relative-json-pointer",
	} {
		all[name] = libraryFormat(name)
	}
	date, dateTime, uuid := all["date"], all["date-time"], all["uuid"]
	all["date"] = func(s string) bool { return plainDate(s) || date(s) }
	all["date-time"] = func(s string) bool { return plainDateTime(s) || dateTime(s) }
	all["uuid"] = func(s string) bool { return plainUUID(s) || uuid(s) }
	return all
}()

// libraryFormat is a format as jsonschema knows it, the stricter of the two.
func libraryFormat(name string) func(string) bool {
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("format", map[string]any{"format": name}); err != nil {
		panic(err)
	}
	s := c.MustCompile("format")
	return func(text string) bool { return s.Validate(text) == nil }
}

// olderPrefix keeps our formats from those that gojsonschema brings along.
const olderPrefix = "gatehouse:"

func init() {
	for name, is := range formats {
		gojsonschema.FormatCheckers.Add(olderPrefix+name, checker(is))
	}
}

type checker func(string) bool

func (is checker) IsFormat(v any) bool {
	text, ok := v.(string)
	return !ok || is(text)
}

// register makes a compiler assert our formats and no others.
func register(c *jsonschema.Compiler) {
	for name, is := range formats {
		c.RegisterFormat(&jsonschema.Format{Name: name, Validate: func(v any) error {
			if text, ok := v.(string); ok && !is(text) {
				return fmt.Errorf("not a %s", name) //nolint:err113 // the library drops it
			}
			return nil
		}})
	}
	for name, size := range intFormats {
		c.RegisterFormat(&jsonschema.Format{Name: name, Validate: size.check})
	}
	for _, name := range []string{"period", "semver"} { // the library's own inventions
		c.RegisterFormat(&jsonschema.Format{Name: name, Validate: func(any) error { return nil }})
	}
}

// intFormats are OpenAPI's formats of numbers that have a range.
var intFormats = map[string]bits{"int32": 32, "int64": 64}

type bits int

func (size bits) bounds() (least, most json.Number) {
	top := int64(math.MaxInt64) >> (64 - size)
	return json.Number(strconv.FormatInt(-top-1, 10)), json.Number(strconv.FormatInt(top, 10))
}

func (size bits) check(v any) error {
	n, ok := v.(json.Number)
	if !ok {
		return nil
	}
	if isWhole(string(n)) {
		_, err := strconv.ParseInt(string(n), 10, int(size))
		return err
	}
	// Whether 3e10 is whole is for the type to say; it is too large all the same.
	f, err := n.Float64()
	if top := math.Ldexp(1, int(size)-1); err == nil && (f < -top || f >= top) {
		return strconv.ErrRange
	}
	return err
}

func isRegex(s string) bool { return pattern.Valid(s) }

// The plain forms are what nearly every value looks like. What they do not know
// the library is asked about.

func plainDate(s string) bool {
	if len(s) != len(time.DateOnly) {
		return false
	}
	_, err := time.Parse(time.DateOnly, s)
	return err == nil
}

// plainDateTime knows 2026-11-24T10:21:47Z, with or without a fraction.
func plainDateTime(s string) bool {
	const seconds = len("2006-01-02T15:04:05")
	rest, utc := strings.CutSuffix(s, "Z")
	if !utc || len(rest) < seconds || s[13] != ':' || s[16] != ':' || s[seconds] == ',' {
		return false // time.Parse would take more than RFC 3339 does
	}
	_, err := time.Parse(time.RFC3339, s)
	return err == nil
}

func plainUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
				return false
			}
		}
	}
	return true
}
