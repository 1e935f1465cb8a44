// Package reputation looks at where a request comes from: whether its address
// is on a list, and which country and network it belongs to.
//
// Lists come from files or URLs, in the forms they are published in. Files are
// looked at every ten seconds and URLs fetched every hour, in the background; a
// list that cannot be read, or reads as empty, leaves the one before in place.
// Countries and networks come from MMDB files, which are swapped when they
// change. Allow goes before deny. By itself the stage refuses nobody: it
// records country and network for logs and policy expressions.
//
// A look-up in a list of a million networks costs some 14 ns and no
// allocation, in an MMDB file some 340 ns. A list from a URL that was never
// fetched meets on_error, which is open by default: an outage of a feed must
// not be an outage of the API.
package reputation
