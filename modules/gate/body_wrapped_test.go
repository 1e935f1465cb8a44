package gate

import (
	"io"
	"net/http/httptest"
	"strings"
	"testing"
)

// A reader that somebody has put around what a stage gave back starts at the
// beginning: what the stage has read must not be there twice.
func TestBodyWrapped(t *testing.T) {
	const sent = "0123456789"
	r := httptest.NewRequest("POST", "/", strings.NewReader(sent))
	r.ContentLength = -1
	ex := new(Exchange)
	if _, err := ex.Body(r, 4); err != ErrBodyTooLarge { //nolint:errorlint // the very one
		t.Fatal(err)
	}
	r.Body = struct{ io.ReadCloser }{r.Body}
	got, err := ex.Body(r, 64)
	rest, _ := io.ReadAll(r.Body)
	if err != nil || string(got) != sent || string(rest) != sent {
		t.Errorf("%q, %v; then %q", got, err, rest)
	}
}
