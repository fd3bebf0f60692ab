package testsuite

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/internal/visible"
)

// WriteTAP writes the report by the Test Anything Protocol, version 14: a test point
// for each check, and below those that are not good a YAML block with severity,
// reason, expected and found. What is waived, or is bad and does not count, is
// "not ok … # TODO", which harnesses let through. What could first not be decided and
// then passed is ok, and has its first outcome in the block. A report in which nothing passed has
// one test point more, which fails: a harness and OK say the same.
func (r *Report) WriteTAP(w io.Writer) error {
	var b strings.Builder
	n := len(r.Checks)
	if r.Summary.Pass == 0 {
		n++
	}
	fmt.Fprintf(&b, "TAP version 14\n1..%d\n", n)
	for i, c := range r.Checks {
		ok, directive := "ok", ""
		switch {
		case c.Status == Skipped:
			directive = " # SKIP " + visible.Line(c.Reason)
		case c.Status == Waived:
			ok, directive = "not ok", " # TODO waived: "+visible.Line(c.Reason)
		case c.Advisory:
			ok, directive = "not ok", " # TODO below the severity that counts"
		case c.bad():
			ok = "not ok"
		}
		fmt.Fprintf(&b, "%s %d - %s%s\n", ok, i+1, tapText(c.ID+": "+c.Title), directive)
		if c.Status == Pass || c.Status == Skipped {
			continue
		}
		fmt.Fprintf(&b, "  ---\n  severity: %s\n", quoted(string(c.Severity)))
		for _, l := range c.details() {
			fmt.Fprintf(&b, "  %s: %s\n", l[0], quoted(l[1]))
		}
		b.WriteString("  ...\n")
	}
	if n > len(r.Checks) {
		fmt.Fprintf(&b, "not ok %d - no check passed\n", n)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("cannot write report as TAP: %w", err)
	}
	return nil
}

// tapText is a description: no number sign in it begins a directive.
func tapText(s string) string {
	return strings.NewReplacer(`\`, `\\`, "#", `\#`).Replace(visible.Line(s))
}

// quoted is a scalar of YAML, which takes JSON's strings as its own.
func quoted(s string) string {
	text, _ := json.Marshal(s) // a string always can
	return string(visible.JSON(text))
}
