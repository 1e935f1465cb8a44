package gate

// Tokens is what an API accepts of access tokens, for clients that read
// metadata (RFC 9728).
type Tokens struct {
	Issuers         []string // their identifiers, which are URLs
	ProofAlgorithms []string // of proofs of possession (RFC 9449)
	ProofRequired   bool     // tokens that are bound to nothing are refused
	Certificates    bool     // clients may have certificates that tokens are bound to (RFC 8705)
}
