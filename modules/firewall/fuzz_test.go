package firewall

import (
	"mime"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-caddy/gatehouse/modules/firewall/internal/waf"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// FuzzInspect: whatever is sent, the engine neither panics nor fails, and an
// attack in the query is found however the rest of the request looks.
func FuzzInspect(f *testing.F) {
	engine, err := waf.Compile(&waf.Settings{CRS: true, Paranoia: 1, Threshold: 5, Arguments: 1000, MaxBody: 1 << 20})
	if err != nil {
		f.Fatal(err)
	}
	h := &Handler{MaxBody: 1 << 20, Oversize: "refuse", Arguments: 1000, waf: engine}
	for _, seed := range [][3]string{
		{"application/json", "a", `{"a":[1,{"b":"c"}]}`},
		{"application/vnd.x+json; charset=utf-8", "", `{`},
		{"application/x-www-form-urlencoded", "Mozilla", "a=b&c=%zz&;"},
		{"text/xml", "", "<a b='c'>&d;</a>"},
		{"multipart/form-data; boundary=x", "", "--x\r\nContent-Disposition: form-data; name=\"a\"; filename=\"b\"\r\n\r\nc\r\n--x--\r\n"},
		{"", "\x00", "\xff"},
		{"image/png", "", "\x89PNG"},
		{"application/x-ndjson", "", "{}\n{}"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, contentType, agent, body string) {
		r := httptest.NewRequest(http.MethodPost, "/?q=1'+UNION+SELECT+password+FROM+users--", strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		r.Header.Set("User-Agent", agent)
		switch _, d := h.decide(gate.Of(r), r, longest); {
		case d == nil:
			t.Errorf("%q %q %q: the attack passes", contentType, agent, body)
		case d.Reason == gate.FirewallFailed:
			t.Errorf("%q %q %q: %v", contentType, agent, body, d.Err)
		}
	})
}

// FuzzClassify: a body is left alone only if its type is on the list of those
// that the rules do not understand.
func FuzzClassify(f *testing.F) {
	for _, s := range []string{"application/json", "image/png", "image/svg+xml", "application/octet-stream;x=y", "APPLICATION/GRPC+JSON", "a/b, image/png", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, contentType string) {
		if _, as := classify(contentType); as != unread {
			return
		}
		media, _, err := mime.ParseMediaType(contentType)
		if err != nil || !slices.ContainsFunc(binary, func(p string) bool { return strings.HasPrefix(media, p) }) ||
			strings.HasSuffix(media, "+json") || strings.HasSuffix(media, "+xml") {
			t.Errorf("%q is not inspected", contentType)
		}
	})
}
