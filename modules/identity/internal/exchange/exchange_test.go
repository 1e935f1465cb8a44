package exchange

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/ask"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/clientauth"
)

var t0 = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

const good = `{"access_token":"abc","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer","expires_in":300}`

// TestAnswers: a token, a refusal of this token, or no answer.
func TestAnswers(t *testing.T) {
	change := func(from, to string) string { return strings.Replace(good, from, to, 1) }
	for _, tc := range []struct {
		name   string
		status int
		body   string
		token  string
		refuse string
		life   time.Duration
	}{
		{"a token", 200, good, "abc", "", 5 * time.Minute},
		{"a signed token", 200, change("access_token\",\"token_type", "jwt\",\"token_type"), "abc", "", 5 * time.Minute},
		{"bearer in small letters", 200, change("Bearer", "bearer"), "abc", "", 5 * time.Minute},
		{"no expires_in", 200, change(`,"expires_in":300`, ""), "abc", "", 0},
		{"a token that is good for ever", 200, change("300", "99999999999"), "abc", "", 2 * time.Hour},
		{"expires_in of nothing", 200, change("300", "0"), "", "", 0},
		{"expires_in in words", 200, change("300", `"soon"`), "", "", 0},
		{"no bearer token", 200, change("Bearer", "N_A"), "", "", 0},
		{"a token that is bound to our key", 200, change("Bearer", "DPoP"), "", "", 0},
		{"another type", 200, change("token-type:access_token", "token-type:id_token"), "", "", 0},
		{"a line break in it", 200, change("abc", `a\r\nX: y`), "", "", 0},
		{"nothing in it", 200, change("abc", ""), "", "", 0},
		{"two of them", 200, change(`"token_type"`, `"access_token":"def","token_type"`), "", "", 0},
		{"a list", 200, `[]`, "", "", 0},
		{"too much", 200, strings.Repeat(" ", maxAnswer+1), "", "", 0},
		{"the token is not good", 400, `{"error":"invalid_request"}`, "", "invalid_request", 0},
		{"the audience is not for it", 400, `{"error":"invalid_target"}`, "", "invalid_target", 0},
		{"access is denied", 403, `{"error":"access_denied"}`, "", "access_denied", 0},
		{"our secret is wrong", 401, `{"error":"invalid_client"}`, "", "", 0},
		{"our secret is wrong, as some say it", 400, `{"error":"invalid_client"}`, "", "", 0},
		{"no such grant", 400, `{"error":"unsupported_grant_type"}`, "", "", 0},
		{"words that are no code", 400, `{"error":"<script>"}`, "", "", 0},
		{"a token beside a failure", 500, good, "", "", 0},
	} {
		g, err := read(tc.status, []byte(tc.body))
		if g.Token != tc.token || g.Refused != tc.refuse || g.Life != tc.life || (err == nil) != (tc.token+tc.refuse != "") {
			t.Errorf("%s: %+v, %v", tc.name, g, err)
		}
	}
}

// TestAsked is what goes to the endpoint.
func TestAsked(t *testing.T) {
	var form url.Values
	var id, secret string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, secret, _ = r.BasicAuth()
		data, _ := io.ReadAll(r.Body)
		form, _ = url.ParseQuery(string(data))
		w.Header().Set("Content-Type", "application/json;charset=UTF-8")
		_, _ = io.WriteString(w, good)
	}))
	defer srv.Close()
	c := Client{Client: clientauth.Basic("gate way", "s3cr%t: +"), Audience: []string{"orders", "stock"}, Resource: []string{"https://orders.test/"}, Scope: []string{"a", "b"}}
	if _, err := c.Exchange(t.Context(), srv.URL, "tok"); err != nil {
		t.Fatal(err)
	}
	if id != "gate+way" || secret != "s3cr%25t%3A+%2B" || form.Has("client_secret") {
		t.Errorf("asked as %q %q, %v", id, secret, form)
	}
	if fmt.Sprint(form["audience"], form["resource"], form["scope"], form["subject_token"], form["grant_type"]) != "[orders stock] [https://orders.test/] [a b] [tok] [urn:ietf:params:oauth:grant-type:token-exchange]" {
		t.Error(form)
	}
	c.Client = clientauth.InBody("gate way", "s3cr%t: +")
	if _, err := c.Exchange(t.Context(), srv.URL, "tok"); err != nil || id != "" || form.Get("client_id") != "gate way" || form.Get("client_secret") != "s3cr%t: +" {
		t.Errorf("asked as %q, %v: %v", id, form, err)
	}
	if _, err := c.Exchange(t.Context(), "http://user:hunter2@127.0.0.1:1/t?key=hunter2", "tok"); err == nil || strings.Contains(err.Error(), "hunter") {
		t.Error(err)
	}
}

// TestRemembered: one exchange for all who carry a token, until a while before
// the new token ends, and never longer than the old one.
func TestRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		x := New(func(context.Context, string) (Granted, error) {
			n := asked.Add(1)
			time.Sleep(time.Second)
			return Granted{Token: fmt.Sprint("t", n), Life: 5 * time.Minute}, nil
		}, 100)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if a, err := x.For(t.Context(), netip.Prefix{}, "tok", time.Time{}, t0); err != nil || a.Token != "t1" {
					t.Error(a, err)
				}
			})
		}
		wg.Wait()
		for _, step := range []struct {
			token string
			after time.Duration
			ends  time.Duration
			want  string
		}{
			{"tok", 269 * time.Second, 0, "t1"},
			{"tok", 270 * time.Second, 0, "t2"}, // thirty seconds before it ends
			{"other", 0, 10 * time.Second, "t3"},
			{"other", 9 * time.Second, 10 * time.Second, "t3"},
			{"other", 10 * time.Second, 10 * time.Second, "t4"}, // it ended itself
		} {
			var ends time.Time
			if step.ends > 0 {
				ends = t0.Add(step.ends)
			}
			if a, err := x.For(t.Context(), netip.Prefix{}, step.token, ends, t0.Add(step.after)); err != nil || a.Token != step.want {
				t.Errorf("%+v: %+v, %v", step, a, err)
			}
		}
	})
}

// TestAway: refusals are remembered for a while, failures stop the asking for a
// while, and a slow issuer keeps nobody for long.
func TestAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		var answer Granted
		var fail error
		slow := time.Duration(0)
		x := New(func(context.Context, string) (Granted, error) {
			asked.Add(1)
			time.Sleep(slow)
			return answer, fail
		}, 100)
		about := func(token string, after time.Duration) (Answer, error) {
			return x.For(t.Context(), netip.Prefix{}, token, time.Time{}, t0.Add(after))
		}
		answer.Refused = "invalid_target"
		for _, after := range []time.Duration{0, 9 * time.Second, 10 * time.Second} {
			if a, err := about("bad", after); err != nil || a.Refused != "invalid_target" {
				t.Error(a, err)
			}
		}
		if n := asked.Load(); n != 2 {
			t.Errorf("asked %d times", n)
		}
		asked.Store(0)
		fail = errors.New("down")
		for i := range 100 {
			if _, err := about(strconv.Itoa(i), 20*time.Second); !errors.Is(err, ask.ErrAway) || !errors.Is(err, fail) {
				t.Error(err)
			}
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("an issuer that is away is asked %d times", n)
		}
		fail, slow = nil, 4*time.Second
		began := time.Now()
		if _, err := about("slow", 30*time.Second); !errors.Is(err, ask.ErrAway) || time.Since(began) != ask.Patience {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		time.Sleep(slow)
		if a, err := about("slow", 31*time.Second); err != nil || a.Refused == "" {
			t.Errorf("what came late is lost: %v", err)
		}
	})
}

// FuzzRead: there is a token, a refusal or an error, exactly one of them, and
// what is sent on or logged has nothing in it that ends a line.
func FuzzRead(f *testing.F) {
	f.Add(200, []byte(good))
	f.Add(400, []byte(`{"error":"invalid_target"}`))
	f.Fuzz(func(t *testing.T, status int, data []byte) {
		g, err := read(status, data)
		n := 0
		for _, is := range []bool{g.Token != "", g.Refused != "", err != nil} {
			if is {
				n++
			}
		}
		if n != 1 || strings.ContainsAny(g.Token+g.Refused, " \r\n\t\x00,;\"") || g.Life < 0 {
			t.Fatalf("%+v, %v", g, err)
		}
	})
}
