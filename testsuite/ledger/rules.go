package ledger

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// A Rule explains files that are no package's unmodified content.
type Rule struct {
	Pattern     string // of path.Match for the whole path; "/**" at its end stands for everything below
	Type        byte
	Mode        uint32
	User, Group string            // names of the disk's own passwd and group, or numbers
	Demands     map[string]string // see ParseRules
	Reason      string            // why there is such a file
}

// ParseRules reads rules, one a line:
//
//	# Reason of the lines below, up to the next one.
//	TYPE MODE USER:GROUP PATTERN [DEMAND=VALUE …]
//
// TYPE is one of f, d, l, c, b, p; MODE octal or "*"; USER and GROUP names or "*". A
// pattern is one of path.Match; "**" at its end stands for everything below. The
// demands, all of which must hold:
//
//	content=package   that of the package which has the file
//	content=empty     nothing
//	content=absent    the file is not there, although a package has it
//	content=HEX       the SHA-256 of the whole content
//	content=PATH      that of a package's file, unmodified; * in PATH stands for the last part of the file's own path
//	content=control   what the package manager keeps of an installed package's own scripts
//	content=list      the list of files of an installed package
//	content=pyc       made from a package's Python source beside it, by size and time
//	content=certificates  no certificates but those of package files
//	content=accounts  of passwd(5): root, and system users that cannot log in
//	content=locked    of shadow(5) or gshadow(5): no password
//	content=memberless  of group(5): no members
//	target=PATH       of a symbolic link; * as above
//	target=package    of a symbolic link: a file of a package
//	alternative=yes   a link of update-alternatives that an installed package asks for
//	unit=yes          a link to a package's unit which that package's scripts enable
//	device=MAJOR:MINOR
//	acl=TEXT          the ACL, its entries separated by commas
//	capability=HEX    the file capability
//	attribute=NAME    an extended attribute that the file may have, whatever it says
//
// A rule of the image's own declaration that names one path and its content by digest,
// or a link's target by path, also says that the file is there.
//
// A rule with boot=yes is about what the first boots write, for [Boot], and about
// nothing on the image's disk. Only such a one may have these:
//
//	secret=yes        the console's password may stand in it, if only root can read it
//	members=A,B       of group(5) and gshadow(5): the login user may become a member of these
//	content=NAME      one of package ledger's own, as in its boot.rules
func ParseRules(text string) ([]Rule, error) {
	var rules []Rule
	reason, open := "", false
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
		case strings.HasPrefix(line, "#"):
			if !open {
				reason = ""
			}
			open = true
			reason = strings.TrimSpace(reason + " " + strings.TrimSpace(strings.TrimPrefix(line, "#")))
		default:
			open = false
			r, err := parseRule(line)
			if err == nil && reason == "" {
				err = errors.New("it has no reason above it")
			}
			if err != nil {
				return nil, fmt.Errorf("cannot read the rule in line %d: %w", i+1, err)
			}
			r.Reason = reason
			rules = append(rules, r)
		}
	}
	return rules, nil
}

// demands are the keys of demands and their fixed values; nil allows any.
var demands = map[string][]string{
	"content": nil, "target": nil, "device": nil, "acl": nil, "capability": nil,
	"alternative": {"yes"}, "unit": {"yes"},
	"boot": {"yes"}, "secret": {"yes"}, "members": nil, "attribute": nil,
}

func parseRule(line string) (Rule, error) {
	f := strings.Fields(line)
	if len(f) < 4 || len(f[0]) != 1 || !strings.Contains("fdlcbp", f[0]) {
		return Rule{}, errors.New("want TYPE MODE USER:GROUP PATTERN")
	}
	r := Rule{Type: f[0][0], Pattern: f[3], Demands: map[string]string{}}
	if f[1] == "*" {
		r.Mode = anyMode
	} else {
		mode, err := strconv.ParseUint(f[1], 8, 12)
		if err != nil {
			return Rule{}, errors.New("the mode is not octal")
		}
		r.Mode = uint32(mode)
	}
	var ok bool
	if r.User, r.Group, ok = strings.Cut(f[2], ":"); !ok {
		return Rule{}, errors.New("want USER:GROUP")
	}
	if _, err := path.Match(strings.TrimSuffix(r.Pattern, "/**"), "/"); err != nil || !strings.HasPrefix(r.Pattern, "/") {
		return Rule{}, errors.New("the pattern is bad")
	}
	for _, d := range f[4:] {
		key, value, _ := strings.Cut(d, "=")
		fixed, known := demands[key]
		if !known || value == "" || fixed != nil && fixed[0] != value {
			return Rule{}, fmt.Errorf("unknown demand %q", d)
		}
		r.Demands[key] = value
	}
	return r, nil
}

// exact reports whether the rule says of one path what exactly lies there, so that
// it may be asked for. Others tell what may be there.
func (r *Rule) exact() bool {
	if strings.ContainsAny(r.Pattern, `*?[\`) {
		return false
	}
	content, target := r.Demands["content"], r.Demands["target"]
	return len(content) == hex.EncodedLen(sha256.Size) || target != "" && target != "package"
}

// anyMode is a rule's mode "*".
const anyMode = 1 << 16

func (r *Rule) matches(name string) bool {
	if r.Demands["content"] == "pyc" && (path.Base(path.Dir(name)) != "__pycache__" || path.Ext(name) != ".pyc") {
		return false
	}
	if below, ok := strings.CutSuffix(r.Pattern, "/**"); ok {
		// The pattern's own depth of the path, if it is deeper.
		depth := strings.Count(below, "/")
		parts := strings.SplitN(name, "/", depth+2)
		if len(parts) < depth+2 {
			return false
		}
		ok, _ := path.Match(below, strings.Join(parts[:depth+1], "/"))
		return ok
	}
	ok, _ := path.Match(r.Pattern, name)
	return ok
}

// aboutPackage reports whether a rule may explain a path that a package has: one
// that keeps the package's content, is about a directory, or says where a link leads.
func (r *Rule) aboutPackage() bool {
	return r.Demands["content"] == "package" || r.Type == Directory || r.Type == Symlink && r.Demands["target"] != ""
}

// debianRules is what Debian's packages make while they are installed.
//
//go:embed debian.rules
var debianRules string
