package gate

import "fmt"

// Stage names one handler of the walk that may allow or deny.
type Stage uint8

// The stages, in the order of the walk.
const (
	API Stage = iota
	Reputation
	Guard
	Contract
	Identity
	Require
	Quota
	Input
	Firewall
	Canary
	Transcode
	Resilience
	stageCount
)

var stageNames = [stageCount]string{"api", "reputation", "guard", "contract", "identity", "require", "quota", "input", "firewall", "canary", "transcode", "resilience"}

func (s Stage) String() string { return stageNames[s] }

// Stages counts the stages.
func Stages() int { return int(stageCount) }

// StageOf finds a stage by its name.
func StageOf(name string) (Stage, bool) {
	for s := range stageCount {
		if stageNames[s] == name {
			return s, true
		}
	}
	return 0, false
}

// Mode says how seriously a stage takes its own decisions.
type Mode uint8

const (
	// Enforce turns a refused request away. It is the default.
	Enforce Mode = iota
	// Shadow decides and records, and lets the request pass.
	Shadow
	// Off does nothing at all.
	Off
)

var modeNames = [...]string{"enforce", "shadow", "off"}

func (m Mode) String() string { return modeNames[m] }

// MarshalText writes the mode as users write it.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads enforce, shadow or off.
func (m *Mode) UnmarshalText(text []byte) error {
	for i, name := range modeNames {
		if name == string(text) {
			*m = Mode(i)
			return nil
		}
	}
	return fmt.Errorf("unrecognized mode %q; expected enforce, shadow or off", text)
}

// LiveModes are the modes that an operator switched while the configuration
// runs, by stage. Nil switches nothing.
type LiveModes map[Stage]Mode

// Mode is the mode of a stage in this Exchange: the configured one, unless an
// operator has switched it.
func (ex *Exchange) Mode(s Stage, configured Mode) Mode {
	if m, ok := ex.Modes[s]; ok {
		return m
	}
	return configured
}

// OnError says what a stage does when what it depends on is down.
type OnError uint8

const (
	// Closed refuses what cannot be decided. It is the default.
	Closed OnError = iota
	// Open lets pass what cannot be decided.
	Open
)

var onErrorNames = [...]string{"closed", "open"}

func (o OnError) String() string { return onErrorNames[o] }

// MarshalText writes the choice as users write it.
func (o OnError) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads open or closed.
func (o *OnError) UnmarshalText(text []byte) error {
	for i, name := range onErrorNames {
		if name == string(text) {
			*o = OnError(i)
			return nil
		}
	}
	return fmt.Errorf("unrecognized on_error %q; expected open or closed", text)
}

// Verdict is what a stage concluded.
type Verdict uint8

const (
	// Allowed lets the request go on to the next stage.
	Allowed Verdict = iota
	// Denied ends the Exchange.
	Denied
	// WouldDeny is a denial that shadow mode let pass.
	WouldDeny
	// Undecided means a dependency was down and on_error open let it pass.
	Undecided
)

var verdictNames = [...]string{"allow", "deny", "would_deny", "undecided"}

func (v Verdict) String() string { return verdictNames[v] }
