package testsuite

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/internal/visible"
)

// A Report is the outcome of a profile on one machine. Its JSON form is what
// WriteJSON writes and [LoadReport] reads back.
//
// What a guest said is harmless in each form that a report is written in: controls,
// direction marks and characters of no width are written as escapes (\x1b, \u202e),
// in JSON as JSON's own.
type Report struct {
	Profile    string    `json:"profile"`
	Host       string    `json:"host"`
	Started    time.Time `json:"started"`
	DurationMS int64     `json:"duration_ms"`
	// BootMS is how long the machine took from its start until it let its user in,
	// where who started it sets that; 0 if it is not known.
	BootMS     int64    `json:"boot_ms,omitempty"`
	RoundTrips int      `json:"round_trips"`
	Checks     []Result `json:"checks"` // in the profile's order
	Summary    Summary  `json:"summary"`
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
	// First is what the first run found, where the check was tried again. It is there
	// if the status is Flaky.
	First *First `json:"first,omitempty"`
}

// First is what a check found before it was tried again.
type First struct {
	Status   Status `json:"status"` // Fail or Error
	Reason   string `json:"reason"`
	Expected string `json:"expected"`
	Found    string `json:"found"`
}

// Summary counts a report's checks by status.
type Summary struct {
	Pass    int `json:"pass"`
	Fail    int `json:"fail"`
	Error   int `json:"error"`
	Waived  int `json:"waived"`
	Skipped int `json:"skipped"`
	Flaky   int `json:"flaky"` // those that count as failed among them
}

// OK reports whether the machine may be released: at least one check passed
// and none failed or ended in an error, those left aside that are advisory.
func (r *Report) OK() bool {
	return r.Summary.Pass > 0 && len(r.Bad()) == 0 && r.Summary.Fail+r.Summary.Error+r.Summary.Flaky <= len(r.Checks)
}

// Bad returns the checks that failed or ended in an error and count, in order. What
// failed and then passed is one of them: it was once seen to be wrong.
func (r *Report) Bad() []Result {
	return filter(r.Checks, func(c Result) bool { return c.bad() && !c.Advisory })
}

// bad reports whether the check found something wrong, or could not tell.
func (r *Result) bad() bool {
	switch r.Status {
	case Fail, Error:
		return true
	case Flaky:
		return r.First == nil || r.First.Status != Error
	}
	return false
}

// WriteJSON writes the report as indented JSON.
func (r *Report) WriteJSON(w io.Writer) error {
	if err := writeJSON(w, r); err != nil {
		return fmt.Errorf("cannot write report as JSON: %w", err)
	}
	return nil
}

// writeJSON writes v as indented JSON that is safe to show.
func writeJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(visible.JSON(b.Bytes()))
	return err
}

// maxReportFile bounds what LoadReport reads. Findings are bounded each.
const maxReportFile = 64 << 20

// LoadReport reads what WriteJSON wrote: strictly, and at most 64 MiB. A report that
// contradicts itself, or has a check twice, is refused.
func LoadReport(r io.Reader) (*Report, error) {
	report := &Report{}
	if err := loadJSON(r, maxReportFile, report); err != nil {
		return nil, fmt.Errorf("cannot load report: %w", err)
	}
	var counts Summary
	known := map[string]bool{}
	for i, c := range report.Checks {
		before := counts
		counts.count(c.Status)
		switch {
		case c.ID == "" || known[c.ID]:
			return nil, fmt.Errorf("cannot load report: check %d has no ID, or that of another", i+1)
		case counts == before:
			return nil, fmt.Errorf("cannot load report: check %d has no status that is known", i+1)
		case c.Status == Flaky && c.First == nil || c.First != nil && c.First.Status != Fail && c.First.Status != Error:
			return nil, fmt.Errorf("cannot load report: check %d does not say how it first failed", i+1)
		}
		known[c.ID] = true
	}
	if counts != report.Summary {
		return nil, errors.New("cannot load report: its summary does not count its checks")
	}
	return report, nil
}

// loadJSON decodes one JSON value of at most limit bytes, strictly.
func loadJSON(r io.Reader, limit int64, v any) error {
	lr := &io.LimitedReader{R: r, N: limit + 1}
	dec := json.NewDecoder(lr)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		if lr.N <= 0 {
			return fmt.Errorf("more than %d bytes", limit)
		}
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("more text after byte %d", dec.InputOffset())
	}
	return nil
}

// WriteText writes the report for people: one line per check, what was
// expected and found below those that are not good, and the counts.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "profile %s on %s, %s, %.1f s\n\n", visible.Line(r.Profile), visible.Line(r.Host),
		r.Started.UTC().Format(time.RFC3339), float64(r.DurationMS)/1000)
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "%-8s%-32s %s\n", c.Status, visible.Line(c.ID), visible.Line(c.Title))
		if c.Status == Pass {
			continue
		}
		for _, l := range c.details() {
			fmt.Fprintf(&b, "        %-9s %s\n", l[0]+":", l[1])
		}
	}
	s := r.Summary
	fmt.Fprintf(&b, "\n%d checks: %d pass, %d fail, %d error, %d waived, %d skipped, %d flaky\n",
		len(r.Checks), s.Pass, s.Fail, s.Error, s.Waived, s.Skipped, s.Flaky)
	if n := len(filter(r.Checks, func(c Result) bool { return c.Advisory })); n > 0 {
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

// details are what there is to be said of a check beside its status, safe to show:
// name and text.
func (r Result) details() [][2]string {
	var lines [][2]string
	for _, l := range [][2]string{{"reason", r.Reason}, {"expected", r.Expected}, {"found", r.Found}} {
		if l[1] != "" {
			lines = append(lines, [2]string{l[0], visible.Line(l[1])})
		}
	}
	if r.First != nil {
		lines = append(lines, [2]string{"first", r.First.line()})
	}
	return lines
}

// line is the first outcome, safe to show.
func (f *First) line() string {
	words := []string{string(f.Status)}
	for _, l := range [][2]string{{"reason", f.Reason}, {"expected", f.Expected}, {"found", f.Found}} {
		if l[1] != "" {
			words = append(words, l[0]+" "+l[1])
		}
	}
	return visible.Line(strings.Join(words, "; "))
}

// oneLine makes one line of what a guest said in several.
func oneLine(s string) string { return visible.Line(strings.Join(strings.Fields(s), " ")) }
