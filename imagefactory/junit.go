package imagefactory

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/internal/visible"
)

// WriteJUnit writes the report as JUnit's XML, as CI systems read it: a test case for
// each image, which fails as it failed, and one more for each that has alarms. The
// website's failure is a case of its own. The images' checks are in their own reports.
func (r *Report) WriteJUnit(w io.Writer) error {
	suite := junitSuite{Name: "imagefactory", Timestamp: r.Started.UTC().Format("2006-01-02T15:04:05"), Time: seconds(r.Finished.Sub(r.Started))}
	add := func(c junitCase) {
		suite.Tests++
		if c.Failure != nil {
			suite.Failures++
		}
		suite.Cases = append(suite.Cases, c)
	}
	for _, i := range r.Images {
		var took time.Duration
		for _, ms := range i.DurationMS {
			took += time.Duration(ms) * time.Millisecond
		}
		c := junitCase{Class: "imagefactory", Name: i.Name, Time: seconds(took)}
		if i.Result == Failed {
			c.Failure = failure(string(i.Stage), i.Error)
		}
		c.Out = fmt.Sprintf("%s, build %s, latest release %s", i.Result, cmp.Or(i.Build, "none"), cmp.Or(i.Release, "none"))
		if i.Held != "" {
			c.Out += "\nheld: " + visible.Line(i.Held)
		}
		add(c)
		if len(i.Alarms) > 0 {
			add(junitCase{Class: "imagefactory.alarms", Name: i.Name, Time: "0.000", Failure: failure("alarm", strings.Join(i.Alarms, "\n"))})
		}
	}
	if r.SiteError != "" {
		add(junitCase{Class: "imagefactory", Name: "website", Time: "0.000", Failure: failure("website", r.SiteError)})
	}
	data, err := xml.MarshalIndent(junitSuites{Suites: []junitSuite{suite}}, "", "  ")
	if err == nil {
		_, err = io.WriteString(w, xml.Header+string(data)+"\n")
	}
	if err != nil {
		return fmt.Errorf("cannot write the report as JUnit: %w", err)
	}
	return nil
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }

// failure has the first line for lists and the whole for who looks.
func failure(kind, text string) *junitFailure {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, visible.Line(strings.TrimSuffix(line, "\n")))
	}
	if lines == nil {
		lines = []string{"it did not say why"}
	}
	return &junitFailure{Type: kind, Message: oneLine(lines[0]), Text: strings.Join(lines, "\n")}
}

type junitSuites struct {
	XMLName xml.Name `xml:"testsuites"`
	Suites  []junitSuite
}

type junitSuite struct {
	XMLName   xml.Name    `xml:"testsuite"`
	Name      string      `xml:"name,attr"`
	Tests     int         `xml:"tests,attr"`
	Failures  int         `xml:"failures,attr"`
	Errors    int         `xml:"errors,attr"`
	Timestamp string      `xml:"timestamp,attr"`
	Time      string      `xml:"time,attr"`
	Cases     []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Time    string        `xml:"time,attr"`
	Failure *junitFailure `xml:"failure"`
	Out     string        `xml:"system-out,omitempty"`
}

type junitFailure struct {
	Type    string `xml:"type,attr"`
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}
