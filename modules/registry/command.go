package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-caddy/gatehouse/modules/cli"
)

func init() { cli.Add(auditCommand) }

func auditCommand() *cobra.Command {
	var (
		client Client
		limit  int
	)
	filters := map[string]*string{}
	cmd := &cobra.Command{
		Use:   "audit-log [--kind <kind>] [--id <id>] [--by <who>] [--action <action>] [--since <time or duration>]",
		Short: "Shows who changed which live object, newest first",
		Long:  "Shows who changed which live object, newest first. With --action refused it shows who was refused on this node since it started.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return errors.New("--limit must be at least 1")
			}
			query := url.Values{}
			for name, value := range filters {
				if *value != "" {
					query.Set(name, *value)
				}
			}
			out := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			_, _ = fmt.Fprintln(out, "REVISION\tAT\tBY\tACTION\tOBJECT\tWHY") // Flush reports what fails
			for limit > 0 {
				query.Set("limit", strconv.Itoa(min(limit, maxPage)))
				body, err := client.Ask(http.MethodGet, "audit?"+query.Encode(), nil)
				if err != nil {
					return err
				}
				var f found
				if err := json.Unmarshal(body, &f); err != nil {
					return fmt.Errorf("reading the gateway's answer: %w", err)
				}
				for _, c := range f.Changes {
					by := strings.Trim(strconv.QuoteToGraphic(c.By), `"`) // a certificate's subject is a stranger's text
					action := strings.TrimSpace(c.Action + " " + c.Verb)
					_, _ = fmt.Fprintf(out, "%d\t%s\t%s\t%s\t%s\t%s\n", c.Revision, c.At.Format(time.RFC3339), by, action, strings.TrimSuffix(c.Kind+"/"+c.ID, "/"), c.Why)
				}
				if limit -= len(f.Changes); f.Next == 0 {
					break
				}
				query.Set("before", strconv.FormatUint(f.Next, 10))
			}
			return out.Flush()
		},
	}
	client.Flags(cmd)
	for name, use := range map[string]string{
		"kind": "only of this kind", "id": "only of the object with this id", "by": "only by whom",
		"action": "only create, replace, delete or refused", "since": "only since: a time such as 2027-01-01T00:00:00Z, or ago such as 24h or 7d",
	} {
		filters[name] = cmd.Flags().String(name, "", use)
	}
	cmd.Flags().IntVar(&limit, "limit", 100, "at most so many")
	return cmd
}
