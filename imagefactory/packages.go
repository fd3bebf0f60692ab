package imagefactory

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/internal/pkgversion"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// A PackageRelation is a package's name and, where only some versions are meant, a
// relation and a version: "telnetd", "openssh-server >= 1:9.2p1-2+deb12u3". The
// relations are Debian's: <<, <=, =, >= and >>. Versions are compared as the
// distribution's package manager does; a version of rpm without a release stands for
// all its releases. Where a pattern of [path.Match] may stand for the name, it is for
// the whole of it. What another package provides is not the package.
type PackageRelation string

var (
	relationForm = regexp.MustCompile(`^([^\s<>=]+)(?:\s*([<>=]+)\s*([^\s<>=]+))?$`)
	// namePattern is of the names of dpkg and rpm, and what path.Match reads.
	namePattern = regexp.MustCompile(`^[A-Za-z0-9+._~*?^\[\]\\-]+$`)
)

const patternBytes = `*?[]\^`

// UnmarshalText accepts what is written as a relation is.
func (r *PackageRelation) UnmarshalText(text []byte) error {
	*r = PackageRelation(text)
	return r.check()
}

// split takes the relation apart; operator and version are empty where any version
// is meant.
func (r PackageRelation) split() (name, operator, version string) {
	if m := relationForm.FindStringSubmatch(string(r)); m != nil {
		return m[1], m[2], m[3]
	}
	return string(r), "", ""
}

func (r PackageRelation) name() string {
	name, _, _ := r.split()
	return name
}

// check reports what is wrong with the relation, whatever the distribution.
func (r PackageRelation) check() error {
	name, operator, _ := r.split()
	if _, err := path.Match(name, ""); err != nil || name == "" {
		return fmt.Errorf("bad pattern %.80q", name)
	}
	if !slices.Contains([]string{"", "<<", "<=", "=", ">=", ">>"}, operator) {
		return fmt.Errorf("bad relation %.8q in %.80q: want <<, <=, =, >= or >>", operator, string(r))
	}
	if !relationForm.MatchString(string(r)) || !namePattern.MatchString(name) {
		return fmt.Errorf("bad package %.80q: want a name, or name, relation and version such as openssh-server >= 1:9.2p1-2", string(r))
	}
	return nil
}

// checkVersion holds the version to what the distribution's package manager takes.
func (r PackageRelation) checkVersion(distribution string) error {
	_, operator, version := r.split()
	if operator == "" {
		return nil
	}
	scheme, ok := pkgversion.For(distribution)
	if !ok {
		return fmt.Errorf("%s: it is not known how %s orders versions: name the package alone", r, distribution)
	}
	if !scheme.Valid(version) {
		return fmt.Errorf("%s: bad version %.80q for %s", r, version, distribution)
	}
	return nil
}

// matches reports whether an installed package is one that is meant.
func (r PackageRelation) matches(p builder.Package, scheme pkgversion.Scheme) bool {
	pattern, operator, version := r.split()
	if ok, _ := path.Match(pattern, p.Name); !ok {
		return false
	}
	if operator == "" {
		return true
	}
	switch order := scheme.Compare(p.Version, version); operator {
	case "<<":
		return order < 0
	case "<=":
		return order <= 0
	case "=":
		return order == 0
	case ">=":
		return order >= 0
	default:
		return order > 0
	}
}

// relationNames are the packages' names, each once.
func relationNames(relations []PackageRelation) []string {
	var names []string
	for _, r := range relations {
		if name := r.name(); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// checkPackages reports relations that no package can meet.
func checkPackages(distribution string, required, forbidden []PackageRelation) error {
	var errs []error
	for _, list := range []struct {
		key       string
		relations []PackageRelation
	}{{"required_packages", required}, {"forbidden_packages", forbidden}} {
		for _, r := range list.relations {
			err := r.check()
			if err == nil {
				err = r.checkVersion(distribution)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", list.key, err))
			}
		}
	}
	for _, r := range required {
		if strings.ContainsAny(r.name(), patternBytes) {
			errs = append(errs, fmt.Errorf("required_packages: %s: a pattern cannot be required", r))
		}
	}
	for _, name := range relationNames(required) {
		if forbids(forbidden, name) {
			errs = append(errs, fmt.Errorf("forbidden_packages: %s is required", name))
		}
	}
	return errors.Join(errs...)
}

// forbids reports whether a package is forbidden in every version.
func forbids(forbidden []PackageRelation, name string) bool {
	return slices.ContainsFunc(forbidden, func(r PackageRelation) bool {
		pattern, operator, _ := r.split()
		match, _ := path.Match(pattern, name)
		return match && operator == ""
	})
}

// packageFindings are the definition's demands that the installed packages do not
// meet, in its order.
func (d *Definition) packageFindings(installed []builder.Package) []Finding {
	scheme, _ := pkgversion.For(d.OS.Distribution) // which what compares versions has
	var findings []Finding
	found := func(name, format string, args ...any) {
		findings = append(findings, Finding{ID: areaInspection + "." + name, Severity: testsuite.High, Text: fmt.Sprintf(format, args...)})
	}
	for _, r := range d.Test.RequiredPackages {
		var others []string
		if slices.ContainsFunc(installed, func(p builder.Package) bool {
			if p.Name == r.name() {
				others = append(others, p.Version)
			}
			return r.matches(p, scheme)
		}) {
			continue
		}
		if others == nil {
			found(requiredPackages, "%s is required and not installed", r)
		} else {
			found(requiredPackages, "%s is required, %s is installed", r, strings.Join(others, " and "))
		}
	}
	for _, r := range d.Test.ForbiddenPackages {
		for _, p := range installed {
			if r.matches(p, scheme) {
				found(forbiddenPackages, "%s is forbidden, %s %s is installed", r, p.Name, p.Version)
			}
		}
	}
	return findings
}

// The names of the findings about packages.
const (
	requiredPackages  = "required-packages"
	forbiddenPackages = "forbidden-packages"
)
