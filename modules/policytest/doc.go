// Package policytest answers what a gateway would do, before it does it.
//
// `caddy gatehouse test` runs cases written in YAML through the real stages of a
// configuration, in process: nothing listens and nothing is dialled. `caddy
// gatehouse audit` looks for what is missing or weak in a configuration and its
// contracts, crossing one with the other.
//
// # What is real in a test
//
// The configuration is adapted and provisioned as Caddy would, once for each
// case, so that no case sees what another has spent. The whole handler chain of
// the site runs, Caddy's proxy with the transport, breakers and retries
// included. Four things are put in place of what is outside:
//
//   - An upstream is an HTTP server in memory, reached by replacing no more
//     than how a transport dials. A proxy whose transport cannot be reached so
//     is an error, never a connection to the real one.
//   - Issuers and API keys: tokens are made and signed in process, and identity
//     is given the key they are signed with (identity.App.Rehearse).
//   - Client certificates come as already verified; that a site demands one is
//     kept.
//   - The time is held where a case says, for all that stages decide by it.
//
// Left out are a cluster, whose quotas count as on one node, live objects,
// active health checks, tracing, event handlers, logs, and all that starts with
// the gateway, such as fetching lists. Caddy's own clocks, such as rate_limit's
// and a transport's deadlines, are real.
//
// # How it fails
//
// A misspelt word, an operation, reason or plan that nobody knows, a case that
// asserts nothing and a folder without cases are errors, with the line; the
// command then ends with 2. A case that fails ends it with 1.
package policytest
