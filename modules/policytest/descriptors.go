package policytest

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// descriptors are the methods of the services that transcode knows, by path.
type descriptors struct {
	byPath map[string]protoreflect.MethodDescriptor
}

func readDescriptors(files []string) (*descriptors, error) {
	d := &descriptors{byPath: map[string]protoreflect.MethodDescriptor{}}
	for _, name := range files {
		data, err := os.ReadFile(name) //nolint:gosec // the operator's own file
		if err != nil {
			return nil, fmt.Errorf("reading descriptors: %w", err)
		}
		var set descriptorpb.FileDescriptorSet
		if err := proto.Unmarshal(data, &set); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		// What options say is not asked here, and may be missing.
		all, err := protodesc.FileOptions{AllowUnresolvable: true}.NewFiles(&set)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all.RangeFiles(func(f protoreflect.FileDescriptor) bool {
			for i := range f.Services().Len() {
				for methods, j := f.Services().Get(i).Methods(), 0; j < methods.Len(); j++ {
					m := methods.Get(j)
					d.byPath["/"+string(m.Parent().FullName())+"/"+string(m.Name())] = m
				}
			}
			return true
		})
	}
	return d, nil
}

func (d *descriptors) methods() (names []string) {
	for _, m := range d.byPath {
		names = append(names, string(m.FullName()))
	}
	slices.Sort(names)
	return names
}

// request reads the messages of a call: one as it is, several as a list. It is
// nil for what is none.
func (d *descriptors) request(path string, body []byte) any {
	m := d.byPath[path]
	if m == nil {
		return nil
	}
	var all []any
	for len(body) >= 5 {
		n := int(binary.BigEndian.Uint32(body[1:]))
		if n > len(body)-5 {
			return nil
		}
		msg := dynamicpb.NewMessage(m.Input())
		if err := proto.Unmarshal(body[5:5+n], msg); err != nil {
			return nil
		}
		text, err := protojson.MarshalOptions{UseProtoNames: false}.Marshal(msg)
		if err != nil {
			return nil
		}
		v, err := decodeJSON(text)
		if err != nil {
			return nil
		}
		all, body = append(all, v), body[5+n:]
	}
	if len(all) == 1 {
		return all[0]
	}
	return all
}

// response makes a message of a method, in its envelope.
func (d *descriptors) response(path string, v any) ([]byte, error) {
	m := d.byPath[path]
	if m == nil {
		return nil, fmt.Errorf("no transcode describes the method %s, so that its message cannot be made", strings.TrimPrefix(path, "/"))
	}
	msg := dynamicpb.NewMessage(m.Output())
	if err := protojson.Unmarshal(marshal(v), msg); err != nil {
		return nil, fmt.Errorf("the message is no %s: %w", m.Output().FullName(), err)
	}
	data, err := proto.Marshal(msg)
	if err != nil {
		return nil, err
	}
	framed := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(data))) //nolint:gosec // a message of a test
	return append(framed, data...), nil
}
