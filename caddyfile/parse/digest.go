package parse

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
)

// Digest tells the contents of some files from others; empty when none of them
// can be read, which is for who loads the configuration to report. Caddy does
// not load a configuration that is the same as the running one: without a digest
// in it, a reload after a change of a file alone does nothing, and says nothing.
func Digest(files ...string) string {
	sum, read := sha256.New(), false
	for _, name := range files {
		data, err := os.ReadFile(name) //nolint:gosec // a file that the operator names
		if err != nil {
			continue
		}
		part := sha256.Sum256(data)
		_, _ = sum.Write(part[:])
		read = true
	}
	if !read {
		return ""
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}
