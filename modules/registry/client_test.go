package registry

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// TestRefused: what is refused is told in words, with what would help.
func TestRefused(t *testing.T) {
	for _, tc := range []struct{ name, token, answer, want string }{
		{"an error", "", `HTTP 404: {"error":"there is no \"ci\" among the keys"}`, `there is no "ci" among the keys (404 Not Found)`},
		{"a doubt", "", `HTTP 409: {"error":"odd; if that is meant, say so with ?force=true"}`, "odd; if that is meant, say so with --force (409 Conflict)"},
		{"nobody's token", "x", `HTTP 401: {"error":"the token is no operator's"}`, "the token is no operator's; the token was taken from GATEHOUSE_ADMIN_TOKEN (401 Unauthorized)"},
		{"no token", "", `HTTP 403: {"error":"you may not"}`, "you may not; an operator's token is taken from GATEHOUSE_ADMIN_TOKEN, which is not set (403 Forbidden)"},
		{"another's endpoint", "", "HTTP 404: 404 page not found\n", "what answers there knows nothing of that; is it a gateway's admin endpoint? (404 Not Found)"},
		{"no word", "", "HTTP 500: ", "the gateway refuses without a word (500 Internal Server Error)"},
		{"text", "", "HTTP 502: away\x1b[2J\n", "away [2J (502 Bad Gateway)"},
		{
			"a site", "", `HTTP 400: {"type":"about:x","title":"Not accepted.","detail":"Two things.","errors":[{"pointer":"#/a","detail":"is odd"},{"in":"query","name":"b","detail":"is missing"}]}`,
			"what answers there is an API and no admin endpoint; --address or --config says where that is. Not accepted: Two things\n  #/a: is odd\n  query b: is missing (400 Bad Request)",
		},
		{"a long text", "", "HTTP 502: " + strings.Repeat("a", 1000), strings.Repeat("a", maxWords) + " (502 Bad Gateway)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv(TokenEnv, tc.token)
			r := readRefused("caddy responded with error: " + tc.answer)
			if r == nil || r.Error() != tc.want {
				t.Errorf("%v\nwant %s", r, tc.want)
			}
		})
	}
	for _, other := range []string{"performing request: connection refused", "malformed HTTP response", "HTTP 200: fine", ""} {
		if r := readRefused(other); r != nil {
			t.Errorf("%q is an answer: %v", other, r)
		}
	}
}

// TestWarn shows warnings, and nothing that writes elsewhere on a terminal.
func TestWarn(t *testing.T) {
	var out strings.Builder
	Warn(&out, []byte(`{"id":"a","warnings":["one","t\u001bwo\n"]}`))
	Warn(&out, []byte(`nothing`))
	if out.String() != "warning: one\nwarning: t wo \n" {
		t.Errorf("%q", out.String())
	}
}

// TestStrict: Go's reader takes a member in other capitals for the real one, so
// that a change would be stored beside what it was to change.
func TestStrict(t *testing.T) {
	type inner struct {
		Burst int `json:"burst"`
	}
	type object struct {
		Name string    `json:"name"`
		At   time.Time `json:"at"`
		Rate *inner    `json:"rate"`
		All  []inner   `json:"all"`
		Free any       `json:"free"`
		none string
	}
	for text, says := range map[string]string{
		`{"name":"a","at":"2027-01-01T00:00:00Z","rate":{"burst":1},"all":[{"burst":2}],"free":{"Any":1}}`: "",
		`{"rate":null,"all":null}`:      "",
		`{"Name":"a"}`:                  `unrecognized member "Name"; expected name, at, rate, all, free`,
		`{"name":"a","NAME":"b"}`:       `unrecognized member "NAME"`,
		`{"rate":{"Burst":1}}`:          `unrecognized member "Burst"; expected burst`,
		`{"all":[{"burst":1},{"x":1}]}`: `unrecognized member "x"; expected burst`,
		`{"none":"a"}`:                  `unrecognized member "none"`,
		`{"at":"2027-01-01"}`:           `"2027-01-01" is no time such as 2027-01-01T00:00:00Z`,
		`{"name":1}`:                    `member "name" cannot be a number`,
		`[]`:                            "an object is expected",
		`{"name":"a","name":"b"}`:       "twice",
	} {
		var o object
		err := Strict(json.RawMessage(text), &o)
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: %v", text, err)
		}
		_ = o.none
	}
}
