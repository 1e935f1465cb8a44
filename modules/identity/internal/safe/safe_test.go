package safe

import (
	"errors"
	"strings"
	"testing"
)

func TestCall(t *testing.T) {
	if v, err := Call(func() (int, error) { return 1, nil }); v != 1 || err != nil {
		t.Error(v, err)
	}
	no := errors.New("no")
	if _, err := Call(func() (int, error) { return 0, no }); !errors.Is(err, no) {
		t.Error(err)
	}
	for name, f := range map[string]func() (int, error){
		"out of range": func() (int, error) { return deeper(nil), nil },
		"of its own":   func() (int, error) { return deeper([]int{0}), nil },
	} {
		_, err := Call(f)
		if p, ok := errors.AsType[*Panic](err); !ok || !strings.Contains(p.At, "safe.deeper:") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

//go:noinline
func deeper(list []int) int {
	if list[0] == 0 {
		panic("zero")
	}
	return 1
}
