package identity

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/gatehouse-caddy/gatehouse/modules/cli"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/revoked"
	"github.com/gatehouse-caddy/gatehouse/modules/registry"
)

func init() { cli.Add(revokeCommand) }

// revokeFlags say what is not good any more, and until when that is said.
type revokeFlags struct {
	registry.Client
	v               revocation
	before, expires string
	force, replace  bool
	json            bool
}

func revokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke",
		Short: "Revokes tokens, keys, subjects and tenants",
		Long:  "Revokes what the running gateway, and those it shares its storage with, would accept otherwise. The next request is refused.",
	}
	var f revokeFlags
	f.Flags(cmd)
	token := &cobra.Command{
		Use:   "token [--jti <id> --issuer <iss> | --sha256 <hash>]",
		Short: "Revokes a token, which is read from standard input unless a flag says which",
		Long: "Revokes a token. It is read from standard input, so that it does not end up in a shell's history; only its hash leaves this command. " +
			"Its own expiry says how long it has to be remembered, if it is signed and says so.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.v.JTI == "" && f.v.SHA256 == "" {
				if in, err := os.Stdin.Stat(); cmd.InOrStdin() == os.Stdin && err == nil && in.Mode()&os.ModeCharDevice != 0 {
					cmd.PrintErrln("Paste the token, and end it with Enter and Ctrl-D.")
				}
				if err := f.read(cmd.InOrStdin()); err != nil {
					return err
				}
			}
			return f.revoke(cmd)
		},
	}
	token.Flags().StringVar(&f.v.JTI, "jti", "", "the token's claim jti")
	token.Flags().StringVar(&f.v.SHA256, "sha256", "", "the token's hash; of a signed one, that of its text before the last dot")
	named := func(use, short string, into *string) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			*into = args[0]
			return f.revoke(cmd)
		}}
	}
	subject := named("subject <subject> --issuer <iss> --expires <time or duration>", "Revokes what an issuer gave to a subject", &f.v.Subject)
	tenant := named("tenant <tenant> --expires <time or duration>", "Revokes what belongs to a tenant", &f.v.Tenant)
	key := named("key <id> [--expires <time or duration>]", "Revokes an API key, also one of the configuration; until it expires, or else for ten years", &f.v.Key)
	for _, c := range []*cobra.Command{token, subject} {
		c.Flags().StringVar(&f.v.Issuer, "issuer", "", "who issued it, as its tokens say in iss; keys or mtls for subjects of API keys and certificates")
	}
	for _, c := range []*cobra.Command{subject, tenant} {
		c.Flags().StringVar(&f.before, "before", "", "only what was issued before: now, a time such as 2027-01-01T00:00:00Z, or a day (UTC); default: all")
	}
	for _, c := range []*cobra.Command{token, subject, tenant, key} {
		c.Flags().StringVar(&f.expires, "expires", "", "when what is revoked has expired itself: "+momentHelp)
		c.Flags().StringVar(&f.v.Reason, "reason", "", "why, for whoever reads it later")
		c.Flags().BoolVar(&f.replace, "replace", false, "in place of a revocation of the same, also if that is stronger")
	}
	key.Flags().BoolVar(&f.force, "force", false, "also if there is no such key: one that comes later is refused, or that of another gateway's configuration")
	list := &cobra.Command{
		Use:   "list [--json]",
		Short: "Lists the revocations of the running gateway",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.list(cmd.OutOrStdout()) },
	}
	list.Flags().BoolVar(&f.json, "json", false, "as JSON, one revocation a line")
	cmd.AddCommand(token, subject, tenant, key, list, &cobra.Command{
		Use:   "lift <id> | lift key <id> | lift tenant <tenant>",
		Short: "Takes a revocation away; the next request is accepted",
		Long:  "Takes a revocation away: the one with an id, as `list` shows it, or that of a key or tenant. The next request is accepted, unless another revocation is about it.",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				if args[0] != ofKey && args[0] != ofTenant {
					return fmt.Errorf("%q is none of key and tenant; other revocations are lifted by the id that `list` shows", args[0])
				}
				args = []string{revoked.Of(args[0], "", args[1]).String()}
			}
			_, err := f.Ask(http.MethodDelete, "revocations/"+url.PathEscape(args[0]), nil)
			if err == nil {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "lifted %s\n", args[0])
			}
			return err
		},
	})
	return cmd
}

// read takes a token from standard input.
func (f *revokeFlags) read(in io.Reader) error {
	text, err := io.ReadAll(io.LimitReader(in, jwt.MaxLength+2))
	if err != nil {
		return fmt.Errorf("reading the token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" || len(token) > jwt.MaxLength || strings.ContainsAny(token, " \r\n\t") {
		return errors.New("standard input has no token")
	}
	sum := tokenHash(token)
	f.v.SHA256 = hex.EncodeToString(sum[:])
	if f.expires == "" {
		f.v.Expires = expiryOf(token)
	}
	return nil
}

// expiryOf is how long a signed token can be good anywhere. Nothing is verified:
// a token that lies about it is not good anyway.
func expiryOf(token string) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Expires float64 `json:"exp"`
	}
	if err != nil || json.Unmarshal(body, &claims) != nil || claims.Expires <= 0 || claims.Expires > 1<<32-1 {
		return time.Time{}
	}
	return time.Unix(int64(claims.Expires)+1, 0).Add(maxLeeway).UTC()
}

func (f *revokeFlags) revoke(cmd *cobra.Command) (err error) {
	now := time.Now()
	if f.expires != "" {
		if f.v.Expires, err = moment(f.expires, now); err != nil {
			return err
		}
	}
	switch f.before {
	case "":
	case "now":
		f.v.Before = now.UTC()
	default:
		if f.v.Before, err = date(f.before); err != nil {
			return fmt.Errorf("--before %q is neither now nor a time such as 2027-01-01T00:00:00Z", f.before)
		}
	}
	if f.v.Expires.IsZero() && f.v.Key != "" {
		f.v.Expires = f.keyEnds(now)
	}
	if f.v.Expires.IsZero() {
		return errors.New("--expires is required: when the last credential that this is about has expired itself, for example 30d")
	}
	entry, err := f.v.entry()
	if err != nil {
		return err
	}
	body, err := json.Marshal(f.v)
	if err != nil {
		return err
	}
	method, path := http.MethodPost, "revocations"
	if f.replace {
		method, path = http.MethodPut, path+"/"+entry.Mark.String()
	}
	if f.force {
		path += "?force=true"
	}
	answer, err := f.Ask(method, path, body)
	if refusedWith(err, http.StatusConflict) && !strings.Contains(err.Error(), "--force") {
		return fmt.Errorf("%w\n  --replace puts yours in its place, and `caddy gatehouse revoke lift %s` takes the other away", err, entry.Mark)
	}
	if err != nil {
		return err
	}
	registry.Warn(cmd.ErrOrStderr(), answer)
	var o struct { // what stands now, which may have been there and be stronger
		ID    string
		Kept  bool
		Value revocation
	}
	if err := json.Unmarshal(answer, &o); err != nil {
		return fmt.Errorf("reading the gateway's answer: %w", err)
	}
	stands := entry
	if !o.Value.Expires.IsZero() {
		if stands, err = o.Value.entry(); err != nil {
			return fmt.Errorf("reading the gateway's answer: %w", err)
		}
	}
	said := "revoked " + span(stands) + ": " + o.ID
	switch {
	case o.Kept:
		said += "\nit stood already, and revokes at least as much: nothing was changed"
		if o.Value.Reason != "" {
			said += "; its reason is " + printable(o.Value.Reason, "")
		}
	case o.Value.Expires.IsZero(): // whoever may not read is not told
		said = "revoked at least " + span(stands) + ": " + o.ID
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), said)
	return err
}

// keyEnds is until when a key has to be revoked, if nobody says: until it has
// expired itself, or else for as long as can be. In a hurry, nobody knows.
func (f *revokeFlags) keyEnds(now time.Time) time.Time {
	var o listedKey
	body, err := f.Ask(http.MethodGet, "keys/"+url.PathEscape(f.v.Key), nil)
	if err == nil && json.Unmarshal(body, &o) == nil && o.Value.Expires.After(now) {
		return o.Value.Expires
	}
	return now.AddDate(10, 0, 0).UTC().Truncate(time.Second) // whoever may not read keys is no less in a hurry
}

const momentHelp = "a time such as 2027-01-01T00:00:00Z, a day (UTC) such as 2027-01-01, or from now such as 30d or 12h"

// moment reads what --expires is given: a time to come, or how long it is from now.
func moment(word string, now time.Time) (time.Time, error) {
	at, err := date(word)
	if err != nil {
		left, err := caddy.ParseDuration(word)
		if err != nil || left <= 0 {
			return time.Time{}, fmt.Errorf("--expires %q is neither a time such as 2027-01-01T00:00:00Z nor a duration such as 30d or 12h", word)
		}
		at = now.Add(left + time.Second - 1).UTC().Truncate(time.Second)
	}
	if !at.After(now) {
		return time.Time{}, fmt.Errorf("--expires has passed: %s", word)
	}
	return at, nil
}

// date reads a time, or a day, which is its first moment in UTC.
func date(word string) (time.Time, error) {
	if at, err := time.Parse(time.DateOnly, word); err == nil {
		return at, nil
	}
	return time.Parse(time.RFC3339, word)
}

func (f *revokeFlags) list(to io.Writer) error {
	out := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	if !f.json {
		_, _ = fmt.Fprintln(out, "ID\tWHAT\tISSUER\tBEFORE\tEXPIRES\tREASON") // Flush reports what fails
	}
	err := f.Each("revocations", func(raw json.RawMessage) error {
		if f.json {
			_, err := fmt.Fprintf(out, "%s\n", raw)
			return err
		}
		var o struct {
			ID    string
			Value revocation
		}
		if err := json.Unmarshal(raw, &o); err != nil {
			return err
		}
		v, before, what := o.Value, "", ""
		if !v.Before.IsZero() {
			before = v.Before.Format(time.RFC3339)
		}
		for _, c := range [...][2]string{{ofJTI, v.JTI}, {ofToken, v.SHA256}, {ofKey, v.Key}, {ofSubject, v.Subject}, {ofTenant, v.Tenant}} {
			if c[1] != "" {
				what = c[0] + " " + printable(c[1], "")
			}
		}
		_, err := fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%s\n", o.ID, what, printable(v.Issuer, ""), before, v.Expires.Format(time.RFC3339), printable(v.Reason, ""))
		return err
	})
	if err != nil {
		return err
	}
	return out.Flush()
}
