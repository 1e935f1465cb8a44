package revoked

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"
)

func TestTimes(t *testing.T) {
	at := time.Unix
	for _, tc := range []struct {
		name          string
		until, before time.Time
		issued, now   int64
		want          bool
	}{
		{"all of it", at(100, 0), time.Time{}, 50, 60, true},
		{"not after its time", at(100, 0), time.Time{}, 50, 100, false},
		{"what was issued before", at(100, 0), at(40, 0), 39, 60, true},
		{"not what was issued after", at(100, 0), at(40, 0), 40, 60, false},
		{"a second counts as before once it has begun", at(100, 0), at(40, 1), 40, 60, true},
		{"what does not say when it was issued", at(100, 0), at(40, 0), 0, 60, true},
	} {
		m, s := Of("subject", "a", "ann"), new(Set)
		e := Entry{Mark: m, Until: Seconds(tc.until)}
		if !tc.before.IsZero() {
			e.Before = Seconds(tc.before)
		}
		s.Replace(m.Part(), []Entry{e})
		if got := s.Has(m, tc.issued, tc.now); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
		if s.Has(Of("subject", "b", "ann"), tc.issued, tc.now) {
			t.Errorf("%s: of another issuer too", tc.name)
		}
	}
	if (*Set)(nil).Has(Of("", "", ""), 0, 0) || new(Set).Has(Of("", "", ""), 0, 0) || (*Set)(nil).Len() != 0 {
		t.Error("a set of nothing has something")
	}
}

// TestOver: what is over is found by the part it is in, and a part without
// anything takes no room.
func TestOver(t *testing.T) {
	s, m := new(Set), Of("key", "", "ci")
	s.Replace(m.Part(), []Entry{{Mark: m, Until: 10}, {Mark: m, Until: 20}})
	if s.Len() != 1 || s.PartLen(m.Part()) != 1 {
		t.Errorf("%d held of one that was given twice", s.Len())
	}
	if e, held := s.Find(m); !held || e.Until != 20 {
		t.Errorf("found %v %v", e, held)
	}
	if _, held := s.Find(Of("key", "", "cd")); held {
		t.Error("what is not held was found")
	}
	if got := s.Over(time.Unix(19, 0), 10); len(got) != 0 {
		t.Errorf("over before its time: %v", got)
	}
	if got := s.Over(time.Unix(20, 0), 10); len(got) != 1 || got[0] != m.Part() {
		t.Errorf("over: %v", got)
	}
	s.Replace(m.Part(), nil)
	if s.Len() != 0 || s.parts[m.Part()].Load() != nil {
		t.Error("it is still there")
	}
}

// FuzzOf: things that differ have marks that differ.
func FuzzOf(f *testing.F) {
	f.Add("jti", "https://id.test", "a", "jti", "https://id.tes", "ta")
	f.Add("a", "", "b", "", "a", "b")
	f.Fuzz(func(t *testing.T, a, b, c, x, y, z string) {
		if same := a == x && b == y && c == z; (Of(a, b, c) == Of(x, y, z)) != same {
			t.Fatalf("%q and %q: same %v", []string{a, b, c}, []string{x, y, z}, same)
		}
	})
}

// TestLikeMap compares with the obvious structure.
func TestLikeMap(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	s, plain := new(Set), map[int]map[Mark]Entry{}
	thing := func() Mark { return Of("jti", "", strconv.Itoa(rnd.IntN(3000))) }
	for range 5000 {
		m := thing()
		if plain[m.Part()] == nil {
			plain[m.Part()] = map[Mark]Entry{}
		}
		if rnd.IntN(3) == 0 {
			delete(plain[m.Part()], m)
		} else {
			plain[m.Part()][m] = Entry{Mark: m, Until: 100}
		}
		var entries []Entry
		for _, e := range plain[m.Part()] {
			entries = append(entries, e)
		}
		s.Replace(m.Part(), entries)
		ask := thing()
		if _, want := plain[ask.Part()][ask]; s.Has(ask, 0, 50) != want {
			t.Fatalf("%v: want %v", ask, want)
		}
	}
	n := 0
	for _, p := range plain {
		n += len(p)
	}
	if s.Len() != n {
		t.Errorf("%d held, want %d", s.Len(), n)
	}
}

const million = 1_000_000

// fill makes a set of a million.
func fill() (s *Set, some Mark) {
	parts := make([][]Entry, Parts)
	for i := range million {
		some = Of("jti", "https://id.example.com", strconv.Itoa(i))
		parts[some.Part()] = append(parts[some.Part()], Entry{Mark: some, Until: 1 << 31})
	}
	s = new(Set)
	for at, entries := range parts {
		s.Replace(at, entries)
	}
	return s, some
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestMillion holds what is promised of memory and allocations.
func TestMillion(t *testing.T) {
	before := heap()
	s, some := fill()
	took := int64(heap()) - int64(before)
	t.Logf("%d revocations take %.1f MB", s.Len(), float64(took)/1e6)
	if s.Len() != million || took > 50e6 {
		t.Errorf("%d revocations take %d bytes, want less than 50 MB", s.Len(), took)
	}
	if n := testing.AllocsPerRun(100, func() { s.Has(some, 0, 50) }); n > 0 {
		t.Errorf("a look-up allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { Of("jti", "https://id.example.com", "6d1f2f52-6b2e-4f2e-9a37-7f1f4a6a2c11") }); n > 0 {
		t.Errorf("a mark allocates %v times", n)
	}
	if !s.Has(some, 0, 50) || s.Has(Of("jti", "", "else"), 0, 50) {
		t.Error("wrong answers")
	}
}

// BenchmarkHas is a look-up among one and among a million.
func BenchmarkHas(b *testing.B) {
	full, some := fill()
	one := new(Set)
	one.Replace(some.Part(), []Entry{{Mark: some, Until: 1 << 31}})
	marks := make([]Mark, 1<<12)
	for i := range marks {
		marks[i] = Of("jti", "https://id.example.com", strconv.Itoa(i*200)) // most of them are there
	}
	for _, c := range []struct {
		name string
		s    *Set
	}{{"of 1", one}, {"of 1000000", full}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				c.s.Has(marks[i&(len(marks)-1)], 0, 50)
			}
		})
	}
}

// BenchmarkReplace is what a change costs among a million.
func BenchmarkReplace(b *testing.B) {
	s, some := fill()
	entries := slices.DeleteFunc(slices.Clone(s.parts[some.Part()].Load().slots), func(e Entry) bool { return e.Until == 0 })
	b.ReportAllocs()
	for b.Loop() {
		s.Replace(some.Part(), entries)
	}
}
