package imagefactory

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/internal/strictyaml"
)

// ConfigError is a mistake in a configuration, with its place where that is
// known.
type ConfigError struct {
	File         string
	Line, Column int // from 1, the column in characters; 0 if unknown
	Err          error
}

func (e *ConfigError) Error() string {
	var place string
	switch {
	case e.Line > 0:
		place = fmt.Sprintf("%s:%d:%d: ", e.File, e.Line, e.Column)
	case e.File != "":
		place = e.File + ": "
	}
	if e.Err == nil {
		return place + "a mistake in the configuration"
	}
	return place + e.Err.Error()
}

func (e *ConfigError) Unwrap() error { return e.Err }

const (
	maxConfig   = 4 << 20 // bytes of a configuration file
	maxMistakes = 100     // that are reported of one
)

// LoadFile reads the definitions in a YAML file of at most 4 MiB: a map with the
// key "images", a list of [Definition]s. The error joins a *ConfigError for each
// mistake that was found, up to 100.
//
// Definitions are read as they are written. A text field keeps the source's
// text, whatever YAML takes it for: 22.10, 0755, 2027-01-01, yes and true. Only
// null (also ~, or nothing) is no text; it has to be quoted or left out. Numbers
// are decimal, booleans true or false. Tags such as !include are errors, and so
// are keys that are unknown or there twice.
//
// Anchors may stand anywhere, aliases and merge keys (<<) refer to them across
// images. Keys that begin with "x-" are for them: at the top level and in an
// image nobody else reads these.
//
// An image that inherits (from) replaces a list by naming it, and adds to it by
// naming it with a + behind: "notes+: [one more]". That works for repositories,
// notes, and in test for waivers, required_packages and forbidden_packages. An
// empty text takes an inherited property away.
//
// What LoadFile accepts, imagefactory/definition.schema.json accepts too, for
// editors.
func LoadFile(name string) ([]Definition, error) {
	data, err := readConfig(name)
	if err != nil {
		return nil, &ConfigError{File: name, Err: err}
	}
	dir, err := filepath.Abs(filepath.Dir(name))
	if err != nil {
		return nil, &ConfigError{File: name, Err: err}
	}
	return parse(name, dir, data)
}

// openRegular opens a file that neither waits for a writer nor has no end.
func openRegular(name string) (*os.File, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, withoutPath(err)
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, withoutPath(err)
	}
	return f, nil
}

func readConfig(name string) ([]byte, error) {
	f, err := openRegular(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, withoutPath(err)
	}
	if len(data) > maxConfig {
		return nil, fmt.Errorf("larger than %d bytes", maxConfig)
	}
	return data, nil
}

// withoutPath drops the path, which the error around it names already.
func withoutPath(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

func parse(name, dir string, data []byte) ([]Definition, error) {
	body, err := strictyaml.Parse(data)
	if err != nil {
		return nil, locateAll(name, err)
	}
	if err := secrets(body); err != nil {
		return nil, locateAll(name, err)
	}
	var config struct {
		Images []*strictyaml.Node `yaml:"images"`
	}
	if err := withoutExtensions(body).Decode(&config); err != nil {
		return nil, locateAll(name, err)
	}
	if len(config.Images) == 0 {
		return nil, locateIn(name, value(body, "images"), errors.New("no images are defined"))
	}
	var definitions []Definition
	var errs []error
	first := map[string]*strictyaml.Node{}
	for _, node := range config.Images {
		d, err := decodeDefinition(node)
		d.Dir, d.source = dir, source{name, node}
		if err == nil {
			err = d.Complete()
		}
		for _, err := range unjoin(err) {
			errs = append(errs, d.source.locate(err))
		}
		if len(errs) > maxMistakes {
			errs = append(errs[:maxMistakes], locateIn(name, node, errors.New("from here on nothing was looked at: there are too many mistakes")))
			break
		}
		if err != nil {
			continue
		}
		here := namedBy(node)
		if other, ok := first[d.Name]; ok {
			err := fmt.Errorf("duplicate image name %s, defined in line %d already", d.Name, other.Line)
			errs = append(errs, locateIn(name, here, err))
			continue
		}
		first[d.Name] = here
		definitions = append(definitions, d)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return definitions, nil
}

// withoutExtensions leaves out the keys that are for anchors.
func withoutExtensions(node *strictyaml.Node) *strictyaml.Node {
	return node.Filter(func(p strictyaml.Pair) bool { return !strings.HasPrefix(p.Key.Text(), "x-") })
}

// namedBy is the value that an image has its name from.
func namedBy(node *strictyaml.Node) *strictyaml.Node {
	for _, key := range []string{"name", "from"} {
		if v := node.Get(key); v != nil {
			return v
		}
	}
	return node
}

// userInfo matches a URL with a user or password, also one that is malformed:
// with a slash in the password.
var userInfo = regexp.MustCompile(`://[^/?#\s]*@|://[^/?#\s:[]*:[^/?#\s]*[^0-9/?#\s][^/?#\s]*[/?#]\S*@`)

// secrets reports passwords, wherever they stand: a definition is published
// with the image that is made of it.
func secrets(node *strictyaml.Node) error {
	var errs []error
	node.Scalars(func(n *strictyaml.Node) {
		if len(errs) < 20 && userInfo.MatchString(n.Text()) {
			errs = append(errs, n.At(errors.New("a URL with a user or password: definitions are published, so these belong into the package manager's own configuration")))
		}
	})
	return errors.Join(errs...)
}

// locate turns an error of decoding into a *ConfigError.
func locate(file string, err error) *ConfigError {
	var config *ConfigError
	if errors.As(err, &config) {
		return config
	}
	var placed *strictyaml.Error
	if errors.As(err, &placed) {
		return &ConfigError{File: file, Line: placed.Line, Column: placed.Column, Err: placed.Err}
	}
	return &ConfigError{File: file, Err: err}
}

// locateAll is locate for each of the errors that are joined.
func locateAll(file string, err error) error {
	var errs []error
	for _, err := range unjoin(err) {
		errs = append(errs, locate(file, err))
	}
	return errors.Join(errs...)
}

// locateIn is locate for an error about something in a node, which stands for
// the place where the error itself has none.
func locateIn(file string, node *strictyaml.Node, err error) *ConfigError {
	return locate(file, node.At(err))
}

// field finds the node that a mistake of [Definition.Complete] is about. What an
// image inherits is where it says from whom.
func field(node *strictyaml.Node, err error) *strictyaml.Node {
	if place := named(node, err); place != node {
		return place
	}
	return value(node, "from")
}

// named finds the node that an error is about by the keys that its text begins
// with, "properties: __support_xen is …", and perhaps the text of a list's element.
func named(node *strictyaml.Node, err error) *strictyaml.Node {
	for text := range strings.SplitSeq(err.Error(), ": ") {
		key, _, _ := strings.Cut(text, " ")
		next := node.Get(key)
		if next == nil {
			next = node.Get(key + "+")
		}
		if next == nil {
			if i := slices.IndexFunc(node.Items(), func(n *strictyaml.Node) bool { return n.Text() == text }); i >= 0 {
				return node.Items()[i]
			}
			break
		}
		node = next
	}
	return node
}

// value is the value of a key in a map, or the map itself.
func value(node *strictyaml.Node, key string) *strictyaml.Node {
	if v := node.Get(key); v != nil {
		return v
	}
	return node
}

// unjoin splits what errors.Join has joined.
func unjoin(err error) []error { return strictyaml.Errors(err) }

// MarshalDefinitions writes a file for [LoadFile], which reads the same
// definitions back: text is quoted where YAML could take it for something else.
// Dir is not written; the file belongs there.
func MarshalDefinitions(definitions []Definition) ([]byte, error) {
	type plain Definition // whose fields are written one by one
	var file struct {
		Images []plain `yaml:"images"`
	}
	for _, d := range definitions {
		file.Images = append(file.Images, plain(d))
	}
	data, err := strictyaml.Marshal(file)
	if err != nil {
		return nil, fmt.Errorf("cannot write definitions: %w", err)
	}
	return data, nil
}
