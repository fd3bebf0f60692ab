package testsuite

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	junit "github.com/joshdk/go-junit"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/html"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/internal/visible"
)

// hostile is what a guest may say to whoever reads a report.
const hostile = "</dd><script>alert(1)</script><!-- ]]> \x1b[2J\x1b]0;x\x07\u202egnp.exe\u2066\u200b\ufeff\u0085\u009b\u2028\U000e0041 ok 1 # SKIP\n" +
	"ok 99 - forged\n...\nBail out!\r\n\" ' & {{.}} \x00\xff"

// hostileReport has the guest's text wherever text is.
func hostileReport() *Report {
	r := &Report{Profile: "otc" + hostile, Host: "h" + hostile, Started: time.Date(2026, 11, 22, 3, 15, 7, 0, time.UTC), Checks: []Result{}}
	for i, s := range []Status{Pass, Fail, Error, Waived, Skipped} {
		r.Checks = append(r.Checks, Result{ID: fmt.Sprintf("group.check-%d%s", i, hostile), Group: "group" + hostile, Title: "title" + hostile, Severity: High,
			Status: s, Reason: "reason" + hostile, Expected: "expected" + hostile, Found: "found" + hostile, References: []string{"https://x/" + hostile}})
		r.Summary.count(s)
	}
	return r
}

// forms are a report, and a comparison of it with itself, in each form.
func forms(t *testing.T, r *Report) map[string]string {
	t.Helper()
	out := map[string]string{}
	c := Compare(&Report{Profile: r.Profile, Host: r.Host}, r)
	for name, write := range map[string]func(*bytes.Buffer) error{
		"text":            func(b *bytes.Buffer) error { return r.WriteText(b) },
		"json":            func(b *bytes.Buffer) error { return r.WriteJSON(b) },
		"junit":           func(b *bytes.Buffer) error { return r.WriteJUnit(b) },
		"tap":             func(b *bytes.Buffer) error { return r.WriteTAP(b) },
		"html":            func(b *bytes.Buffer) error { return r.WriteHTML(b) },
		"comparison text": func(b *bytes.Buffer) error { return c.WriteText(b) },
		"comparison json": func(b *bytes.Buffer) error { return c.WriteJSON(b) },
		"comparison html": func(b *bytes.Buffer) error { return c.WriteHTML(b) },
	} {
		var b bytes.Buffer
		require.NoError(t, write(&b))
		out[name] = b.String()
	}
	return out
}

// No form of a report hands on what a terminal or a browser would act on.
func TestHostileText(t *testing.T) {
	for name, text := range forms(t, hostileReport()) {
		for _, r := range text {
			if r != '\n' && r != '\t' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co) {
				t.Errorf("%s has %U", name, r)
			}
		}
		assert.Contains(t, text, "202e", "%s hides what was there", name)
		assert.NotContains(t, text, "\nok 99", name)
		assert.NotContains(t, text, "\nBail", name)
	}
}

func TestReportJSONKeepsText(t *testing.T) {
	r := hostileReport()
	var b bytes.Buffer
	require.NoError(t, r.WriteJSON(&b))
	got, err := LoadReport(&b)
	require.NoError(t, err)
	assert.Equal(t, strings.ToValidUTF8(r.Checks[1].Found, "\ufffd"), got.Checks[1].Found)
	assert.Equal(t, r.Summary, got.Summary)
}

func TestLoadReportRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                         "EOF",
		"[]":                       "cannot unmarshal",
		`{"profil": "otc"}`:        "unknown field",
		`{"checks": []} x`:         "more text after byte",
		`{"checks": []} {}`:        "more text after byte",
		`{"summary": {"pass": 1}}`: "does not count its checks",
		`{"checks": [{"id": "a", "status": "good"}]}`:                                "check 1 has no status",
		`{"checks": [{"status": "pass"}], "summary": {"pass": 1}}`:                   "check 1 has no ID",
		`{"checks": [{"id": "a", "status": "pass"}, {"id": "a", "status": "pass"}]}`: "check 2 has no ID, or that of another",
		`{"checks": [{"id": "a", "status": "pass", "severity": "dire"}]}`:            "cannot take severity",
	} {
		_, err := LoadReport(strings.NewReader(text))
		assert.ErrorContains(t, err, want)
	}
}

// The page is checked by x/net/html: it has the elements of the template and no
// other, and refers to nothing.
func TestHTMLIsOnePage(t *testing.T) {
	for name, text := range forms(t, hostileReport()) {
		if !strings.HasSuffix(name, "html") {
			continue
		}
		assert.Contains(t, text, `http-equiv="Content-Security-Policy" content="default-src 'none';`)
		z := html.NewTokenizer(strings.NewReader(text))
		var open []string
		for {
			kind := z.Next()
			if kind == html.ErrorToken {
				break
			}
			token := z.Token()
			assert.NotEqual(t, html.CommentToken, kind)
			if kind == html.EndTagToken {
				require.NotEmpty(t, open)
				require.Equal(t, open[len(open)-1], token.Data)
				open = open[:len(open)-1]
			}
			if kind != html.StartTagToken {
				continue
			}
			assert.NotContains(t, []string{"script", "img", "link", "iframe", "object", "embed", "form", "base", "a", "svg"}, token.Data, name)
			for _, a := range token.Attr {
				assert.NotContains(t, []string{"src", "href", "style", "action", "onclick", "background"}, a.Key, name)
			}
			if token.Data != "meta" && token.Data != "br" {
				open = append(open, token.Data)
			}
		}
		assert.Empty(t, open, name)
		assert.NotRegexp(t, regexp.MustCompile(`url\(|@import`), text)
	}
}

// prove reads what WriteTAP writes. It knows of version 13 where it is old; what
// a report uses is the same there.
func TestTAPByProve(t *testing.T) {
	prove := needs.Tools(t, "prove", "perl")
	version := func(text string) string { return text }
	if exec.Command(prove[1], "-MTAP::Parser", "-e", "exit($TAP::Parser::VERSION < 3.45)").Run() != nil {
		version = func(text string) string { return strings.Replace(text, "TAP version 14\n", "TAP version 13\n", 1) }
	}
	good := goldenReport(t)
	good.Checks[1].Advisory, good.Checks[2].Advisory = true, true
	onlySkipped := &Report{Checks: []Result{{ID: "a.b", Title: "t", Status: Skipped, Reason: "r"}}, Summary: Summary{Skipped: 1}}
	for name, tt := range map[string]struct {
		report *Report
		want   string
	}{
		"bad":          {goldenReport(t), "Failed 2/5 subtests"},
		"hostile":      {hostileReport(), "Failed 2/5 subtests"},
		"good":         {good, "Result: PASS"},
		"empty":        {&Report{}, "Failed 1/1 subtests"},
		"only skipped": {onlySkipped, "Failed 1/2 subtests"},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			require.NoError(t, tt.report.WriteTAP(&b))
			require.True(t, strings.HasPrefix(b.String(), "TAP version 14\n1.."))
			file := filepath.Join(t.TempDir(), "report.tap")
			require.NoError(t, os.WriteFile(file, []byte(version(b.String())), 0o600))
			out, err := exec.Command(prove[0], "--exec", "cat", file).CombinedOutput()
			assert.Equal(t, tt.report.OK(), err == nil, "%s", out)
			assert.Contains(t, string(out), tt.want)
			assert.NotContains(t, string(out), "Parse errors")
		})
	}
}

// What WriteJUnit writes is what a reader of JUnit's reports reads.
func TestJUnitByReader(t *testing.T) {
	for name, r := range map[string]*Report{"golden": goldenReport(t), "hostile": hostileReport(), "empty": {}} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			require.NoError(t, r.WriteJUnit(&b))
			suites, err := junit.Ingest(b.Bytes())
			require.NoError(t, err)
			require.Len(t, suites, 1)
			totals := suites[0].Totals
			assert.Equal(t, junit.Totals{Tests: len(r.Checks), Passed: r.Summary.Pass, Failed: r.Summary.Fail, Error: r.Summary.Error,
				Skipped: r.Summary.Skipped + r.Summary.Waived, Duration: totals.Duration}, totals)
			assert.Equal(t, visible.Line(r.Profile), suites[0].Name)
			require.Len(t, suites[0].Tests, len(r.Checks))
			for i, c := range r.Checks {
				got := suites[0].Tests[i]
				assert.Equal(t, visible.Line(c.ID+": "+c.Title), got.Name)
				if c.Status == Fail {
					assert.ErrorContains(t, got.Error, visible.Line(c.Found))
				}
			}
		})
	}
}

func reportOf(statuses map[string]Status, order ...string) *Report {
	r := &Report{Profile: "otc", Host: "h", Checks: []Result{}}
	for _, id := range order {
		r.Checks = append(r.Checks, Result{ID: id, Title: "t", Severity: High, Status: statuses[id], Expected: "e", Found: string(statuses[id])})
		r.Summary.count(statuses[id])
	}
	return r
}

func TestCompare(t *testing.T) {
	report := func(words string) *Report {
		statuses := map[string]Status{}
		var order []string
		for _, w := range strings.Fields(words) {
			id, status, _ := strings.Cut(w, "=")
			statuses[id], order = Status(status), append(order, id)
		}
		return reportOf(statuses, order...)
	}
	for _, tt := range []struct {
		name    string
		reports []string // the oldest first
		want    string   // KIND ID, + for flapping
		same    int
	}{
		{"same", []string{"a=pass b=skipped", "a=pass b=skipped"}, "", 2},
		{"each kind", []string{"a=pass b=fail c=fail d=pass e=pass", "f=pass g=error e=skipped c=error b=pass a=fail"},
			"broken a, new f, new g, still c, gone d, changed e, fixed b", 0},
		{"waived is good", []string{"a=fail b=pass c=waived", "a=waived b=waived c=error"}, "broken c, changed b, fixed a", 0},
		{"an error is bad", []string{"a=pass b=error", "a=error b=fail"}, "broken a, still b", 0},
		{"flapping", []string{"a=pass b=pass", "a=fail b=pass", "a=pass b=fail", "a=pass b=fail"}, "still b, flaps+ a", 0},
		{"flapping now", []string{"a=fail", "a=pass", "a=fail"}, "broken+ a", 0},
		{"once is no flapping", []string{"a=pass", "a=pass", "a=fail"}, "broken a", 0},
		{"not made is no change", []string{"a=fail", "", "a=fail"}, "new a", 0},
		{"nothing", []string{"", ""}, "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var all []*Report
			for _, r := range tt.reports {
				all = append(all, report(r))
			}
			n := len(all)
			c := Compare(all[n-2], all[n-1], all[:n-2]...)
			var got []string
			for _, change := range c.Changes {
				kind := string(change.Kind)
				if change.Flapping {
					kind += "+"
				}
				got = append(got, kind+" "+change.ID)
				assert.Len(t, change.Course, n)
			}
			assert.Equal(t, tt.want, strings.Join(got, ", "))
			assert.Equal(t, tt.same, c.Same)
		})
	}
}
