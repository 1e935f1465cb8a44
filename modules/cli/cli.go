package cli

import (
	"fmt"
	"strings"
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
			insist(cmd)
		},
	})
}

// insist makes a command that only has others below it an error unless one of
// them is named: a script that misspells `revoke` must not believe that it did.
func insist(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		insist(sub)
	}
	if !cmd.HasSubCommands() || cmd.Runnable() {
		return
	}
	cmd.Args, cmd.SuggestionsMinimumDistance = cobra.ArbitraryArgs, 2
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var names []string
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				names = append(names, sub.Name())
			}
		}
		known := "expected " + strings.Join(names, ", ")
		if len(args) == 0 {
			return fmt.Errorf("%s needs a command; %s", cmd.CommandPath(), known)
		}
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			known = fmt.Sprintf("did you mean %q? %s", near[0], strings.ToUpper(known[:1])+known[1:])
		}
		return fmt.Errorf("%s has no command %q; %s", cmd.CommandPath(), args[0], known)
	}
}
