package descset_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/gatehouse-caddy/gatehouse/modules/transcode/internal/descset"
	"github.com/gatehouse-caddy/gatehouse/modules/transcode/transcodetest"
)

func read(t testing.TB, only ...string) *descset.Set {
	t.Helper()
	s, err := descset.Read(transcodetest.New(t).Set, only)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRead(t *testing.T) {
	s := read(t)
	if len(s.Services) != 1 || len(s.Methods) != 8 {
		t.Errorf("%d services, %d methods", len(s.Services), len(s.Methods))
	}
	if m := s.Methods["/shop.v1.Orders/Create"]; m == nil || m.Body != "order" || m.Path != "/shop.v1.Orders/Create" {
		t.Errorf("Create is %+v", m)
	}
	if len(read(t, "shop.v1.Orders").Services) != 1 {
		t.Error("the service that is named is not there")
	}
}

func TestReadFaults(t *testing.T) {
	whole := transcodetest.Compile(t, transcodetest.Source())
	bytes := func(set *descriptorpb.FileDescriptorSet) []byte {
		data, err := proto.Marshal(set)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	compile := func(source string) []byte { return bytes(transcodetest.Compile(t, source)) }
	alone := &descriptorpb.FileDescriptorSet{File: whole.GetFile()[len(whole.GetFile())-1:]}
	damaged := proto.CloneOf(whole)
	damaged.File[len(damaged.File)-1].MessageType = nil
	for name, c := range map[string]struct {
		data []byte
		only []string
		want string
	}{
		"nothing":             {nil, nil, "is no descriptor set"},
		"the source":          {[]byte(transcodetest.Source()), nil, "is no descriptor set"},
		"one descriptor":      {bytes(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{{}}}), nil, "is no descriptor set"},
		"without imports":     {bytes(alone), nil, `lacks "google/api/annotations.proto", which "shop.proto" imports; make the set with --include_imports`},
		"without messages":    {bytes(damaged), nil, "is no valid descriptor set"},
		"no service":          {compile(`syntax = "proto3"; package p; message M {}`), nil, "describes no service"},
		"no methods":          {compile(`syntax = "proto3"; package p; service S {}`), nil, "service p.S has no methods"},
		"a service not there": {bytes(whole), []string{"shop.v1.Orders", "shop.v1.Stock"}, `describes no service "shop.v1.Stock"; it has shop.v1.Orders`},
	} {
		if _, err := descset.Read(c.data, c.only); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

func TestCanonical(t *testing.T) {
	s := read(t)
	for path, want := range map[string]string{
		"/v1/orders":           "/v1/orders",
		"/v1/orders/a%2fb":     "/v1/orders/a%2Fb",
		"/v1/orders/%61":       "/v1/orders/a",
		"/v1/orders/a+b@c":     "/v1/orders/a%2Bb%40c",
		"/v1/orders/50%2525":   "/v1/orders/50%2525",
		"/v1/orders/7:cancel":  "/v1/orders/7:cancel",
		"/v1/orders:export":    "/v1/orders:export",
		"/v1/orders/a:b":       "/v1/orders/a%3Ab",
		"/v1/orders/a:b:watch": "/v1/orders/a%3Ab:watch",
		"/v1/a:cancel/orders":  "/v1/a%3Acancel/orders",
		"/v1/orders/":          "",
		"/v1//orders":          "",
		"/v1/orders/:cancel":   "",
		"/":                    "",
		"":                     "",
		"*":                    "",
		"/v1/%":                "",
		"/v1/%zz":              "",
	} {
		if got, ok := s.Canonical(path); got != want || ok != (want != "") {
			t.Errorf("%q becomes %q, want %q", path, got, want)
		}
	}
}

// FuzzCanonical: the canonical form is its own, and stays as long in segments.
func FuzzCanonical(f *testing.F) {
	s := read(f)
	for _, path := range []string{"/v1/orders", "/v1/orders/a%2fb:cancel", "/v1//", "/%", "/a:b:watch"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		once, ok := s.Canonical(path)
		if !ok {
			return
		}
		if twice, ok := s.Canonical(once); !ok || twice != once {
			t.Errorf("%q becomes %q, then %q", path, once, twice)
		}
		if strings.Count(once, "/") != strings.Count(path, "/") {
			t.Errorf("%q becomes %q", path, once)
		}
	})
}

func TestReachable(t *testing.T) {
	s := read(t)
	for path, want := range map[string]bool{"/v1/x": true, "/v1": true, "/v1:x": true, "/v2/x": false, "/": false, "": false, "/index.html": false} {
		if got := s.Reachable(path); got != want {
			t.Errorf("%q: %v", path, got)
		}
	}
	if n := testing.AllocsPerRun(100, func() { s.Reachable("/v2/orders") }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
