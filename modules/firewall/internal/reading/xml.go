package reading

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"
)

// maxDepth is how deep elements may be nested, as values of JSON may be.
const maxDepth = 64

// Document makes of an XML document a plain one that says the same to the
// rules: a list of the values of its attributes and of its elements' own text,
// each in one piece whatever stands in between, and of the text of all of it,
// which some parsers give for an element that has others in it. There may be at
// most so many values. What is not well formed is a *xml.SyntaxError.
func Document(body []byte, most int) ([]byte, error) {
	dec := xml.NewDecoder(bytes.NewReader(body))
	dec.CharsetReader = ascii
	var (
		values []string
		open   []*strings.Builder // the text of the elements that are open
		whole  strings.Builder
		pieces int
	)
	open = append(open, new(strings.Builder)) // what stands outside of the root
	add := func(value string) error {
		if strings.TrimSpace(value) == "" {
			return nil
		}
		if len(values) >= most {
			return ErrTooMany
		}
		values = append(values, value)
		return nil
	}
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		switch token := token.(type) {
		case xml.Directive:
			return nil, ErrDoctype
		case xml.ProcInst:
			if token.Target == "xml" && !declared(token.Inst) {
				return nil, ErrEncoding
			}
		case xml.StartElement:
			if len(open) > maxDepth {
				return nil, ErrTooDeep
			}
			open = append(open, new(strings.Builder))
			for _, attr := range token.Attr {
				if err := add(attr.Value); err != nil {
					return nil, err
				}
			}
		case xml.CharData:
			_, _ = open[len(open)-1].Write(token)
			_, _ = whole.Write(token)
			if len(bytes.TrimSpace(token)) > 0 {
				pieces++
			}
		case xml.EndElement:
			if err := add(open[len(open)-1].String()); err != nil {
				return nil, err
			}
			open = open[:len(open)-1]
		}
	}
	if err := add(open[0].String()); err != nil {
		return nil, err
	}
	if pieces > 1 {
		values = append(values, whole.String())
	}
	return list(values)
}

// encoding finds what encoding/xml looks for, and what it overlooks.
var encoding = regexp.MustCompile(`encoding\s*=\s*["']?([^"'\s]*)`)

// declared reports whether a document is in an encoding that is read.
func declared(inst []byte) bool {
	for _, m := range encoding.FindAllSubmatch(inst, -1) {
		if label := string(m[1]); !strings.EqualFold(label, "utf-8") && !known(label) {
			return false
		}
	}
	return true
}

func list(values []string) ([]byte, error) {
	var out bytes.Buffer
	out.WriteString("<list>")
	for _, v := range values {
		out.WriteString("<value>")
		if err := xml.EscapeText(&out, []byte(v)); err != nil {
			return nil, err
		}
		out.WriteString("</value>")
	}
	out.WriteString("</list>")
	return out.Bytes(), nil
}

// IsPage reports whether a body begins as a page of HTML, whose type declaration
// has no room for entities.
func IsPage(body []byte) bool {
	const doctype = "<!doctype html>"
	body = bytes.TrimLeft(bytes.TrimPrefix(body, utf8Mark), " \t\r\n")
	return len(body) >= len(doctype) && strings.EqualFold(string(body[:len(doctype)]), doctype)
}

// ascii reads the encodings of one byte that agree with ASCII. Their other
// characters need not be told apart: no rule looks for them.
func ascii(label string, in io.Reader) (io.Reader, error) {
	if known(label) {
		return &latin1{in: in}, nil
	}
	return nil, ErrEncoding
}

func known(label string) bool {
	label = strings.ToLower(label)
	return label == "us-ascii" || label == "ascii" || strings.HasPrefix(label, "iso-8859-") || strings.HasPrefix(label, "windows-125")
}

type latin1 struct {
	in   io.Reader
	rest []byte
}

func (l *latin1) Read(p []byte) (int, error) {
	for len(l.rest) == 0 {
		var buf [Head]byte
		n, err := l.in.Read(buf[:])
		for _, b := range buf[:n] {
			l.rest = utf8.AppendRune(l.rest, rune(b))
		}
		if n == 0 && err != nil {
			return 0, err
		}
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}
