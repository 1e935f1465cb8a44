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

// TestMisspelt: a command that is not there is an error, at whichever depth.
func TestMisspelt(t *testing.T) {
	none := func(*cobra.Command, []string) error { return nil }
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "gatehouse needs a command; expected audit, key"},
		{[]string{"kye"}, `gatehouse has no command "kye"; did you mean "key"? Expected audit, key`},
		{[]string{"key", "revok", "ci"}, `gatehouse key has no command "revok"; did you mean "revoke"? Expected create, revoke`},
		{[]string{"key", "nonsense"}, `gatehouse key has no command "nonsense"; expected create, revoke`},
		{[]string{"key"}, "gatehouse key needs a command; expected create, revoke"},
		{[]string{"key", "revoke"}, ""},
		{[]string{"audit"}, ""},
	} {
		root := &cobra.Command{Use: "gatehouse", SilenceErrors: true, SilenceUsage: true}
		key := &cobra.Command{Use: "key"}
		key.AddCommand(&cobra.Command{Use: "create", RunE: none}, &cobra.Command{Use: "revoke", RunE: none})
		root.AddCommand(key, &cobra.Command{Use: "audit", RunE: none})
		root.CompletionOptions.DisableDefaultCmd = true
		insist(root)
		root.SetArgs(append([]string{}, c.args...))
		got := ""
		if err := root.Execute(); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%q: %s\nwant %s", c.args, got, c.want)
		}
	}
}
