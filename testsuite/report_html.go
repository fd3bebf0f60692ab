package testsuite

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/internal/visible"
)

//go:embed report.html.tmpl
var pageText string

// pages are the report and the comparison as HTML.
var pages = template.Must(template.New("").Funcs(template.FuncMap{"shown": visible.Line}).Parse(pageText))

// htmlResult is a Result on a page.
type htmlResult struct {
	Result
	Open bool
}

func (r htmlResult) Details() [][2]string { return r.details() }

type htmlSection struct {
	Title   string
	Results []htmlResult
}

type htmlCount struct {
	Status Status
	Number int
}

// WriteHTML writes the report as one page that refers to nothing outside of it and
// runs no script: what is bad comes first, what passed last.
func (r *Report) WriteHTML(w io.Writer) error {
	sections := []htmlSection{{Title: "Bad"}, {Title: "Bad, below what counts"}, {Title: "Flaky: passed when tried again"}, {Title: "Waived"}, {Title: "Skipped"}, {Title: "Passed"}}
	for _, c := range r.Checks {
		at := 0
		switch {
		case c.Status == Pass:
			at = 5
		case c.Status == Skipped:
			at = 4
		case c.Status == Waived:
			at = 3
		case !c.bad():
			at = 2
		case c.Advisory:
			at = 1
		}
		sections[at].Results = append(sections[at].Results, htmlResult{c, at == 0})
	}
	s := r.Summary
	return writePage(w, "report", map[string]any{
		"Title":   "Test of " + visible.Line(r.Host) + ", profile " + visible.Line(r.Profile),
		"Report":  r,
		"Started": shownTime(r.Started),
		"Seconds": fmt.Sprintf("%.1f", float64(r.DurationMS)/1000),
		"Counts":  []htmlCount{{Fail, s.Fail}, {Error, s.Error}, {Flaky, s.Flaky}, {Waived, s.Waived}, {Skipped, s.Skipped}, {Pass, s.Pass}},
		"Sections": filter(sections, func(s htmlSection) bool {
			return len(s.Results) > 0
		}),
	})
}

func shownTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// filter returns those of list that are wanted.
func filter[T any](list []T, wanted func(T) bool) []T {
	var some []T
	for _, v := range list {
		if wanted(v) {
			some = append(some, v)
		}
	}
	return some
}

func writePage(w io.Writer, name string, data any) error {
	var b strings.Builder
	err := pages.ExecuteTemplate(&b, name, data)
	if err == nil {
		_, err = io.WriteString(w, b.String())
	}
	if err != nil {
		return fmt.Errorf("cannot write %s as HTML: %w", name, err)
	}
	return nil
}
