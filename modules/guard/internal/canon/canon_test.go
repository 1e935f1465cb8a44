package canon

import (
	"net/url"
	"path"
	"strings"
	"testing"
)

func TestPath(t *testing.T) {
	for _, c := range []struct{ in, want, fault string }{
		{"/", "/", ""},
		{"/orders/1", "/orders/1", ""},
		{"/orders/", "/orders/", ""},
		{"/a.b/c..d/...", "/a.b/c..d/...", ""},
		{"/.well-known/x", "/.well-known/x", ""},
		{"/a/./b", "/a/b", ""},
		{"/a/../b", "/b", ""},
		{"/a/..", "/", ""},
		{"/a/b/..", "/a/", ""},
		{"/a/.", "/a/", ""},
		{"/../../etc/passwd", "/etc/passwd", ""},
		{"/a/%2e%2e/b", "/b", ""},
		{"/a/%2E./b", "/b", ""},
		{"//admin", "/admin", ""},
		{"/a//b///", "/a/b/", ""},
		{"/%61dmin", "/admin", ""},
		{"/caf%c3%a9", "/caf%C3%A9", ""},
		{"/100%25", "/100%25", ""},
		{"/a%20b", "/a%20b", ""},
		{"/a;v=1/b", "", Parameter},
		{"/;x/admin", "", Parameter},
		{"/admin;x", "", Parameter},
		{"/%3Ba", "/%3Ba", ""},
		{"/a%2fb", "", EncodedSlash},
		{"/a%5cb", "", Backslash},
		{"/a\\b", "", Backslash},
		{"/a%00", "", Control},
		{"/a%0d%0a", "", Control},
		{"/%252e%252e/b", "", TwiceEncoded},
		{"/%c0%ae%c0%ae/", "", NotUTF8},
		{"/%ff", "", NotUTF8},
		{"/a/..;/b", "", Parameter},
		{"/a%2", "", BadPercent},
		{"/a%zz", "", BadPercent},
		{"", "", NotAbsolute},
		{"*", "", NotAbsolute},
		{"orders", "", NotAbsolute},
	} {
		if got, fault := Path(c.in, false, false); got != c.want || fault != c.fault {
			t.Errorf("Path(%q) = %q, %q; want %q, %q", c.in, got, fault, c.want, c.fault)
		}
	}
	if got, fault := Path("/a%2fb/../c", true, false); got != "/c" || fault != "" {
		t.Errorf("%q %q", got, fault)
	}
	if got, fault := Path("/a%2fb", true, false); got != "/a%2Fb" || fault != "" {
		t.Errorf("%q %q", got, fault)
	}
}

func TestPathWithSemicolons(t *testing.T) {
	for in, want := range map[string]string{"/a;v=1/b": "/a;v=1/b", "/a;v=1/../b;": "/b;", "/a/..;/b": "", "/a/%2e.;x=1/b": ""} {
		if got, fault := Path(in, false, true); got != want || want == "" && fault != DotParameter {
			t.Errorf("%q: %q, %q", in, got, fault)
		}
	}
}

func TestQuery(t *testing.T) {
	for _, c := range []struct {
		in    string
		n     int
		fault string
	}{{"", 0, ""}, {"a=1", 1, ""}, {"a=1&b=%20&c", 3, ""}, {"a=%2", 1, BadPercent}, {"a=%zz", 1, BadPercent}, {"a=\x01", 1, Control}, {"a=1;b=2", 1, Semicolon}, {"a=1%3Bb=2", 1, ""}} {
		if n, fault := Query(c.in); n != c.n || fault != c.fault {
			t.Errorf("Query(%q) = %d, %q", c.in, n, fault)
		}
	}
}

// FuzzPath: what has a canonical form has one only, which Go's own cleaning
// cannot improve, and which means no more than the path that was sent.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"/a/../b", "/%2e%2e/", "//x", "/caf%c3%a9", "/a;b", "/100%25", "/%252e"} {
		f.Add(s, false, false)
		f.Add(s, true, true)
	}
	f.Fuzz(func(t *testing.T, in string, slash, semicolon bool) {
		once, fault := Path(in, slash, semicolon)
		if (once == "") == (fault == "") {
			t.Fatalf("Path(%q) = %q, %q", in, once, fault)
		}
		if fault != "" {
			return
		}
		if twice, fault := Path(once, slash, semicolon); twice != once || fault != "" {
			t.Fatalf("Path(%q) = %q, and again %q, %q", in, once, twice, fault)
		}
		decoded, err := url.PathUnescape(once)
		if err != nil {
			t.Fatalf("%q cannot be decoded: %v", once, err)
		}
		if !slash {
			if clean := path.Clean(decoded); clean != strings.TrimSuffix(decoded, "/") && decoded != "/" {
				t.Fatalf("Path(%q) = %q, which Go cleans to %q", in, once, clean)
			}
		}
	})
}

func BenchmarkPath(b *testing.B) {
	for _, p := range []string{"/orders/ord_1/items", "/orders/%6frd_1/../items"} {
		b.Run(p, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Path(p, false, false)
			}
		})
	}
}
