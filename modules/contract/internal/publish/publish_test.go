package publish

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/openapi"
)

const contract = `
openapi: 3.0.3
x-secret-root: SECRET
info: {title: Orders, version: "2", description: "All of them", x-secret: SECRET, contact: {name: Ann, x-secret: SECRET}}
servers: [{url: "http://SECRET.internal:8080/v1"}]
security: [{bearer: []}]
tags: [{name: orders, x-secret: SECRET}, {name: SECRET-tag}, {name: hidden}]
paths:
  /orders:
    x-secret: SECRET
    servers: [{url: "http://SECRET"}]
    parameters: [{$ref: "#/components/parameters/Trace"}, {name: SECRET, in: query, x-internal: true, schema: {}}]
    get:
      operationId: listOrders
      summary: Lists orders
      tags: [orders]
      deprecated: true
      x-sunset: 2027-01-01
      x-amazon-apigateway-integration: {uri: "http://SECRET"}
      servers: [{url: "http://SECRET"}]
      parameters: [{name: x-page, in: header, schema: {type: integer, example: 1}}]
      responses:
        "200":
          description: ok
          content: {application/json: {schema: {$ref: "#/components/schemas/Order"}}}
          links: {next: {operationId: listOrders, server: {url: "http://SECRET"}}}
        x-secret: SECRET
      callbacks:
        done: {"{$request.body#/url}": {post: {responses: {"204": {description: thanks}}}}}
    post: {operationId: SECRETop, x-internal: true, requestBody: {content: {application/json: {schema: {$ref: "#/components/schemas/SECRET1"}}}}, responses: {}}
  /admin:
    get: {tags: [hidden], security: [{SECRETscheme: []}], responses: {}}
  /internal:
    x-internal: true
    get: {operationId: SECRET2, responses: {}}
  /files: {$ref: "parts/files.yaml#/item"}
components:
  parameters:
    Trace: {name: trace, in: header, schema: {type: string}}
    SECRET: {name: SECRET, in: query, schema: {}}
  securitySchemes:
    bearer: {type: http, scheme: bearer, x-secret: SECRET}
    SECRETscheme: {type: http, scheme: basic}
  schemas:
    SECRET1: {type: object}
    Order:
      type: object
      required: [id, cost]
      x-secret: SECRET
      properties:
        id: {type: string, x-note: SECRET}
        servers: {type: array, items: {$ref: "#/components/schemas/Item"}}
        x-custom: {type: string}
        cost: {type: number, description: SECRET, x-internal: true}
        next: {$ref: "#/components/schemas/Order"}
        pet: {oneOf: [{$ref: "#/components/schemas/Cat"}], discriminator: {propertyName: kind, mapping: {cat: Cat}, x-secret: SECRET}}
      example: {id: "1", x-kept: true}
      additionalProperties: false
    Item: {type: object, properties: {sku: {type: string}}}
    Cat: {type: object}
`

func published(t *testing.T, o Options) (string, *Document) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"api.yaml":         contract,
		"parts/files.yaml": "secret: SECRET\nitem:\n  get:\n    operationId: getFile\n    responses: {\"200\": {description: ok, content: {application/json: {schema: {$ref: \"file.yaml\"}}}}}\n",
		"parts/file.yaml":  "type: object\nproperties: {again: {$ref: \"#\"}, size: {type: integer}}\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	main, err := openapi.ReadFile(filepath.Join(dir, "api.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := Make(openapi.Node{Files: openapi.NewFiles(main), File: main, Value: main.Root}, o)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(doc.Root)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), doc
}

// TestNothingInternal: what is marked, hidden, or unknown stays inside.
func TestNothingInternal(t *testing.T) {
	text, doc := published(t, Options{Hide: []string{"hidden"}, Server: "/v1"})
	if i := strings.Index(text, "SECRET"); i >= 0 {
		t.Errorf("published: …%.120s", text[max(0, i-60):])
	}
	for _, want := range []string{
		`"servers":[{"url":"/v1"}]`, `"x-custom":{`, `"x-kept":true`, `"x-sunset":"2027-01-01"`, `"name":"x-page"`,
		`"required":["id"]`, `"additionalProperties":false`, `"$ref":"#/components/schemas/file.yaml"`[:20], `"mapping":{"cat":"#/components/schemas/Cat"}`,
		`"tags":[{"name":"orders"}]`, `"done":{"{$request.body#/url}":{"post":`, `"bearer":{"scheme":"bearer","type":"http"}`, `"security":[{"bearer":[]}]`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("not there: %s in\n%s", want, text)
		}
	}
	var ids []string
	for _, o := range doc.Operations {
		ids = append(ids, o.ID)
	}
	if !slices.Equal(ids, []string{"getFile", "listOrders"}) || !doc.Operations[1].Deprecated || doc.Title != "Orders" {
		t.Errorf("%v, %+v", ids, doc.Operations)
	}
	// What is published loads as a contract, with every reference in it.
	main, err := openapi.ReadBytes("published.json", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c, err := openapi.Read(main, openapi.NewFiles(main))
	if err != nil || len(c.Operations) != 2 {
		t.Errorf("%v: %v", c, err)
	}
}

func TestHideNothing(t *testing.T) {
	main, err := openapi.ReadBytes("api.yaml", []byte(contract))
	if err != nil {
		t.Fatal(err)
	}
	_, err = Make(openapi.Node{Files: openapi.NewFiles(main), File: main, Value: main.Root}, Options{Hide: []string{"listorders"}})
	if err == nil {
		t.Error("a hide that hides nothing is taken")
	}
}
