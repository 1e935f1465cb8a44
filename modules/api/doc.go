// Package api is the outermost handler of an API: it opens the Exchange, runs
// the stages in its block, and closes the Exchange.
//
// Whatever happens inside, the client gets a well-formed answer: a denial, an
// error or a panic becomes one RFC 9457 problem document (for gRPC callers the
// status they understand), and what nothing answered is a 404, never an empty
// 200. What would show how the backend is built is taken out of every
// response: Server, Via, X-Powered-By and their kin, redirects to upstream
// addresses, the bodies of 5xx answers, and trailers other than gRPC's.
//
// Each request leaves one entry in the log, named
// http.handlers.gatehouse_api.decision, with what every stage concluded and
// how long it took, and one count per decision in gatehouse_decisions_total.
//
// # Price
//
// The chain of the block is compiled once, when the configuration is loaded.
// A request pays for one Exchange, one response wrapper and one log entry;
// `log denied` or `log off` saves the entry of requests that passed.
//
// # How it fails
//
// A panic is a 500 with reason api.panic and its stack in the log;
// http.ErrAbortHandler passes on, since Caddy's proxy means it. When the
// response has begun before something fails, the connection is aborted, so
// that a cut answer is never taken for a whole one.
package api
