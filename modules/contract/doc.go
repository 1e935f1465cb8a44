// Package contract holds requests to the API's contract: an OpenAPI document,
// or a JSON Schema for one route.
//
// It is two handlers. The first finds the operation, early: an unknown path is
// a 404, an unknown method a 405. The second validates parameters and body,
// once the caller is known and within its quota. The api directive puts each
// in its place; alone, the first does both.
//
// # Price
//
// Finding an operation costs well under a microsecond, however many there are.
// Validating a body costs its decoding and the schema library, some tens of
// microseconds a kilobyte. Bodies are read only where the contract has a schema
// for them, up to max_body. Compiled contracts are shared by all sites and
// reloads that use the same files.
//
// Comparing responses copies their JSON bodies, up to max_body each, and takes
// at most half of the cores once the clients have them; what there is no time
// for is counted and left.
//
// # How it fails
//
// A document that cannot be read, refers to what is not there, or holds a
// schema that would loop, is refused when the configuration is loaded, with
// file and line. At run time it depends on nothing; a fault inside a schema
// library is a 500, and the request does not pass.
package contract
