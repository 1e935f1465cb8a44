package cli

import (
	"slices"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// TestAdd holds that packages meet under one command, which Caddy would refuse
// to register twice.
func TestAdd(t *testing.T) {
	if _, ok := caddycmd.Commands()["gatehouse"]; ok {
		t.Fatal("the command is there before anything was added")
	}
	for _, name := range []string{"one", "two"} {
		Add(func() *cobra.Command { return &cobra.Command{Use: name} })
	}
	command, ok := caddycmd.Commands()["gatehouse"]
	if !ok {
		t.Fatal("the command is not registered")
	}
	for range 2 { // Caddy builds the tree again for its manual pages
		root := new(cobra.Command)
		command.CobraFunc(root)
		var names []string
		for _, sub := range root.Commands() {
			names = append(names, sub.Name())
		}
		slices.Sort(names)
		if !slices.Equal(names, []string{"one", "two"}) {
			t.Errorf("subcommands are %v", names)
		}
	}
}
