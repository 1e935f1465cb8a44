package session

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"strings"
	"time"
)

// CheckID checks what an ID token says beside being signed, for us, and good
// (OpenID Connect Core 1.0, section 3.1.3.7). The nonce may be missing only
// where the token is a later one of a session (section 12.2).
func CheckID(claims map[string]any, alg, client, nonce, access string, later bool) error {
	text := func(name string) string { s, _ := claims[name].(string); return s }
	if text("sub") == "" {
		return errors.New("the ID token has no sub")
	}
	got, there := claims["nonce"]
	if s, _ := got.(string); (there || !later) && subtle.ConstantTimeCompare([]byte(s), []byte(nonce)) != 1 {
		return errors.New("the ID token has the nonce of another login")
	}
	azp, there := claims["azp"]
	if there && azp != client {
		return errors.New("the ID token is for another client")
	}
	if list, ok := claims["aud"].([]any); ok && len(list) > 1 && !there {
		return errors.New("the ID token is for several, and does not say for whom")
	}
	if got, there := claims["at_hash"]; there {
		if s, _ := got.(string); subtle.ConstantTimeCompare([]byte(s), []byte(halfHash(alg, access))) != 1 {
			return errors.New("the ID token goes with another access token")
		}
	}
	return nil
}

// halfHash is the left half of a hash as long as the algorithm's.
func halfHash(alg, text string) string {
	var sum []byte
	switch {
	case strings.HasSuffix(alg, "384"):
		s := sha512.Sum384([]byte(text))
		sum = s[:]
	case strings.HasSuffix(alg, "512"), alg == "EdDSA":
		s := sha512.Sum512([]byte(text))
		sum = s[:]
	default:
		s := sha256.Sum256([]byte(text))
		sum = s[:]
	}
	return base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])
}

// LogoutAge is how old a logout token may be.
const LogoutAge = 5 * time.Minute

// logoutEvent is what a logout token must speak of.
const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// Logout is what a logout token says.
type Logout struct{ ID, Subject, SID string }

// CheckLogout reads a logout token that is signed, for us, and good, by OpenID
// Connect Back-Channel Logout 1.0, section 2.6. issued is its iat.
func CheckLogout(claims map[string]any, issued time.Time, hasIssued bool, now time.Time) (l Logout, err error) {
	text := func(name string) (string, bool) {
		v, there := claims[name]
		s, ok := v.(string)
		return s, !there || ok && s != ""
	}
	var ok [3]bool
	l.ID, ok[0] = text("jti")
	l.Subject, ok[1] = text("sub")
	l.SID, ok[2] = text("sid")
	events, _ := claims["events"].(map[string]any)
	_, isObject := events[logoutEvent].(map[string]any)
	_, nonce := claims["nonce"]
	switch {
	case ok != [3]bool{true, true, true} || l.ID == "" || len(l.ID) > 256:
		err = errors.New("the logout token's jti, sub or sid is no text")
	case l.Subject == "" && l.SID == "":
		err = errors.New("the logout token says of nobody that they log out")
	case !isObject:
		err = errors.New("the logout token does not speak of a logout")
	case nonce: // an ID token must never pass for one
		err = errors.New("the logout token has a nonce")
	case !hasIssued || now.Sub(issued) > LogoutAge:
		err = errors.New("the logout token is old, or does not say how old")
	}
	return l, err
}
