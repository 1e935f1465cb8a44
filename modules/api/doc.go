// Package api is the outermost handler of an API: it opens the Exchange, runs
// the stages in its block, and closes the Exchange.
//
// Whatever happens inside, the client gets a well-formed answer: a denial, an
// error or a panic becomes one RFC 9457 problem document (for gRPC callers the
// status they understand), and what nothing answered is a 404, never an empty
// 200. What would show how the backend is built is taken out of every
// response: Server, Via, X-Powered-By and their kin, upstream addresses in
// redirects and links, the bodies of 5xx answers, and trailers other than gRPC's.
// So is what an upstream has no word in, as who asks, and the sessions of the
// host (mask.go). What is no answer is a 502.
//
// Each request leaves one entry in the log, named
// http.handlers.gatehouse_api.decision, with what every stage concluded and
// how long it took, and one count per decision in gatehouse_decisions_total.
// The span of Caddy's tracing is told the same, and the last requests are
// remembered for the console.
//
// When a configuration is replaced, the old one ends the connections of HTTP/1
// by an answer, and not under a request that is on its way ([Drain]).
//
// # Price
//
// The chain of the block is compiled once, when the configuration is loaded.
// A request pays for one Exchange, one response wrapper and one record of how it
// ended. The log entry is written afterwards, behind the request's back;
// `log denied` or `log off` saves that of requests that passed.
//
// # How it fails
//
// A panic is a 500 with reason api.panic and its stack in the log;
// http.ErrAbortHandler passes on, since Caddy's proxy means it. A log that
// stands still costs entries, which are counted, and keeps no request waiting.
// An error that the upstream does not finish is a problem all the same. When the
// response has begun before something fails, the connection is aborted, so that
// a cut answer is never taken for a whole one.
package api
