package policytest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// plainJSON makes a value what it would be when it came as JSON, with numbers
// as they were written.
func plainJSON(v any) (any, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return decodeJSON(data)
}

func decodeJSON(data []byte) (v any, err error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	err = dec.Decode(&v)
	return v, err
}

func marshal(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		return nil // what came from JSON can be written as JSON
	}
	return data
}

// within reports whether got has all that want has: of objects, the members
// that are named; of lists, every item.
func within(want, got any, at string) (where, wanted, found string, ok bool) {
	switch w := want.(type) {
	case map[string]any:
		g, is := got.(map[string]any)
		if !is {
			break
		}
		names := make([]string, 0, len(w))
		for name := range w {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			value, there := g[name]
			if !there {
				return at + "." + name, short(w[name]), noReason, false
			}
			if where, wanted, found, ok = within(w[name], value, at+"."+name); !ok {
				return where, wanted, found, false
			}
		}
		return "", "", "", true
	case []any:
		g, is := got.([]any)
		if !is {
			break
		}
		if len(w) != len(g) {
			return at, fmt.Sprintf("%d items", len(w)), strconv.Itoa(len(g)), false
		}
		for i := range w {
			if where, wanted, found, ok = within(w[i], g[i], at+"["+strconv.Itoa(i)+"]"); !ok {
				return where, wanted, found, false
			}
		}
		return "", "", "", true
	default:
		if same(want, got) {
			return "", "", "", true
		}
	}
	return at, short(want), short(got), false
}

// same compares scalars; 1 and 1.0 are one number.
func same(a, b any) bool {
	x, isX := a.(json.Number)
	y, isY := b.(json.Number)
	if isX && isY {
		f, err := x.Float64()
		g, err2 := y.Float64()
		return x == y || err == nil && err2 == nil && f == g
	}
	return a == b
}

func short(v any) string { return excerpt(marshal(v)) }

// excerpt is as much of a body as a line of a report has room for.
func excerpt(b []byte) string {
	const most = 200
	if len(b) > most {
		return fmt.Sprintf("%s… (%d bytes)", bytes.ToValidUTF8(b[:most], nil), len(b))
	}
	if len(b) == 0 {
		return "nothing"
	}
	return string(b)
}
