package advisory

import (
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/internal/pkgversion"
)

// An ovalDefinition is an advisory as a condition on what is installed.
type ovalDefinition struct {
	releases map[string]bool // "sles 15"
	severity string
	criteria ovalCriteria
	file     *ovalFile
}

// An ovalFile holds what its definitions refer to.
type ovalFile struct {
	tests   map[string]*ovalTest
	objects map[string]string // name of a package; "" if it is none in plain text
	states  map[string]*ovalState
}

type ovalCriteria struct {
	Operator   string          `xml:"operator,attr"`
	Negate     bool            `xml:"negate,attr"`
	Criteria   []ovalCriteria  `xml:"criteria"`
	Criterion  []ovalCriterion `xml:"criterion"`
	Extensions []ovalCriterion `xml:"extend_definition"`
}

type ovalCriterion struct {
	Test   string `xml:"test_ref,attr"`
	Negate bool   `xml:"negate,attr"`
}

type ovalTest struct {
	ID        string `xml:"id,attr"`
	Check     string `xml:"check,attr"`
	Existence string `xml:"check_existence,attr"`
	Object    struct {
		Ref string `xml:"object_ref,attr"`
	} `xml:"object"`
	States []struct {
		Ref string `xml:"state_ref,attr"`
	} `xml:"state"`
}

type ovalState struct {
	ID      string     `xml:"id,attr"`
	EVR     *ovalValue `xml:"evr"`
	Arch    *ovalValue `xml:"arch"`
	Version *ovalValue `xml:"version"`
	pattern *regexp.Regexp
}

type ovalValue struct {
	Operation string `xml:"operation,attr"`
	Text      string `xml:",chardata"`
}

const maxDepth = 64 // of criteria

// platforms are how OVAL names distributions, and how images do.
var platforms = []struct {
	pattern      *regexp.Regexp
	distribution string
}{
	{regexp.MustCompile(`^Red Hat Enterprise Linux ([0-9]+)`), "redhat"},
	{regexp.MustCompile(`^Oracle Linux ([0-9]+)`), "oraclelinux"},
	{regexp.MustCompile(`^SUSE Linux Enterprise [A-Za-z ]*?([0-9]+)`), "sles"},
	{regexp.MustCompile(`^openSUSE Leap ([0-9.]+)`), "opensuse"},
}

// oval reads a document of OVAL 5 with rpminfo tests.
func (d *Database) oval(l *limited) error {
	x := xml.NewDecoder(l)
	file := &ovalFile{tests: map[string]*ovalTest{}, objects: map[string]string{}, states: map[string]*ovalState{}}
	root := false
	for {
		l.begin()
		t, err := x.Token()
		if errors.Is(err, io.EOF) && root {
			return nil
		}
		if err != nil {
			return xmlError(err)
		}
		start, ok := t.(xml.StartElement)
		if !ok {
			continue
		}
		if !root && start.Name.Local != "oval_definitions" {
			return errFormat
		}
		root = true
		if err := d.ovalElement(x, &start, file); err != nil {
			return err
		}
	}
}

func (d *Database) ovalElement(x *xml.Decoder, start *xml.StartElement, file *ovalFile) error {
	if d.count++; d.count > maxEntries {
		return errTooMany
	}
	switch start.Name.Local {
	case "definition":
		return d.ovalDefinition(x, start, file)
	case "timestamp":
		var text string
		if err := x.DecodeElement(&text, start); err != nil {
			return xmlError(err)
		}
		d.current().at(strings.TrimSpace(text))
	case "rpminfo_test":
		t := new(ovalTest)
		if err := x.DecodeElement(t, start); err != nil {
			return xmlError(err)
		}
		file.tests[t.ID] = t
	case "rpminfo_object":
		var o struct {
			ID   string    `xml:"id,attr"`
			Name ovalValue `xml:"name"`
		}
		if err := x.DecodeElement(&o, start); err != nil {
			return xmlError(err)
		}
		if o.Name.Operation == "" || o.Name.Operation == "equals" {
			file.objects[o.ID] = strings.TrimSpace(o.Name.Text)
		}
	case "rpminfo_state":
		s := new(ovalState)
		if err := x.DecodeElement(s, start); err != nil {
			return xmlError(err)
		}
		if s.Arch != nil && s.Arch.Operation == "pattern match" {
			s.pattern, _ = regexp.Compile(s.Arch.Text) // else it is not known what is meant
		}
		file.states[s.ID] = s
	}
	return nil
}

func (d *Database) ovalDefinition(x *xml.Decoder, start *xml.StartElement, file *ovalFile) error {
	var v struct {
		Class     string   `xml:"class,attr"`
		Platforms []string `xml:"metadata>affected>platform"`
		Refs      []struct {
			ID string `xml:"ref_id,attr"`
		} `xml:"metadata>reference"`
		Severity string         `xml:"metadata>advisory>severity"`
		CVEs     []string       `xml:"metadata>advisory>cve"`
		Criteria []ovalCriteria `xml:"criteria"`
	}
	if err := x.DecodeElement(&v, start); err != nil {
		return xmlError(err)
	}
	if v.Class != "patch" && v.Class != "vulnerability" || len(v.Criteria) != 1 {
		return nil // what is installed, and the like
	}
	if v.Criteria[0].deeper(maxDepth) {
		return errTooLarge
	}
	o := &ovalDefinition{releases: map[string]bool{}, severity: v.Severity, criteria: v.Criteria[0], file: file}
	for _, text := range v.Platforms {
		for _, p := range platforms {
			if m := p.pattern.FindStringSubmatch(strings.TrimSpace(text)); m != nil {
				key := releaseKey(p.distribution, m[1])
				o.releases[key], d.covers[key] = true, true
			}
		}
	}
	ids := map[string]bool{}
	for _, r := range v.Refs {
		id, _, _ := strings.Cut(r.ID, " ") // SUSE's "Mitre CVE-…" and Red Hat's "RHSA-…"
		ids[id] = true
	}
	for _, id := range v.CVEs {
		ids[strings.TrimSpace(id)] = true
	}
	for id := range ids {
		if advisoryID.MatchString(id) && d.keeps(id) {
			d.definitions[id] = append(d.definitions[id], o)
		}
	}
	return nil
}

var advisoryID = regexp.MustCompile(`^[A-Z][A-Z-]*-[0-9]{4}[-:][0-9][0-9:-]*$`)

func (c *ovalCriteria) deeper(most int) bool {
	for i := range c.Criteria {
		if most == 0 || c.Criteria[i].deeper(most-1) {
			return true
		}
	}
	return false
}

func xmlError(err error) error {
	var syntax *xml.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return errors.New("it is damaged, or cut off")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it is cut off")
	}
	return err
}

// truth is what is known of a condition.
type truth int

const (
	no truth = iota
	maybe
	yes
)

func not(t truth) truth { return yes - t }

// evaluation asks a definition about an image. Where fixed is set, every version
// counts as too old: then the condition is that the packages are there at all.
type evaluation struct {
	file     *ovalFile
	packages map[string][]Package
	fixed    bool
	found    Verdict // of the last test that a package was too old for
}

// judge: where something cannot be known of an image that lies on a disk, such as
// which kernel runs, it counts as affected.
func (o *ovalDefinition) judge(id string, packages map[string][]Package) Verdict {
	e := evaluation{file: o.file, packages: packages}
	if e.criteria(&o.criteria) != no {
		e.found.ID, e.found.Status, e.found.Severity = id, Affected, o.severity
		return e.found
	}
	e = evaluation{file: o.file, packages: packages, fixed: true}
	if e.criteria(&o.criteria) != no {
		e.found.ID, e.found.Status, e.found.Severity = id, Fixed, o.severity
		return e.found
	}
	return Verdict{ID: id, Status: NotPresent}
}

func (e *evaluation) criteria(c *ovalCriteria) truth {
	or := c.Operator == "OR"
	result := yes
	if or {
		result = no
	}
	take := func(t truth, negate bool) {
		if negate {
			t = not(t)
		}
		if or {
			result = max(result, t)
		} else {
			result = min(result, t)
		}
	}
	for i := range c.Criteria {
		take(e.criteria(&c.Criteria[i]), false) // which looks at its own Negate
	}
	for _, x := range c.Criterion {
		take(e.test(x.Test), x.Negate)
	}
	for range c.Extensions {
		take(maybe, false)
	}
	if c.Operator != "" && !or && c.Operator != "AND" {
		result = maybe
	}
	if c.Negate {
		result = not(result)
	}
	return result
}

func (e *evaluation) test(ref string) truth {
	t := e.file.tests[ref]
	if t == nil {
		return maybe // not about packages
	}
	name := e.file.objects[t.Object.Ref]
	if name == "" || t.Check == "none satisfy" {
		return maybe
	}
	installed := e.packages[name]
	if t.Existence == "none_exist" {
		return map[bool]truth{true: yes, false: no}[len(installed) == 0]
	}
	result := no
	for _, p := range installed {
		all := yes
		for _, s := range t.States {
			all = min(all, e.state(e.file.states[s.Ref], p))
		}
		result = max(result, all)
	}
	return result
}

func (e *evaluation) state(s *ovalState, p Package) truth {
	if s == nil {
		return maybe
	}
	result := yes
	if s.Arch != nil {
		switch {
		case s.pattern != nil && !s.pattern.MatchString(p.Arch), s.Arch.Operation == "equals" && s.Arch.Text != p.Arch:
			result = no
		case s.pattern == nil && s.Arch.Operation != "equals":
			result = min(result, maybe)
		}
	}
	if s.Version != nil {
		_, version, _ := pkgversion.Split(p.Version)
		result = min(result, compared(s.Version, strings.Compare(version, s.Version.Text), pkgversion.RPMPart(version, s.Version.Text), version))
	}
	if s.EVR != nil {
		order := pkgversion.RPM(p.Version, s.EVR.Text)
		old := compared(s.EVR, order, order, p.Version)
		if s.EVR.Operation == "less than" {
			if e.fixed {
				old = yes
			}
			if min(result, old) == yes {
				e.found.Package, e.found.Version, e.found.FixedIn = p.Name, p.Version, strings.TrimPrefix(s.EVR.Text, "0:")
			}
		}
		result = min(result, old)
	}
	return result
}

// compared applies an operation of OVAL to what was compared.
func compared(v *ovalValue, equal, order int, text string) truth {
	ok := false
	switch v.Operation {
	case "", "equals":
		ok = equal == 0
	case "not equal":
		ok = equal != 0
	case "less than":
		ok = order < 0
	case "less than or equal":
		ok = order <= 0
	case "greater than":
		ok = order > 0
	case "greater than or equal":
		ok = order >= 0
	case "pattern match":
		p, err := regexp.Compile(v.Text)
		if err != nil {
			return maybe
		}
		ok = p.MatchString(text)
	default:
		return maybe
	}
	if ok {
		return yes
	}
	return no
}
