package caddyfile

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/mholt/caddy-ratelimit"

	_ "github.com/gatehouse-caddy/gatehouse"
)

var update = flag.Bool("update", false, "rewrite the expected half of testdata/*.caddyfiletest")

// TestAdapt checks every golden file: a Caddyfile, a line of ten dashes, and
// the JSON, or part of the error, it becomes.
func TestAdapt(t *testing.T) {
	files, err := filepath.Glob("testdata/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files found: %v", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".caddyfiletest"), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			src, want, ok := strings.Cut(string(data), "----------\n")
			if !ok {
				t.Fatalf("%s has no line of ten dashes", name)
			}
			if fixed := string(caddyfile.Format([]byte(src))); fixed != src {
				t.Errorf("not formatted as caddy fmt would:\n%s", fixed)
			}
			got := adapt(src)
			if *update {
				if err := os.WriteFile(name, []byte(src+"----------\n"+got), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			want = strings.TrimSpace(want)
			if want == "" {
				t.Fatal("nothing is expected; run go test ./caddyfile -update and read the diff")
			}
			if strings.HasPrefix(want, "{") && strings.TrimSpace(got) != want || !strings.Contains(got, want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func adapt(src string) string {
	raw, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(src), nil)
	if err != nil {
		return err.Error() + "\n"
	}
	var buf bytes.Buffer
	if err := json.Indent(&buf, raw, "", "\t"); err != nil {
		return err.Error() + "\n"
	}
	return buf.String() + "\n"
}
