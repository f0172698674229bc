package gateway

import (
	"encoding"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

type object = map[string]any

// openAPI is the OpenAPI 3.1 document of the operations.
func openAPI(ops []adminRoute) []byte {
	s := &schemas{all: object{}}
	problem := s.of(reflect.TypeFor[sdk.Problem]())
	paths := object{}
	for _, op := range ops {
		path := adminPrefix + strings.ReplaceAll(op.path, pathKeySegments+"}", "}")
		item, _ := paths[path].(object)
		if item == nil {
			item = object{}
			paths[path] = item
		}
		for _, method := range methodsOf(op) {
			item[strings.ToLower(method)] = operation(op, method, s, problem)
		}
	}
	doc := object{
		"openapi": "3.1.0",
		"info": object{"title": "Quipu admin API", "version": "1", "license": object{"name": "Apache-2.0", "identifier": "Apache-2.0"},
			"description": "Everything a node shows of itself. The namespace is named by the header " + sdk.HeaderNamespace + " or the parameter namespace. Seqs are 16 hexadecimal digits."},
		"paths":      paths,
		"components": object{"schemas": s.all, "securitySchemes": object{"token": object{"type": "http", "scheme": "bearer"}}},
		"security":   []any{object{}, object{"token": []any{}}},
	}
	text, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("gateway: openapi: %v", err)) // made of maps and strings
	}
	return append(text, '\n')
}

// methodsOf spells out any method as those that OpenAPI has words for.
func methodsOf(op adminRoute) []string {
	if op.method != anyMethod {
		return []string{op.method}
	}
	return []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
}

func operation(op adminRoute, method string, s *schemas, problem object) object {
	id := op.id
	if op.method == anyMethod {
		id += strings.ToUpper(method[:1]) + strings.ToLower(method[1:])
	}
	out := object{"operationId": id, "summary": op.summary, "parameters": parameters(op), "responses": responses(op, s, problem)}
	if op.body != "" && method != http.MethodGet {
		content := object{}
		if op.takes != nil {
			content["schema"] = s.of(reflect.TypeOf(op.takes))
		}
		out["requestBody"] = object{"required": op.method != anyMethod, "content": object{op.body: content}}
	}
	return out
}

var pathParam = regexp.MustCompile(`\{(\w+)(\.\.\.)?\}`)

func parameters(op adminRoute) []any {
	out := []any{}
	for _, m := range pathParam.FindAllStringSubmatch(op.path, -1) {
		p := object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}}
		if m[2] != "" {
			p["description"] = "may have slashes, escaped or not"
		}
		out = append(out, p)
	}
	query := op.query
	if op.method != anyMethod {
		query = append(slices.Clone(query), param{"namespace", "string", "default: " + sdk.NamespaceDefault})
	}
	for _, p := range query {
		out = append(out, object{"name": p.name, "in": "query", "description": p.about, "schema": paramSchema(p.kind)})
	}
	for _, p := range op.header {
		out = append(out, object{"name": p.name, "in": "header", "description": p.about, "schema": paramSchema(p.kind)})
	}
	return out
}

func paramSchema(kind string) object {
	switch kind {
	case "seq":
		return object{"type": "string", "pattern": "^[0-9a-f]{1,16}$"}
	case "strings":
		return object{"type": "array", "items": object{"type": "string"}}
	}
	return object{"type": kind}
}

func responses(op adminRoute, s *schemas, problem object) object {
	good := object{"description": http.StatusText(op.status)}
	if op.reply != "" {
		content := object{}
		if op.shape != nil {
			content["schema"] = s.of(reflect.TypeOf(op.shape))
		}
		good["content"] = object{op.reply: content}
	}
	out := object{strconv.Itoa(op.status): good,
		"default": object{"description": "a problem", "content": object{jsonType: object{"schema": problem}}}}
	for status, codes := range byStatus(op.codes) {
		out[status] = object{"description": codes, "content": object{jsonType: object{"schema": problem}}}
	}
	return out
}

// byStatus joins codes and titles that share a status.
func byStatus(codes []quipu.Code) map[string]string {
	out := map[string]string{}
	for _, c := range codes {
		status := strconv.Itoa(quipu.Codes[c].Status)
		text := string(c) + " " + quipu.Codes[c].Title
		if out[status] != "" {
			text = out[status] + "; " + text
		}
		out[status] = text
	}
	return out
}

// schemas turns Go types into JSON schemas, structs once each by name.
type schemas struct{ all object }

var textual = reflect.TypeFor[encoding.TextMarshaler]()

func (s *schemas) of(t reflect.Type) object {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[quipu.Seq]():
		return object{"type": "string", "pattern": "^[0-9a-f]{16}$"}
	case t.Implements(textual):
		return object{"type": "string"}
	case t == reflect.TypeFor[json.RawMessage]():
		return object{} // any value
	case t == reflect.TypeFor[[]byte]():
		return object{"type": "string", "contentEncoding": "base64"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.of(t.Elem())
	case reflect.Slice:
		return object{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.Struct:
		return s.ofStruct(t)
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int64, reflect.Int32, reflect.Uint64, reflect.Uint32:
		return object{"type": "integer"}
	}
	panic(fmt.Sprintf("gateway: %s has no place in the admin API", t)) // found by New, in every test
}

func (s *schemas) ofStruct(t reflect.Type) object {
	name := typeName(t)
	ref := object{"$ref": "#/components/schemas/" + name}
	if s.all[name] != nil {
		return ref
	}
	properties, required := object{}, []string{}
	schema := object{"type": "object", "properties": properties, "additionalProperties": false}
	s.all[name] = schema // before its fields, which may refer to it
	for _, f := range fieldsOf(t) {
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == "-" {
			continue
		}
		properties[tag] = s.of(f.Type)
		if options == "" {
			required = append(required, tag)
		}
	}
	schema["required"] = required
	return ref
}

// fieldsOf has the fields of embedded structs in their place, as JSON has.
func fieldsOf(t reflect.Type) (all []reflect.StructField) {
	for i := range t.NumField() {
		if f := t.Field(i); f.Anonymous && f.Tag.Get("json") == "" {
			all = append(all, fieldsOf(f.Type)...)
		} else {
			all = append(all, f)
		}
	}
	return all
}

// typeName makes "Function" of quipu.Function and "FunctionPage" of sdk.Page[quipu.Function].
func typeName(t reflect.Type) string {
	name, of, generic := strings.Cut(t.Name(), "[")
	if !generic {
		return name
	}
	of = strings.TrimSuffix(of, "]")
	return of[strings.LastIndex(of, ".")+1:] + name
}
