package integration

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/gatehouse-caddy/gatehouse"

// mayKnow says which of our packages each package may import, by prefix. A new
// edge is a visible line here.
func mayKnow(pkg string) []string {
	switch {
	case pkg == "":
		return []string{"caddyfile", "modules"}
	case pkg == "cmd/caddy":
		return []string{"", "modules/contract/diff"} // a command that no gateway needs to run
	case pkg == "caddyfile/order", pkg == "caddyfile/parse", strings.HasPrefix(pkg, "modules/gate"):
		return []string{"modules/gate"}
	case strings.HasPrefix(pkg, "modules/"):
		stage := strings.Join(strings.Split(pkg, "/")[:2], "/")
		if strings.Contains(pkg, "/internal/") {
			return []string{stage + "/internal", "modules/gate/strictjson", "modules/gate/fetch"}
		}
		return []string{stage, "modules/gate", "caddyfile/order", "caddyfile/parse", "modules/cli", "modules/registry", "modules/cluster"}
	}
	return nil
}

// rehearsal holds the time of a whole gateway.
const rehearsal = "modules/gate/rehearsal"

// foreign lists what plain-Go engines must not know.
var foreign = []string{"github.com/caddyserver/caddy", "go.uber.org/zap"}

func TestImportRule(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	seen := 0
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen++
		pkg := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		for _, imp := range p.Imports {
			if strings.Contains(pkg, "/internal/") && slices.ContainsFunc(foreign, func(f string) bool { return strings.HasPrefix(imp, f) }) {
				t.Errorf("%s is an engine and imports %s", pkg, imp)
			}
			if !strings.HasPrefix(imp, module) {
				continue
			}
			dep := strings.TrimPrefix(strings.TrimPrefix(imp, module), "/")
			if dep == rehearsal && pkg != "modules/policytest" {
				t.Errorf("%q imports %q: only a policy test may hold the time", pkg, dep)
			}
			if !slices.ContainsFunc(mayKnow(pkg), func(ok string) bool { return dep == ok || ok != "" && strings.HasPrefix(dep, ok+"/") }) {
				t.Errorf("%q imports %q, which the rule does not allow", pkg, dep)
			}
		}
	}
	if seen < 5 {
		t.Fatalf("only %d packages listed", seen)
	}
}
