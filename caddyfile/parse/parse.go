// Package parse reads what the suite's directives have in common: matchers,
// modes, counts, sizes, and the answer to a misspelt word.
package parse

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dustin/go-humanize"
	"go.uber.org/zap"
)

// APIName is where the api directive leaves its name for the directives in its
// block, in Caddy's Helper.BlockState.
const APIName = "gatehouse.api"

// Handler registers a directive whose first argument may be a matcher. A lone
// path is never one (as with root): it is the directive's argument.
func Handler(name string, setup func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error)) {
	httpcaddyfile.RegisterDirective(name, func(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
		set, err := Matcher(h)
		if err != nil {
			return nil, err
		}
		m, err := setup(h)
		if err != nil {
			return nil, err
		}
		return h.NewRoute(set, m), nil
	})
}

// Matcher takes the matcher, if there is one, off the line of a directive. The
// next token is then the directive's name again.
func Matcher(h httpcaddyfile.Helper) (caddy.ModuleMap, error) {
	if !h.Next() {
		return nil, h.ArgErr()
	}
	args := h.RemainingArgs()
	h.Reset()
	h.Next()
	if len(args) == 1 && strings.HasPrefix(args[0], "/") {
		h.Reset()
		return nil, nil
	}
	return h.ExtractMatcherSet()
}

// Unknown answers a word that nothing knows with its place and the words that
// are known, the likeliest one first.
func Unknown(d *caddyfile.Dispenser, what, word string, known ...string) error {
	return d.Err(Misspelt(what, word, known...))
}

// Misspelt is what Unknown says, for files that are no Caddyfiles.
func Misspelt(what, word string, known ...string) string {
	if near := Nearest(word, known); near != "" {
		return fmt.Sprintf("unrecognized %s %q; did you mean %q? Expected %s", what, word, near, list(known))
	}
	return fmt.Sprintf("unrecognized %s %q; expected %s", what, word, list(known))
}

func list(words []string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " or " + words[n-1]
	}
	return strings.Join(words, "")
}

// Nearest finds the known word at most two edits away, or nothing.
func Nearest(word string, known []string) string {
	best, found := 3, ""
	for _, k := range known {
		if n := distance(strings.ToLower(word), strings.ToLower(k)); n < best && n < len(k) {
			best, found = n, k
		}
	}
	return found
}

// distance counts insertions, deletions, replacements and swaps of neighbours.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// Text reads the one argument of the option d stands at.
func Text(d *caddyfile.Dispenser, to *string) error {
	if !d.AllArgs(to) {
		return d.ArgErr()
	}
	if *to == "" {
		return d.Err("an empty value is not allowed here")
	}
	return nil
}

// Words reads the arguments of the option d stands at, behind those that are there.
func Words(d *caddyfile.Dispenser, to *[]string) error {
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.ArgErr()
	}
	*to = append(*to, args...)
	return nil
}

// OneOf is Text for an option with a closed list of values.
func OneOf(d *caddyfile.Dispenser, to *string, words ...string) error {
	opt := d.Val()
	if err := Text(d, to); err != nil {
		return err
	}
	if !slices.Contains(words, *to) {
		return Unknown(d, opt, *to, words...)
	}
	return nil
}

// Into reads the one argument into anything that reads text, such as a gate.Mode.
func Into(d *caddyfile.Dispenser, to interface{ UnmarshalText([]byte) error }) error {
	var word string
	if !d.AllArgs(&word) {
		return d.ArgErr()
	}
	if err := to.UnmarshalText([]byte(word)); err != nil {
		return d.Err(err.Error())
	}
	return nil
}

// Flag reads an option that stands alone.
func Flag(d *caddyfile.Dispenser, to *bool) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	*to = true
	return nil
}

// Count reads a whole number of at least 1.
func Count(d *caddyfile.Dispenser, to *int) error {
	opt := d.Val()
	var word string
	if !d.AllArgs(&word) {
		return d.ArgErr()
	}
	n, err := strconv.Atoi(word)
	if err != nil || n < 1 {
		return d.Errf("%s %q is not a whole number of at least 1", opt, word)
	}
	*to = n
	return nil
}

// Duration reads a length of time such as 30s, 5m or 1d.
func Duration(d *caddyfile.Dispenser, to *caddy.Duration) error {
	opt := d.Val()
	var word string
	if !d.AllArgs(&word) {
		return d.ArgErr()
	}
	dur, err := caddy.ParseDuration(word)
	if err != nil || dur <= 0 {
		return d.Errf("%s %q is not a duration; write for example 30s, 5m or 1d", opt, word)
	}
	*to = caddy.Duration(dur)
	return nil
}

// Placeholder refuses a secret that is written out, since anybody who may read
// the configuration would know it.
func Placeholder(name, value string) error {
	if value == "" || strings.HasPrefix(value, "{") && strings.HasSuffix(value, "}") {
		return nil
	}
	return fmt.Errorf("write the %s as {env.NAME} or {file.PATH}, since the configuration is shown to whoever asks the admin endpoint", name)
}

// Percent reads a share such as 20% into a number of at most 1.
func Percent(d *caddyfile.Dispenser, to *float64) error {
	opt := d.Val()
	var word string
	if !d.AllArgs(&word) {
		return d.ArgErr()
	}
	digits, ok := strings.CutSuffix(word, "%")
	n, err := strconv.ParseFloat(digits, 64)
	if !ok || err != nil || !(n >= 0 && n <= 100) {
		return d.Errf("%s %q is not a share; write for example 20%%", opt, word)
	}
	*to = n / 100
	return nil
}

// Size reads a number of bytes such as 64KiB or 1MB.
func Size(d *caddyfile.Dispenser, to *int64) error {
	opt := d.Val()
	var word string
	if !d.AllArgs(&word) {
		return d.ArgErr()
	}
	n, ok := ParseSize(word)
	if !ok {
		return d.Errf("%s %q is not a size; write for example 64KiB or 1MB", opt, word)
	}
	*to = n
	return nil
}

// ParseSize reads a number of bytes such as 64KiB or 1MB.
func ParseSize(word string) (int64, bool) { //nolint:revive // parse.Size reads the option; this a word
	n, err := humanize.ParseBytes(word)
	if err != nil || n == 0 || n > 1<<40 {
		return 0, false
	}
	return int64(n), true
}

// Rate is a number of events per length of time, written 60/m.
type Rate struct {
	Events int
	Window time.Duration
}

// ParseRate reads a rate such as 10/s, 600/m or 1000/d; the window may have a
// number of its own, as in 100/15m.
func ParseRate(word string) (Rate, bool) { //nolint:revive // parse.Rate is the type; this reads one
	events, window, ok := strings.Cut(word, "/")
	if !ok || window == "" {
		return Rate{}, false
	}
	n, err := strconv.Atoi(events)
	if err != nil || n < 1 {
		return Rate{}, false
	}
	if c := window[0]; c < '0' || c > '9' {
		window = "1" + window
	}
	dur, err := caddy.ParseDuration(window)
	if err != nil || dur <= 0 {
		return Rate{}, false
	}
	return Rate{Events: n, Window: dur}, true
}

// File is Path for a file that has to be there when the configuration is loaded.
// That is an error then, which knows no line of a Caddyfile any more; so the log
// says it here. It is no error here: the Caddyfile may be of another machine.
func File(d *caddyfile.Dispenser, name string) string {
	path := Path(d, name)
	if !strings.ContainsAny(path, "*?[{") {
		if _, err := os.Stat(path); err != nil {
			caddy.Log().Named("gatehouse_caddyfile").Warn("a file that is named in the configuration cannot be found",
				zap.String("word", name), zap.String("file", path), zap.String("at", fmt.Sprintf("%s:%d", d.File(), d.Line())))
		}
	}
	return path
}

// FileName reads the name of a File, which is all that an option has.
func FileName(d *caddyfile.Dispenser, to *string) error {
	if err := Text(d, to); err != nil {
		return err
	}
	*to = File(d, *to)
	return nil
}

// Path makes the name of a file relative to the Caddyfile it is written in. A
// Caddyfile without a path of its own, and absolute names, leave it as it is.
func Path(d *caddyfile.Dispenser, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(d.File()), name)
}
