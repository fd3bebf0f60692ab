package strictyaml

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/internal/nearest"
)

// unmarshaler is the interface that YAML packages offer to types that do not
// import them.
type unmarshaler interface {
	UnmarshalYAML(decode func(any) error) error
}

// Decode fills what v points to. Structs keep the fields that n does not name;
// maps and lists are replaced. The error joins an [*Error] for each mistake.
func (n *Node) Decode(v any) error {
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return fmt.Errorf("cannot decode into %T: want a pointer", v)
	}
	var d decoder
	d.value(p.Elem(), n)
	slices.SortStableFunc(d.errs, byPlace)
	return d.errs.join()
}

type decoder struct{ errs mistakes }

func (d *decoder) fail(n *Node, format string, args ...any) { d.errs.add(n.errorf(format, args...)) }

func (d *decoder) value(dst reflect.Value, n *Node) {
	if dst.Type() == reflect.TypeFor[*Node]() {
		dst.Set(reflect.ValueOf(n))
		return
	}
	switch custom := dst.Addr().Interface().(type) {
	case unmarshaler:
		for _, err := range Errors(custom.UnmarshalYAML(n.Decode)) {
			d.errs.add(n.At(err))
		}
		return
	case encoding.TextUnmarshaler:
		if text, ok := d.text(n); ok {
			if err := custom.UnmarshalText([]byte(text)); err != nil {
				d.errs.add(n.At(err))
			}
		}
		return
	case *time.Duration:
		if text, ok := d.text(n); ok {
			var err error
			if *custom, err = time.ParseDuration(text); err != nil {
				d.fail(n, "want a duration such as 1m30s")
			}
		}
		return
	}
	switch dst.Kind() {
	case reflect.Pointer:
		if n.IsNull() {
			dst.SetZero()
			return
		}
		if dst.IsNil() {
			dst.Set(reflect.New(dst.Type().Elem()))
		}
		d.value(dst.Elem(), n)
	case reflect.Interface:
		d.plain(dst, n)
	case reflect.Struct:
		d.structure(dst, n)
	case reflect.Map:
		d.mapping(dst, n)
	case reflect.Slice:
		d.list(dst, n)
	default:
		d.scalar(dst, n)
	}
}

// is reports whether n is of a kind, and that it is not.
func (d *decoder) is(n *Node, want kind, name string) bool {
	switch {
	case n.kind == want && !n.IsNull():
		return true
	case n.IsNull():
		d.fail(n, "want %s, found nothing: leave the key out if there is none", name)
	default:
		d.fail(n, "want %s, found %s", name, n.what())
	}
	return false
}

// text is a scalar as it is written.
func (d *decoder) text(n *Node) (string, bool) {
	switch {
	case n.IsNull() && n.text != "":
		d.fail(n, "%s is null and not text: quote it, or leave the key out", n.text)
	case n.IsNull():
		d.fail(n, `want text, found nothing: write "" for empty text, or leave the key out`)
	case n.kind != scalar:
		d.fail(n, "want text, found %s", n.what())
	default:
		return n.text, true
	}
	return "", false
}

func (d *decoder) structure(dst reflect.Value, n *Node) {
	if !d.is(n, mapping, "a map") {
		return
	}
	fields := structFields(dst)
	for _, p := range n.Pairs {
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == p.Key.text })
		if i < 0 {
			var names []string
			for _, f := range fields {
				names = append(names, f.name)
			}
			d.errs.add(p.Key.At(nearest.Unknown("field", p.Key.text, names)))
			continue
		}
		d.value(fields[i].value, p.Value)
	}
}

type field struct {
	name  string
	value reflect.Value
}

func structFields(v reflect.Value) []field {
	var out []field
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case name == "-":
		case options == "inline":
			out = append(out, structFields(v.Field(i))...)
		case !f.IsExported():
		case name == "":
			out = append(out, field{strings.ToLower(f.Name), v.Field(i)})
		default:
			out = append(out, field{name, v.Field(i)})
		}
	}
	return out
}

func (d *decoder) mapping(dst reflect.Value, n *Node) {
	if dst.Type().Key().Kind() != reflect.String {
		d.fail(n, "cannot decode into %v", dst.Type())
		return
	}
	if !d.is(n, mapping, "a map") {
		return
	}
	m := reflect.MakeMapWithSize(dst.Type(), len(n.Pairs))
	for _, p := range n.Pairs {
		value := reflect.New(dst.Type().Elem()).Elem()
		d.value(value, p.Value)
		m.SetMapIndex(reflect.ValueOf(p.Key.text).Convert(dst.Type().Key()), value)
	}
	dst.Set(m)
}

func (d *decoder) list(dst reflect.Value, n *Node) {
	if !d.is(n, list, "a list") {
		return
	}
	s := reflect.MakeSlice(dst.Type(), len(n.items), len(n.items))
	for i, item := range n.items {
		d.value(s.Index(i), item)
	}
	dst.Set(s)
}

var (
	wholeNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)
	anyNumber   = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)
)

func (d *decoder) scalar(dst reflect.Value, n *Node) {
	if n.kind != scalar {
		d.fail(n, "want %s, found %s", scalarName(dst.Kind()), n.what())
		return
	}
	plain := n.tag != tagText
	var err error
	switch {
	case dst.Kind() == reflect.String:
		if text, ok := d.text(n); ok {
			dst.SetString(text)
		}
		return
	case dst.Kind() == reflect.Bool && plain && (n.text == "true" || n.text == "false"):
		dst.SetBool(n.text == "true")
		return
	case dst.CanInt() && plain && wholeNumber.MatchString(n.text):
		var i int64
		i, err = strconv.ParseInt(n.text, 10, dst.Type().Bits())
		dst.SetInt(i)
	case dst.CanUint() && plain && wholeNumber.MatchString(n.text):
		var u uint64
		u, err = strconv.ParseUint(n.text, 10, dst.Type().Bits())
		dst.SetUint(u)
	case dst.CanFloat() && plain && anyNumber.MatchString(n.text):
		var f float64
		f, err = strconv.ParseFloat(n.text, dst.Type().Bits())
		dst.SetFloat(f)
	default:
		err = errors.New("no such value")
	}
	if err != nil {
		d.fail(n, "want %s, found %.*q", scalarName(dst.Kind()), maxQuoted, n.text)
	}
}

func scalarName(k reflect.Kind) string {
	switch k {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return fmt.Sprintf("a whole number (%v)", k)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return fmt.Sprintf("a whole number from 0 (%v)", k)
	}
	return "something else"
}

func (d *decoder) plain(dst reflect.Value, n *Node) {
	if dst.NumMethod() > 0 {
		d.fail(n, "cannot decode into %v", dst.Type())
		return
	}
	if v := n.Value(); v != nil {
		dst.Set(reflect.ValueOf(v))
	} else {
		dst.SetZero()
	}
}

// Value is n as maps, lists, text, bool, int and float64; a number that would
// read otherwise when it is written again stays text.
func (n *Node) Value() any {
	switch n.kind {
	case mapping:
		m := make(map[string]any, len(n.Pairs))
		for _, p := range n.Pairs {
			m[p.Key.text] = p.Value.Value()
		}
		return m
	case list:
		items := make([]any, len(n.items))
		for i, item := range n.items {
			items[i] = item.Value()
		}
		return items
	}
	switch {
	case n.tag == tagNull:
		return nil
	case n.tag == tagText:
		return n.text
	case n.text == "true" || n.text == "false":
		return n.text == "true"
	}
	if i, err := strconv.Atoi(n.text); err == nil && strconv.Itoa(i) == n.text {
		return i
	}
	if f, err := strconv.ParseFloat(n.text, 64); err == nil && strconv.FormatFloat(f, 'g', -1, 64) == n.text {
		return f
	}
	return n.text
}
