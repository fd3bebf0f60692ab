package testsuite

import (
	"encoding/xml"
	"fmt"
	"io"

	"github.com/opentelekomcloud/go-imagefactory/internal/visible"
)

type junitSuites struct {
	XMLName xml.Name     `xml:"testsuites"`
	Suites  []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name      string      `xml:"name,attr"`
	Hostname  string      `xml:"hostname,attr"`
	Tests     int         `xml:"tests,attr"`
	Failures  int         `xml:"failures,attr"`
	Errors    int         `xml:"errors,attr"`
	Skipped   int         `xml:"skipped,attr"`
	Time      string      `xml:"time,attr"`
	Timestamp string      `xml:"timestamp,attr"`
	Cases     []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Time    string        `xml:"time,attr"`
	Failure *junitOutcome `xml:"failure"`
	Error   *junitOutcome `xml:"error"`
	Skipped *junitOutcome `xml:"skipped"`

	FlakyError   *junitOutcome `xml:"flakyError"`
	RerunFailure *junitOutcome `xml:"rerunFailure"`
	RerunError   *junitOutcome `xml:"rerunError"`
}

type junitOutcome struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// WriteJUnit writes the report as JUnit XML. JUnit knows no waiver: a waived
// check is written as skipped, its message begins with "waived: ". A first outcome is
// written as Maven's Surefire does: flakyError where the check then passed and is good,
// rerunFailure or rerunError where it is not.
func (r *Report) WriteJUnit(w io.Writer) error {
	seconds := func(ms int64) string { return fmt.Sprintf("%.3f", float64(ms)/1000) }
	flaky := len(filter(r.Checks, func(c Result) bool { return c.Status == Flaky && c.bad() }))
	suite := junitSuite{
		Name: visible.Line(r.Profile), Hostname: visible.Line(r.Host), Tests: len(r.Checks),
		Failures: r.Summary.Fail + flaky, Errors: r.Summary.Error, Skipped: r.Summary.Skipped + r.Summary.Waived,
		Time: seconds(r.DurationMS), Timestamp: r.Started.UTC().Format("2006-01-02T15:04:05"),
	}
	for _, c := range r.Checks {
		jc := junitCase{Class: visible.Line(r.Profile + "." + c.Group), Name: visible.Line(c.ID + ": " + c.Title), Time: seconds(c.DurationMS)}
		expected, found, reason := visible.Line(c.Expected), visible.Line(c.Found), visible.Line(c.Reason)
		text := fmt.Sprintf("expected: %s\nfound: %s\n", expected, found)
		switch c.Status {
		case Fail:
			jc.Failure = &junitOutcome{Message: fmt.Sprintf("expected %s, found %s", expected, found), Text: text}
		case Error:
			jc.Error = &junitOutcome{Message: reason, Text: text}
		case Skipped:
			jc.Skipped = &junitOutcome{Message: reason}
		case Waived:
			jc.Skipped = &junitOutcome{Message: "waived: " + reason, Text: text}
		case Flaky:
			if c.bad() {
				jc.Failure = &junitOutcome{Message: "flaky: it failed and then passed", Text: text}
			}
		}
		jc.setFirst(c)
		suite.Cases = append(suite.Cases, jc)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return fmt.Errorf("cannot write report as JUnit: %w", err)
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(junitSuites{Suites: []junitSuite{suite}}); err != nil {
		return fmt.Errorf("cannot write report as JUnit: %w", err)
	}
	if _, err := io.WriteString(w, "\n"); err != nil {
		return fmt.Errorf("cannot write report as JUnit: %w", err)
	}
	return nil
}

// setFirst sets the first outcome of a check that was tried again.
func (jc *junitCase) setFirst(c Result) {
	if c.First == nil {
		return
	}
	first := &junitOutcome{Message: c.First.line()}
	switch {
	case !c.bad():
		jc.FlakyError = first
	case c.First.Status == Fail:
		jc.RerunFailure = first
	default:
		jc.RerunError = first
	}
}
