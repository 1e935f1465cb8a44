// Package transcodetest is a small gRPC service to test transcode against.
package transcodetest

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bufbuild/protocompile"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"
)

//go:embed shop.proto
var shop string

// Source is the service in Protobuf's own language.
func Source() string { return shop }

// Compile makes a descriptor set of a source, imports included.
func Compile(t testing.TB, source string) *descriptorpb.FileDescriptorSet {
	t.Helper()
	google := protocompile.ResolverFunc(func(path string) (protocompile.SearchResult, error) {
		for _, f := range []protoreflect.FileDescriptor{annotations.File_google_api_annotations_proto, annotations.File_google_api_http_proto, httpbody.File_google_api_httpbody_proto} {
			if f.Path() == path {
				return protocompile.SearchResult{Desc: f}, nil
			}
		}
		return protocompile.SearchResult{}, fmt.Errorf("no file %q", path)
	})
	c := protocompile.Compiler{Resolver: protocompile.WithStandardImports(protocompile.CompositeResolver{
		&protocompile.SourceResolver{Accessor: protocompile.SourceAccessorFromMap(map[string]string{"shop.proto": source})}, google,
	})}
	files, err := c.Compile(context.Background(), "shop.proto")
	if err != nil {
		t.Fatal(err)
	}
	set, seen := &descriptorpb.FileDescriptorSet{}, map[string]bool{}
	var add func(f protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(f))
	}
	add(files[0])
	return set
}

// Shop knows the messages of the service.
type Shop struct {
	Set     []byte // the descriptor set, as a file holds it
	Service protoreflect.ServiceDescriptor
}

// New compiles the service.
func New(t testing.TB) *Shop {
	t.Helper()
	set := Compile(t, shop)
	data, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	d, err := files.FindDescriptorByName("shop.v1.Orders")
	if err != nil {
		t.Fatal(err)
	}
	return &Shop{Set: data, Service: d.(protoreflect.ServiceDescriptor)}
}

// Method finds a method by its name.
func (s *Shop) Method(name string) protoreflect.MethodDescriptor {
	return s.Service.Methods().ByName(protoreflect.Name(name))
}

// Request makes a request of a method out of its text.
func (s *Shop) Request(t testing.TB, method, text string) *dynamicpb.Message {
	t.Helper()
	m := dynamicpb.NewMessage(s.Method(method).Input())
	if err := prototext.Unmarshal([]byte(text), m); err != nil {
		t.Fatal(err)
	}
	return m
}

// Get reads a field of a message.
func Get(m *dynamicpb.Message, field string) any {
	return m.Get(m.Descriptor().Fields().ByName(protoreflect.Name(field))).Interface()
}

func set(m *dynamicpb.Message, field string, v any) {
	m.Set(m.Descriptor().Fields().ByName(protoreflect.Name(field)), protoreflect.ValueOf(v))
}

// Server is the service, listening.
type Server struct {
	*Shop
	Addr  string
	Calls atomic.Int64                // that reached it
	Last  atomic.Pointer[metadata.MD] // what came with the last one
}

// Serve starts the service, and stops it with the test. What an order's id says
// is what becomes of a Get or Watch:
//
//	missing, invalid, exhausted, broken, unknown   fail with an error
//	slow                                           waits until the caller gives up
//	large                                          has a note of the size asked for
//	partial                                        fails after two messages
func (s *Shop) Serve(t testing.TB) *Server {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &Server{Shop: s, Addr: l.Addr().String()}
	g := grpc.NewServer(grpc.UnknownServiceHandler(srv.handle), grpc.MaxRecvMsgSize(32<<20))
	go func() { _ = g.Serve(l) }() // until it is stopped
	t.Cleanup(g.Stop)
	return srv
}

// handle does what every method does, with the messages of the descriptors.
func (s *Server) handle(_ any, stream grpc.ServerStream) error {
	path, _ := grpc.MethodFromServerStream(stream)
	name := path[strings.LastIndexByte(path, '/')+1:]
	m := s.Method(name)
	if m == nil || !strings.HasPrefix(path, "/shop.v1.Orders/") {
		return status.Errorf(codes.Unimplemented, "no method %s", path)
	}
	s.Calls.Add(1)
	if md, ok := metadata.FromIncomingContext(stream.Context()); ok {
		s.Last.Store(&md)
	}
	if name == "Echo" {
		return echo(stream, m)
	}
	var in []*dynamicpb.Message
	for {
		msg := dynamicpb.NewMessage(m.Input())
		err := stream.RecvMsg(msg)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		in = append(in, msg)
	}
	if !m.IsStreamingClient() && len(in) != 1 {
		return status.Errorf(codes.Internal, "%d requests, want 1", len(in))
	}
	out := dynamicpb.NewMessage(m.Output())
	switch name {
	case "Get":
		if err := fate(stream.Context(), in[0], out); err != nil {
			return err
		}
	case "Create":
		proto.Merge(out, in[0].Get(m.Input().Fields().ByName("order")).Message().Interface())
		set(out, "id", "new")
		set(out, "customer", Get(in[0], "customer"))
	case "Cancel":
		set(out, "id", Get(in[0], "id"))
		set(out, "note", Get(in[0], "why"))
	case "List":
		set(out, "asked", prototext.MarshalOptions{}.Format(in[0]))
	case "Import":
		list := out.Mutable(m.Output().Fields().ByName("orders")).List()
		for _, order := range in {
			list.Append(protoreflect.ValueOfMessage(order))
		}
	case "Export":
		for _, line := range []string{"id,quantity\n", "a,1\n"} {
			part := dynamicpb.NewMessage(m.Output())
			set(part, "content_type", "text/csv")
			set(part, "data", []byte(line))
			if err := stream.SendMsg(part); err != nil {
				return err
			}
		}
		return nil
	case "Watch":
		id := Get(in[0], "id").(string)
		for i := range 3 {
			if id == "partial" && i == 2 {
				return status.Error(codes.Aborted, "that was it")
			}
			part := dynamicpb.NewMessage(m.Output())
			set(part, "id", id)
			set(part, "quantity", int64(i))
			if err := stream.SendMsg(part); err != nil {
				return err
			}
			if id == "slow" {
				<-stream.Context().Done()
				return stream.Context().Err()
			}
		}
		return nil
	}
	return stream.SendMsg(out)
}

func echo(stream grpc.ServerStream, m protoreflect.MethodDescriptor) error {
	for {
		msg := dynamicpb.NewMessage(m.Input())
		if err := stream.RecvMsg(msg); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(msg); err != nil {
			return err
		}
	}
}

// fate does with an order what its id says.
func fate(ctx context.Context, in, out *dynamicpb.Message) error {
	id := Get(in, "id").(string)
	switch id {
	case "missing":
		return status.Error(codes.NotFound, "there is no order 100% like \"missing\"")
	case "invalid":
		st, err := status.New(codes.InvalidArgument, "the order is not valid").WithDetails(&errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "order.parts[0].unit_count", Description: "is too small"}},
		})
		if err != nil {
			return err
		}
		return st.Err()
	case "exhausted":
		st, err := status.New(codes.ResourceExhausted, "come back later").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(1500 * time.Millisecond)})
		if err != nil {
			return err
		}
		return st.Err()
	case "broken":
		return status.Error(codes.Internal, "stack trace: secret-backend at main.go:7")
	case "unknown":
		return status.Error(codes.Code(17), "a code that does not exist")
	case "slow":
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	case "large":
		set(out, "note", strings.Repeat("n", int(Get(in, "size").(int32))))
	}
	set(out, "id", id)
	return nil
}
