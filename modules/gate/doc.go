// Package gate holds the words every stage of the gateway shares, and nothing
// that decides. Everyone may import it; it imports no sibling.
//
//   - An [Exchange] is the gateway's record of one request, from first byte to
//     last decision. [Of] opens it on first use, whichever stage comes first.
//   - A [Principal] is who asks, as proven; an [Operation] is what is asked.
//   - A [Decision] is what one stage concluded; [Exchange.Conclude] records it
//     without allocating and returns what the stage's ServeHTTP must do.
//   - A [Denial] is the one way a stage turns a request away. It speaks to two
//     readers: Reason and Detail are for the client, Err is for the operator.
//   - A [Reason] says why, for machines, from a closed list. It is never
//     renamed and never reused once released.
//   - A [Record] is what is left of an Exchange that has ended: what the log
//     writes, and what [Remember] keeps for those who look.
//   - A [Description] is what an API may tell its consumers. Stages add to it
//     when the configuration is loaded; catalog publishes it.
//   - A [Mode] is enforce, shadow (decide, record, let pass) or off. [OnError]
//     is what a stage does when what it depends on is down.
//
// # The walk
//
// The order of stages is written once, in caddyfile/order. Cheap and anonymous
// checks come first: reputation, guard, catalog, contract, identity, require, quota,
// input, firewall, canary, then Caddy's own reverse_proxy. The api handler
// stands around them all; each stage also works alone, without it.
//
// # Rules that bind every stage
//
// A denial is returned by value and untouched, because Caddy answers a wrapped
// one with an empty 500 or even a 200. A wrong credential is a no; an
// unreachable key server is broken and meets on_error. State that must outlive
// a reload lives in a caddy.UsagePool under a key covering everything that
// shaped it. Nothing dials, listens or writes in Provision. Everything that
// grows is bounded. Secrets reach no log, label, error or configuration dump.
//
// # Who knows whom
//
// cmd/caddy → gatehouse → caddyfile → modules/* → modules/gate. Stages never
// import each other; they meet in gate's values or through Caddy's registry.
// integration/imports_test.go holds the rule.
package gate
