// Package registry keeps live objects: what changes while the gateway runs,
// without a reload, such as API keys, tenants, stage modes and canary weights.
//
// A package that owns a kind of object declares it with [NewKind] and opens it
// in Provision; the requests it serves then see a snapshot that is swapped
// whole, so that each sees all of a change or none. Operators change objects
// over Caddy's admin API, under /gatehouse/<kind>/<id>, with ETag and If-Match.
// A change is acknowledged once it is in Caddy's storage, and leaves an audit
// record behind: in the log, and in a trail of at least 16,384 changes that can
// be asked. Operators may have roles that say what they may change. What looks
// like a mistake to the owner of a kind is asked back about, once (doubt.go). An
// object knows which revision created it, since of two that claim the same the
// older one has it.
//
// Several nodes meet in the storage: each looks at the journal there when
// another tells over the cluster's link that it has changed something, and
// every few seconds. While the storage is away the last good copy decides on
// and changes are refused with 503. A gateway that starts then has a copy only if the option
// copy names a folder for it; without, it does not start.
//
// A look-up costs an atomic load. A change costs one pass over the objects of
// its kind; objects are at most 64 KiB each and a million of a kind. A kind of
// which there are many is declared with [NewPacked]: its owner keeps of them
// what it needs, and a change costs one part of 4,096.
package registry
