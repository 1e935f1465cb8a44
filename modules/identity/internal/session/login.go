package session

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

// LoginTime is how long somebody may take to log in.
const LoginTime = 10 * time.Minute

// MostLogins is how many logins one browser may have on their way; what comes
// on top takes the place of the oldest.
const MostLogins = 6

// Login is one on its way: what the browser must bring back.
type Login struct {
	State    string `json:"s"`
	Nonce    string `json:"n"`
	Verifier string `json:"v"` // RFC 7636
	Place    string `json:"p"` // where the browser wants to go
	Redirect string `json:"r"` // what the provider was told
	Began    int64  `json:"b"` // Unix time
}

// NewLogin begins one.
func NewLogin(place, redirect string, now time.Time) *Login {
	return &Login{random(), random(), random(), place, redirect, now.Unix()}
}

// random is 256 bits.
func random() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails, by its contract
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// challenge is what the provider is told of the verifier.
func (l *Login) challenge() string {
	sum := sha256.Sum256([]byte(l.Verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// URL is where the browser is sent.
func (l *Login) URL(endpoint, client string, scopes []string) (string, error) {
	return withQuery(endpoint, url.Values{
		"response_type": {"code"}, "client_id": {client}, "redirect_uri": {l.Redirect}, "scope": {strings.Join(scopes, " ")},
		"state": {l.State}, "nonce": {l.Nonce}, "code_challenge": {l.challenge()}, "code_challenge_method": {"S256"},
	})
}

func withQuery(endpoint string, more url.Values) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return "", err
	}
	q := u.Query()
	maps.Copy(q, more)
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// Seal makes the cookie's value.
func (l *Login) Seal(r *Ring, bound string, now time.Time) string {
	data, _ := json.Marshal(l) // texts and a number
	return r.Seal("login", bound+"\x00"+l.State, data, now)
}

// FindLogin finds the login that a state belongs to among the cookies of the
// browser. Nil means that this browser has begun none, or too long ago.
func FindLogin(r *Ring, bound, name, state string, cookies []Cookie, now time.Time) *Login {
	if state == "" {
		return nil
	}
	name = LoginName(name, state)
	for _, c := range cookies {
		if c.Name != name {
			continue
		}
		data, err := r.Open("login", bound+"\x00"+state, c.Value)
		l := new(Login)
		if err != nil || json.Unmarshal(data, l) != nil {
			continue
		}
		age := now.Sub(time.Unix(l.Began, 0))
		if subtle.ConstantTimeCompare([]byte(l.State), []byte(state)) == 1 && age < LoginTime && age > -time.Minute {
			return l
		}
	}
	return nil
}

// TooMany names the cookies of logins that have to go before another is begun.
// Which of them is the oldest is not known without their states; a browser
// sends those of one path in the order they were made (RFC 6265, section 5.4).
func TooMany(cookies []Cookie) (names []string) {
	if n := len(cookies) - (MostLogins - 1); n > 0 {
		for _, c := range slices.Clone(cookies[:n]) {
			names = append(names, c.Name)
		}
	}
	return names
}
