package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/gatehouse-caddy/gatehouse/modules/registry"
)

// keyFlags say what a key is to prove, and where the gateway is.
type keyFlags struct {
	address, config, adapter string
	entry                    apiKey
	scope, expires           string
	overlap                  time.Duration
}

func keyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "Works with API keys"}
	var f keyFlags
	cmd.PersistentFlags().StringVar(&f.address, "address", "", "the admin endpoint of the running gateway; default: that of --config, or localhost:2019")
	cmd.PersistentFlags().StringVarP(&f.config, "config", "c", "", "configuration file to take the admin endpoint from")
	cmd.PersistentFlags().StringVarP(&f.adapter, "adapter", "a", "", "name of the config adapter, if the file is no Caddyfile")

	fresh := &cobra.Command{
		Use:   "new --id <id>",
		Short: "Makes an API key and the entry that accepts it",
		Long:  "Makes an API key and prints it once, and the entry with its hash for the file that the option `keys` names. The key itself is stored nowhere.",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.print(cmd) },
	}
	create := &cobra.Command{
		Use:   "create --id <id> [--tenant <name>] [--plan <name>] [--scope \"<scope> …\"] [--expires <time or duration>]",
		Short: "Makes an API key that the running gateway accepts at once",
		Long:  "Makes an API key, gives its hash to the running gateway over the admin API, and prints the key once. The key itself is stored nowhere.",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.create(cmd) },
	}
	for _, c := range []*cobra.Command{fresh, create} {
		flags := c.Flags()
		flags.StringVar(&f.entry.ID, "id", "", "names the key in logs and quotas")
		flags.StringVar(&f.entry.Subject, "subject", "", "who asks; default: the id")
		flags.StringVar(&f.entry.Tenant, "tenant", "", "the tenant")
		flags.StringVar(&f.entry.Plan, "plan", "", "the tenant's plan")
		flags.StringVar(&f.scope, "scope", "", "scopes, separated by spaces")
		flags.StringSliceVar(&f.entry.Roles, "role", nil, "a role; may be given several times")
		flags.StringVar(&f.expires, "expires", "", "when it expires: a time such as 2027-01-01T00:00:00Z, or from now such as 720h; default: never")
	}
	create.Flags().BoolVar(&f.entry.Honey, "honey", false, "a key that nobody should have: it is refused like an unknown one, and told of")
	cmd.AddCommand(fresh, create, f.rotateCommand(), &cobra.Command{
		Use:   "list",
		Short: "Lists the API keys of the running gateway",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.list(cmd) },
	}, &cobra.Command{
		Use:   "revoke <id>",
		Short: "Takes an API key away; the next request with it is refused",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := f.ask(http.MethodDelete, "/"+url.PathEscape(args[0]), nil, nil)
			if err == nil {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "revoked %s\n", args[0])
			}
			return err
		},
	})
	return cmd
}

// make makes a key and fills in its entry.
func (f *keyFlags) make() (key string, err error) {
	if f.entry.ID == "" {
		return "", errors.New("--id is required: it names the key in logs and quotas")
	}
	f.entry.Scopes = strings.Fields(f.scope)
	if f.expires != "" {
		if f.entry.Expires, err = time.Parse(time.RFC3339, f.expires); err != nil {
			left, err := time.ParseDuration(f.expires)
			if err != nil || left <= 0 {
				return "", fmt.Errorf("--expires %q is neither a time such as 2027-01-01T00:00:00Z nor a duration such as 720h", f.expires)
			}
			f.entry.Expires = time.Now().Add(left).UTC().Truncate(time.Second)
		}
	}
	key, f.entry.SHA256 = newKey()
	return key, nil
}

func (f *keyFlags) print(cmd *cobra.Command) error {
	key, err := f.make()
	if err != nil {
		return err
	}
	entry, err := json.Marshal(f.entry)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "key:   %s\nentry: %s\n", key, entry)
	return err
}

func (f *keyFlags) create(cmd *cobra.Command) error {
	key, err := f.make()
	if err != nil {
		return err
	}
	entry, err := json.Marshal(f.entry)
	if err != nil {
		return err
	}
	if _, err := f.ask(http.MethodPut, "/"+url.PathEscape(f.entry.ID), entry, http.Header{"If-None-Match": {"*"}}); err != nil {
		return err
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), key)
	return err
}

func (f *keyFlags) list(cmd *cobra.Command) error {
	out := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(out, "ID\tTENANT\tPLAN\tSCOPES\tEXPIRES\tLAST USED\tSOURCE") // Flush reports what fails
	uses, err := f.uses()
	if err != nil {
		return err
	}
	for after := ""; ; {
		body, err := f.ask(http.MethodGet, "?after="+url.QueryEscape(after), nil, nil)
		if err != nil {
			return err
		}
		var page struct {
			Objects []struct {
				ID, Source string
				Value      apiKey
			}
			Next string
		}
		if err := json.Unmarshal(body, &page); err != nil {
			return fmt.Errorf("reading the gateway's answer: %w", err)
		}
		for _, o := range page.Objects {
			expires := "never"
			if !o.Value.Expires.IsZero() {
				expires = o.Value.Expires.Format(time.RFC3339)
			}
			_, _ = fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", o.ID, o.Value.Tenant, o.Value.Plan, strings.Join(o.Value.Scopes, " "), expires, lastUse(uses, o.ID, o.Value.Honey), o.Source)
		}
		if after = page.Next; after == "" {
			return out.Flush()
		}
	}
}

// ask makes a request of the running gateway's admin endpoint.
func (f *keyFlags) ask(method, path string, body []byte, header http.Header) ([]byte, error) {
	return f.askAt(method, "/gatehouse/keys"+path, body, header)
}

func (f *keyFlags) askAt(method, path string, body []byte, header http.Header) ([]byte, error) {
	address, err := caddycmd.DetermineAdminAPIAddress(f.address, nil, f.config, f.adapter)
	if err != nil {
		return nil, fmt.Errorf("finding the admin endpoint: %w", err)
	}
	with := registry.Authorized()
	maps.Copy(with, header)
	with.Set("Content-Type", "application/json")
	resp, err := caddycmd.AdminAPIRequest(address, method, path, with, bytes.NewReader(body))
	if err != nil {
		return nil, explain(err, f.entry.ID)
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// explain says what a precondition that failed means here.
func explain(err error, id string) error {
	if strings.Contains(err.Error(), "HTTP 412") {
		return fmt.Errorf("there is a key %q already; revoke it first, or choose another id", id)
	}
	if os.IsTimeout(err) {
		return fmt.Errorf("the gateway does not answer: %w", err)
	}
	return err
}
