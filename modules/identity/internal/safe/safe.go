// Package safe keeps a panic in the background from ending the process. A request
// has net/http's recover above it; what is fetched and asked behind requests has
// none, and reads what others have written.
package safe

import (
	"fmt"
	"runtime"
	"strings"
)

// Panic is what a call has panicked with.
type Panic struct {
	Value any
	At    string // the function and line that did
}

func (p *Panic) Error() string { return fmt.Sprintf("panic: %v, at %s", p.Value, p.At) }

// Call returns what f returns, or its panic as an error.
func Call[A any](f func() (A, error)) (a A, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &Panic{p, origin()}
		}
	}()
	return f()
}

// origin finds who called panic, which runtime has deferred functions called by.
func origin() string {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		f, more := frames.Next()
		if !strings.HasPrefix(f.Function, "runtime.") || !more {
			return fmt.Sprintf("%s:%d", f.Function, f.Line)
		}
	}
}
