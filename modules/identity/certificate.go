package identity

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// byCertificate finds the principal of a client certificate. Only chains that
// were verified count: Caddy also hands on certificates that nobody checked.
func byCertificate(state *tls.ConnectionState) *proven {
	if state == nil || len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return nil
	}
	leaf := state.VerifiedChains[0][0]
	fingerprint := sha256.Sum256(leaf.Raw)
	who := prove(&gate.Principal{
		Subject: nameOf(leaf),
		Client:  hex.EncodeToString(fingerprint[:]),
		Issuer:  "mtls",
		Method:  gate.MutualTLS,
	})
	who.ends = leaf.NotAfter
	return who
}

// nameOf prefers the names that certificates are issued for today (RFC 9525,
// section 1.4) to the common name.
func nameOf(c *x509.Certificate) string {
	switch {
	case len(c.URIs) > 0:
		return c.URIs[0].String()
	case len(c.DNSNames) > 0:
		return c.DNSNames[0]
	case len(c.EmailAddresses) > 0:
		return c.EmailAddresses[0]
	}
	return c.Subject.CommonName
}
