// Package strictyaml reads YAML as it is written: what a text field gets is the
// source's text, and what could be meant in two ways is an error with its place.
//
//   - Text is what stands there: 22.10, 0755, 2027-01-01, yes and true keep their
//     spelling. Only null (also ~, or nothing at all) is no text: it has to be
//     quoted.
//   - Numbers are decimal, booleans true or false.
//   - Tags are errors, except !!str, !!map and !!seq where they say what is there.
//   - Keys are text; a key that is there twice or that nobody knows is an error.
//   - Anchors, aliases and merge keys (<<) work; what aliases stand for is bounded.
//   - The text is UTF-8; a byte order mark before it is skipped.
//
// Work and memory are linear in the input's size, whatever it holds: at most some
// 200 bytes for each of its bytes. The types to decode into may implement [encoding.TextUnmarshaler] or have a method
// UnmarshalYAML(decode func(any) error) error; their fields are named by the tag
// `yaml:"name,omitempty"`, also `yaml:",inline"` and `yaml:"-"`.
package strictyaml

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

const (
	maxDepth   = 100     // of nested maps and lists
	maxAliased = 4 << 20 // bytes that all aliases together stand for, and 16 for each value
	maxErrors  = 20      // that are reported of one document
	maxQuoted  = 60      // bytes of the source in an error
)

// An Error is a mistake and its place.
type Error struct {
	Line, Column int // from 1, the column in characters; 0 if unknown
	Err          error
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Err.Error()
	}
	return fmt.Sprintf("%d:%d: %v", e.Line, e.Column, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// A Node is a value of a document. Aliases and merge keys are resolved: two
// nodes may share a third.
type Node struct {
	Line, Column int
	// Pairs are a map's keys and values, in order; nil if it is no map.
	Pairs []Pair

	kind  kind
	tag   string // of a scalar: what YAML takes it for, !!str if it is quoted
	text  string
	items []*Node
	// What aliases cost.
	size, height int
}

// A Pair is an entry of a map.
type Pair struct{ Key, Value *Node }

type kind int

const (
	scalar kind = iota
	list
	mapping
)

const (
	tagNull  = "!!null"
	tagText  = "!!str"
	tagMerge = "!!merge"
)

func (n *Node) what() string {
	switch {
	case n.kind == mapping:
		return "a map"
	case n.kind == list:
		return "a list"
	case n.tag == tagNull:
		return "nothing"
	}
	return "text"
}

// IsNull reports whether n is null or empty.
func (n *Node) IsNull() bool { return n.kind == scalar && n.tag == tagNull }

// IsMap reports whether n is a map.
func (n *Node) IsMap() bool { return n.kind == mapping }

// Text is a scalar as it is written; empty for others.
func (n *Node) Text() string { return n.text }

// Items are the values of a list.
func (n *Node) Items() []*Node { return n.items }

// Get returns the value of a map's key; nil if there is none or n is no map.
func (n *Node) Get(key string) *Node {
	for _, p := range n.Pairs {
		if p.Key.text == key {
			return p.Value
		}
	}
	return nil
}

// Filter returns a map with those of n's pairs that keep wants.
func (n *Node) Filter(keep func(Pair) bool) *Node {
	out := *n
	out.Pairs = slices.DeleteFunc(slices.Clone(n.Pairs), func(p Pair) bool { return !keep(p) })
	return &out
}

// Scalars calls visit for each scalar in n, keys included.
func (n *Node) Scalars(visit func(*Node)) {
	if n.kind == scalar {
		visit(n)
	}
	for _, item := range n.items {
		item.Scalars(visit)
	}
	for _, p := range n.Pairs {
		visit(p.Key)
		p.Value.Scalars(visit)
	}
}

// At gives an error the node's position, unless it has one.
func (n *Node) At(err error) error {
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	return &Error{Line: n.Line, Column: n.Column, Err: err}
}

func (n *Node) errorf(format string, args ...any) error { return n.At(fmt.Errorf(format, args...)) }

// Parse reads the one document in data. The error is an [*Error] or joins some.
func Parse(data []byte) (*Node, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if err := checkText(data); err != nil {
		return nil, err
	}
	// The library wants 1.1, and reads 1.2 all the same.
	data = version12.ReplaceAll(data, []byte("${1}1.1"))
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	var document, second yaml.Node
	if err := loader.Load(&document); errors.Is(err, io.EOF) {
		return nil, &Error{Err: errors.New("want one YAML document, found none")}
	} else if err != nil {
		return nil, syntaxError(data, err)
	}
	if err := loader.Load(&second); err == nil {
		return nil, &Error{Line: second.Line, Column: second.Column, Err: errors.New("want one YAML document, a second one begins here")}
	} else if !errors.Is(err, io.EOF) {
		return nil, syntaxError(data, err)
	}
	c := converter{done: make(map[*yaml.Node]*Node)}
	root := c.convert(&document, 0)
	return root, c.errs.join()
}

var version12 = regexp.MustCompile(`\A((?:[ \t]*(?:#[^\n]*)?\r?\n)*%YAML )1\.2`)

// checkText reports the first place that is no text, or not the same text to
// every reader of YAML.
func checkText(data []byte) error {
	switch {
	case bytes.HasPrefix(data, []byte{0xff, 0xfe, 0, 0}), bytes.HasPrefix(data, []byte{0, 0, 0xfe, 0xff}):
		return &Error{Line: 1, Column: 1, Err: errors.New("the file is UTF-32: save it as UTF-8")}
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}), bytes.HasPrefix(data, []byte{0xfe, 0xff}),
		len(data) >= 4 && (data[0] == 0) != (data[1] == 0) && (data[2] == 0) != (data[3] == 0):
		return &Error{Line: 1, Column: 1, Err: errors.New("the file is UTF-16: save it as UTF-8")}
	}
	line, column := 1, 1
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		var mistake error
		switch {
		case r == utf8.RuneError && n == 1:
			mistake = errors.New("a byte that is not UTF-8: save the file as UTF-8")
		case r == '\u0085' || r == '\u2028' || r == '\u2029':
			mistake = fmt.Errorf(`%U ends a line to some readers of YAML and not to others: write it as \u%04x between double quotes`, r, r)
		case r == '\ufeff':
			mistake = fmt.Errorf(`%U, which is invisible: remove it, or write it as \ufeff between double quotes`, r)
		case r < ' ' && r != '\t' && r != '\n' && r != '\r' || r >= 0x7f && r < 0xa0:
			mistake = fmt.Errorf(`the control character %U: write it as \x%02x between double quotes`, r, r)
		case r == '\uffff' || r == '\ufffe':
			mistake = fmt.Errorf("%U is no character", r)
		}
		if mistake != nil {
			return &Error{Line: line, Column: column, Err: mistake}
		}
		i += n
		column++
		if r == '\n' || r == '\r' && !bytes.HasPrefix(data[i:], []byte("\n")) {
			line, column = line+1, 1
		}
	}
	return nil
}

// syntaxError gives the library's error a place in the file; an end that comes
// too early is at the last character.
func syntaxError(data []byte, err error) error {
	var e *yaml.LoadError
	if !errors.As(err, &e) {
		return &Error{Err: err}
	}
	message := e.Message
	if e.ContextMsg != "" {
		message = e.ContextMsg + ": " + message
	}
	line, column := e.Mark.Line, e.Mark.Column
	lines := strings.Split(strings.TrimRight(string(data), "\r\n \t"), "\n")
	if line > len(lines) {
		line, column = len(lines), max(utf8.RuneCountInString(strings.TrimRight(lines[len(lines)-1], "\r")), 1)
	} else if line > 0 {
		if rest := []rune(lines[line-1]); column >= 1 && column <= len(rest) && rest[column-1] == '\t' {
			message = "a tab cannot stand here: indent with spaces"
		}
	}
	if strings.Contains(message, "max depth") {
		message = fmt.Sprintf("nested deeper than %d", maxDepth)
	}
	return &Error{Line: line, Column: column, Err: fmt.Errorf("%.200s", message)}
}

// mistakes are what is wrong with one document, up to maxErrors.
type mistakes []error

func (m *mistakes) add(err error) {
	if len(*m) == maxErrors {
		err = errors.New("and there are more mistakes")
	}
	if len(*m) <= maxErrors {
		*m = append(*m, err)
	}
}

func (m mistakes) join() error { return errors.Join(m...) }

// converter makes Nodes of the library's.
type converter struct {
	done    map[*yaml.Node]*Node // nil while it is being made
	aliased int
	errs    mistakes
}

// convert returns a node in any case; what is wrong with it is in errs.
func (c *converter) convert(y *yaml.Node, depth int) *Node {
	switch y.Kind {
	case yaml.DocumentNode:
		if len(y.Content) != 1 {
			return &Node{tag: tagNull, Line: 1, Column: 1}
		}
		return c.convert(y.Content[0], depth)
	case yaml.AliasNode:
		return c.alias(y, depth)
	}
	n := &Node{Line: y.Line, Column: y.Column, tag: y.Tag, text: y.Value, size: 16 + len(y.Value)}
	if depth > maxDepth {
		c.errs.add(n.errorf("nested deeper than %d", maxDepth))
		return n
	}
	if y.Anchor != "" {
		c.done[y] = nil
		defer func() { c.done[y] = n }()
	}
	c.checkTag(n, y)
	switch y.Kind {
	case yaml.SequenceNode:
		n.kind = list
		for _, child := range y.Content {
			n.items = append(n.items, n.grow(c.convert(child, depth+1)))
		}
	case yaml.MappingNode:
		n.kind = mapping
		c.pairs(n, y.Content, depth+1)
	default:
		if y.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle|yaml.TaggedStyle) != 0 {
			n.tag = tagText
		}
	}
	return n
}

// grow counts a child.
func (n *Node) grow(child *Node) *Node {
	n.size += child.size
	n.height = max(n.height, child.height+1)
	return child
}

func (c *converter) alias(y *yaml.Node, depth int) *Node {
	here := &Node{Line: y.Line, Column: y.Column, tag: tagNull}
	target := c.done[y.Alias]
	if target == nil {
		c.errs.add(here.errorf("alias %.*q stands inside of what it stands for", maxQuoted, y.Value))
		return here
	}
	c.aliased += target.size
	if c.aliased > maxAliased {
		c.aliased = maxAliased + 1 // and no sum overflows
		c.errs.add(here.errorf("aliases stand for more than %d bytes", maxAliased))
		return here
	}
	if depth+target.height > maxDepth {
		c.errs.add(here.errorf("nested deeper than %d", maxDepth))
		return here
	}
	return target
}

// checkTag refuses tags, but for those that say what is there anyway.
func (c *converter) checkTag(n *Node, y *yaml.Node) {
	if y.Style&yaml.TaggedStyle == 0 {
		return
	}
	want := map[yaml.Kind]string{yaml.ScalarNode: tagText, yaml.SequenceNode: "!!seq", yaml.MappingNode: "!!map"}
	if y.Tag != want[y.Kind] && y.Tag != "!" {
		c.errs.add(n.errorf("tag %.*q is not known here: write the value itself, in quotes if it is text", maxQuoted, y.Tag))
	}
}

// pairs fills a map from keys and values in turns.
func (c *converter) pairs(n *Node, content []*yaml.Node, depth int) {
	first := make(map[string]*Node)
	var merged *Node
	for i := 0; i+1 < len(content); i += 2 {
		key := n.grow(c.convert(content[i], depth))
		value := n.grow(c.convert(content[i+1], depth))
		switch {
		case key.kind != scalar:
			c.errs.add(key.errorf("a key must be text, this is %s", key.what()))
			continue
		case key.tag == tagNull:
			c.errs.add(key.errorf("a key must be text, this is null: quote it"))
			continue
		case first[key.text] != nil:
			c.errs.add(key.errorf("duplicate key %.*q, defined in line %d already", maxQuoted, key.text, first[key.text].Line))
			continue
		}
		first[key.text] = key
		if key.tag == tagMerge {
			merged = value
			continue
		}
		n.Pairs = append(n.Pairs, Pair{key, value})
	}
	if merged == nil {
		return
	}
	sources := []*Node{merged}
	if merged.kind == list {
		sources = merged.items
	}
	for _, source := range sources {
		if source.kind != mapping {
			c.errs.add(source.errorf("<< takes a map or a list of maps, this is %s", source.what()))
			continue
		}
		for _, p := range source.Pairs {
			if first[p.Key.text] == nil { // what comes first counts
				first[p.Key.text] = p.Key
				n.Pairs = append(n.Pairs, p)
			}
		}
	}
}

// Errors splits what errors.Join has joined.
func Errors(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range joined.Unwrap() {
			out = append(out, Errors(e)...)
		}
		return out
	}
	return []error{err}
}

// Position is where an error is; zeros if it does not say.
func Position(err error) (line, column int) {
	var e *Error
	if errors.As(err, &e) {
		return e.Line, e.Column
	}
	return 0, 0
}

// byPlace sorts mistakes as they stand in the file.
func byPlace(a, b error) int {
	lineA, columnA := Position(a)
	lineB, columnB := Position(b)
	return cmp.Or(cmp.Compare(lineA, lineB), cmp.Compare(columnA, columnB))
}
