package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestMaskHeader: a header is measured by what is left.
func TestMaskHeader(t *testing.T) {
	given := []string{"gatehouse_session=ours; Path=/"}
	h := http.Header{
		"Set-Cookie": {"a=b", given[0], " =gatehouse_session=theirs", "gatehouse_session_x=theirs"},
		"SERVER":     {"x"}, "x_served_by": {"x"}, "": {"x"},
		"X-Kept": {"12345"},
	}
	maskHeader(h, given)
	if got := fmt.Sprint(h); got != fmt.Sprint(http.Header{"Set-Cookie": {"a=b", given[0]}, "X-Kept": {"12345"}}) {
		t.Errorf("what is left is %s", got)
	}
	if size := maskHeader(http.Header{"A": {"12", "3"}, "Server": {strings.Repeat("x", 100)}}, nil); size >= 100 || size < 5 {
		t.Errorf("it has %d bytes", size)
	}
}

func TestWithin(t *testing.T) {
	for _, tc := range []struct{ reference, upstream, want string }{
		{"http://10.0.0.7:8080/a?b=c#d", "10.0.0.7:8080", "/a?b=c#d"},
		{"//10.0.0.7:8080", "10.0.0.7:8080", "/"},
		{"http://10.0.0.7:8080//evil.example/", "10.0.0.7:8080", "/evil.example/"},
		{"http://user:secret@ORDERS/a", "orders:80", "/a"},
		{"https://orders/a", "orders:443", "/a"},
		{"//orders/a", "orders:443", "/a"},
		{"https://orders/a", "orders:80", ""},
		{"http://orders/a", "orders:443", ""},
		{"http://orders:81/a", "orders:80", ""},
		{"/a", "orders:80", ""},
		{"http://%zz/", "orders:80", ""},
	} {
		if got, its := within(tc.reference, tc.upstream); got != tc.want || its != (tc.want != "") {
			t.Errorf("%s behind %s: %q, %v", tc.reference, tc.upstream, got, its)
		}
	}
}

// A mask of a common answer is on every request's way.
func BenchmarkMaskHeader(b *testing.B) {
	h := http.Header{}
	for _, name := range []string{"Content-Type", "Content-Length", "Date", "Cache-Control", "Vary", "X-Content-Type-Options", "Etag", "X-Ratelimit-Remaining"} {
		h.Set(name, "something of a usual length")
	}
	b.ReportAllocs()
	for b.Loop() {
		maskHeader(h, nil)
	}
}
