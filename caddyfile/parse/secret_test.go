package parse_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
)

// TestResolve: what has no value is named, and nothing else of the setting is.
func TestResolve(t *testing.T) {
	t.Setenv("GATEHOUSE_TEST_FULL", "hunter2")
	t.Setenv("GATEHOUSE_TEST_EMPTY", "")
	dir := t.TempDir()
	full, empty := filepath.Join(dir, "full"), filepath.Join(dir, "empty")
	for name, text := range map[string]string{full: "hunter2\n", empty: "\r\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ value, want, says string }{
		{"{env.GATEHOUSE_TEST_FULL}", "hunter2", ""},
		{"{file." + full + "}", "hunter2", ""},
		{"plain", "plain", ""},
		{"{env.GATEHOUSE_TEST_NONE}", "", "client_secret: {env.GATEHOUSE_TEST_NONE}: the environment has no variable of that name"},
		{"{env.GATEHOUSE_TEST_EMPTY}", "", "{env.GATEHOUSE_TEST_EMPTY}: the environment variable is empty"},
		{"{env.GATEHOUSE_TEST_FULL}s3cret{env.GATEHOUSE_TEST_NONE}", "", "{env.GATEHOUSE_TEST_NONE}: the environment has no"},
		{"{file." + dir + "/none}", "", "{file." + dir + "/none}: no such file or directory"},
		{"{file." + empty + "}", "", "the file is empty"},
		{"{file." + dir + "}", "", "is a directory"},
		{"{s3cret}", "", "client_secret: a placeholder is empty or not known; expected {env.NAME} or {file.PATH}"},
	} {
		got, err := parse.Resolve("client_secret", c.value)
		if got != c.want || (err == nil) != (c.says == "") {
			t.Errorf("%q: %q %v", c.value, got, err)
		}
		if err != nil && (!strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%q: %v; want %q", c.value, err, c.says)
		}
	}
}

func TestSecret(t *testing.T) {
	for input, says := range map[string]string{
		"client_secret {env.GATEHOUSE_TEST_NONE}": "", // of another machine, perhaps
		"client_secret hunter2":                   "write the client_secret as {env.NAME}",
		"client_secret":                           "wrong argument count",
	} {
		d := caddyfile.NewTestDispenser(input)
		d.Next()
		var to string
		err := parse.Secret(d, &to)
		if (err == nil) != (says == "") || err != nil && (!strings.Contains(strings.ToLower(err.Error()), says) && !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%s: %v", input, err)
		}
	}
}
