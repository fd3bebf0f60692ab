package imagefactory

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	yaml4 "go.yaml.in/yaml/v4"

	"github.com/opentelekomcloud/go-imagefactory/capabilities"
	"github.com/opentelekomcloud/go-imagefactory/internal/strictyaml"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

var update = flag.Bool("update", false, "write definition.schema.json anew")

const schemaFile = "definition.schema.json"

// TestSchema generates the JSON schema of definition files from the types that
// the loader decodes into.
func TestSchema(t *testing.T) {
	want := schema(t)
	if *update {
		require.NoError(t, os.WriteFile(schemaFile, want, 0o644))
	}
	have, err := os.ReadFile(schemaFile)
	require.NoError(t, err)
	require.Equal(t, string(want), string(have), "go test ./imagefactory -run TestSchema -update")
}

type object = map[string]any

func schema(t *testing.T) []byte {
	g := generator{comments: comments(t), defs: object{
		// As the loader takes it: what editors hold for a number is text too.
		"Text": object{"type": []string{"string", "number", "boolean"}},
	}}
	heirs := g.reference(reflect.TypeFor[heir]())
	document := object{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Definitions of an image factory", "type": "object",
		"required": []string{"images"}, "additionalProperties": false, "patternProperties": object{"^x-": object{}},
		"properties": object{"images": object{"type": "array", "minItems": 1, "items": heirs}}, "$defs": g.defs,
	}
	image := g.defs["Definition"].(object)
	image["patternProperties"] = object{"^x-": object{}}
	image["if"] = object{"required": []string{"from"}}
	image["else"] = object{
		"required": []string{"name", "os", "disk", "builder"},
		"properties": object{
			"os":            object{"required": []string{"distribution", "version"}},
			"repositories+": false, "notes+": false,
			"test": object{"properties": object{"waivers+": false, "required_packages+": false, "forbidden_packages+": false}},
		},
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	require.NoError(t, encoder.Encode(document))
	return out.Bytes()
}

type generator struct {
	defs     object
	comments map[string]string // by type and field, "Definition.Name"
}

// required are the keys that an entry of a list cannot be without.
var required = map[string][]string{"TrustedKey": {"file"}, "Repository": {"name", "url"}, "Waiver": {"check", "reason", "expires"}}

func (g *generator) schema(typ reflect.Type) object {
	switch typ {
	case reflect.TypeFor[Size]():
		return object{"type": "string", "pattern": "^0*[1-9][0-9]* ?(TiB|TB|GiB|GB|MiB|MB)$", "examples": []string{"4GiB"}}
	case reflect.TypeFor[Date]():
		return object{"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}
	case reflect.TypeFor[capabilities.Set]():
		text := g.schema(reflect.TypeFor[string]())
		return object{"anyOf": []object{text, {"type": "array", "items": text}}}
	case reflect.TypeFor[testsuite.Severity]():
		return object{"enum": []testsuite.Severity{testsuite.Low, testsuite.Medium, testsuite.High, testsuite.Critical}}
	case reflect.TypeFor[PackageRelation]():
		return object{"type": []string{"string", "number", "boolean"}, "pattern": `^[A-Za-z0-9+._~*?^\[\]\\-]+(\s*(<<|<=|=|>=|>>)\s*[^\s<>=]+)?$`}
	case reflect.TypeFor[Threshold]():
		return object{"enum": []Threshold{"low", "medium", "high", "critical", Never}}
	case reflect.TypeFor[Period]():
		return object{"enum": []Period{EveryNight, EveryMonth}}
	case reflect.TypeFor[testsuite.UVPState]():
		return object{"enum": []testsuite.UVPState{testsuite.UVPRequired, testsuite.UVPOptional, testsuite.UVPForbidden}}
	case reflect.TypeFor[Component]():
		return object{
			"type": "object", "minProperties": 1, "maxProperties": 2, "properties": object{"host": g.schema(reflect.TypeFor[string]()), "name": g.schema(reflect.TypeFor[string]())},
			"if":   object{"anyOf": []object{{"required": []string{"host"}}, {"required": []string{"name"}}}},
			"then": object{"minProperties": 2}, "else": object{"maxProperties": 1}, "not": object{"required": []string{"host", "name"}},
		}
	}
	switch typ.Kind() {
	case reflect.String:
		return object{"$ref": "#/$defs/Text"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int:
		return object{"type": "integer"}
	case reflect.Slice:
		return object{"type": "array", "items": g.schema(typ.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": g.schema(typ.Elem())}
	case reflect.Struct:
		return g.reference(typ)
	}
	panic("no schema for " + typ.String())
}

// reference defines a struct once. What inherits is the Definition, and its Test.
func (g *generator) reference(typ reflect.Type) object {
	name := typ.Name()
	switch {
	case typ == reflect.TypeFor[heir]():
		name = "Definition"
	case name == "":
		name = "Test"
	}
	if g.defs[name] == nil {
		properties := object{}
		g.defs[name] = object{"type": "object", "additionalProperties": false, "properties": properties}
		g.fields(properties, typ, name)
		if keys := required[name]; keys != nil {
			g.defs[name].(object)["required"] = keys
		}
	}
	return object{"$ref": "#/$defs/" + name}
}

func (g *generator) fields(properties object, typ reflect.Type, owner string) {
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case options == "inline":
			g.fields(properties, f.Type, owner)
			continue
		case name == "-" || !f.IsExported() || properties[name] != nil:
			continue
		}
		s := g.schema(f.Type)
		if text := g.comments[owner+"."+f.Name]; text != "" {
			s["description"] = text
		}
		properties[name] = s
	}
}

var docLink = regexp.MustCompile(`\[([A-Za-z.]+)\]`)

// comments are the documentation of the structs' fields.
func comments(t *testing.T) map[string]string {
	out := make(map[string]string)
	for _, name := range []string{"definition.go", "gate.go", "renewal.go", "report.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		require.NoError(t, err)
		addComments(file, out)
	}
	return out
}

func addComments(file *ast.File, out map[string]string) {
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if s, ok := spec.Type.(*ast.StructType); ok {
			for _, f := range s.Fields.List {
				text := f.Doc.Text() + f.Comment.Text()
				for _, name := range f.Names {
					out[spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(docLink.ReplaceAllString(text, "$1")), " ")
				}
			}
		}
		return false
	})
}

func compiled(t *testing.T) *jsonschema.Schema {
	data, err := os.ReadFile(schemaFile)
	require.NoError(t, err)
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	require.NoError(t, err)
	compiler := jsonschema.NewCompiler()
	require.NoError(t, compiler.AddResource(schemaFile, document))
	s, err := compiler.Compile(schemaFile)
	require.NoError(t, err)
	return s
}

// asEditors reads YAML as an editor does that knows nothing of the loader.
func asEditors(t *testing.T, text string) any {
	var v any
	require.NoError(t, yaml4.Unmarshal([]byte(text), &v), text)
	return plain(v)
}

func plain(v any) any {
	switch v := v.(type) {
	case time.Time:
		return v.Format(time.DateOnly)
	case int:
		return json.Number(fmt.Sprint(v))
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = plain(v[k])
		}
	case map[any]any: // with keys such as 22.10
		m := make(map[string]any)
		for k, e := range v {
			m[fmt.Sprint(k)] = plain(e)
		}
		return m
	}
	return v
}

func TestSchemaAcceptsWhatTheLoaderAccepts(t *testing.T) {
	s := compiled(t)
	nightly, err := os.ReadFile("../examples/nightly/nightly.yaml")
	require.NoError(t, err)
	files := []string{
		string(nightly), minimal, "x-a: &a 4GiB\n" + strings.Replace(minimal, "4GiB", "*a", 1),
		minimal + "    notes: [22.10, 0755, yes, true]\n    properties: {a: 64, b: true}\n    x-a: [b]\n    capabilities: [kvm-virtio, bios]\n",
		minimal + "    capabilities: 0x4\n    test: {waivers: [{check: sshd.macs, reason: r, expires: 2027-06-30}]}\n    publish: [{directory: }]\n    uvp_monitor: {state: optional, reason: r}\n",
		"images:\n  - from: Standard_Debian_9\n    notes+: [a]\n    repositories+: []\n    test: {required_packages+: [b], waivers+: []}\n    os: {version: 9}\n",
	}
	for _, e := range Catalog() {
		d := e.Definition()
		if e.Driver == "" {
			d.Builder = Component{Driver: "existing", Config: map[string]any{}}
		}
		data, err := MarshalDefinitions([]Definition{d})
		require.NoError(t, err)
		files = append(files, string(data))
	}
	for _, text := range files {
		_, err := parse("f.yaml", "/", []byte(text))
		assert.NoError(t, err, text)
		assert.NoError(t, s.Validate(asEditors(t, text)), text)
	}
}

func TestSchemaRefusesWhatTheLoaderRefuses(t *testing.T) {
	s := compiled(t)
	without := func(line string) string {
		return regexp.MustCompile(`(?m)^    `+line+`.*\n`).ReplaceAllString(minimal, "")
	}
	for _, text := range []string{
		"{}", "[]", "images: []", "images: {}", "images: [~]", "images: [x]", minimal + "more: 1\n", minimal + "    nots: [a]\n", minimal + "    notes: x\n", minimal + "    notes: [~]\n", minimal + "    notes: [[a]]\n",
		without("disk"), without("os"), without("builder"), strings.Replace(minimal, "name: Standard_Debian_12", "user: linux", 1), strings.Replace(minimal, "distribution: debian, ", "", 1), strings.Replace(minimal, ", version: \"12\"", "", 1),
		strings.Replace(minimal, "4GiB", "4", 1), strings.Replace(minimal, "4GiB", "4G", 1), strings.Replace(minimal, "4GiB", "0GiB", 1), strings.Replace(minimal, "4GiB", "4.5GiB", 1), minimal + "    min_disk: [4GiB]\n",
		strings.Replace(minimal, "{dib: {elements: [vm]}}", "dib", 1), strings.Replace(minimal, "{dib: {elements: [vm]}}", "{dib: {}, kiwi: {}}", 1), strings.Replace(minimal, "{dib: {elements: [vm]}}", "{}", 1),
		minimal + "    publish: [directory]\n", minimal + "    uvp_monitor: {state: maybe}\n", minimal + "    test: {waivers: [{check: sshd.macs, reason: r}]}\n", minimal + "    test: {waivers: [{check: sshd.macs, reason: r, expires: soon}]}\n",
		minimal + "    repositories: [{name: a}]\n", minimal + "    repositories: [{url: \"http://a/\"}]\n", minimal + "    trusted_keys: [{}]\n", minimal + "    mirrors: [a]\n", minimal + "    properties: {a: [b]}\n", minimal + "    notes+: [a]\n", minimal + "    repositories+: []\n", minimal + "    test: {waivers+: []}\n", minimal + "    test: {required_packages+: []}\n",
		minimal + "    capabilities: {a: b}\n", minimal + "    test: {x-a: b}\n", "images:\n  - from: [a]\n",
	} {
		_, err := parse("f.yaml", "/", []byte(text))
		assert.Error(t, err, text)
		assert.Error(t, s.Validate(asEditors(t, text)), text)
	}
}

// Every key takes the same kinds of values from the schema as from the loader.
func TestSchemaAndLoaderTakeTheSameTypes(t *testing.T) {
	s := compiled(t)
	var document struct {
		Defs map[string]struct {
			Properties map[string]struct{} `json:"properties"`
		} `json:"$defs"`
	}
	data, err := os.ReadFile(schemaFile)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &document))
	complete := map[string]string{ // a good value around each kind of struct, for its key %s
		"Definition": "%s", "OS": "os: {%s}", "Test": "test: {%s}", "UVPMonitor": "uvp_monitor: {%s}", "Waiver": "test: {waivers: [{%s}]}", "TrustedKey": "trusted_keys: [{%s}]", "Repository": "repositories: [{%s}]",
		"Gate": "gate: {%s}", "Rule": "gate: {versions: {%s}}", "Renewal": "renewal: {%s}",
	}
	others := map[string]map[string]string{
		"Waiver": {"check": "sshd.macs", "reason": "r", "expires": "2027-06-30"}, "TrustedKey": {"file": "/f"}, "Repository": {"name": "a", "url": "http://a/"},
	}
	values := []string{"text", "\"12\"", "12", "1.5", "true", "~", "[]", "[a]", "[~]", "{}", "{a: b}", "{a: [b]}", "4GiB", "2027-06-30", "required", "[{a: {}}]"}
	compared := 0
	for name, def := range document.Defs {
		for key := range def.Properties {
			require.Contains(t, complete, name)
			for _, value := range values {
				entry := key + ": " + value
				for _, other := range slices.Sorted(maps.Keys(others[name])) {
					if other != key {
						entry += fmt.Sprintf(", %s: %q", other, others[name][other])
					}
				}
				text := "images: [{" + fmt.Sprintf(complete[name], entry)
				if key != "from" {
					text += ", from: Standard_Debian_9"
				} else if value != "~" && !strings.ContainsAny(value, "[{") {
					continue // the catalog's to say
				}
				text += "}]"
				node, err := strictyaml.Parse([]byte(text))
				require.NoError(t, err, text)
				_, byLoader := decodeDefinition(node.Get("images").Items()[0])
				if byLoader != nil && !strings.Contains(byLoader.Error(), "want ") && !strings.Contains(byLoader.Error(), "null") && !strings.Contains(byLoader.Error(), "unknown field") && !strings.Contains(byLoader.Error(), "driver") {
					byLoader = nil // a mistake in what it says
				}
				bySchema := s.Validate(asEditors(t, text))
				assert.Equal(t, byLoader == nil, bySchema == nil, "%s\nloader: %v\nschema: %v", text, byLoader, bySchema)
				compared++
			}
		}
	}
	require.Greater(t, compared, 500)
}
