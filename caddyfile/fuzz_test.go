package caddyfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// FuzzAdapt: no block of ours makes the adapter panic, and a configuration
// comes exactly when there is no error. The seeds are the golden files.
func FuzzAdapt(f *testing.F) {
	files, err := filepath.Glob("testdata/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		f.Fatalf("no golden files found: %v", err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		src, _, _ := strings.Cut(string(data), "----------\n")
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src string) {
		if strings.Contains(src, "import") {
			t.Skip("import reads files of this machine")
		}
		raw, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(src), nil)
		if (raw == nil) == (err == nil) {
			t.Fatalf("%d bytes and error %v", len(raw), err)
		}
	})
}
