package publish

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/openapi"
)

// FuzzMake: whatever a contract is made of, what is published is JSON without
// operations marked internal, without extensions that nobody knows, and publishing
// it again changes nothing.
func FuzzMake(f *testing.F) {
	f.Add([]byte(contract))
	f.Add([]byte(`{"openapi":"3.1.0","paths":{"/a":{"get":{"x-internal":true},"put":{"x-secret":1}}}}`))
	f.Add([]byte(`{"openapi":"3.0.0","paths":{"/a":{"$ref":"#/paths/~1b"},"/b":{"$ref":"#/paths/~1a"}}}`))
	f.Add([]byte(`{"openapi":"3.1.0","info":{"title":7},"security":[{"a":[]}],"components":{"schemas":{"a":{"$ref":"#/components/schemas/a"},"b":true}},"paths":{"/a":{"get":{"requestBody":{"content":{"a/b":{"schema":{"$ref":"#/components/schemas/a"}}}}}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		text, doc := again(t, data, false)
		if doc == nil {
			return
		}
		for _, path := range doc.Root["paths"].(map[string]any) {
			for _, op := range path.(map[string]any) {
				if op, ok := op.(map[string]any); ok && (op["x-internal"] != nil || op["x-secret"] != nil) {
					t.Errorf("published: %v", op)
				}
			}
		}
		twice, same := again(t, text, true)
		if same == nil || !bytes.Equal(text, twice) {
			t.Errorf("published again, it differs:\n%s\n%s", text, twice)
		}
	})
}

func again(t *testing.T, data []byte, must bool) ([]byte, *Document) {
	t.Helper()
	main, err := openapi.ReadBytes("api.yaml", data)
	if err != nil || !strings.HasPrefix((openapi.Node{Files: openapi.NewFiles(main), File: main, Value: main.Root}).Text("openapi"), "3.") {
		if must {
			t.Errorf("it is not read: %v", err)
		}
		return nil, nil
	}
	doc, err := Make(openapi.Node{Files: openapi.NewFiles(main), File: main, Value: main.Root}, Options{Server: "/v1"})
	if err != nil {
		if must {
			t.Errorf("it is not published: %v", err)
		}
		return nil, nil
	}
	text, err := json.Marshal(doc.Root)
	if err != nil {
		t.Fatal(err)
	}
	return text, doc
}
