package publish

import "strings"

// kind is a sort of object in OpenAPI: which members it has that are copied as
// they are, and which hold objects of other kinds.
type kind struct {
	section string // of the components, where it may be referred to
	plain   map[string]bool
	members map[string]member
}

type member struct {
	kind  *kind
	shape shape
}

type shape uint8

const (
	one shape = iota
	listOf
	mapOf
	oneOrList
)

var methods = []string{"get", "put", "post", "delete", "options", "head", "patch", "trace", "query"}

// The extensions that are for consumers: what tools show, and what this gateway
// itself understands.
const known = "x-deprecated-since x-sunset x-logo x-displayName x-codeSamples x-enum-varnames x-enum-descriptions"

var extensions = words("")

// data are members whose values are the consumer's, in which every name counts.
var data = map[string]bool{"example": true, "examples": true, "default": true, "enum": true, "const": true, "value": true, "dataValue": true, "parameters": true, "requestBody": true, "security": true, "dependentRequired": true}

func words(list string) map[string]bool {
	out := make(map[string]bool)
	for w := range strings.FieldsSeq(list + " " + known) {
		out[w] = true
	}
	return out
}

// The kinds. They refer to each other, so init connects them.
var (
	document       = &kind{plain: words("info externalDocs tags jsonSchemaDialect")}
	pathItem       = &kind{plain: words("summary description")}
	operation      = &kind{plain: words("tags summary description externalDocs operationId deprecated security")}
	parameter      = &kind{section: "parameters", plain: words("name in description required deprecated allowEmptyValue style explode allowReserved example")}
	header         = &kind{section: "headers", plain: words("description required deprecated style explode example")}
	requestBody    = &kind{section: "requestBodies", plain: words("description required")}
	response       = &kind{section: "responses", plain: words("summary description")}
	mediaType      = &kind{plain: words("example")}
	encoding       = &kind{plain: words("contentType style explode allowReserved")}
	example        = &kind{section: "examples", plain: words("summary description value externalValue dataValue serializedValue")}
	link           = &kind{section: "links", plain: words("operationId parameters requestBody description")}
	callback       = &kind{section: "callbacks"}
	callbackItem   = &kind{plain: words("summary description")}
	securityScheme = &kind{section: "securitySchemes", plain: words("type description name in scheme bearerFormat flows openIdConnectUrl deprecated oauth2MetadataUrl")}
	schema         = &kind{section: "schemas", plain: words("title description type format enum const default example examples " +
		"multipleOf maximum exclusiveMaximum minimum exclusiveMinimum maxLength minLength pattern maxItems minItems uniqueItems " +
		"maxContains minContains maxProperties minProperties required dependentRequired nullable readOnly writeOnly deprecated " +
		"xml externalDocs contentEncoding contentMediaType $comment $schema")}
)

func init() {
	content := member{mediaType, mapOf}
	examples := member{example, mapOf}
	headers := member{header, mapOf}
	pathItem.members = map[string]member{"parameters": {parameter, listOf}}
	callbackItem.members = map[string]member{"parameters": {parameter, listOf}}
	for _, method := range methods {
		callbackItem.members[method] = member{operation, one}
	}
	operation.members = map[string]member{
		"parameters": {parameter, listOf}, "requestBody": {requestBody, one},
		"responses": {response, mapOf}, "callbacks": {callback, mapOf},
	}
	parameter.members = map[string]member{"schema": {schema, one}, "content": content, "examples": examples}
	header.members = parameter.members
	requestBody.members = map[string]member{"content": content}
	response.members = map[string]member{"headers": headers, "content": content, "links": {link, mapOf}}
	mediaType.members = map[string]member{"schema": {schema, one}, "itemSchema": {schema, one}, "examples": examples, "encoding": {encoding, mapOf}}
	encoding.members = map[string]member{"headers": headers}
	schema.members = map[string]member{"items": {schema, oneOrList}}
	for word := range strings.FieldsSeq("not if then else additionalProperties unevaluatedProperties propertyNames contains additionalItems unevaluatedItems contentSchema") {
		schema.members[word] = member{schema, one}
	}
	for word := range strings.FieldsSeq("allOf anyOf oneOf prefixItems") {
		schema.members[word] = member{schema, listOf}
	}
	for word := range strings.FieldsSeq("properties patternProperties dependentSchemas") {
		schema.members[word] = member{schema, mapOf}
	}
}
