package strictyaml

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type upper string

func (u *upper) UnmarshalText(text []byte) error {
	if strings.ToUpper(string(text)) != string(text) {
		return errors.New("want upper case")
	}
	*u = upper(text)
	return nil
}

type either struct{ list []string }

func (e *either) UnmarshalYAML(decode func(any) error) error {
	var text string
	if decode(&text) == nil {
		e.list = []string{text}
		return nil
	}
	return decode(&e.list)
}

type embedded struct {
	Inner string `yaml:"inner"`
}

type all struct {
	embedded2 `yaml:",inline"`
	Text      string            `yaml:"text,omitempty"`
	Texts     []string          `yaml:"texts,omitempty"`
	Map       map[string]string `yaml:"map,omitempty"`
	Sub       struct {
		A, B string
	} `yaml:"sub,omitempty"`
	Upper    upper         `yaml:"upper,omitempty"`
	Either   either        `yaml:"either,omitempty"`
	Bool     bool          `yaml:"bool,omitempty"`
	Int      int8          `yaml:"int,omitempty"`
	Uint     uint16        `yaml:"uint,omitempty"`
	Float    float64       `yaml:"float,omitempty"`
	Duration time.Duration `yaml:"duration,omitempty"`
	Pointer  *int          `yaml:"pointer,omitempty"`
	Any      any           `yaml:"any,omitempty"`
	Node     *Node         `yaml:"node,omitempty"`
	Hidden   string        `yaml:"-"`
}

type embedded2 = embedded

func decode(text string) (all, error) {
	var v all
	n, err := Parse([]byte(text))
	if err == nil {
		err = n.Decode(&v)
	}
	return v, err
}

// Text is the source's, whatever YAML takes it for.
func TestTextIsAsWritten(t *testing.T) {
	for _, text := range []string{
		"22.10", "5.10", "0755", "0x1F", "0o17", "0b101", "1_000", "1e3", ".5", "5.", "+5", "-0", "1:30", "190:20:30", ".inf", "-.INF", ".nan",
		"yes", "no", "on", "off", "y", "N", "true", "False", "2027-01-01", "2027-01-01T00:00:00Z", "123456789012345678901234567890", "00", "=", "<x", "a#b", "a:b",
		"http://a/b", "C:\\x", "a 'b' \"c\"", "-x", "- x"[1:] + "x", "?x", "@x"[1:], "é", "日本", "a,b", "[0]"[1:2],
	} {
		text = strings.TrimSpace(text)
		for _, form := range []string{"text: %s", "text: %s # comment", "texts: [%s]", "texts:\n- %s\n", "texts:\n  - %s", "map: {k: %s}", "map:\n  k: %s\n", "map: {%s: v}", "text: !!str %s", "text: &a %s", "x: 1\r\ntext: %s\r\n"} {
			if strings.ContainsAny(text, ",") && strings.ContainsAny(form, "[{") {
				continue
			}
			form, _ = strings.CutPrefix(form, "x: 1\r\n")
			source := fmt.Sprintf(form, text)
			got, err := decode(source)
			if !assert.NoError(t, err, source) {
				continue
			}
			found := got.Text
			for k, v := range got.Map {
				if found = v; v == "v" {
					found = k
				}
			}
			if got.Texts != nil {
				found = got.Texts[0]
			}
			assert.Equal(t, text, found, source)
		}
	}
	for source, want := range map[string]string{
		`text: "0755"`: "0755", `text: '~'`: "~", `text: ""`: "", `text: "a\tb\u2028\x00"`: "a\tb\u2028\x00", "text: 'it''s'": "it's",
		"text: |\n  a\n\n   b\n": "a\n\n b\n", "text: >-\n  a\n  b\n\n  c\n": "a b\nc", "text: |+\n  a\n\n": "a\n\n", "text: |-\r\n  a\r\n  b\r\n": "a\nb",
		"text: a\n  b": "a b", "text: \"a\\\n  b\"": "ab", "\ufefftext: x": "x", "---\ntext: x\n...\n": "x", "%YAML 1.2\n---\ntext: x\n": "x", "# c\n\n%YAML 1.2 # d\n---\ntext: x\n": "x", "%YAML 1.1\n---\ntext: x\n": "x",
		"text: ! x": "x", "text: !!str ~": "~", "{text: x}": "x", "{\"text\":\"x\"}": "x", "text:\t x": "x", "? text\n: x": "x",
	} {
		got, err := decode(source)
		require.NoError(t, err, source)
		require.Equal(t, want, got.Text, source)
	}
}

func TestMistakes(t *testing.T) {
	for source, want := range map[string]string{
		// No text.
		"text: ~":       "1:7: ~ is null and not text: quote it",
		"text: null":    "1:7: null is null and not text",
		"text: NULL":    "1:7: NULL is null",
		"text:":         "1:6: want text, found nothing",
		"texts: [~]":    "1:9: ~ is null",
		"texts:\n- \n":  "2:2: want text, found nothing",
		"map: {a: }":    "want text, found nothing",
		"map: {a: [x]}": "1:10: want text, found a list",
		"text: {a: b}":  "1:7: want text, found a map",
		// Not the kind that is wanted.
		"texts: x":       "1:8: want a list, found text",
		"texts:":         "1:7: want a list, found nothing: leave the key out",
		"map: [a]":       "1:6: want a map, found a list",
		"sub: x":         "1:6: want a map, found text",
		"sub: ~":         "1:6: want a map, found nothing",
		"upper: x":       "1:8: want upper case",
		"upper: ~":       "1:8: ~ is null",
		"bool: yes":      `1:7: want true or false, found "yes"`,
		"bool: \"true\"": `1:7: want true or false`,
		"int: 0x10":      `1:6: want a whole number (int8), found "0x10"`,
		"int: 010":       "1:6: want a whole number",
		"int: 1_0":       "1:6: want a whole number",
		"int: 200":       "1:6: want a whole number",
		"int: 1.0":       "1:6: want a whole number",
		"int: \"1\"":     "1:6: want a whole number",
		"uint: -1":       "1:7: want a whole number from 0",
		"uint: 65536":    "1:7: want a whole number from 0",
		"float: .inf":    "1:8: want a number",
		"float: 1:30":    "1:8: want a number",
		"duration: 5":    "1:11: want a duration",
		"either: {a: b}": "1:9: want a list, found a map",
		// Keys.
		"txet: x":                `1:1: unknown field "txet"; the nearest known is text`,
		"sub: {c: x}":            `1:7: unknown field "c"`,
		"hidden: x":              `unknown field "hidden"`,
		"text: a\ntext: b":       `2:1: duplicate key "text", defined in line 1 already`,
		"map: {a: b, \"a\": c}":  `1:13: duplicate key "a", defined in line 1 already`,
		"any: {a: {b: 1, b: 2}}": `1:17: duplicate key "b"`,
		"? [a]\n: b":             "1:3: a key must be text, this is a list",
		"? {a: b}\n: c":          "1:3: a key must be text, this is a map",
		"~: x":                   "1:1: a key must be text, this is null: quote it",
		": x":                    "a key must be text, this is null",
		// Tags.
		"text: !include x":             `1:7: tag "!include" is not known here`,
		"text: !env X":                 `1:7: tag "!env" is not known here`,
		"text: !!binary aGk=":          `1:7: tag "!!binary"`,
		"float: !!float 1":             `1:8: tag "!!float"`,
		"int: !!int \"1\"":             `tag "!!int"`,
		"text: !!null x":               `tag "!!null"`,
		"text: !!timestamp 2027-01-01": `tag "!!timestamp"`,
		"map: !x {a: b}":               `1:6: tag "!x"`,
		"texts: !x [a]":                `1:8: tag "!x"`,
		"texts: !!set {a}":             `1:8: tag "!!set"`,
		"!x text: y":                   `1:1: tag "!x"`,
		"map: {!x a: b}":               `tag "!x"`,
		"!x\ntext: y":                  `tag "!x"`,
		"text: !<tag:x,2027:y> z":      "is not known here",
		"text: !\"x\" y":               "",
		"text: !include\n":             `tag "!include"`,
		// Anchors.
		"text: *a":                      "1:7: ",
		"any: &a [*a]":                  "1:10: alias \"a\" stands inside of what it stands for",
		"any: &a {b: *a}":               "stands inside",
		"any: &a {<<: *a}":              "stands inside",
		"any: {<<: x}":                  "1:11: << takes a map or a list of maps, this is text",
		"any: {<<: [x]}":                "1:12: << takes a map",
		"any: {<<: {a: b}, <<: {c: d}}": `duplicate key "<<"`,
		// Bytes.
		"\xff\xfet\x00e\x00":     "1:1: the file is UTF-16",
		"\xfe\xff\x00t\x00e":     "1:1: the file is UTF-16",
		"t\x00e\x00x\x00t\x00":   "1:1: the file is UTF-16",
		"\x00t\x00e\x00x\x00t":   "1:1: the file is UTF-16",
		"\xff\xfe\x00\x00":       "1:1: the file is UTF-32",
		"text: a\xffb":           "1:8: a byte that is not UTF-8",
		"text: a\n# \x00":        "2:3: the control character U+0000",
		"text: a\x1bb":           "1:8: the control character U+001B",
		"text: a\u0080b":         "1:8: the control character U+0080",
		"text: \"a\u2028b\"":     `1:9: U+2028 ends a line to some readers of YAML and not to others: write it as \u2028`,
		"text: a\u0085b":         "1:8: U+0085 ends a line",
		"text: x\n\ufefftext: y": "2:1: U+FEFF, which is invisible",
		// Documents.
		"":                         "want one YAML document, found none",
		"# c\n":                    "want one YAML document, found none",
		"text: x\n---\ntext: y":    "a second one begins here",
		"text: x\n--- [":           "2:",
		"[":                        "1:1: ",
		"text: [":                  "1:7: ",
		"\ttext: x":                "1:1: a tab cannot stand here: indent with spaces",
		"sub:\n\ta: x":             "2:1: a tab cannot stand here",
		"text: a: b":               "1:",
		"text: 'x":                 "1:",
		"%YAML 3.0\n---\n":         "1:1: ",
		"~":                        "1:1: want a map, found nothing",
		"- a":                      "1:1: want a map, found a list",
		"x":                        "1:1: want a map, found text",
		strings.Repeat("[", 1<<20): "nested deeper than 100",
		"any: " + strings.Repeat("[", 110) + strings.Repeat("]", 110): "1:106: nested deeper than 100",
		strings.Repeat("- ", 1<<20):                                   "nested deeper than 100",
		strings.Repeat("? ", 1<<20):                                   "nested deeper than 100",
		strings.Repeat("{a: ", 1<<20):                                 "nested deeper than 100",
	} {
		_, err := decode(source)
		if want == "" {
			continue // either way
		}
		if assert.ErrorContains(t, err, want, "%.80q", source) {
			for _, err := range Errors(err) {
				var e *Error
				assert.ErrorAs(t, err, &e)
				assert.Less(t, len(err.Error()), 300)
			}
		}
	}
}

func TestValues(t *testing.T) {
	got, err := decode(`
inner: x
sub: {a: 1, b: two}
upper: ABC
either: x
bool: true
int: -128
uint: 65535
float: 1.5e3
duration: 1m30s
pointer: 5
any: {a: [1, 1.5, 0755, "1", true, ~, 22.10]}
node: [x]
`)
	require.NoError(t, err)
	five := 5
	require.NotNil(t, got.Node)
	got.Node = nil
	require.Equal(t, all{
		embedded2: embedded{"x"}, Sub: struct{ A, B string }{"1", "two"}, Upper: "ABC", Either: either{[]string{"x"}}, Bool: true, Int: -128, Uint: 65535,
		Float: 1500, Duration: 90 * time.Second, Pointer: &five, Any: map[string]any{"a": []any{1, 1.5, "0755", "1", true, nil, "22.10"}},
	}, got)
}

func TestAnchorsAndMergeKeys(t *testing.T) {
	n, err := Parse([]byte("a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc: {<<: *a, y: 5}\nd: {<<: [*b, *a], w: 0}\ne: *a\nf: {\"<<\": g}\n"))
	require.NoError(t, err)
	require.Equal(t, map[string]any{
		"a": map[string]any{"x": 1, "y": 2}, "b": map[string]any{"y": 3, "z": 4}, "c": map[string]any{"x": 1, "y": 5},
		"d": map[string]any{"w": 0, "x": 1, "y": 3, "z": 4}, "e": map[string]any{"x": 1, "y": 2}, "f": map[string]any{"<<": "g"},
	}, n.Value())
}

// What a few lines can stand for is bounded.
func TestAliasesAreBounded(t *testing.T) {
	bomb := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	merge := "a0: &a0 {x: y}\n"
	for i := 1; i < 40; i++ {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
		merge += fmt.Sprintf("a%d: &a%d {b: *a%d, c: *a%d, <<: *a%d}\n", i, i, i-1, i-1, i-1)
	}
	long := "a: &a " + strings.Repeat("x", 1<<20) + "\nb: [" + strings.Repeat("*a, ", 1000) + "*a]\n"
	for _, source := range []string{bomb, merge, long} {
		_, err := Parse([]byte(source))
		require.ErrorContains(t, err, "aliases stand for more than 4194304 bytes")
	}
	deep := "a0: &a0 [x]\n"
	for i := 1; i < 200; i++ {
		deep += fmt.Sprintf("a%d: &a%d [*a%d]\n", i, i, i-1)
	}
	_, err := Parse([]byte(deep))
	require.ErrorContains(t, err, "nested deeper than 100")
}

// Half a megabyte of each shape that makes a reader slow is read in linear time:
// a quadratic one would not come to its end here.
func TestLargeFiles(t *testing.T) {
	const size = 512 << 10
	for name, unit := range map[string]string{
		"keys": "k%d: v\n", "list": "- a\n", "lists": "- [a, b, c]\n", "quoted": "- \"a\\n\"\n", "literal": "- |\n  x\n", "comments": "# c\n", "blank": "\n",
		"anchors": "- &a%d x\n- *a%d\n", "plain": "a\n", "duplicates": "k: v\n", "tags": "- !x y\n", "nulls": "- \n", "spaces": "          ",
		"brackets": "[", "braces": "[{", "aliases": "&a [*a,", "tag": "!a ", "anchor": "&a ",
	} {
		var b strings.Builder
		for i := 0; b.Len() < size; i++ {
			b.WriteString(strings.ReplaceAll(unit, "%d", fmt.Sprint(i)))
		}
		if n, err := Parse([]byte(b.String())); err == nil {
			var v any
			require.NoError(t, n.Decode(&v), name)
		}
	}
}

func TestMarshal(t *testing.T) {
	for _, text := range []string{
		"", " ", "a ", " a", "\t", "a\tb", "? x", "- a", "-", "?", "#", "a #b", "a: b", "a:", "~", "null", "true", "yes", "y", "0755", "1e3", "22.10", "2027-01-01", "1:30", ".inf",
		"\n", "a\nb", "a\n", "\r\n", "\u0085", "\u2028", "\u2029", "\ufeff", "\x00", "\x1b", "\x7f", "\u00a0", "é", "😀", "\ufffd", "\ufffe", "'", "\"", "\\", "<<", "*a", "&a", "!a", "|", ">", "%a", "@", "`", "{", "[a]", ", ", "---", "...", "=",
		strings.Repeat("a b ", 200), strings.Repeat("x", 5000),
	} {
		want := all{Text: text, Texts: []string{text, text}, Map: map[string]string{text: text, "x": text}, Any: map[string]any{"a": text}}
		data, err := Marshal(want)
		require.NoError(t, err)
		got, err := decode(string(data))
		require.NoError(t, err, "%q: %s", text, data)
		require.Equal(t, want, got, string(data))
	}
	_, err := Marshal(map[string]string{"a": "\xff"})
	require.ErrorContains(t, err, "not UTF-8")
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"text: !include x", "texts: [~]", "- \n", "a: &a [*a]", "<<: {a: b}", "? x\n: y", "\ufeffa: 'b'", "a: |\n  b\n", "a: >-\n b\n\n c", "%YAML 1.2\n---\na\n...\n", "a: \"\\u2028\"", "\xff\xfea\x00",
		"{a: [b, {c: d}]} # x", "a: *b", "k: v\r\nk: w\r\n", "\t- a", "!!str a: !!map {}",
	} {
		f.Add([]byte(s))
	}
	example, err := os.ReadFile("../../examples/nightly/nightly.yaml")
	require.NoError(f, err)
	f.Add(example)
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := Parse(data)
		for _, err := range Errors(err) {
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("%T: %v", err, err)
			}
		}
		if err != nil {
			return
		}
		var v all
		for _, err := range Errors(n.Decode(&v)) {
			// What is missing at the end is behind the last line.
			if line, column := Position(err); line < 1 || column < 1 || strings.Count(string(data), "\n")+strings.Count(string(data), "\r")+2 < line {
				t.Fatalf("%d:%d: %v", line, column, err)
			}
		}
		// What is read is written and read again.
		var one, two any
		require.NoError(t, n.Decode(&one))
		text, err := Marshal(one)
		require.NoError(t, err)
		again, err := Parse(text)
		require.NoError(t, err, string(text))
		require.NoError(t, again.Decode(&two))
		require.Equal(t, one, two, string(text))
	})
}

func FuzzMarshal(f *testing.F) {
	for _, s := range []string{"? x", "\t", "- a", "#", "\u2028", "0755", "~", " a ", "a\r\nb"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, key, text string) {
		if !utf8.ValidString(key) || !utf8.ValidString(text) {
			return
		}
		want := all{Text: text, Texts: []string{text}, Map: map[string]string{key: text}}
		data, err := Marshal(want)
		require.NoError(t, err)
		got, err := decode(string(data))
		require.NoError(t, err, string(data))
		require.Equal(t, want, got, string(data))
	})
}

// TestMarshalEnds: what holds itself, or stands for far more than it is, is an
// error. The library would overflow the stack, which nothing can contain.
func TestMarshalEnds(t *testing.T) {
	type ring struct {
		Name string
		Next *ring `yaml:"next,omitempty"`
	}
	type child struct {
		Name   string
		Parent *ring `yaml:"-"`
	}
	pointers := &ring{Name: "a"}
	pointers.Next = &ring{Name: "b", Next: pointers}
	self := map[string]any{}
	self["self"] = self
	list := make([]any, 1)
	list[0] = list
	var wide any = "x"
	for range 60 {
		wide = []any{wide, wide}
	}
	for name, v := range map[string]any{"pointers": pointers, "map": self, "list": list, "wide": wide} {
		_, err := Marshal(v)
		assert.ErrorContains(t, err, "cannot write", name)
	}

	data, err := Marshal([]any{&ring{Name: "a", Next: &ring{Name: "b"}}, child{Name: "c", Parent: pointers}, pointers.Next.Name, nil})
	require.NoError(t, err)
	assert.Equal(t, "- name: a\n  next:\n    name: b\n- name: c\n- b\n- null\n", string(data))
}
