package jwt

// Fault says what is wrong with a token, as far as a caller may know.
type Fault uint8

// The faults, each a different answer to the client.
const (
	Malformed Fault = iota + 1
	BadAlgorithm
	BadSignature
	UnknownIssuer
	UnknownKey
	Expired
	NotYetValid
	WrongAudience
	WrongType
	MissingClaim
)

// Error is a token refused. The text is for the operator and holds nothing
// that the token said, except the names of claims.
type Error struct {
	Fault Fault
	Text  string
	Cause error
}

func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Text + ": " + e.Cause.Error()
	}
	return e.Text
}

func (e *Error) Unwrap() error { return e.Cause }

func refuse(f Fault, text string) *Error { return &Error{Fault: f, Text: text} }
