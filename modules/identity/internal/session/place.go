package session

import "strings"

// maxPlace bounds where a browser is sent back to.
const maxPlace = 2048

// Place returns where a browser may be sent: a path of this origin with its
// query, as it was asked for, or "/". Whatever a browser or a library might
// read as another origin is "/": a second slash, and a backslash, which
// browsers take for one; control characters, which they leave out; and dot
// segments, which leave such a path behind when they are resolved. Nor does it
// lead to the gateway's own pages, which begin with own.
func Place(asked, own string) string {
	const home = "/"
	if len(asked) > maxPlace || !strings.HasPrefix(asked, "/") || strings.HasPrefix(asked, "//") {
		return home
	}
	for _, c := range []byte(asked) {
		if c <= ' ' || c >= 0x7f || c == '\\' || c == '#' {
			return home
		}
	}
	path, _, _ := strings.Cut(asked, "?")
	for segment := range strings.SplitSeq(path, "/") {
		switch strings.ReplaceAll(strings.ToLower(segment), "%2e", ".") {
		case ".", "..":
			return home
		}
	}
	if own != "" && (path == own || strings.HasPrefix(path, own+"/")) {
		return home
	}
	return asked
}
