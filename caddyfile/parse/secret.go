package parse

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"
)

// Secret reads a value that must be a placeholder. One that has no value is an
// error when the configuration is loaded, which knows no line of a Caddyfile any
// more; so the log says it here, as File does of files.
func Secret(d *caddyfile.Dispenser, to *string) error {
	option := d.Val()
	if err := Text(d, to); err != nil {
		return err
	}
	if err := Placeholder(option, *to); err != nil {
		return d.Err(err.Error())
	}
	if why := unresolved(*to); why != "" {
		caddy.Log().Named("gatehouse_caddyfile").Warn("a placeholder in the configuration has no value",
			zap.String("option", option), zap.String("why", why), zap.String("at", fmt.Sprintf("%s:%d", d.File(), d.Line())))
	}
	return nil
}

// Resolve replaces the placeholders of an option. Its error says which has no value,
// and why; it repeats names of variables and files, and nothing that stands
// between them, which may be a secret.
func Resolve(option, value string) (string, error) {
	if why := unresolved(value); why != "" {
		return "", fmt.Errorf("%s: %s", option, why)
	}
	text, err := caddy.NewReplacer().ReplaceOrErr(value, true, true)
	if err != nil {
		return "", fmt.Errorf("%s: a placeholder is empty or not known; expected {env.NAME} or {file.PATH}", option)
	}
	return text, nil
}

var placeholders = regexp.MustCompile(`\{(env|file)\.([^{}]+)\}`)

// unresolved is what is wrong with the first placeholder that has no value.
func unresolved(value string) string {
	for _, m := range placeholders.FindAllStringSubmatch(value, -1) {
		whole, kind, name := m[0], m[1], m[2]
		if kind == "env" {
			switch text, set := os.LookupEnv(name); {
			case !set:
				return whole + ": the environment has no variable of that name"
			case strings.TrimRight(text, "\r\n") == "":
				return whole + ": the environment variable is empty"
			}
			continue
		}
		data, err := os.ReadFile(name) //nolint:gosec // the operator's own file
		if at, ok := errors.AsType[*fs.PathError](err); ok {
			err = at.Err // the name is said already
		}
		switch {
		case err != nil:
			return whole + ": " + err.Error()
		case strings.TrimRight(string(data), "\r\n") == "":
			return whole + ": the file is empty"
		}
	}
	return ""
}
