package param

import (
	"encoding/json"
	"net/url"
	"reflect"
	"testing"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/openapi"
)

func n(s string) json.Number { return json.Number(s) }

var (
	integers = &Shape{Types: []string{"array"}, Items: &Shape{Types: []string{"integer"}}}
	object   = &Shape{Types: []string{"object"}, Members: map[string]*Shape{"a": {Types: []string{"integer"}}, "b": {Types: []string{"string"}}}}
	integer  = &Shape{Types: []string{"integer"}}
)

func TestScalar(t *testing.T) {
	for _, tc := range []struct {
		text string
		kind string
		want any
	}{
		{"5", "integer", n("5")},
		{"5", "string", "5"},
		{"5.0", "number", n("5.0")},
		{"x", "integer", "x"},
		{" 5", "integer", " 5"},
		{"1e10000000", "integer", "1e10000000"},
		{"0x10", "integer", "0x10"},
		{"", "integer", ""},
		{"true", "boolean", true},
		{"TRUE", "boolean", "TRUE"},
		{"1", "boolean", "1"},
	} {
		if got := Scalar(tc.text, &Shape{Types: []string{tc.kind}}); got != tc.want {
			t.Errorf("%q as %s: %#v", tc.text, tc.kind, got)
		}
	}
}

func TestStyles(t *testing.T) {
	for _, tc := range []struct {
		name, query, style string
		explode            bool
		shape              *Shape
		want               any
		present, twice     bool
	}{
		{"a number", "p=5", "form", true, integer, n("5"), true, false},
		{"absent", "q=5", "form", true, integer, nil, false, false},
		{"twice", "p=5&p=6", "form", true, integer, n("5"), true, true},
		{"a list, exploded", "p=1&p=2", "form", true, integers, []any{n("1"), n("2")}, true, false},
		{"a list in one", "p=1,2", "form", false, integers, []any{n("1"), n("2")}, true, false},
		{"two lists in one", "p=1,2&p=3,4", "form", false, integers, []any{n("1"), n("2")}, true, true},
		{"a list by pipes", "p=1|2", "pipeDelimited", false, integers, []any{n("1"), n("2")}, true, false},
		{"a list by spaces", "p=1%202", "spaceDelimited", false, integers, []any{n("1"), n("2")}, true, false},
		{"an object, exploded", "a=1&b=x&c=y", "form", true, object, map[string]any{"a": n("1"), "b": "x"}, true, false},
		{"an object in one", "p=a,1,b,x", "form", false, object, map[string]any{"a": n("1"), "b": "x"}, true, false},
		{"a deep object", "p[a]=1&p[b]=x&q[a]=2", "deepObject", true, object, map[string]any{"a": n("1"), "b": "x"}, true, false},
	} {
		q, err := url.ParseQuery(tc.query)
		if err != nil {
			t.Fatal(err)
		}
		v, present, twice := Query(&openapi.Param{Name: "p", In: "query", Style: tc.style, Explode: tc.explode}, tc.shape, q)
		if !reflect.DeepEqual(v, tc.want) || present != tc.present || twice != tc.twice {
			t.Errorf("%s: %#v %v %v", tc.name, v, present, twice)
		}
	}
	for _, tc := range []struct {
		value, style string
		explode      bool
		shape        *Shape
		want         any
	}{
		{"5", "simple", false, integer, n("5")},
		{"1,2", "simple", false, integers, []any{n("1"), n("2")}},
		{"a=1,b=x", "simple", true, object, map[string]any{"a": n("1"), "b": "x"}},
		{".5", "label", false, integer, n("5")},
		{".1.2", "label", true, integers, []any{n("1"), n("2")}},
		{";p=5", "matrix", false, integer, n("5")},
		{";p=1,2", "matrix", false, integers, []any{n("1"), n("2")}},
		{";p=1;p=2", "matrix", true, integers, []any{n("1"), n("2")}},
		{";a=1;b=x", "matrix", true, object, map[string]any{"a": n("1"), "b": "x"}},
	} {
		if got := Path(&openapi.Param{Name: "p", In: "path", Style: tc.style, Explode: tc.explode}, tc.shape, tc.value); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s %q: %#v, want %#v", tc.style, tc.value, got, tc.want)
		}
	}
}

// FuzzQuery: whatever the query, what comes out of it is JSON.
func FuzzQuery(f *testing.F) {
	f.Add("p=1,2&p[a]=3&a=true", "form", true)
	f.Add("p=%00|x|", "pipeDelimited", false)
	f.Fuzz(func(t *testing.T, raw, style string, explode bool) {
		q, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		for _, s := range []*Shape{nil, integer, integers, object} {
			v, _, _ := Query(&openapi.Param{Name: "p", In: "query", Style: style, Explode: explode}, s, q)
			if _, err := json.Marshal(v); err != nil {
				t.Fatalf("%q gives %#v: %v", raw, v, err)
			}
		}
	})
}

func TestForm(t *testing.T) {
	s := &Shape{Members: map[string]*Shape{"n": integer, "list": integers, "o": object, "s": {Types: []string{"string"}}}}
	for body, want := range map[string]map[string]any{
		"n=1&s=x":         {"n": n("1"), "s": "x"},
		"list=1":          {"list": []any{n("1")}},
		"list=1&list=2":   {"list": []any{n("1"), n("2")}},
		"s=user&s=admin":  {"s": []any{"user", "admin"}},
		"zzz=1&zzz=2":     {"zzz": []any{"1", "2"}},
		`o={"a":1}`:       {"o": map[string]any{"a": n("1")}},
		`o={"a":1,"a":2}`: {"o": `{"a":1,"a":2}`},
	} {
		form, err := url.ParseQuery(body)
		if err != nil {
			t.Fatal(err)
		}
		if got := Form(s, form); !reflect.DeepEqual(got, any(want)) {
			t.Errorf("%s: %#v", body, got)
		}
	}
}
