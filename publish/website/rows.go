package website

import (
	"html"
	"html/template"
	"strings"
)

// The rows of long tables are made here: templates take ten times as long. All that
// is not markup of this file goes through text.

// rows are rows of a table.
type rows struct{ b strings.Builder }

func (r *rows) markup(s string) *rows {
	r.b.WriteString(s)
	return r
}

// text adds what is no markup.
func (r *rows) text(s string) *rows {
	r.b.WriteString(html.EscapeString(s))
	return r
}

func (r *rows) html() template.HTML { return template.HTML(r.b.String()) } //nolint:gosec // it is escaped by text

func packageRows(list []pkg) template.HTML {
	var r rows
	for _, p := range list {
		r.markup(`
<tr><th scope="row">`).text(p.Name).markup("</th><td>").text(p.Version).markup("</td><td>").text(p.Arch).markup("</td></tr>")
	}
	return r.html()
}

func checkRows(list []testResult) template.HTML {
	var r rows
	for _, c := range list {
		r.markup(`
<tr><th scope="row">`).text(oneLine(c.Title)).markup("<br><code>").text(oneLine(c.ID)).markup(`</code></th><td><span class="tag `).text(c.class()).markup(`">`).text(oneLine(c.Status)).markup("</span>")
		if c.Reason != "" {
			r.markup("<br>").text(visible(c.Reason))
		}
		r.markup(`</td><td class="text">`).text(visible(c.Expected)).markup(`</td><td class="text">`).text(visible(c.Found)).markup("</td></tr>")
	}
	return r.html()
}

// class is what the outcome looks like.
func (c testResult) class() string {
	switch c.Status {
	case "pass", "waived":
		return c.Status
	case "skipped":
		return "dim"
	case "flaky": // a released image has those only that could first not be decided
		return "waived"
	}
	return "fail"
}
