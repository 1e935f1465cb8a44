// Package cluster is what several gateways share: a link to a Redis or Valkey
// server, and what happens when it is gone.
//
// One gateway needs nothing of it. Stages ask for the link with [Of] and get
// nil where the configuration has none. Everything that is kept on the other
// side is counted in atomic scripts, so that no two nodes can undo each other.
//
// # Price
//
// Calls of many requests share connections and round trips. At most 512 may be
// on their way at once.
//
// # How it fails
//
// A call takes at most the timeout of the link, 20ms. The first that fails
// marks the link as down: from then on calls fail at once, without waiting,
// until a probe, every 100ms, was answered in time. Nothing waits for the
// server at start, and nothing that is decided on each request may need it:
// every stage says what it does without. How many nodes there were is
// remembered, so that each can go on with its share.
package cluster
