package capabilities

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// maxInput bounds what is read from an API's answer: a list of 500 images,
// which is the most that one answer of IMS has, is near 2 MiB.
const maxInput = 8 << 20

// maxItems bounds how many images or flavors are read at once.
const maxItems = 10_000

// maxDepth bounds how deep an answer may be nested. Those of the APIs have six
// levels at most.
const maxDepth = 32

// maxProperties bounds the properties of one image, of which Glance lets there
// be 128 unless it is told otherwise.
const maxProperties = 1000

// member is one member of a JSON object, in the order of the file.
type member struct {
	name  string
	value any // string, json.Number, bool, nil, object or []any
}

type object []member

func (o object) get(names ...string) any {
	for _, m := range o {
		if slices.Contains(names, m.name) {
			return m.value
		}
	}
	return nil
}

// text returns a member that is a string.
func (o object) text(names ...string) string {
	s, _ := o.get(names...).(string)
	return s
}

// readJSON reads one JSON value, keeping members that are there twice. Errors
// tell the place and not the text.
func readJSON(r io.Reader) (any, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxInput {
		return nil, fmt.Errorf("more than %d bytes", maxInput)
	}
	dec := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))))
	dec.UseNumber()
	v, err := readValueJSON(dec, 0)
	if err != nil {
		return nil, fmt.Errorf("not JSON at byte %d: %w", dec.InputOffset(), err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("not JSON at byte %d: something follows the first value", dec.InputOffset())
	}
	return v, nil
}

func readValueJSON(dec *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errors.New("nested too deeply")
	}
	token, err := dec.Token()
	if errors.Is(err, io.EOF) {
		return nil, io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, errors.New("a syntax error")
	}
	delim, ok := token.(json.Delim)
	if !ok {
		return token, nil
	}
	var list []any
	var members object
	for dec.More() {
		var name string
		if delim == '{' {
			token, err := dec.Token()
			if err != nil {
				return nil, errors.New("a syntax error")
			}
			name, _ = token.(string) // the decoder lets no other key pass
		}
		v, err := readValueJSON(dec, depth+1)
		if err != nil {
			return nil, err
		}
		if delim == '{' {
			members = append(members, member{name, v})
		} else {
			list = append(list, v)
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, errors.New("a syntax error")
	}
	if delim == '{' {
		return members, nil
	}
	return list, nil
}

// items returns the objects that an answer is about: the members of a list, of
// the list under one of the plural names, the object under one of the singular
// names if it stands alone, or the object itself. isList is whether it was a
// list.
func items(v any, plural, singular []string) (list []object, isList bool, err error) {
	if o, ok := v.(object); ok {
		if err := onlyOne(o, slices.Concat(plural, singular)); err != nil {
			return nil, false, err
		}
		inner := o.get(plural...)
		if many, ok := inner.([]any); ok {
			v = many
		} else if one, ok := o.get(singular...).(object); ok && len(o) == 1 {
			return []object{one}, false, nil
		} else {
			return []object{o}, false, nil
		}
	}
	many, ok := v.([]any)
	if !ok {
		return nil, false, errors.New("want a JSON object or a list of objects")
	}
	for i, entry := range many {
		o, ok := entry.(object)
		if !ok {
			return nil, true, fmt.Errorf("entry %d of the list is not a JSON object", i+1)
		}
		list = append(list, o)
	}
	switch {
	case len(list) == 0:
		return nil, true, errors.New("the list is empty")
	case len(list) > maxItems:
		return nil, true, fmt.Errorf("the list has more than %d entries", maxItems)
	}
	return list, true, nil
}

// onlyOne reports what an answer should be about and is not there, or of which
// there is more than one, so that one would be read and the other lost.
func onlyOne(o object, names []string) error {
	seen := make(map[string]bool)
	for _, m := range o {
		if !slices.Contains(names, m.name) {
			continue
		}
		if m.value == nil && len(o) == 1 {
			return fmt.Errorf("%s is null", m.name)
		}
		if seen[m.name] {
			return fmt.Errorf("%s is there twice", m.name)
		}
		seen[m.name] = true
	}
	return nil
}

// An Image is what an API tells of a registered image.
type Image struct {
	Name, ID   string // empty where the answer does not say them
	Properties Flags  // those that are strings, numbers or booleans, as text
}

// ReadImages reads images from what the APIs and tools answer with, as JSON of
// at most 8 MiB:
//   - Glance: one image, {"image": {…}}, {"images": […]}, and what the openstack
//     program prints of an image, with its properties nested, or as one text;
//   - IMS: the same shapes;
//   - Nova: the metadata of a server, {"metadata": {…}}, {"server": {…}}, {"servers": […]};
//   - EVS: volume_image_metadata, alone or in {"volume": {…}} or {"volumes": […]};
//   - a plain object of properties.
//
// isList is whether it was a list, of one or more. An error is: no JSON object;
// an empty list, or one of more than 10,000; an image of more than 1,000
// properties; and of a property that [FromFlags] reads, null or two
// different values. Other properties may be anything.
func ReadImages(r io.Reader) (images []Image, isList bool, err error) {
	v, err := readJSON(r)
	if err != nil {
		return nil, false, fmt.Errorf("cannot read images: %w", err)
	}
	list, isList, err := items(v, []string{"images", "volumes", "servers"}, []string{"image", "volume", "server"})
	if err != nil {
		return nil, false, fmt.Errorf("cannot read images: %w", err)
	}
	for i, o := range list {
		image, err := readImage(o)
		if err != nil {
			return nil, false, fmt.Errorf("cannot read image %d: %w", i+1, err)
		}
		images = append(images, image)
	}
	return images, isList, nil
}

func readImage(o object) (Image, error) {
	image := Image{Name: o.text("name", "Name"), ID: o.text("id", "ID"), Properties: Flags{}}
	parts, err := containers(o, "volume_image_metadata", "properties", "Properties", "metadata")
	if err != nil {
		return Image{}, err
	}
	for _, part := range parts {
		if err := image.Properties.add(part); err != nil {
			return Image{}, err
		}
		if name := part.text("image_name"); name != "" {
			image.Name, image.ID = name, part.text("image_id")
		}
	}
	return image, nil
}

// containers returns o and the objects under the names in it, of which some
// tools make one text.
func containers(o object, names ...string) ([]object, error) {
	parts := []object{o}
	for _, m := range o {
		if !slices.Contains(names, m.name) {
			continue
		}
		switch v := m.value.(type) {
		case object:
			parts = append(parts, v)
		case string:
			if m.name == "metadata" {
				continue // of Nova, which has it as an object only
			}
			inner, err := readPairs(v)
			if err != nil {
				return nil, fmt.Errorf("cannot read %s: %w", m.name, err)
			}
			parts = append(parts, inner)
		}
	}
	return parts, nil
}

// readPairs reads the form in which some versions of the openstack program
// print a map, k='v', k2='v2', where the quotes may be left out. Quotes in a
// value are not escaped there: one ends the value if a comma or nothing follows.
func readPairs(text string) (object, error) {
	var out object
	for rest := strings.TrimSpace(text); rest != ""; rest = strings.TrimSpace(rest) {
		name, value, ok := strings.Cut(rest, "=")
		if !ok || name == "" {
			return nil, errors.New("want pairs as k='v', k='v'")
		}
		if value != "" && (value[0] == '\'' || value[0] == '"') {
			quote := value[:1]
			value += ","
			if value, rest, ok = strings.Cut(value[1:], quote+","); !ok {
				return nil, errors.New("a quoted value has no end")
			}
			rest = strings.TrimSuffix(rest, ",")
		} else {
			value, rest, _ = strings.Cut(value, ",")
		}
		out = append(out, member{strings.Trim(strings.TrimSpace(name), `'"`), strings.TrimSpace(value)})
	}
	return out, nil
}

// add adds the members of o that are properties. A flag that is null, or that
// is there twice with different values, is an error.
func (f Flags) add(o object) error {
	for _, m := range o {
		matters := canonicalName(m.name) != "" || m.name == MaskProperty || m.name == archProperty
		text, ok := scalar(m.value)
		if !ok && !matters {
			continue
		}
		if m.value == nil {
			return fmt.Errorf("property %s is null", m.name)
		}
		if before, there := f[m.name]; there && before != text && matters {
			return fmt.Errorf("property %s is there twice, with different values", m.name)
		}
		f[m.name] = text
	}
	if len(f) > maxProperties {
		return fmt.Errorf("more than %d properties", maxProperties)
	}
	return nil
}

// scalar returns the text of a value; a list or an object has none of interest.
func scalar(v any) (text string, ok bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		return fmt.Sprint(v), true
	case object:
		return "{…}", false
	case []any:
		return "[…]", false
	}
	return "", false
}
