// Package reputation looks at where a request comes from: whether its address
// is on a list, and which country and network it belongs to.
//
// Lists come from files or URLs, in the forms they are published in. Files are
// looked at every ten seconds and URLs fetched every hour, in the background; a
// list that cannot be read, or reads as empty, leaves the one before in place.
// What was fetched is kept in Caddy's storage, so that a gateway which starts
// while a feed is down has the last good copy. Countries and networks come from
// MMDB files, which are swapped when they change. Bots that say who they are
// are recognised by their User-Agent, which anybody can send: that is a tag and
// no proof. Allow goes before deny. By itself the stage refuses nobody: it
// records country, network and bot for logs and policy expressions.
//
// A look-up in a list of a million networks costs some 14 ns and no
// allocation, in an MMDB file some 340 ns; a browser's User-Agent among 1,500
// patterns some 300 ns, and the worst that a caller can make up some 100 us. A
// list from a URL that was never fetched, and of which no copy is kept, meets
// on_error, which is open by default: an outage of a feed must not be an outage
// of the API. A storage that fails is a warning.
package reputation
