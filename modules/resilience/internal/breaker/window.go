package breaker

const (
	// slots is how finely the window moves.
	slots = 10

	// places is how many callers are told apart; two that fall into one place
	// count as one.
	places = 16

	// others is the part of all results that those of others must make up for
	// them to say that all is well.
	others = 10
)

// window holds the results of the last time. The zero value is empty.
type window [slots]slot

// slot counts the results of a tenth of the window.
type slot struct {
	turn int64
	by   [places]tally
}

type tally struct{ total, fail int32 }

func (t tally) over(ratio float64) bool { return float64(t.fail) >= ratio*float64(t.total) }

func (w *window) add(caller uint64, failed bool, turn int64) {
	s := &w[turn%slots]
	if s.turn != turn {
		*s = slot{turn: turn}
	}
	t := &s.by[caller%places]
	t.total++
	if failed {
		t.fail++
	}
}

// tripped reports whether there are too many failures, with the caller who has
// most of them and without: one who asks for what fails does not take the
// upstream from others whom it answers well. Where there is hardly anyone else,
// that one decides.
func (w *window) tripped(s *Settings, turn int64) bool {
	var by [places]tally
	var all, most tally
	for i := range w {
		if turn-w[i].turn >= slots {
			continue
		}
		for place, t := range w[i].by {
			by[place].total += t.total
			by[place].fail += t.fail
		}
	}
	for _, t := range by {
		all.total += t.total
		all.fail += t.fail
		if t.fail > most.fail {
			most = t
		}
	}
	if int(all.total) < s.Samples || !all.over(s.Ratio) {
		return false
	}
	rest := tally{all.total - most.total, all.fail - most.fail}
	return rest.total*others < all.total || rest.over(s.Ratio)
}
