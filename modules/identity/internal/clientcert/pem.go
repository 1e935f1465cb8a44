package clientcert

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

var begin = []byte("-----BEGIN ")

// ReadPEM reads a file of certificates. Its errors name the line and the block, and
// never repeat what stands there: it may be a key. Text before a block is a comment,
// as OpenSSL writes it.
func ReadPEM(data []byte) (certificates []*x509.Certificate, err error) {
	rest := data
	lineOf := func(tail []byte) int { return 1 + bytes.Count(data[:len(data)-len(tail)], []byte("\n")) }
	for n := 1; ; n++ {
		at := bytes.Index(rest, begin)
		if at < 0 {
			break
		}
		rest = rest[at:]
		line := lineOf(rest)
		block, behind := pem.Decode(rest)
		// A block that is damaged is passed over, and another one found.
		if block == nil || bytes.Contains(rest[len(begin):len(rest)-len(behind)], begin) {
			return nil, fmt.Errorf("line %d: PEM block %d is damaged", line, n)
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("line %d: PEM block %d is a %.32q, and only certificates are expected", line, n, block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("line %d: PEM block %d is no certificate: %w", line, n, err)
		}
		certificates = append(certificates, c)
		rest = behind
	}
	switch tail := bytes.TrimSpace(rest); {
	case len(certificates) > 0 && len(tail) > 0:
		return nil, fmt.Errorf("line %d: there is something behind the last certificate", lineOf(bytes.TrimLeft(rest, " \t\r\n")))
	case len(certificates) > 0:
		return certificates, nil
	case len(tail) == 0:
		return nil, errors.New("the file is empty")
	case tail[0] == 0x30:
		return nil, errors.New("the file is DER; PEM is expected, as openssl x509 -inform der -outform pem makes it")
	}
	return nil, errors.New("there is no certificate in PEM")
}
