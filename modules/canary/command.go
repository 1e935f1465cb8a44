package canary

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-caddy/gatehouse/modules/cli"
	"github.com/gatehouse-caddy/gatehouse/modules/registry"
)

func init() { cli.Add(canaryCommand) }

func canaryCommand() *cobra.Command {
	return registry.Setting{
		Use:   "canary",
		Short: "Changes what share of the callers a release has",
		Long: "Changes what share of the callers a release of the running gateway has, without a reload, until it is reset. It also resumes one that was " +
			"rolled back.",
		Kind: "canaries", ID: "<api>.<release>", Words: "<percent>",
		Value: func(words []string) (any, error) {
			digits, ok := strings.CutSuffix(words[0], "%")
			weight, err := strconv.ParseFloat(digits, 64)
			if !ok || err != nil || len(words) > 1 {
				return nil, fmt.Errorf("%q is not a share of the callers; write for example 20%%", strings.Join(words, " "))
			}
			return override{Weight: &weight}, nil
		},
		Columns: []string{"WEIGHT", "ROLLED BACK", "WHY"},
		Row: func(value json.RawMessage) ([]string, error) {
			o, err := readOverride(value)
			if err != nil {
				return nil, err
			}
			row := []string{strconv.FormatFloat(*o.Weight, 'g', -1, 64) + "%", "", ""}
			if b := o.RolledBack; b != nil {
				row[1], row[2] = b.At.Format(time.RFC3339), b.Why
			}
			return row, nil
		},
	}.Command()
}
