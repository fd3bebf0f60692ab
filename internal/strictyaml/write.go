package strictyaml

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Marshal writes v so that every reader of YAML takes it for the same: text that
// is no plain word is in double quotes, a line each. It refuses what
// holds itself: the library would overflow the stack, which ends the process.
func Marshal(v any) ([]byte, error) {
	if err := new(measure).value(reflect.ValueOf(v), 0); err != nil {
		return nil, err
	}
	var n yaml.Node
	if err := n.Dump(v); err != nil {
		return nil, err
	}
	if err := quote(&n); err != nil {
		return nil, err
	}
	return yaml.Dump(&n, yaml.WithIndent(2), yaml.WithLineWidth(-1), yaml.WithUnicode(false))
}

const (
	// maxLevels is how deep Go's values may be nested: pointers and interfaces
	// between those that make maps and lists are levels of their own.
	maxLevels = 4 * maxDepth
	// maxValues is how many values Marshal writes. What several pointers lead to
	// counts as often, since it is written as often.
	maxValues = 1 << 20
)

// measure walks a value as it is going to be written.
type measure struct{ values int }

func (m *measure) value(v reflect.Value, depth int) error {
	m.values++
	switch {
	case !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil():
		return nil
	case depth > maxLevels:
		return errors.New("cannot write a value that holds itself or is nested too deep")
	case m.values > maxValues:
		return fmt.Errorf("cannot write more than %d values", maxValues)
	}
	switch w := v.Interface().(type) {
	case yaml.Node, *yaml.Node, time.Time, *time.Time, time.Duration:
		return nil
	case yaml.Marshaler:
		out, err := w.MarshalYAML()
		if err != nil {
			return err
		}
		return m.value(reflect.ValueOf(out), depth+1)
	case encoding.TextMarshaler:
		return nil
	}
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		return m.value(v.Elem(), depth+1)
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			for _, v := range []reflect.Value{it.Key(), it.Value()} {
				if err := m.value(v, depth+1); err != nil {
					return err
				}
			}
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if err := m.value(v.Index(i), depth+1); err != nil {
				return err
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if !field.IsExported() || field.Tag.Get("yaml") == "-" {
				continue
			}
			if err := m.value(v.Field(i), depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

var (
	plainWord = regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_./-]*$`)
	notText   = []string{"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
)

func quote(n *yaml.Node) error {
	for _, child := range n.Content {
		if err := quote(child); err != nil {
			return err
		}
	}
	switch {
	case n.Kind != yaml.ScalarNode:
	case n.Tag == "!!binary":
		return errors.New("cannot write text that is not UTF-8")
	case n.Tag == tagText || n.Tag == "":
		n.Style = yaml.DoubleQuotedStyle
		if plainWord.MatchString(n.Value) && !slices.Contains(notText, strings.ToLower(n.Value)) {
			n.Style = 0
		}
	}
	return nil
}
