// Package vex writes and reads what a maker says of vulnerabilities in its product, as
// OpenVEX v0.2.0 in JSON (github.com/openvex/spec).
//
//	err := vex.Write(w, &vex.Document{ID: "https://example.com/vex/1", Author: "…", Created: now, Statements: …})
//	document, err := vex.Read(r)
//
// A document is about a product; [Read] and [Write] hold it to what the specification
// demands: an IRI as its ID, an author, a time, one statement at least; of each statement
// a vulnerability, products that are IRIs, a status, with not_affected a justification
// or an impact statement, and with affected an action statement. The same document gives
// the same bytes.
//
// # Limits
//
// Documents of other versions than 0.2.0 are refused, and so are statements that leave
// their product or their time to the document. Read takes at most 16 MiB and 100,000
// statements. The functions may be called concurrently.
package vex

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"slices"
	"time"
)

const (
	context       = "https://openvex.dev/ns/v0.2.0"
	maxBytes      = 16 << 20
	maxStatements = 100_000
	maxErrors     = 50
)

// Status is what holds of a product.
type Status string

// The statuses (section "Status Labels").
const (
	NotAffected        Status = "not_affected"
	Affected           Status = "affected"
	Fixed              Status = "fixed"
	UnderInvestigation Status = "under_investigation"
)

var statuses = []Status{NotAffected, Affected, Fixed, UnderInvestigation}

// justifications are those of the specification.
var justifications = []string{
	"component_not_present", "vulnerable_code_not_present", "vulnerable_code_not_in_execute_path",
	"vulnerable_code_cannot_be_controlled_by_adversary", "inline_mitigations_already_exist",
}

// A Document is what an author says at a time.
type Document struct {
	ID         string    // an IRI of its own
	Author     string    // who says it
	Created    time.Time // to the second
	Statements []Statement
}

// A Statement is about one vulnerability.
type Statement struct {
	Vulnerability string // "CVE-2026-1234"
	Products      []Product
	Status        Status
	Justification string // of NotAffected, a word of the specification
	Impact        string // of NotAffected, why
	Action        string // of Affected, what is done about it
	Notes         string // of any
}

// A Product is what a statement is about.
type Product struct {
	ID            string   // an IRI, such as a package URL
	SHA256        string   // of its file, lower-case hexadecimal; may be empty
	Subcomponents []string // IRIs of what in it is concerned; may be empty
}

type document struct {
	Context    string      `json:"@context"`
	ID         string      `json:"@id"`
	Author     string      `json:"author"`
	Timestamp  string      `json:"timestamp"`
	Version    int         `json:"version"`
	Statements []statement `json:"statements"`
}

type statement struct {
	Vulnerability struct {
		Name string `json:"name"`
	} `json:"vulnerability"`
	Products      []product `json:"products"`
	Status        Status    `json:"status"`
	StatusNotes   string    `json:"status_notes,omitempty"`
	Justification string    `json:"justification,omitempty"`
	Impact        string    `json:"impact_statement,omitempty"`
	Action        string    `json:"action_statement,omitempty"`
}

type product struct {
	ID            string            `json:"@id"`
	Hashes        map[string]string `json:"hashes,omitempty"`
	Subcomponents []component       `json:"subcomponents,omitempty"`
}

type component struct {
	ID string `json:"@id"`
}

// Write writes the document. What [Read] would not read is an error, and nothing is
// written.
func Write(w io.Writer, d *Document) error {
	if err := d.check(); err != nil {
		return fmt.Errorf("cannot write a VEX document: %w", err)
	}
	out := document{Context: context, ID: d.ID, Author: d.Author, Timestamp: d.Created.UTC().Format(time.RFC3339), Version: 1}
	for _, s := range d.Statements {
		o := statement{Status: s.Status, StatusNotes: s.Notes, Justification: s.Justification, Impact: s.Impact, Action: s.Action}
		o.Vulnerability.Name = s.Vulnerability
		for _, p := range s.Products {
			op := product{ID: p.ID}
			if p.SHA256 != "" {
				op.Hashes = map[string]string{"sha-256": p.SHA256}
			}
			for _, c := range p.Subcomponents {
				op.Subcomponents = append(op.Subcomponents, component{c})
			}
			o.Products = append(o.Products, op)
		}
		out.Statements = append(out.Statements, o)
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(out)
}

// Read reads a document.
func Read(r io.Reader) (*Document, error) {
	d, err := read(r)
	if err != nil {
		return nil, fmt.Errorf("cannot read a VEX document: %w", err)
	}
	return d, nil
}

func read(r io.Reader) (*Document, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	if err != nil {
		return nil, err
	}
	var in document
	switch {
	case len(data) > maxBytes:
		return nil, errors.New("it is larger than is read")
	case json.Unmarshal(data, &in) != nil:
		return nil, errors.New("it is not OpenVEX in JSON")
	case in.Context != context || in.Version < 1:
		return nil, errors.New("it is not OpenVEX v0.2.0")
	}
	d := &Document{ID: in.ID, Author: in.Author}
	if d.Created, err = time.Parse(time.RFC3339, in.Timestamp); err != nil {
		return nil, errors.New("its timestamp is not a time of RFC 3339")
	}
	for _, s := range in.Statements {
		o := Statement{Vulnerability: s.Vulnerability.Name, Status: s.Status, Justification: s.Justification, Impact: s.Impact, Action: s.Action, Notes: s.StatusNotes}
		for _, p := range s.Products {
			op := Product{ID: p.ID, SHA256: p.Hashes["sha-256"]}
			for _, c := range p.Subcomponents {
				op.Subcomponents = append(op.Subcomponents, c.ID)
			}
			o.Products = append(o.Products, op)
		}
		d.Statements = append(d.Statements, o)
	}
	return d, d.check()
}

var sha256Pattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (d *Document) check() error {
	var errs []error
	wrong := func(format string, args ...any) {
		if len(errs) < maxErrors {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	switch {
	case !isIRI(d.ID):
		wrong("its ID is no IRI")
	case d.Author == "":
		wrong("it has no author")
	case d.Created.IsZero():
		wrong("it has no time")
	case len(d.Statements) == 0:
		wrong("it has no statement")
	case len(d.Statements) > maxStatements:
		return errors.New("it has more statements than are read")
	}
	for i, s := range d.Statements {
		if why := s.wrong(); why != "" {
			wrong("statement %d: %s", i+1, why)
		}
	}
	return errors.Join(errs...)
}

// wrong says what is wrong with the statement, or "".
func (s *Statement) wrong() string {
	switch {
	case s.Vulnerability == "":
		return "it names no vulnerability"
	case len(s.Products) == 0:
		return "it names no product"
	case !slices.Contains(statuses, s.Status):
		return "its status is none of the specification"
	case s.Justification != "" && (s.Status != NotAffected || !slices.Contains(justifications, s.Justification)):
		return "its justification is none of the specification, or it is not about what is not affected"
	case s.Status == NotAffected && s.Justification == "" && s.Impact == "":
		return "it does not say why the product is not affected"
	case s.Status == Affected && s.Action == "":
		return "it does not say what is done about it"
	}
	for _, p := range s.Products {
		switch {
		case !isIRI(p.ID):
			return "a product's ID is no IRI"
		case p.SHA256 != "" && !sha256Pattern.MatchString(p.SHA256):
			return "a product's SHA-256 is none"
		case slices.ContainsFunc(p.Subcomponents, func(c string) bool { return !isIRI(c) }):
			return "a subcomponent's ID is no IRI"
		}
	}
	return ""
}

func isIRI(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme != "" && (u.Host != "" || u.Opaque != "")
}
