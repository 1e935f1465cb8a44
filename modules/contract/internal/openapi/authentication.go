package openapi

import "time"

// readAuthentication reads how, and how recently, a caller of the operation has
// to have shown its issuer who it is:
//
//	x-gatehouse-authentication: { acr: [gold], max_age: 5m }
func readAuthentication(op *Operation) error {
	n, ok := op.At.Child("x-gatehouse-authentication")
	if !ok {
		return nil
	}
	members, ok := n.Value.(map[string]any)
	if !ok || len(members) == 0 {
		return n.Errorf("x-gatehouse-authentication needs acr, max_age or both")
	}
	for _, name := range names(n.Value) {
		at, _ := n.Child(name)
		switch name {
		case "acr":
			list, _ := at.Value.([]any)
			for _, v := range list {
				text, ok := v.(string)
				if !ok || !plainWord(text) {
					return at.Errorf("acr takes texts without spaces, quotes and backslashes")
				}
				op.ACR = append(op.ACR, text)
			}
			if op.ACR == nil {
				return at.Errorf("acr is not a list of texts")
			}
		case "max_age":
			text, _ := at.Value.(string)
			age, err := time.ParseDuration(text)
			if err != nil || age <= 0 || age%time.Second != 0 {
				return at.Errorf("max_age %v is no duration of whole seconds such as 5m", at.Value)
			}
			op.MaxAge = age
		default:
			return at.Errorf("unrecognized member %q of x-gatehouse-authentication; expected acr or max_age", name)
		}
	}
	return nil
}

func plainWord(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return s != ""
}
