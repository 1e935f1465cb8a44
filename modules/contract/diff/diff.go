// Package diff compares two versions of a contract: caddy gatehouse contract
// diff OLD NEW says which changes break consumers.
//
// It stands apart from the stage and only the caddy command imports it: the
// library that knows hundreds of kinds of changes (oasdiff) brings a reader of
// OpenAPI of its own, and a gateway built from the stages alone has no use for
// either at run time.
//
// Its reader knows fewer documents than the stage's. One that it cannot read is
// an error, never "no breaking change".
package diff

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/getkin/kin-openapi/openapi3"
	"github.com/oasdiff/oasdiff/checker"
	"github.com/oasdiff/oasdiff/diff"
	"github.com/oasdiff/oasdiff/load"
	"github.com/spf13/cobra"

	"github.com/gatehouse-caddy/gatehouse/modules/cli"
)

func init() { cli.Add(command) }

func command() *cobra.Command {
	all := false
	d := &cobra.Command{
		Use:   "diff [--all] <old> <new>",
		Short: "Lists the changes between two contracts that break consumers",
		Long: "Compares two OpenAPI documents and lists the changes that break consumers, with those that may. " +
			"The exit code is 1 when there is a breaking change, and 2 when a document cannot be read.",
		Args: cobra.ArbitraryArgs, // counted below: 1 is for breaking changes alone
	}
	d.RunE = caddycmd.WrapCommandFuncForCobra(func(fl caddycmd.Flags) (int, error) {
		if fl.NArg() != 2 {
			return 2, errors.New("name two contracts: the old one and the new one")
		}
		breaking, err := Compare(d.OutOrStdout(), fl.Arg(0), fl.Arg(1), all)
		switch {
		case err != nil:
			return 2, err
		case breaking > 0:
			return 1, fmt.Errorf("%d of the changes break consumers", breaking)
		}
		return 0, nil
	})
	d.Flags().BoolVar(&all, "all", false, "lists changes that break nothing as well")
	cmd := &cobra.Command{Use: "contract", Short: "Works with API contracts"}
	cmd.AddCommand(d)
	return cmd
}

// Compare writes the changes from one document to another and counts those that
// break consumers.
func Compare(w io.Writer, before, after string, all bool) (breaking int, err error) {
	a, err := read(before)
	if err != nil {
		return 0, err
	}
	b, err := read(after)
	if err != nil {
		return 0, err
	}
	d, sources, err := diff.GetWithOperationsSourcesMap(diff.NewConfig(), a, b)
	if err != nil {
		return 0, fmt.Errorf("comparing %q with %q: %w", before, after, err)
	}
	level := checker.WARN
	if all {
		level = checker.INFO
	}
	changes := checker.CheckBackwardCompatibilityUntilLevel(checker.NewConfig(checker.GetAllChecks()), d, sources, level)
	words := checker.NewDefaultLocalizer()
	table := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, c := range changes {
		weight := "info"
		if c.IsBreaking() {
			weight = "may break"
		}
		if c.GetLevel() == checker.ERR {
			weight = "breaks"
			breaking++
		}
		_, _ = fmt.Fprintf(table, "%s\t%s %s\t%s\t%s\n", weight, c.GetOperation(), c.GetPath(), c.GetId(), c.GetUncolorizedText(words))
	}
	return breaking, table.Flush()
}

// read loads a document. References lead to files in its folder or below, as
// with the stage: never to the network.
func read(name string) (*load.SpecInfo, error) {
	data, err := os.ReadFile(name) //nolint:gosec // the user's own file
	if err != nil {
		return nil, err
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	root := filepath.Dir(path)
	loader := openapi3.NewLoader()
	loader.IsExternalRefsAllowed = true
	loader.ReadFromURIFunc = func(_ *openapi3.Loader, at *url.URL) ([]byte, error) {
		file := filepath.FromSlash(at.Path)
		if at.Scheme != "" && at.Scheme != "file" || at.Host != "" {
			return nil, fmt.Errorf("references to %q are not followed; keep a copy beside the contract", at)
		}
		if rel, err := filepath.Rel(root, file); err != nil || !filepath.IsLocal(rel) {
			return nil, fmt.Errorf("reference %q leads out of the contract's folder", at.Path)
		}
		return os.ReadFile(file) //nolint:gosec // in the folder of the user's own
	}
	doc, err := loader.LoadFromDataWithPath(data, &url.URL{Path: filepath.ToSlash(path)})
	if err != nil {
		return nil, fmt.Errorf("reading contract %q: %w", name, err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.") {
		return nil, fmt.Errorf("reading contract %q: %w", name, errNotOpenAPI)
	}
	return &load.SpecInfo{Url: name, Spec: doc}, nil
}

var errNotOpenAPI = errors.New("this is no OpenAPI document of version 3")
