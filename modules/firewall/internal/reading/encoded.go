package reading

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Hides reports whether text may be under the content encoding of a body that
// begins so, as far as a backend could take it off without being told to.
func Hides(head []byte, encoding string) bool {
	var in io.Reader
	var err error
	switch encoding = strings.ToLower(strings.TrimSpace(encoding)); encoding {
	case "gzip", "x-gzip":
		in, err = gzip.NewReader(bytes.NewReader(head))
	case "deflate":
		if in, err = zlib.NewReader(bytes.NewReader(head)); errors.Is(err, zlib.ErrHeader) {
			in, err = flate.NewReader(bytes.NewReader(head)), nil // as some do
		}
	case "zstd":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(bytes.NewReader(head), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(8<<20), zstd.WithDecoderMaxWindow(8<<20)); err == nil {
			defer z.Close()
			in = z
		}
	default:
		return encoding == "br" || strings.Contains(encoding, ",") // which we cannot take off
	}
	if err != nil {
		return !errors.Is(err, gzip.ErrHeader) // the head of it may be longer than what is here
	}
	plain, err := io.ReadAll(io.LimitReader(in, Head))
	if len(plain) == 0 && err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false // nobody can take it off
	}
	return Sniff(plain) != Binary
}
