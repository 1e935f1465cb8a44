package firewall

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/corazawaf/coraza-coreruleset/v4/tests"
	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-caddy/gatehouse/modules/firewall/internal/waf"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// regression is one file of the Core Rule Set's own tests.
type regression struct {
	Tests []struct {
		ID     int `yaml:"test_id"`
		Stages []struct {
			Input struct {
				Method, URI, Version string
				Headers              yaml.Node
				Data                 string
				Encoded              string `yaml:"encoded_request"`
				Complete             *bool  `yaml:"autocomplete_headers"`
			}
			Output struct {
				Log struct {
					Expect   []int `yaml:"expect_ids"`
					Unwanted []int `yaml:"no_expect_ids"`
				}
			}
		}
	}
}

// deviations are the tests that do not come out as written, and why.
var deviations = map[string]string{
	"911100-6":  "DELETE is a method that APIs use",
	"920100-16": "Go's server reads a URL without a path as one with /",
	"920250-1":  "UTF-8 is validated on request only, as in the Core Rule Set's defaults", "920250-2": "the same", "920250-3": "the same", "920250-4": "the same",
	"920360-1": "no such limit in the Core Rule Set's defaults", "920370-1": "the same", "920380-1": "the same", "920390-1": "the same", "920410-1": "the same",
	"920420-14": "APIs send text/plain", "920420-15": "binary bodies are not inspected", "920420-17": "the same",
	"920420-19": "every +json is inspected as JSON", "920420-20": "the same", "920420-22": "the same",
	"920290-4": "an empty Host is a missing one to Go's server",
	"920430-5": "a request line without a version cannot reach a handler of Go's server",
	"920620-1": "two content types are refused, not joined",
	"949110-1": "the threshold of this test is out of reach", "949110-4": "the same",
}

// leftOut are rules that firewall leaves out.
func leftOut(rule string) bool { return rule == "920350" || rule == "931130" }

// TestCoreRuleSet runs the Core Rule Set's regression tests: each request goes
// through Go's HTTP server's parser and what the handler makes of it, at the
// highest paranoia level, and must match the rules it was written for.
func TestCoreRuleSet(t *testing.T) {
	engine, err := waf.Compile(&waf.Settings{CRS: true, Paranoia: 4, Threshold: 1 << 20, Arguments: 1000, MaxBody: 128 << 10})
	if err != nil {
		t.Fatal(err)
	}
	h := &Handler{MaxBody: 128 << 10, Oversize: "refuse", Arguments: 1000}
	files, err := fs.Glob(tests.FS, "REQUEST-*/*.yaml")
	if err != nil || len(files) < 200 {
		t.Fatal(len(files), err)
	}
	var stages, ran, refused int
	for _, name := range files {
		data, err := tests.FS.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var file regression
		if err := yaml.Unmarshal(data, &file); err != nil {
			t.Fatal(name, err)
		}
		_, rule, _ := strings.Cut(strings.TrimSuffix(name, ".yaml"), "/")
		for _, test := range file.Tests {
			for i := range test.Stages {
				stages++
				if underRace && stages%40 != 0 {
					continue // the whole takes a minute without the race detector
				}
				stage := &test.Stages[i]
				raw, err := rawRequest(stage.Input.Method, stage.Input.URI, stage.Input.Version, &stage.Input.Headers, stage.Input.Data, stage.Input.Encoded, stage.Input.Complete)
				if err != nil {
					t.Fatal(name, test.ID, err)
				}
				r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
				if err != nil {
					refused++ // with a 400, before any handler
					continue
				}
				req, _, denial := h.request(gate.Of(r), r)
				if denial != nil {
					refused++
					continue
				}
				ids, err := engine.Matches(req)
				if err != nil {
					t.Fatal(name, test.ID, err)
				}
				ran++
				test := rule + "-" + strconv.Itoa(test.ID)
				fault := ""
				for _, id := range stage.Output.Log.Expect {
					if !slices.Contains(ids, id) {
						fault = fmt.Sprintf("rule %d does not match", id)
					}
				}
				for _, id := range stage.Output.Log.Unwanted {
					if slices.Contains(ids, id) {
						fault = fmt.Sprintf("rule %d matches", id)
					}
				}
				if known := deviations[test]; fault != "" && known == "" && !leftOut(rule) {
					t.Errorf("%s: %s", test, fault)
				} else if fault == "" && known != "" {
					t.Errorf("%s comes out as written; take it off the list", test)
				}
			}
		}
	}
	t.Logf("%d requests of %d through the rules, %d refused before them", ran, stages, refused)
	if !underRace && (ran < 4500 || refused > 20) {
		t.Error("too few requests reached the rules")
	}
}

func rawRequest(method, uri, version string, headers *yaml.Node, data, encoded string, complete *bool) (string, error) {
	if encoded != "" {
		raw, err := base64.StdEncoding.DecodeString(encoded)
		return string(raw), err
	}
	or := func(s, other string) string {
		if s == "" {
			return other
		}
		return s
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s\r\n", or(method, "GET"), or(uri, "/"), or(version, "HTTP/1.1"))
	names := make(map[string]bool)
	for i := 0; i+1 < len(headers.Content); i += 2 {
		name, value := headers.Content[i].Value, headers.Content[i+1].Value
		names[http.CanonicalHeaderKey(name)] = true
		fmt.Fprintf(&b, "%s: %s\r\n", name, value)
	}
	if complete == nil || *complete {
		if data != "" && !names["Content-Type"] {
			b.WriteString("Content-Type: application/x-www-form-urlencoded\r\n")
		}
		if data != "" && !names["Content-Length"] && !names["Transfer-Encoding"] {
			b.WriteString("Content-Length: " + strconv.Itoa(len(data)) + "\r\n")
		}
	}
	return b.String() + "\r\n" + data, nil
}
