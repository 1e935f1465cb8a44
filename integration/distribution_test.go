package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/xcaddy"
)

// checkout is the root of this repository.
func checkout(t testing.TB) string {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// xbuild builds Caddy as xcaddy does, with our module taken from the checkout.
func xbuild(t *testing.T, b xcaddy.Builder) string {
	t.Helper()
	b.Replacements = append(b.Replacements, xcaddy.NewReplace(module, checkout(t)))
	for i, p := range b.Plugins {
		if strings.HasPrefix(p.PackagePath, module) {
			b.Plugins[i].Version = "v0.0.0" // any: with one, nobody is asked for the latest
		}
	}
	// xcaddy resolves versions itself; nothing of ours needs cgo.
	t.Setenv("GOFLAGS", "-mod=mod")
	t.Setenv("CGO_ENABLED", "0")
	bin := filepath.Join(t.TempDir(), "caddy")
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	if err := b.Build(ctx, bin); err != nil {
		t.Fatalf("building with xcaddy: %v", err)
	}
	return bin
}

func listModules(t *testing.T, bin string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), bin, "list-modules").Output()
	if err != nil {
		t.Fatalf("%s list-modules: %v", bin, err)
	}
	var modules []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); line != "" && !strings.Contains(line, "odules:") {
			modules = append(modules, line)
		}
	}
	return modules
}

// TestDistribution builds Caddy from xcaddy.json and finds the same modules in
// it as in cmd/caddy.
func TestDistribution(t *testing.T) {
	data, err := os.ReadFile("../xcaddy.json")
	if err != nil {
		t.Fatal(err)
	}
	var b xcaddy.Builder
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b); err != nil {
		t.Fatal(err)
	}
	ours := filepath.Join(t.TempDir(), "caddy")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", ours, "./cmd/caddy")
	build.Dir, build.Env = checkout(t), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building cmd/caddy: %v\n%s", err, out)
	}
	got, want := listModules(t, xbuild(t, b)), listModules(t, ours)
	if !slices.Equal(got, want) {
		t.Errorf("xcaddy.json gives %d modules, cmd/caddy %d", len(got), len(want))
		for _, m := range want {
			if !slices.Contains(got, m) {
				t.Errorf("xcaddy.json lacks %s", m)
			}
		}
		for _, m := range got {
			if !slices.Contains(want, m) {
				t.Errorf("cmd/caddy lacks %s", m)
			}
		}
	}
	if !slices.Contains(got, "http.handlers.gatehouse_api") {
		t.Errorf("our modules are missing: %v", got)
	}
}

// TestOnePackageAlone builds stock Caddy with nothing of ours but quota, which
// must have its directive, in its place, and serve.
func TestOnePackageAlone(t *testing.T) {
	dir := t.TempDir()
	bin, main := filepath.Join(dir, "caddy"), filepath.Join(dir, "main.go")
	if err := os.WriteFile(main, []byte(`package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "`+module+`/modules/quota"
)

func main() { caddycmd.Main() }
`), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, main)
	build.Dir, build.Env = checkout(t), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	for _, m := range listModules(t, bin) {
		// The registry comes with whatever has live objects, and the cluster's link
		// with what nodes share.
		if strings.Contains(m, "gatehouse") && !slices.ContainsFunc([]string{"quota", "registry", "cluster"}, func(own string) bool { return strings.Contains(m, own) }) {
			t.Errorf("%s came along", m)
		}
	}
	gw := prepare(t)
	sock := filepath.Join(gw.dir, "x")
	file := gw.write(t, "Caddyfile", "{\nadmin off\nauto_https off\npersist_config off\n}\nhttp://localhost {\nbind unix/"+sock+
		"\nrespond ok\nquota per address 2/h\nhandle_errors {\nrespond \"refused {http.error.status_code}\"\n}\n}\n")
	cmd := exec.CommandContext(t.Context(), bin, "run", "--config", file)
	cmd.Env = append(os.Environ(), "HOME="+gw.dir, "XDG_DATA_HOME="+gw.dir, "XDG_CONFIG_HOME="+gw.dir)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	var log strings.Builder
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		log.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), "serving initial configuration") {
			break
		}
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", sock)
	}}}
	for i, want := range []int{200, 200, 429} {
		resp, err := client.Get("http://localhost/")
		if err != nil {
			t.Fatalf("%v\n%s", err, log.String())
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("request %d: %d, want %d", i+1, resp.StatusCode, want)
		}
	}
}
