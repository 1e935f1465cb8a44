package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// TestDocExamples adapts every Caddyfile that the README and the docs show.
func TestDocExamples(t *testing.T) {
	files, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```caddyfile\n(.*?)```")
	n := 0
	for _, name := range append(files, "../README.md") {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range blocks.FindAllSubmatch(data, -1) {
			n++
			if _, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(m[1], nil); err != nil {
				t.Errorf("%s: %v in:\n%s", name, err, m[1])
			}
		}
	}
	if n < 8 {
		t.Errorf("only %d examples were found", n)
	}
}
