package identity

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/revoked"
)

// TestKeyState: how a key stands, and until when.
func TestKeyState(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	hash := strings.Repeat("ab", 32)
	const one, two, three = "2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z", "2026-01-01T03:00:00Z"
	old := func(until ...string) string {
		var list []string
		for _, u := range until {
			list = append(list, `{"sha256":"`+hash+`","until":"`+u+`"}`)
		}
		return `,"previous":[` + strings.Join(list, ",") + `]`
	}
	for _, tc := range []struct{ name, more, state, until string }{
		{"for ever", "", keyActive, ""},
		{"until it expires", `,"expires":"` + one + `"`, keyActive, one},
		{"not then", `,"expires":"2026-01-01T00:00:00Z"`, keyExpired, ""},
		{"the old one works", old(one), keyOverlapping, one},
		{"the last of the old ones counts", old(three, one), keyOverlapping, three},
		{"which does not outlive the key", `,"expires":"` + two + `"` + old(one, three), keyOverlapping, two},
		{"what is over is over", old("2025-12-31T00:00:00Z"), keyActive, ""},
		{"bait", `,"honey":true,"expires":"` + one + `"`, keyHoney, ""},
		{"something new", `,"colour":"red"`, keyUnreadable, ""},
		{"no hash", `,"previous":[{}]`, keyUnreadable, ""},
	} {
		state, until := keyState("ci", json.RawMessage(`{"sha256":"`+hash+`"`+tc.more+`}`), now)
		is := ""
		if !until.IsZero() {
			is = until.Format(time.RFC3339)
		}
		if state != tc.state || is != tc.until {
			t.Errorf("%s: %s until %q, want %s until %q", tc.name, state, is, tc.state, tc.until)
		}
	}
}

// TestStanding finds the revocation of a key by any of its names.
func TestStanding(t *testing.T) {
	now := time.Now()
	k := apiKey{ID: "ci", SHA256: strings.Repeat("ab", 32), Subject: "ann", Tenant: "acme"}
	e, err := k.entry()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []revocation{{Key: "ci"}, {Subject: "ann", Issuer: "keys"}, {Tenant: "acme", Before: now}} {
		s := new(revokedSet)
		if _, _, is := s.standing(e.who, now); is {
			t.Error("an empty set revokes")
		}
		s.has(t, v)
		what, r, is := s.standing(e.who, now)
		if !is || r.Until == 0 || v.Tenant != "" && what != ofTenant {
			t.Errorf("%+v: %s %v %v", v, what, r, is)
		}
		if said := span(r); !strings.HasPrefix(said, "until 20") || strings.Contains(said, "before") == v.Before.IsZero() {
			t.Errorf("%+v is %s", v, said)
		}
	}
	s := new(revokedSet)
	s.has(t, revocation{Key: "ci", Expires: now.Add(-time.Minute)})
	if _, _, is := s.standing(e.who, now); is {
		t.Error("what is over revokes")
	}
}

// TestKeyDoubts: what is asked back about, and what need not be.
func TestKeyDoubts(t *testing.T) {
	key := func(hash byte, expires time.Time, scopes ...string) *keyEntry {
		k := apiKey{ID: "ci", SHA256: strings.Repeat(string(hash), 64), Expires: expires, Scopes: scopes}
		e, err := k.entry()
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	past, later := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	for _, tc := range []struct {
		name    string
		was, is *keyEntry
		says    string
	}{
		{"nothing odd", nil, key('a', later, "a:b", "c"), ""},
		{"too late", nil, key('a', past), "its time was over"},
		{"a secret for what is over", key('a', past), key('b', past), "its time was over"},
		{"ending it is no mistake", key('a', later), key('a', past), ""},
		{"a comma", nil, key('a', later, "a,b"), `scope "a,b" is one`},
		{"a space", nil, key('a', later, "a b"), `scope "a b" cannot be one`},
		{"nothing", nil, key('a', later, ""), `scope "" cannot be one`},
		{"what stood before", key('a', later, "a,b"), key('b', later, "a,b"), ""},
	} {
		got := strings.Join(doubtKey(nil, "ci", tc.was, tc.is), "; ")
		if (got == "") != (tc.says == "") || !strings.Contains(got, tc.says) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.says)
		}
	}
	for _, c := range []struct {
		was, is time.Time
		want    bool
	}{{later, past, false}, {past, later, true}, {past, time.Time{}, true}, {time.Time{}, later, false}, {later, later, false}} {
		if got := key('a', c.is).outlives(key('a', c.was)); got != c.want {
			t.Errorf("%v after %v: %v", c.is, c.was, got)
		}
	}
}

// TestMoment reads times and durations as people write them.
func TestMoment(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 5, time.UTC)
	for word, want := range map[string]string{
		"2027-01-01T00:00:00Z": "2027-01-01T00:00:00Z",
		"2027-01-01":           "2027-01-01T00:00:00Z",
		"30d":                  "2026-01-31T00:00:01Z",
		"1d12h":                "2026-01-02T12:00:01Z",
		"1ms":                  "2026-01-01T00:00:01Z",
		"2026-01-01":           "--expires has passed",
		"2020-01-01T00:00:00Z": "--expires has passed",
		"0":                    "is neither",
		"-1h":                  "is neither",
		"30":                   "is neither",
		"d":                    "is neither",
		"99999999999d":         "is neither",
		"tomorrow":             "is neither",
		"":                     "is neither",
	} {
		at, err := moment(word, now)
		got := at.Format(time.RFC3339)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%q: %s, want %s", word, got, want)
		}
	}
}

// TestJoin: the stronger of two stands, and a conflict tells of both.
func TestJoin(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	object := func(before, expires time.Duration) json.RawMessage {
		v := revocation{Tenant: "acme", Expires: now.Add(expires)}
		if before != 0 {
			v.Before = now.Add(before)
		}
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	weak, strong, other := object(-time.Minute, time.Hour), object(0, 2*time.Hour), object(-time.Minute, 3*time.Hour)
	for _, tc := range []struct{ old, posted, want json.RawMessage }{{weak, strong, strong}, {strong, weak, strong}, {weak, weak, weak}, {object(0, -time.Hour), weak, weak}} {
		if got, err := joinRevocations(tc.old, tc.posted); err != nil || string(got) != string(tc.want) {
			t.Errorf("%s and %s: %s %v", tc.old, tc.posted, got, err)
		}
	}
	_, err := joinRevocations(strong, other)
	if err == nil || !strings.Contains(err.Error(), "stands "+span(revoked.Entry{Until: revoked.Seconds(now.Add(2 * time.Hour))})) || !strings.Contains(err.Error(), "before") {
		t.Errorf("a conflict: %v", err)
	}
}
