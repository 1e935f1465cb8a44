// Package cli owns the command `caddy gatehouse`. Caddy allows the name of a
// command once, so packages add their subcommands here.
//
// A build without any subcommand has no such command. A subcommand is built
// anew each time Caddy asks for its tree, since Caddy asks more than once.
package cli
