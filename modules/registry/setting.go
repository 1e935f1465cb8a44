package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// Setting is a kind whose objects stand in the place of what the configuration
// says, until they are reset. It describes the kind's command.
type Setting struct {
	Use, Short, Long string

	// Kind is what the objects are called in the admin API, and ID what an id is
	// made of, for the usage.
	Kind, ID string

	// Words is what `set` takes after the id, for the usage; Value makes an
	// object of them.
	Words string
	Value func(words []string) (any, error)

	// Columns are the titles of what `list` shows beside the id, and Row the
	// texts below them.
	Columns []string
	Row     func(value json.RawMessage) ([]string, error)
}

// Command has the verbs set, list and reset.
func (s Setting) Command() *cobra.Command {
	cmd := &cobra.Command{Use: s.Use, Short: s.Short, Long: s.Long}
	var (
		client        Client
		force, asJSON bool
	)
	client.Flags(cmd)
	set := &cobra.Command{
		Use:   "set " + s.ID + " " + s.Words,
		Short: "Sets it; the next request goes by it",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return errors.New("expected: set " + s.ID + " " + s.Words)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			value, err := s.Value(args[1:])
			if err != nil {
				return err
			}
			body, err := json.Marshal(value)
			if err != nil {
				return err
			}
			path := s.path(args[0])
			if force {
				path += "?force=true"
			}
			answer, err := client.Ask(http.MethodPut, path, body)
			if err != nil {
				return err
			}
			Warn(cmd.ErrOrStderr(), answer)
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", args[0], strings.Join(args[1:], " "))
			return err
		},
	}
	set.Flags().BoolVar(&force, "force", false, "also if it looks like a mistake")
	list := &cobra.Command{
		Use:   "list [--json]",
		Short: "Lists what was set while the gateway runs",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return s.list(cmd, &client, asJSON) },
	}
	list.Flags().BoolVar(&asJSON, "json", false, "as JSON, one a line")
	cmd.AddCommand(set, list, &cobra.Command{
		Use:   "reset " + s.ID,
		Short: "Takes away what was set; the configuration decides again",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := client.Ask(http.MethodDelete, s.path(args[0]), nil)
			if err == nil {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: as the configuration says\n", args[0])
			}
			return err
		},
	})
	return cmd
}

func (s Setting) path(id string) string { return s.Kind + "/" + url.PathEscape(id) }

func (s Setting) list(cmd *cobra.Command, client *Client, asJSON bool) error {
	out := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	if !asJSON {
		_, _ = fmt.Fprintln(out, "ID\t"+strings.Join(s.Columns, "\t")) // Flush reports what fails
	}
	err := client.Each(s.Kind, func(raw json.RawMessage) error {
		if asJSON {
			_, err := fmt.Fprintf(out, "%s\n", raw)
			return err
		}
		var o struct {
			ID    string
			Value json.RawMessage
		}
		if err := json.Unmarshal(raw, &o); err != nil {
			return err
		}
		row, err := s.Row(o.Value)
		if err == nil {
			_, err = fmt.Fprintln(out, oneLine(o.ID)+"\t"+strings.Join(row, "\t"))
		}
		return err
	})
	if err != nil {
		return err
	}
	return out.Flush()
}
