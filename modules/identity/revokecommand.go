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
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-caddy/gatehouse/modules/cli"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
	"github.com/gatehouse-caddy/gatehouse/modules/registry"
)

func init() { cli.Add(revokeCommand) }

// revokeFlags say what is not good any more, and until when that is said.
type revokeFlags struct {
	registry.Client
	v               revocation
	before, expires string
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
	key := named("key <id> --expires <time or duration>", "Revokes an API key, also one of the configuration", &f.v.Key)
	for _, c := range []*cobra.Command{token, subject} {
		c.Flags().StringVar(&f.v.Issuer, "issuer", "", "who issued it, as its tokens say in iss; keys or mtls for subjects of API keys and certificates")
	}
	for _, c := range []*cobra.Command{subject, tenant} {
		c.Flags().StringVar(&f.before, "before", "", "only what was issued before: now, or a time such as 2027-01-01T00:00:00Z; default: all")
	}
	for _, c := range []*cobra.Command{token, subject, tenant, key} {
		c.Flags().StringVar(&f.expires, "expires", "", "when what is revoked has expired itself: a time such as 2027-01-01T00:00:00Z, or from now such as 720h")
		c.Flags().StringVar(&f.v.Reason, "reason", "", "why, for whoever reads it later")
	}
	cmd.AddCommand(token, subject, tenant, key, &cobra.Command{
		Use:   "list",
		Short: "Lists the revocations of the running gateway",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.list(cmd.OutOrStdout()) },
	}, &cobra.Command{
		Use:   "lift <id>",
		Short: "Takes a revocation away; the next request is accepted",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
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
	if f.expires != "" {
		if f.v.Expires, err = moment("--expires", f.expires); err != nil {
			return err
		}
	}
	switch f.before {
	case "":
	case "now":
		f.v.Before = time.Now().UTC()
	default:
		if f.v.Before, err = time.Parse(time.RFC3339, f.before); err != nil {
			return fmt.Errorf("--before %q is neither now nor a time such as 2027-01-01T00:00:00Z", f.before)
		}
	}
	if f.v.Expires.IsZero() {
		return errors.New("--expires is required: when the last credential that this is about has expired itself, for example 720h")
	}
	if _, err := f.v.entry(); err != nil {
		return err
	}
	body, err := json.Marshal(f.v)
	if err != nil {
		return err
	}
	answer, err := f.Ask(http.MethodPost, "revocations", body)
	if err != nil {
		return err
	}
	var o struct { // what stands now, which may have been there and be stronger
		ID    string
		Value revocation
	}
	if err := json.Unmarshal(answer, &o); err != nil {
		return fmt.Errorf("reading the gateway's answer: %w", err)
	}
	if o.Value.Expires.IsZero() { // whoever may not read is not told
		o.Value.Expires = f.v.Expires
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "revoked until %s: %s\n", o.Value.Expires.Format(time.RFC3339), o.ID)
	return err
}

// moment reads a time, or how long it is from now.
func moment(flag, word string) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, word); err == nil {
		return at, nil
	}
	left, err := time.ParseDuration(word)
	if err != nil || left <= 0 {
		return time.Time{}, fmt.Errorf("%s %q is neither a time such as 2027-01-01T00:00:00Z nor a duration such as 720h", flag, word)
	}
	return time.Now().Add(left).UTC().Truncate(time.Second), nil
}

func (f *revokeFlags) list(to io.Writer) error {
	out := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(out, "ID\tWHAT\tISSUER\tBEFORE\tEXPIRES\tREASON") // Flush reports what fails
	for after := ""; ; {
		body, err := f.Ask(http.MethodGet, "revocations?after="+url.QueryEscape(after), nil)
		if err != nil {
			return err
		}
		var page struct {
			Objects []struct {
				ID    string
				Value revocation
			}
			Next string
		}
		if err := json.Unmarshal(body, &page); err != nil {
			return fmt.Errorf("reading the gateway's answer: %w", err)
		}
		for _, o := range page.Objects {
			v, before, what := o.Value, "", ""
			if !v.Before.IsZero() {
				before = v.Before.Format(time.RFC3339)
			}
			for _, c := range [...][2]string{{ofJTI, v.JTI}, {ofToken, v.SHA256}, {ofKey, v.Key}, {ofSubject, v.Subject}, {ofTenant, v.Tenant}} {
				if c[1] != "" {
					what = c[0] + " " + printable(c[1], "")
				}
			}
			_, _ = fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%s\n", o.ID, what, printable(v.Issuer, ""), before, v.Expires.Format(time.RFC3339), printable(v.Reason, ""))
		}
		if after = page.Next; after == "" {
			return out.Flush()
		}
	}
}
