package imagefactory

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// ConfigError is a mistake in a configuration, with its place where that is
// known.
type ConfigError struct {
	File         string
	Line, Column int // from 1; 0 if unknown
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

// maxConfig bounds a configuration file.
const maxConfig = 4 << 20

// LoadFile reads the definitions in a YAML file: a map with the one key
// "images", a list of [Definition]s. Decoding is strict; anchors of one image
// cannot be referred to in another, but images can inherit from the [Catalog].
// The error joins one *ConfigError for each mistake that was found.
func LoadFile(name string) ([]Definition, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, &ConfigError{File: name, Err: err}
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, &ConfigError{File: name, Err: err}
	}
	if len(data) > maxConfig {
		return nil, &ConfigError{File: name, Err: fmt.Errorf("larger than %d bytes", maxConfig)}
	}
	dir, err := filepath.Abs(filepath.Dir(name))
	if err != nil {
		return nil, &ConfigError{File: name, Err: err}
	}
	return parse(name, dir, data)
}

func parse(name, dir string, data []byte) ([]Definition, error) {
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, locate(name, err)
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		return nil, &ConfigError{File: name, Err: errors.New("want one YAML document with the key images")}
	}
	body := file.Docs[0].Body
	var config struct {
		Images []ast.Node `yaml:"images"`
	}
	if err := yaml.NodeToValue(body, &config, yaml.Strict()); err != nil {
		return nil, locate(name, err)
	}
	if len(config.Images) == 0 {
		return nil, locate(name, at(body, errors.New("no images are defined")))
	}
	var definitions []Definition
	var errs []error
	first := map[string]ast.Node{}
	for _, node := range config.Images {
		d, err := decodeDefinition(node)
		if err != nil {
			errs = append(errs, locateIn(name, node, err))
			continue
		}
		d.Dir, d.source = dir, source{name, node}
		if err := d.Complete(); err != nil {
			for _, err := range unjoin(err) {
				errs = append(errs, d.source.locate(err))
			}
			continue
		}
		if other, ok := first[d.Name]; ok {
			err := fmt.Errorf("duplicate image name %s, defined in line %d already", d.Name, other.GetToken().Position.Line)
			errs = append(errs, locate(name, at(value(node, "name"), err)))
			continue
		}
		first[d.Name] = value(node, "name")
		definitions = append(definitions, d)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return definitions, nil
}

// positioned is an error about a place in the file that is being read.
type positioned struct {
	line, column int
	err          error
}

func (p *positioned) Error() string { return p.err.Error() }
func (p *positioned) Unwrap() error { return p.err }

// at gives an error the position of a node.
func at(node ast.Node, err error) error {
	pos := node.GetToken().Position
	return &positioned{line: pos.Line, column: pos.Column, err: err}
}

// locate turns an error of decoding into a *ConfigError.
func locate(file string, err error) *ConfigError {
	var config *ConfigError
	if errors.As(err, &config) {
		return config
	}
	var p *positioned
	if errors.As(err, &p) {
		return &ConfigError{File: file, Line: p.line, Column: p.column, Err: p.err}
	}
	var y yaml.Error
	if errors.As(err, &y) && y.GetToken() != nil {
		pos := y.GetToken().Position
		return &ConfigError{File: file, Line: pos.Line, Column: pos.Column, Err: errors.New(y.GetMessage())}
	}
	return &ConfigError{File: file, Err: err}
}

// locateIn is locate for an error about something in a node, which stands for
// the place where the error itself has none.
func locateIn(file string, node ast.Node, err error) *ConfigError {
	if located := locate(file, err); located.Line > 0 {
		return located
	}
	return locate(file, at(node, err))
}

// field finds the node that a mistake of [Definition.Complete] is about by the
// key that its text begins with.
func field(node ast.Node, err error) ast.Node {
	key, _, _ := strings.Cut(err.Error(), ":")
	return value(node, key)
}

// value is the value of a key in a map, or the map itself.
func value(node ast.Node, key string) ast.Node {
	if m, ok := node.(ast.MapNode); ok {
		for entries := m.MapRange(); entries.Next(); {
			if entries.Key().String() == key {
				return entries.Value()
			}
		}
	}
	return node
}

// unjoin splits what errors.Join has joined.
func unjoin(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}
