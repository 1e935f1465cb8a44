package integration

import (
	"flag"
	"os"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-caddy/gatehouse/modules/transcode/transcodetest"
)

var update = flag.Bool("update", false, "rewrite the descriptors of examples/grpc-behind-rest")

// TestExampleDescriptors holds that the descriptors of the example are those of
// its source.
func TestExampleDescriptors(t *testing.T) {
	const dir = "../examples/grpc-behind-rest/"
	source, err := os.ReadFile(dir + "shop.proto")
	if err != nil {
		t.Fatal(err)
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(transcodetest.Compile(t, string(source)))
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(dir+"shop.binpb", data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(dir + "shop.binpb")
	if err != nil || string(have) != string(data) {
		t.Errorf("shop.binpb is not what shop.proto says (%v); go test ./integration -run TestExampleDescriptors -update", err)
	}
}
