package strictyaml

import (
	"errors"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Marshal writes v so that every reader of YAML takes it for the same: text that
// is no plain word is in double quotes, a line each.
func Marshal(v any) ([]byte, error) {
	var n yaml.Node
	if err := n.Dump(v); err != nil {
		return nil, err
	}
	if err := quote(&n); err != nil {
		return nil, err
	}
	return yaml.Dump(&n, yaml.WithIndent(2), yaml.WithLineWidth(-1), yaml.WithUnicode(false))
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
