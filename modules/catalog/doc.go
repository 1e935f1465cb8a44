// Package catalog shows an API to its consumers: how to prove who they are,
// what they may have, which operations there are, and why requests are refused.
//
// Nothing is published unless catalog is written. Inside an api it is that API's
// page, with the contract in a viewer and as a document; in a site it is the
// list of the APIs of that site. Both answer /.well-known/api-catalog (RFC 9727).
//
// What is published is copied word by word of a list (see contract's publish
// engine): operations that are marked x-internal, or hidden, stay inside with
// all that only they use, and so do extensions, servers and files. Backends,
// expressions, thresholds and addresses are never told.
//
// # Price
//
// Pages are made when the configuration is loaded and held in memory, about as
// much as the contract's file. A request for anything else costs a comparison.
//
// # How it fails
//
// A page that cannot be made, or would stand in front of an operation of the
// contract, is refused when the configuration is loaded. At run time it depends
// on nothing. The viewer (Swagger UI, part of the binary) runs under a content
// security policy that lets nothing leave the gateway's origin and no script of
// a contract run.
package catalog
