package cli

import (
	"sync"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

var (
	mu   sync.Mutex
	subs []func() *cobra.Command
)

// Add adds a subcommand; call it from init. The command is built anew each
// time Caddy asks for its tree.
func Add(sub func() *cobra.Command) {
	mu.Lock()
	defer mu.Unlock()
	subs = append(subs, sub)
	if len(subs) > 1 {
		return
	}
	// Registered with the first subcommand: a build with none has no command.
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "gatehouse",
		Short: "Works with the API gateway",
		CobraFunc: func(cmd *cobra.Command) {
			mu.Lock()
			defer mu.Unlock()
			for _, sub := range subs {
				cmd.AddCommand(sub())
			}
		},
	})
}
