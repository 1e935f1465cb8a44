package policytest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
)

// AuditOptions say what to look at and what counts.
type AuditOptions struct {
	Config   string
	Adapter  string   // what reads the configuration; default: Caddyfile, or JSON by its name
	EnvFiles []string // files of variables for the environment, which what is there outweighs
	SARIF    string   // a file to write findings to; default: none
	FailOn   string   // error, warning, note or never; default: warning
	Skip     []string // numbers of checks that are left out
}

func auditCommand() *cobra.Command {
	var o AuditOptions
	cmd := &cobra.Command{
		Use:   "audit [--config <file> [--adapter <name>]] [--envfile <file>] [--fail-on error|warning|note|never] [--skip <check>] [--sarif <file>]",
		Short: "Looks for what is missing or weak in a configuration and its contracts",
		Long:  "Looks at the configuration and at the contracts it names, and crosses one with the other.\nEnds with 1 when there are findings at or above --fail-on, and with 2 when it cannot look.",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return end(cmd, Audit(cmd.OutOrStdout(), o)) },
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.Config, "config", "c", "Caddyfile", "configuration file")
	flags.StringVarP(&o.Adapter, "adapter", "a", "", "name of the config adapter, if the file is neither a Caddyfile nor JSON")
	flags.StringSliceVar(&o.EnvFiles, "envfile", nil, "file of environment variables that the configuration is adapted with; may be given several times")
	flags.StringVar(&o.FailOn, "fail-on", "warning", "the least level that makes the command fail: error, warning, note or never")
	flags.StringSliceVar(&o.Skip, "skip", nil, "a check to leave out, such as GH006; may be given several times")
	flags.StringVar(&o.SARIF, "sarif", "", "write the findings to this file, in SARIF 2.1.0")
	return cmd
}

var failOn = []string{"error", "warning", "note", "never"}

// Audit looks and returns the status to end with.
func Audit(out io.Writer, o AuditOptions) int {
	findings, err := o.look()
	if err == nil && o.SARIF != "" {
		err = writeSARIF(o.SARIF, findings)
	}
	if err != nil {
		_, _ = fmt.Fprintln(out, err)
		return exitWrong
	}
	counts := map[level]int{}
	status := exitFine
	for _, f := range findings {
		counts[f.check.level]++
		_, _ = fmt.Fprintf(out, "%s:%d: %s %s: %s\n", f.file, f.line, f.check.level, f.check.id, f.text) // to a terminal
		if int(f.check.level) <= slices.Index(failOn, o.FailOn) && o.FailOn != "never" {
			status = exitFailed
		}
	}
	_, _ = fmt.Fprintf(out, "%d checks: %d errors, %d warnings, %d notes\n", len(checks)-len(o.Skip), counts[isError], counts[isWarning], counts[isNote])
	return status
}

// readEnvFiles reads NAME=value from lines, as Caddy's own commands do: what is in the
// environment already, and what an earlier file says, outweighs.
func readEnvFiles(names []string) (map[string]string, error) {
	env := map[string]string{}
	for _, name := range names {
		data, err := os.ReadFile(name) //nolint:gosec // the operator's own file
		if err != nil {
			return nil, err
		}
		for n, line := range strings.Split(string(data), "\n") {
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' {
				continue
			}
			key, value, found := strings.Cut(strings.TrimPrefix(line, "export "), "=")
			if !found || key == "" || strings.ContainsAny(key, " \t") { // the line may be a secret
				return nil, fmt.Errorf("%s:%d: NAME=value is expected", name, n+1)
			}
			if quote := value[:min(1, len(value))]; quote == `"` || quote == "'" {
				if value, _, found = strings.Cut(value[1:], quote); !found {
					return nil, fmt.Errorf("%s:%d: a quote is not closed", name, n+1)
				}
			} else if before, _, commented := strings.Cut(value, "#"); commented {
				value = strings.TrimRight(before, " \t")
			}
			_, there := os.LookupEnv(key)
			if _, before := env[key]; !there && !before {
				env[key] = value
			}
		}
	}
	return env, nil
}

func (o *AuditOptions) look() ([]finding, error) {
	if o.FailOn == "" {
		o.FailOn = "warning"
	}
	if !slices.Contains(failOn, o.FailOn) {
		return nil, errors.New("--fail-on: " + parse.Misspelt("level", o.FailOn, failOn...))
	}
	for _, id := range o.Skip {
		if !slices.ContainsFunc(checks, func(c *check) bool { return c.id == id }) {
			var known []string
			for _, c := range checks {
				known = append(known, c.id)
			}
			return nil, errors.New("--skip: " + parse.Misspelt("check", id, known...))
		}
	}
	env, err := readEnvFiles(o.EnvFiles)
	if err != nil {
		return nil, fmt.Errorf("--envfile: %w", err)
	}
	restore, err := setenv(env)
	if err != nil {
		return nil, fmt.Errorf("--envfile: %w", err)
	}
	defer restore()
	var a *audit
	if err := inFolderOf(o.Config, func(file string) error {
		c, err := readConfig(file, o.Adapter)
		if err != nil {
			return err
		}
		a, err = newAudit(c)
		return err
	}); err != nil {
		return nil, err
	}
	back, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for _, ch := range checks {
		if slices.Contains(o.Skip, ch.id) {
			continue
		}
		a.check = ch
		ch.run(a)
	}
	for i, f := range a.findings { // as whoever asked would call them
		if rel, err := filepath.Rel(back, f.file); err == nil {
			a.findings[i].file = rel
		}
	}
	slices.SortStableFunc(a.findings, func(x, y finding) int {
		if n := strings.Compare(x.file, y.file); n != 0 {
			return n
		}
		return x.line - y.line
	})
	return a.findings, nil
}
