package quota

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/spf13/cobra"

	"github.com/gatehouse-caddy/gatehouse/modules/cli"
	"github.com/gatehouse-caddy/gatehouse/modules/registry"
)

func init() { cli.Add(tenantCommand) }

func tenantCommand() *cobra.Command {
	return registry.Setting{
		Use:   "tenant",
		Short: "Gives tenants a plan or a rate of their own",
		Long: "Gives tenants of the running gateway a plan of its configuration or a rate of their own, whatever plan their callers carry, " +
			"without a reload, until they are reset.",
		Kind: "tenants", ID: "<tenant>", Words: "plan <plan> | rate <rate> [burst <n>] [leaky <queue>]",
		Value:   tenantOf,
		Columns: []string{"PLAN", "RATE"},
		Row: func(value json.RawMessage) ([]string, error) {
			var t tenant
			err := json.Unmarshal(value, &t)
			if t.Rate == nil {
				return []string{t.Plan, ""}, err
			}
			return []string{t.Plan, t.Rate.String()}, err
		},
	}.Command()
}

// tenantOf reads the words of a command, which are those of the Caddyfile.
func tenantOf(words []string) (any, error) {
	if len(words) < 2 {
		return nil, fmt.Errorf("%s needs a value", words[0])
	}
	switch words[0] {
	case "plan":
		if len(words) > 2 {
			return nil, fmt.Errorf("one plan is enough: %s", strings.Join(words[1:], " "))
		}
		return tenant{Plan: words[1]}, nil
	case "rate":
		tokens := make([]caddyfile.Token, len(words))
		for i, w := range words {
			tokens[i] = caddyfile.Token{Text: w}
		}
		d := caddyfile.NewDispenser(tokens)
		d.Next()
		d.NextArg()
		t := tenant{Rate: new(Rate)}
		if err := t.Rate.unmarshal(d); err != nil {
			text, _, _ := strings.Cut(err.Error(), ", at :0")
			return nil, errors.New(text)
		}
		return t, nil
	}
	return nil, fmt.Errorf("expected plan or rate, not %q", words[0])
}
