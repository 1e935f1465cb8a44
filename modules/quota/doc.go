// Package quota gives each caller an allowance of requests over time: a token
// bucket with a rate and a burst, or a leaky one that makes requests wait for
// their turn. Plans are defined once and applied by name; they may depend on
// country and hour (when.go). A caller who sends far more than it usually does
// may be tightened (unusual.go).
//
// # Price
//
// Memory is bounded: between max_keys and twice as many callers are remembered
// over all quotas, some 40 bytes each, and 60 more with a habit; one that is
// forgotten starts again with its full burst, and without a habit. Counting takes well under a microsecond and no allocation;
// the response fields take two. Those who wait for their turn hold a connection
// each; their number is bounded, and shared among quotas and networks (waiting.go).
//
// # How it fails
//
// A gateway alone depends on nothing but memory. Where a cluster shares
// quotas, requests that meet no lease ask its server, for 20ms at most; while it
// cannot be asked, each gateway goes on with its share (shared.go). Counters live as long as the process has a
// configuration with quotas, over reloads that succeed and that are refused. A
// caller whose plan is not defined gets the default plan, or else the one with
// the lowest rate: never none. A caller without the attribute it is counted by
// is counted by address, IPv6 by /64.
package quota
