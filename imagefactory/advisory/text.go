package advisory

import (
	"fmt"
	"strings"
)

// String is a line for people.
func (v Verdict) String() string {
	s := fmt.Sprintf("%s %s", v.ID, v.Status)
	if v.Package != "" {
		s += " " + v.Package + " " + v.Version
	}
	switch {
	case v.FixedIn != "":
		s += ", fixed in " + v.FixedIn
		if len(v.Repositories) > 0 {
			s += " in " + strings.Join(v.Repositories, ", ")
		}
	case v.Status == Affected:
		s += ", no fix"
	}
	if v.Severity != "" {
		s += " (" + v.Severity + ")"
	}
	return s
}

// String is a line for people.
func (r ReleaseVerdict) String() string {
	s := r.Build + " " + r.Verdict.String()
	if r.Latest {
		s += " [latest]"
	}
	if r.Problem != "" {
		s += ": " + r.Problem
	}
	return s
}

// String is a line for people, about the latest release.
func (v ImageVerdict) String() string {
	s := v.Image + " " + v.Status.String()
	if v.Since != "" {
		s += " since " + v.Since
	}
	return s
}
