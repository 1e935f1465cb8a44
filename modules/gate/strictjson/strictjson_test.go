package strictjson

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestDecode(t *testing.T) {
	for _, tc := range []struct{ in, fault string }{
		{`{"a":[1,2.5e3,-0,"x",true,false,null,{}]}`, ""},
		{" \t\r\n1 ", ""},
		{`"\u00e9\ud83d\ude00\n"`, ""},
		{`{"a":1,"a":2}`, "twice"},
		{`{"a":1,"\u0061":2}`, "twice"},
		{`{} {}`, "after the value"},
		{`{}x`, "after the value"},
		{``, "unexpected end"},
		{`{"a":1,}`, "member name"},
		{`[1,]`, "unexpected character"},
		{`[01]`, "comma"},
		{`[1.]`, "digit"},
		{`[+1]`, "unexpected character"},
		{`1e10000000`, "exponent"},
		{`1e401`, "exponent"},
		{`1e-400`, ""},
		{strings.Repeat("9", 129), "digits"},
		{"\"\xff\"", "UTF-8"},
		{"\"\xc0\xaf\"", "UTF-8"},
		{"\"\xed\xa0\x80\"", "UTF-8"},
		{`"\ud800"`, "escape"},
		{`"\ud800\u0041"`, "escape"},
		{`"\x"`, "escape"},
		{"\"\x01\"", "control"},
		{"\xef\xbb\xbf{}", "unexpected character"},
		{`NaN`, "unexpected character"},
		{strings.Repeat("[", 65) + strings.Repeat("]", 65), "deeply"},
		{strings.Repeat("[", 64) + strings.Repeat("]", 64), ""},
		{"[" + strings.Repeat("1,", 100_000) + "1]", "too many"},
	} {
		_, err := Decode([]byte(tc.in), Limits{})
		if (err == nil) != (tc.fault == "") || err != nil && !strings.Contains(err.Error(), tc.fault) {
			t.Errorf("%.60q: %v, want %q", tc.in, err, tc.fault)
		}
	}
}

// stricter are files of the suite that it accepts and we refuse, and why.
var stricter = map[string]string{
	"y_object_duplicated_key.json":           "two readings of one text",
	"y_object_duplicated_key_and_value.json": "two readings of one text",
}

func TestJSONTestSuite(t *testing.T) {
	root := os.Getenv("GATEHOUSE_SUITES")
	if root == "" {
		if os.Getenv("GATEHOUSE_SUITES_REQUIRED") != "" {
			t.Fatal("GATEHOUSE_SUITES is not set, and GATEHOUSE_SUITES_REQUIRED says it must be")
		}
		t.Skip("third-party suites are not part of the repository; set GATEHOUSE_SUITES to their folder")
	}
	files, err := filepath.Glob(filepath.Join(root, "jsonparse", "test_parsing", "*.json"))
	if err != nil || len(files) < 300 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Decode(data, Limits{})
		base := filepath.Base(name)
		why := stricter[base]
		switch base[0] {
		case 'y':
			if (err != nil) != (why != "") {
				t.Errorf("%s: %v; exception %q", base, err, why)
			}
		case 'n':
			if err == nil {
				t.Errorf("%s is accepted", base)
			}
		}
	}
}

// FuzzDecode checks the promise: what we accept, the standard library accepts
// and reads the same.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"a":[1,2e5,"x\u00e9",null]}`, `[]`, `"\ud83d\ude00"`, `-0.0e-1`, `{"a":1,"a":2}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := Decode(data, Limits{})
		if err != nil {
			return
		}
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.UseNumber()
		var want any
		if err := dec.Decode(&want); err != nil {
			t.Fatalf("we accept %q, encoding/json says %v", data, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q is %#v to us and %#v to encoding/json", data, got, want)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	data, err := os.ReadFile("../../../bench/order1k.json")
	if err != nil {
		b.Fatal(err)
	}
	b.Run("strict", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			if _, err := Decode(data, Limits{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			var v any
			if err := json.Unmarshal(data, &v); err != nil {
				b.Fatal(err)
			}
		}
	})
}
