package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-caddy/gatehouse/modules/registry"
)

// keyFlags say what a key is to prove, and where the gateway is.
type keyFlags struct {
	registry.Client
	entry            apiKey
	scopes           []string
	expires, overlap string
	force, json      bool
}

func keyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "Works with API keys"}
	var f keyFlags
	f.Flags(cmd)
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
		Long: "Makes an API key, gives its hash to the running gateway over the admin API, and prints the key once. The key itself is stored nowhere. " +
			"What looks like a mistake is refused unless --force is given: a plan that nobody defined, or an id that was revoked.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.create(cmd) },
	}
	for _, c := range []*cobra.Command{fresh, create} {
		flags := c.Flags()
		flags.StringVar(&f.entry.ID, "id", "", "names the key in logs and quotas")
		flags.StringVar(&f.entry.Subject, "subject", "", "who asks; default: the id")
		flags.StringVar(&f.entry.Tenant, "tenant", "", "the tenant")
		flags.StringVar(&f.entry.Plan, "plan", "", "the tenant's plan")
		flags.StringArrayVar(&f.scopes, "scope", nil, "scopes, separated by spaces; may be given several times")
		flags.StringSliceVar(&f.entry.Roles, "role", nil, "a role; may be given several times")
		flags.StringVar(&f.expires, "expires", "", "when it expires: "+momentHelp+"; default: never")
		flags.BoolVar(&f.force, "force", false, "also if it looks like a mistake")
	}
	create.Flags().BoolVar(&f.entry.Honey, "honey", false, "a key that nobody should have: it is refused like an unknown one, and told of")
	list := &cobra.Command{
		Use:   "list [--json]",
		Short: "Lists the API keys of the running gateway, and how each stands",
		Long: "Lists the API keys of the running gateway, and how each stands: active; overlapping, while a secret of before a rotation works as well; " +
			"expired; revoked, by whatever revocation is about it; or honey.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.list(cmd.OutOrStdout()) },
	}
	list.Flags().BoolVar(&f.json, "json", false, "as JSON, one key a line")
	cmd.AddCommand(fresh, create, f.rotateCommand(), list, &cobra.Command{
		Use:     "revoke <id>",
		Aliases: []string{"delete"},
		Short:   "Takes an API key away; the next request with it is refused",
		Long: "Takes a live API key away: the next request with it is refused, and its id is free again. A key that the configuration defines, and an id " +
			"that nobody is to use again, are revoked with `caddy gatehouse revoke key`.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.revoke(cmd, args[0]) },
	})
	return cmd
}

// make makes a key and fills in its entry.
func (f *keyFlags) make() (key string, err error) {
	if f.entry.ID == "" {
		return "", errors.New("--id is required: it names the key in logs and quotas")
	}
	f.entry.Scopes = nil
	for _, word := range f.scopes {
		for s := range strings.FieldsSeq(word) {
			if wrong := scopeDoubt(s); wrong != "" && !f.force {
				return "", fmt.Errorf("--%s; if that is meant, say so with --force", wrong)
			}
			f.entry.Scopes = append(f.entry.Scopes, s)
		}
	}
	if f.expires != "" {
		if f.entry.Expires, err = moment(f.expires, time.Now()); err != nil {
			return "", err
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
	answer, err := f.AskWith(http.Header{"If-None-Match": {"*"}}, http.MethodPut, f.path(f.entry.ID), entry)
	if refusedWith(err, http.StatusPreconditionFailed) {
		return fmt.Errorf("there is a key %q already; rotate it, revoke it first, or choose another id", f.entry.ID)
	}
	if err != nil {
		return err
	}
	registry.Warn(cmd.ErrOrStderr(), answer)
	_, err = fmt.Fprintln(cmd.OutOrStdout(), key)
	return err
}

func (f *keyFlags) path(id string) string {
	path := "keys/" + url.PathEscape(id)
	if f.force {
		path += "?force=true"
	}
	return path
}

func (f *keyFlags) revoke(cmd *cobra.Command, id string) error {
	_, err := f.Ask(http.MethodDelete, f.path(id), nil)
	if refusedWith(err, http.StatusConflict) {
		return fmt.Errorf("%w; until then, `caddy gatehouse revoke key %s` has it refused", err, id)
	}
	if err == nil {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "revoked %s\n", id)
	}
	return err
}

// refusedWith reports whether the gateway answered with a status.
func refusedWith(err error, status int) bool {
	refused, is := errors.AsType[*registry.Refused](err)
	return is && refused.Status == status
}

// listedKey is a key as the gateway lists it.
type listedKey struct {
	ID, State, Source string
	Until             time.Time
	Value             apiKey
}

func (f *keyFlags) list(to io.Writer) error {
	out := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	if !f.json {
		_, _ = fmt.Fprintln(out, "ID\tSTATE\tTENANT\tPLAN\tSCOPES\tEXPIRES\tLAST USED\tSOURCE") // Flush reports what fails
	}
	uses, err := f.uses()
	if err != nil {
		return err
	}
	err = f.Each("keys", func(raw json.RawMessage) error {
		var k listedKey
		if err := json.Unmarshal(raw, &k); err != nil {
			return err
		}
		return k.print(out, raw, uses, f.json)
	})
	if err != nil {
		return err
	}
	return out.Flush()
}

// print writes a key in one line: as a row, or as the JSON that it came in and
// when it was last used.
func (k *listedKey) print(out io.Writer, raw json.RawMessage, uses map[string]time.Time, asJSON bool) error {
	at, used := uses[k.ID]
	if asJSON {
		members := map[string]any{}
		if err := json.Unmarshal(raw, &members); err != nil {
			return err
		}
		if used {
			members["last_used"] = at
		}
		return json.NewEncoder(out).Encode(members)
	}
	expires, last, state := "never", "never", k.State
	if !k.Value.Expires.IsZero() {
		expires = k.Value.Expires.Format(time.RFC3339)
	}
	if used {
		last = at.Format(time.RFC3339)
	}
	if state == keyOverlapping || state == keyRevoked {
		state += " until " + k.Until.Format(time.RFC3339)
	}
	row := []string{k.ID, state, k.Value.Tenant, k.Value.Plan, strings.Join(k.Value.Scopes, " "), expires, last, k.Source}
	for i := range row {
		row[i] = printable(row[i], "")
	}
	_, err := fmt.Fprintln(out, strings.Join(row, "\t"))
	return err
}
