package diff

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const before = `
openapi: 3.0.3
info: {title: Orders, version: "1"}
paths:
  /orders:
    get:
      parameters: [{name: limit, in: query, schema: {type: integer, minimum: 1}}]
      responses: {"200": {description: ok}}
    delete: {responses: {"204": {description: ok}}}
`

func TestCompare(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	old := file("old.yaml", before)
	for name, c := range map[string]struct {
		after, says string
		all         bool
		breaking    int
	}{
		"nothing":     {before, "", false, 0},
		"a bound":     {strings.Replace(before, "minimum: 1", "minimum: 5", 1), "breaks  GET /orders  request-parameter-min-increased", false, 1},
		"a removal":   {strings.Replace(before, "    delete: {responses: {\"204\": {description: ok}}}\n", "", 1), "DELETE /orders", false, 1},
		"an addition": {before + "    post: {responses: {\"201\": {description: ok}}}\n", "info", true, 0},
	} {
		var out bytes.Buffer
		n, err := Compare(&out, old, file("new.yaml", c.after), c.all)
		if err != nil || n != c.breaking || !strings.Contains(out.String(), c.says) {
			t.Errorf("%s: %d, %v:\n%s", name, n, err, out.String())
		}
	}
	// What cannot be read is never taken for unchanged, and nothing is fetched.
	for name, text := range map[string]string{
		"swagger": "swagger: \"2.0\"\ninfo: {title: t, version: \"1\"}\npaths: {}",
		"network": "openapi: 3.0.3\ninfo: {title: t, version: \"1\"}\npaths: {/a: {$ref: \"http://127.0.0.1:1/x.yaml\"}}",
		"outside": "openapi: 3.0.3\ninfo: {title: t, version: \"1\"}\npaths: {/a: {$ref: \"../../etc/passwd\"}}",
		"nothing": "",
	} {
		if _, err := Compare(&bytes.Buffer{}, old, file("bad.yaml", text), false); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if _, err := Compare(&bytes.Buffer{}, old, filepath.Join(dir, "none.yaml"), false); err == nil {
		t.Error("a file that is not there is taken")
	}
}
