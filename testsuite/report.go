package testsuite

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// A Report is the outcome of a profile on one machine. Its JSON form is what
// WriteJSON writes and json.Unmarshal reads back.
type Report struct {
	Profile    string    `json:"profile"`
	Host       string    `json:"host"`
	Started    time.Time `json:"started"`
	DurationMS int64     `json:"duration_ms"`
	RoundTrips int       `json:"round_trips"`
	Checks     []Result  `json:"checks"` // in the profile's order
	Summary    Summary   `json:"summary"`
}

// A Result is the outcome of one check.
type Result struct {
	ID         string   `json:"id"`
	Group      string   `json:"group"`
	Title      string   `json:"title"`
	Severity   Severity `json:"severity"`
	Status     Status   `json:"status"`
	Reason     string   `json:"reason"` // why it is skipped, waived or an error
	Expected   string   `json:"expected"`
	Found      string   `json:"found"`
	References []string `json:"references"`
	Advisory   bool     `json:"advisory,omitempty"` // bad, but below the suite's FailFrom: it does not count
	DurationMS int64    `json:"duration_ms"`        // how long gathering the facts it needs took
}

// Summary counts a report's checks by status.
type Summary struct {
	Pass    int `json:"pass"`
	Fail    int `json:"fail"`
	Error   int `json:"error"`
	Waived  int `json:"waived"`
	Skipped int `json:"skipped"`
}

// OK reports whether the machine may be released: at least one check passed
// and none failed or ended in an error, those left aside that are advisory.
func (r *Report) OK() bool {
	return r.Summary.Pass > 0 && len(r.Bad()) == 0 && r.Summary.Fail+r.Summary.Error <= len(r.Checks)
}

// Bad returns the checks that failed or ended in an error and count, in order.
func (r *Report) Bad() []Result {
	var bad []Result
	for _, c := range r.Checks {
		if (c.Status == Fail || c.Status == Error) && !c.Advisory {
			bad = append(bad, c)
		}
	}
	return bad
}

// WriteJSON writes the report as indented JSON.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return fmt.Errorf("cannot write report as JSON: %w", err)
	}
	return nil
}

// WriteText writes the report for people: one line per check, what was
// expected and found below those that are not good, and the counts.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "profile %s on %s, %s, %.1f s\n\n", r.Profile, r.Host,
		r.Started.UTC().Format(time.RFC3339), float64(r.DurationMS)/1000)
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "%-8s%-32s %s\n", c.Status, c.ID, c.Title)
		if c.Status == Pass {
			continue
		}
		for _, l := range [][2]string{{"reason", c.Reason}, {"expected", c.Expected}, {"found", c.Found}} {
			if l[1] != "" {
				fmt.Fprintf(&b, "        %-9s %s\n", l[0]+":", oneLine(l[1]))
			}
		}
	}
	s := r.Summary
	fmt.Fprintf(&b, "\n%d checks: %d pass, %d fail, %d error, %d waived, %d skipped\n",
		len(r.Checks), s.Pass, s.Fail, s.Error, s.Waived, s.Skipped)
	if n := s.Fail + s.Error - len(r.Bad()); n > 0 {
		fmt.Fprintf(&b, "%d of these are below the severity that counts\n", n)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("cannot write report as text: %w", err)
	}
	return nil
}

// WriteText writes the profile's checks as a table for people: ID, severity, what
// holds when the check passes, and the facts that it needs.
func (p Profile) WriteText(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CHECK\tSEVERITY\tHOLDS WHEN\tFACTS")
	for _, c := range p.Checks {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", c.ID, c.Severity, c.Title, strings.Join(c.Needs, ", "))
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("cannot write the checks of profile %s: %w", p.Name, err)
	}
	return nil
}

// oneLine keeps what a guest said from starting lines of its own or driving
// a terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return ' '
		}
		return r
	}, s)
}

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
}

type junitOutcome struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// WriteJUnit writes the report as JUnit XML. JUnit knows no waiver: a waived
// check is written as skipped, its message begins with "waived: ".
func (r *Report) WriteJUnit(w io.Writer) error {
	seconds := func(ms int64) string { return fmt.Sprintf("%.3f", float64(ms)/1000) }
	suite := junitSuite{
		Name: r.Profile, Hostname: r.Host, Tests: len(r.Checks),
		Failures: r.Summary.Fail, Errors: r.Summary.Error, Skipped: r.Summary.Skipped + r.Summary.Waived,
		Time: seconds(r.DurationMS), Timestamp: r.Started.UTC().Format("2006-01-02T15:04:05"),
	}
	for _, c := range r.Checks {
		jc := junitCase{Class: r.Profile + "." + c.Group, Name: c.ID + ": " + c.Title, Time: seconds(c.DurationMS)}
		text := fmt.Sprintf("expected: %s\nfound: %s\n", c.Expected, c.Found)
		switch c.Status {
		case Fail:
			jc.Failure = &junitOutcome{Message: fmt.Sprintf("expected %s, found %s", c.Expected, c.Found), Text: text}
		case Error:
			jc.Error = &junitOutcome{Message: c.Reason, Text: text}
		case Skipped:
			jc.Skipped = &junitOutcome{Message: c.Reason}
		case Waived:
			jc.Skipped = &junitOutcome{Message: "waived: " + c.Reason, Text: text}
		}
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
