package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/gatehouse-caddy/gatehouse/modules/cli"
)

func init() {
	cli.Add(tokenCommand)
	cli.Add(keyCommand)
}

// tokenFlags are what a minted token is to say.
type tokenFlags struct {
	config, adapter, issuer       string
	subject, client, tenant, plan string
	scope                         string
	roles, audience               []string
	ttl                           time.Duration
}

func tokenCommand() *cobra.Command {
	var f tokenFlags
	cmd := &cobra.Command{
		Use:   "token [--config <file>] [--issuer <name>] [--subject <name>] [--scope \"<scope> …\"]",
		Short: "Mints a token of a development issuer",
		Long:  "Mints a token of an issuer that the configuration declares for development (issuer <name> dev). Other issuers' keys are not ours to sign with.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			token, err := f.mint(cmd)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), token)
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.config, "config", "c", "", "configuration file; default: ./Caddyfile")
	flags.StringVarP(&f.adapter, "adapter", "a", "", "name of the config adapter, if the file is no Caddyfile")
	flags.StringVar(&f.issuer, "issuer", "", "name of the issuer; may be left out when there is one for development")
	flags.StringVar(&f.subject, "subject", "dev", "who asks")
	flags.StringVar(&f.client, "client", "", "the application that asks")
	flags.StringVar(&f.tenant, "tenant", "", "the tenant")
	flags.StringVar(&f.plan, "plan", "", "the tenant's plan")
	flags.StringVar(&f.scope, "scope", "", "scopes, separated by spaces")
	flags.StringSliceVar(&f.roles, "role", nil, "a role; may be given several times")
	flags.StringSliceVar(&f.audience, "audience", nil, "whom the token is for; default: the issuer's audience")
	flags.DurationVar(&f.ttl, "ttl", time.Hour, "how long the token is good")
	return cmd
}

// mint provisions no more of the configuration than the identity app and the
// storage: nothing listens, and nothing else is opened.
func (f *tokenFlags) mint(cmd *cobra.Command) (string, error) {
	raw, _, _, err := caddycmd.LoadConfig(f.config, f.adapter)
	if err != nil {
		return "", err
	}
	if len(raw) == 0 {
		return "", errors.New("there is no Caddyfile here; name the configuration with --config")
	}
	var config struct {
		Storage json.RawMessage            `json:"storage"`
		Apps    map[string]json.RawMessage `json:"apps"`
	}
	if err := json.Unmarshal(raw, &config); err != nil {
		return "", fmt.Errorf("reading %q: %w", f.config, err)
	}
	var app App
	if identity := config.Apps["gatehouse_identity"]; identity != nil {
		if err := json.Unmarshal(identity, &app); err != nil {
			return "", fmt.Errorf("reading %q: %w", f.config, err)
		}
	}
	issuer, err := app.devIssuer(f.issuer)
	if err != nil {
		return "", err
	}
	ctx, err := caddy.ProvisionContext(&caddy.Config{
		Admin:      &caddy.AdminConfig{Disabled: true},
		StorageRaw: config.Storage,
	})
	if err != nil {
		return "", fmt.Errorf("opening the storage: %w", err)
	}
	return mint(cmd.Context(), ctx.Storage(), issuer, f.claims(issuer), f.ttl)
}

// devIssuer finds the issuer that was asked for, or the only one.
func (a *App) devIssuer(name string) (*Issuer, error) {
	var dev []*Issuer
	var names []string
	for _, i := range a.Issuers {
		if i.Name == name && !i.Dev {
			return nil, fmt.Errorf("issuer %q is not declared for development; only `issuer %s dev` can mint tokens", name, name)
		}
		if i.Dev {
			dev, names = append(dev, i), append(names, i.Name)
			if i.Name == name {
				return i, nil
			}
		}
	}
	switch {
	case len(dev) == 0:
		return nil, errors.New("the configuration declares no issuer for development; add `issuer local dev` to the global option identity")
	case name != "":
		return nil, fmt.Errorf("issuer %q is not defined; issuers for development are %s", name, strings.Join(names, ", "))
	case len(dev) > 1:
		return nil, fmt.Errorf("several issuers are for development (%s); choose one with --issuer", strings.Join(names, ", "))
	}
	return dev[0], nil
}

// claims puts what was asked for where the issuer's paths look for it.
func (f *tokenFlags) claims(i *Issuer) map[string]any {
	claims := map[string]any{}
	for name, value := range map[string]string{"subject": f.subject, "client": f.client, "tenant": f.tenant, "plan": f.plan, "scopes": f.scope} {
		if value != "" {
			i.put(claims, name, value)
		}
	}
	if len(f.roles) > 0 {
		i.put(claims, "roles", f.roles)
	}
	if claims["aud"] = f.audience; len(f.audience) == 0 {
		claims["aud"] = i.Audience
	}
	return claims
}

// put writes a fact where the issuer's paths look for it.
func (i *Issuer) put(claims map[string]any, name string, value any) {
	path := i.Claims[name]
	if path == "" {
		path = claimNames[name][0]
	}
	at := claims
	parts := strings.Split(path, ".")
	for _, p := range parts[:len(parts)-1] {
		next, ok := at[p].(map[string]any)
		if !ok {
			next = map[string]any{}
			at[p] = next
		}
		at = next
	}
	at[parts[len(parts)-1]] = value
}
