// Package console is what operators look at: the last finished Exchanges with
// what every stage decided, breakers, quotas, canaries, feeds and certificates,
// as JSON on Caddy's admin endpoint and as one page for a browser. `caddy
// gatehouse explain <id>` prints one Exchange, `caddy gatehouse console` opens
// the page where the admin endpoint is a socket or far away.
//
// # Price
//
// Requests pay for one record of some 1 KB and one store; the last 1,000
// Exchanges that passed and as many that did not are remembered, together some
// 2 MB. Nobody who looks can slow them down: streams read what is remembered
// four times a second, and are told how much they were too slow for. A query
// looks at every record once and answers with at most 1,000; at most 16 streams
// are open.
//
// # How it fails
//
// What is not there is a 404, and a question that makes no sense a 400 that
// says which words are known. Streams end when the configuration is replaced,
// and browsers come back where they left off. With `admin off` nothing is
// remembered. The console shows no credential, query, body or header other than
// the User-Agent, but it does show who asked for what: the admin endpoint is as
// private as it ever was. What `caddy gatehouse console` serves lends the operator's
// word to one browser, by a key that is good once, and to nobody else (relay.go).
package console
