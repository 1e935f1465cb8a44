package transcode

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"regexp"
	"strings"

	"connectrpc.com/connect"
	"connectrpc.com/vanguard"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxDepth bounds how deep the messages of a request nest. It is what services
// in C++ and Java accept.
const maxDepth = 100

// codec is the library's JSON, with errors that may be shown to clients.
type codec struct{ vanguard.JSONCodec }

func newJSON(types vanguard.TypeResolver, ignoreUnknown bool) codec {
	return codec{vanguard.JSONCodec{
		MarshalOptions:   protojson.MarshalOptions{Resolver: types, EmitUnpopulated: true},
		UnmarshalOptions: protojson.UnmarshalOptions{Resolver: types, DiscardUnknown: ignoreUnknown, RecursionLimit: maxDepth},
	}}
}

// Unmarshal reads a message. No bytes are an empty message.
func (c codec) Unmarshal(data []byte, msg proto.Message) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil
	}
	return speakable(c.JSONCodec.Unmarshal(data, msg))
}

// UnmarshalField reads one field of a message.
func (c codec) UnmarshalField(data []byte, msg proto.Message, field protoreflect.FieldDescriptor) error {
	return speakable(c.JSONCodec.UnmarshalField(data, msg, field))
}

// isSaid begins the sentences that are meant for clients.
const isSaid = "The JSON "

var (
	position   = regexp.MustCompile(`\(line \d+:\d+\)`)
	wrongValue = regexp.MustCompile(`invalid value for \S+ field (\w+):`)
)

// speakable says what is wrong with JSON without repeating any of it, since the
// library's errors quote values, which may be secrets.
func speakable(err error) error {
	if err == nil {
		return nil
	}
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ") // they vary it on purpose
	what := "does not fit the message"
	switch {
	case strings.Contains(text, "unknown field"):
		what = "has a member that the message does not know"
	case strings.Contains(text, "duplicate"):
		what = "has a member twice"
	case strings.Contains(text, "recursion depth"):
		what = "is nested too deep"
	case strings.Contains(text, "syntax error"), strings.Contains(text, "unexpected EOF"):
		what = "is not well formed, or has a value of another type"
	default:
		if m := wrongValue.FindStringSubmatch(text); m != nil {
			what = "has a wrong value for " + m[1]
		}
	}
	if at := position.FindString(text); at != "" {
		what += " " + at
	}
	return connect.NewError(connect.CodeInvalidArgument, errors.New(isSaid+what+"."))
}

func newGzip() connect.Compressor { return gzip.NewWriter(io.Discard) }

// errInflated is what the library passes on when too much comes out of a
// compressed message.
var errInflated = errors.New("decompressed message is too large")

// gunzip decompresses at most limit bytes.
type gunzip struct {
	gzip.Reader
	limit, left int64
}

func newGunzip(limit int64) func() connect.Decompressor {
	return func() connect.Decompressor { return &gunzip{limit: limit} }
}

func (g *gunzip) Reset(src io.Reader) error {
	g.left = g.limit
	return g.Reader.Reset(src)
}

func (g *gunzip) Read(p []byte) (int, error) {
	n, err := g.Reader.Read(p)
	if g.left -= int64(n); g.left < 0 {
		return 0, errInflated
	}
	return n, err
}
