package apikey

import (
	"regexp"
	"strings"
	"testing"
)

func TestKeys(t *testing.T) {
	find := regexp.MustCompile(Pattern)
	for range 1000 {
		key := New()
		if !MayExist(key) || find.FindString("X-API-Key: "+key+"\n") != key {
			t.Fatalf("%q", key)
		}
	}
	if a, b := New(), New(); a == b {
		t.Error("two keys are the same")
	}
	if !MayExist("a key of somebody else's") {
		t.Error("keys of others are judged")
	}
	for _, key := range []string{"gh_", "gh_unknown", "gh_" + strings.Repeat("a", 32), "gh_" + strings.Repeat("a", 32) + "_00000000"} {
		if MayExist(key) {
			t.Errorf("%q may exist", key)
		}
	}
}

// FuzzMayExist: of our keys, no change of one character may exist, and the
// pattern finds all that may.
func FuzzMayExist(f *testing.F) {
	f.Add(5, "a")
	f.Add(40, "0")
	key, find := New(), regexp.MustCompile(`\A`+Pattern+`\z`)
	f.Fuzz(func(t *testing.T, at int, with string) {
		if at %= len(key); at < len(prefix) || len(with) != 1 || with[0] == key[at] {
			return
		}
		changed := key[:at] + with + key[at+1:]
		if MayExist(changed) {
			t.Fatalf("%q may exist beside %q", changed, key)
		}
		if !find.MatchString(key) {
			t.Fatalf("%q is not found", key)
		}
	})
}
