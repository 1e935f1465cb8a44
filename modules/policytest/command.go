package policytest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/gatehouse-caddy/gatehouse/modules/cli"
)

func init() {
	cli.Add(testCommand)
	cli.Add(auditCommand)
}

// How a command ends.
const (
	exitFine   = 0
	exitFailed = 1 // cases failed, or findings count
	exitWrong  = 2 // it could not be run as it was asked to
)

// TestOptions say which cases to run.
type TestOptions struct {
	Dir    string // where files of cases are looked for, in all folders below
	Config string // the configuration for all of them; default: what each file says
	Run    string // a regular expression of the names of cases; default: all
	JUnit  string // a file to write results to; default: none
}

func testCommand() *cobra.Command {
	var o TestOptions
	cmd := &cobra.Command{
		Use:   "test [--config <file>] [--run <regexp>] [--junit <file>] [<dir>]",
		Short: "Runs the policy tests of a configuration",
		Long: "Runs the cases in all *" + Suffix + " of a folder, and the folders below, through the stages of the configuration beside each file.\n" +
			"Nothing listens and nothing is dialled. Ends with 1 when a case fails and with 2 when one cannot be run.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 1:
				o.Dir = args[0]
			case o.Config != "":
				o.Dir = filepath.Dir(o.Config)
			default:
				o.Dir = "."
			}
			return end(cmd, Test(cmd.OutOrStdout(), o))
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.Config, "config", "c", "", "configuration file; default: what each file of cases says, or the Caddyfile beside it")
	flags.StringVar(&o.Run, "run", "", "run only cases whose name matches this regular expression")
	flags.StringVar(&o.JUnit, "junit", "", "write the results to this file, as JUnit does")
	return cmd
}

// end ends a command with a status, having said all there is to say.
func end(cmd *cobra.Command, status int) error {
	if status == exitFine {
		return nil
	}
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	if status == exitFailed {
		return errors.New("failed")
	}
	return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return status, nil })(cmd, nil)
}

// Test runs the cases and returns the status to end with: 0, 1 when a case
// failed, 2 when something could not be run. It holds the time of the whole
// process meanwhile: nothing else may be served by it.
func Test(out io.Writer, o TestOptions) int {
	began := time.Now()
	runs, err := o.all()
	if err != nil {
		_, _ = fmt.Fprintln(out, err)
		return exitWrong
	}
	took := time.Since(began)
	report(out, runs, took)
	if o.JUnit != "" {
		if err := writeJUnit(o.JUnit, runs, took); err != nil {
			_, _ = fmt.Fprintln(out, err)
			return exitWrong
		}
	}
	status := exitFine
	for _, r := range runs {
		switch {
		case r.err != nil:
			return exitWrong
		case r.failed() > 0:
			status = exitFailed
		}
	}
	return status
}

func (o *TestOptions) all() ([]*run, error) {
	only, err := regexp.Compile(o.Run)
	if err != nil {
		return nil, fmt.Errorf("--run: %w", err)
	}
	files, err := find(o.Dir)
	if err != nil {
		return nil, err
	}
	configs := map[string]*config{}
	var runs []*run
	ran := 0
	for _, name := range files {
		r := &run{suite: &suite{name: name}}
		runs = append(runs, r)
		s, err := readSuite(name)
		if err != nil {
			r.err = err
			continue
		}
		if r.suite = s; o.Config != "" {
			s.config = o.Config
		}
		if r.err = inFolderOf(s.config, func(config string) error {
			restore, err := setenv(s.env)
			if err != nil {
				return err
			}
			defer restore()
			c := configs[config]
			if c == nil || len(s.env) > 0 { // what is adapted may depend on it
				if c, err = readConfig(config, ""); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
			if len(s.env) == 0 {
				configs[config] = c
			}
			return r.play(c, only)
		}); r.err != nil {
			continue
		}
		ran += len(r.results)
	}
	if ran == 0 && !slices.ContainsFunc(runs, func(r *run) bool { return r.err != nil }) {
		return nil, fmt.Errorf("no case's name matches --run %q", o.Run)
	}
	return runs, nil
}

// inFolderOf does something as if Caddy had been started in the folder of a
// configuration: that is where Caddy's own directives look for relative names.
func inFolderOf(file string, do func(file string) error) (err error) {
	if file, err = filepath.Abs(file); err != nil {
		return err
	}
	back, err := os.Getwd()
	if err != nil {
		return err
	}
	if err := os.Chdir(filepath.Dir(file)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Chdir(back)) }()
	return do(file)
}

// setenv gives the environment what a file says, for as long as its cases run.
func setenv(env map[string]string) (restore func(), err error) {
	var undo []func() error
	restore = func() {
		for _, f := range undo {
			_ = f() // the name was good enough before
		}
	}
	for name, value := range env {
		before, there := os.LookupEnv(name)
		if err := os.Setenv(name, value); err != nil {
			restore()
			return nil, err
		}
		undo = append(undo, func() error {
			if there {
				return os.Setenv(name, before)
			}
			return os.Unsetenv(name)
		})
	}
	return restore, nil
}

// play runs the cases of a file.
func (r *run) play(c *config, only *regexp.Regexp) error {
	if err := r.check(c); err != nil {
		return err
	}
	release, err := c.keep()
	if err != nil {
		return err
	}
	defer release()
	for _, tc := range r.cases {
		if !only.MatchString(tc.name) {
			continue
		}
		res, err := r.suite.play(c, tc)
		if err != nil {
			return err
		}
		r.results = append(r.results, res)
	}
	return nil
}

// find lists the files of cases in a folder and those below, in order.
func find(dir string) (files []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != dir && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case !d.IsDir() && strings.HasSuffix(d.Name(), Suffix):
			files = append(files, path)
		}
		return nil
	})
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s does not exist", dir)
	}
	if err == nil && len(files) == 0 {
		return nil, fmt.Errorf("there is no *%s in %s", Suffix, dir)
	}
	return files, err
}
