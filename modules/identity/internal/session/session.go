package session

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"
)

// Session is one, as the browser's cookie has it.
type Session struct {
	ID      string `json:"i"`           // ours; never one that a browser brought
	Gen     int    `json:"g,omitempty"` // how often it was renewed
	Subject string `json:"u"`           // the issuer's sub
	SID     string `json:"d,omitempty"` // the issuer's sid
	Nonce   string `json:"n"`           // of the login
	Scope   string `json:"o,omitempty"` // what was granted
	IDToken string `json:"t"`           // as the issuer signed it
	Access  string `json:"a,omitempty"` // the access token, if it says who asks
	Refresh string `json:"r,omitempty"`
	Began   int64  `json:"b"`           // milliseconds of Unix time, as those below
	Seen    int64  `json:"s"`           // when the cookie was made
	Ends    int64  `json:"e"`           // whatever happens
	Fresh   int64  `json:"f,omitempty"` // until when it need not be renewed; 0: never
	Short   int64  `json:"m,omitempty"` // how long before that it is renewed
}

// NewID makes a session's name.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, by its contract
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// ErrTooLarge means that a session does not fit into cookies.
var ErrTooLarge = errors.New("the tokens are too large for cookies; ask the issuer for fewer claims or scopes")

// Seal makes the cookies' names and values.
func (s *Session) Seal(r *Ring, bound, name string, now time.Time) ([]Cookie, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	pieces, ok := Split(name, r.Seal("session", bound, data, now))
	if !ok {
		return nil, ErrTooLarge
	}
	return pieces, nil
}

// Open reads a cookie's value.
func Open(r *Ring, bound, sealed string) (*Session, error) {
	data, err := r.Open("session", bound, sealed)
	if err != nil {
		return nil, err
	}
	s := new(Session)
	if err := json.Unmarshal(data, s); err != nil {
		return nil, ErrSealed
	}
	return s, nil
}

// Over reports whether its time is over: it was not used for idle, or it has
// lasted for lifetime.
func (s *Session) Over(idle, lifetime time.Duration, now time.Time) bool {
	ms := now.UnixMilli()
	return ms >= s.Ends || ms >= s.Began+lifetime.Milliseconds() || ms >= s.Seen+idle.Milliseconds()
}

// Left is how long the browser should keep the cookie.
func (s *Session) Left(idle, lifetime time.Duration) time.Duration {
	end := min(s.Ends, s.Began+lifetime.Milliseconds(), s.Seen+idle.Milliseconds())
	return time.Duration(end-s.Seen) * time.Millisecond
}

// Ageing reports whether the cookie should be made anew, so that use prolongs
// the session. Not on every request: each costs a cookie.
func (s *Session) Ageing(idle time.Duration, now time.Time) bool {
	return now.UnixMilli()-s.Seen > (idle / 10).Milliseconds()
}

// Lasts notes for how long the access token is good.
func (s *Session) Lasts(d time.Duration, now time.Time) {
	s.Fresh, s.Short = 0, 0
	if d > 0 {
		s.Fresh = now.Add(d).UnixMilli()
		s.Short = min(d/5, time.Minute).Milliseconds()
	}
}

// Due reports whether the session should be renewed, and whether it must be:
// the access token is not good any more.
func (s *Session) Due(now time.Time) (should, must bool) {
	if s.Fresh == 0 || s.Refresh == "" {
		return false, false
	}
	ms := now.UnixMilli()
	return ms >= s.Fresh-s.Short, ms >= s.Fresh
}

// Name is what something that can be ended is remembered by.
type Name [16]byte

func nameOf(kind, issuer, client, value string) (n Name) {
	sum := sha256.Sum256([]byte(kind + "\x00" + issuer + "\x00" + client + "\x00" + value))
	copy(n[:], sum[:])
	return n
}

// NameOfID is that of one session.
func NameOfID(issuer, client, id string) Name { return nameOf("id", issuer, client, id) }

// NameOfSID is that of one of the issuer's sessions.
func NameOfSID(issuer, client, sid string) Name { return nameOf("sid", issuer, client, sid) }

// NameOfSubject is that of all sessions of somebody.
func NameOfSubject(issuer, client, sub string) Name { return nameOf("sub", issuer, client, sub) }

// Names are those by which the session can be ended.
func (s *Session) Names(issuer, client string) []Name {
	names := []Name{NameOfID(issuer, client, s.ID), NameOfSubject(issuer, client, s.Subject)}
	if s.SID != "" {
		names = append(names, NameOfSID(issuer, client, s.SID))
	}
	return names
}
