// Package transcode lets clients of REST, gRPC-Web and Connect call a gRPC
// service. A set of descriptors says which methods there are and, by their
// google.api.http rules, which paths and bodies call them.
//
// It stands before reverse_proxy and gives it the gRPC call that a request
// means, so that breakers, retries and all else of the proxy stay in use. Calls
// in gRPC itself pass untouched, and so does, by default, what no method
// answers.
//
// # Price
//
// A unary call with JSON costs some forty microseconds; a request that is none
// of the services' a fraction of one. What is held of a call is bounded: one
// message each way, of at most max_message. Streams are translated
// message by message. Answers to REST are held until they are complete, because
// the outcome of a gRPC call comes last and a status of HTTP first.
//
// # How it fails
//
// A descriptor set that cannot be read, lacks an import or names no method is
// refused when the configuration is loaded. A request that is no message of its
// method is refused before anything reaches the service, except for the
// messages of a stream that went before. An answer that cannot be translated
// is a 502. The service's own errors reach clients in their protocol; for REST
// that is a problem document with the status that belongs to the code.
//
// # The library
//
// Protocols and messages are translated by connectrpc.com/vanguard, which saves
// us four protocols and the HTTP rules. What it does not do by itself is done
// around it: it answers errors of the request from whatever goroutine reads it,
// ends a stream at an empty message, unescapes paths twice, bounds nothing that
// comes out of a compressed message, fails on codes that do not exist, and
// knows only net/http handlers.
package transcode
