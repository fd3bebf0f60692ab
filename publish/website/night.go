package website

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// Bounds of what is shown of a run.
const (
	logTail    = 8 << 10 // bytes
	logLines   = 25
	maxLogs    = 4 // of one image
	maxResults = 10000
)

// runReport is the form of report.json; see imagefactory.Report.
type runReport struct {
	Started  time.Time   `json:"started"`
	Finished time.Time   `json:"finished"`
	Images   []runResult `json:"images"`
}

type runResult struct {
	Name       string           `json:"name"`
	Build      string           `json:"build"`
	Result     string           `json:"result"`
	Stage      string           `json:"stage"`
	Error      string           `json:"error"`
	DurationMS map[string]int64 `json:"duration_ms"`
	Checks     publish.Tests    `json:"checks"`
	Artifacts  []string         `json:"artifacts"`
}

type nightPage struct {
	Head              head
	Started, Finished string
	Outcomes          []outcome
	Images            []nightImage
}

type outcome struct {
	Name, Class string
	Count       int
}

type nightImage struct {
	Name, Page, Result, Class, Stage, Build, Took, Error string
	Checks                                               publish.Tests
	Logs                                                 []logTailOf
}

type logTailOf struct{ Name, Tail string }

// addNight puts the page of the last run, where there is a report.
func (w *writer) addNight(p *part) error {
	if len(w.Report) == 0 {
		return nil
	}
	var report runReport
	if json.Unmarshal(w.Report, &report) != nil { // whose error would quote it
		return errors.New("the report of the run is not one in JSON")
	}
	page := nightPage{Head: w.head("Last run", "", "atom.xml"), Started: when(report.Started), Finished: when(report.Finished)}
	for _, i := range report.Images[:min(len(report.Images), maxResults)] {
		x := nightImage{
			Name: oneLine(i.Name), Result: oneLine(i.Result), Class: "fail", Stage: oneLine(i.Stage), Build: oneLine(i.Build),
			Took: took(i.DurationMS), Error: visible(i.Error), Checks: i.Checks,
		}
		switch i.Result {
		case "published":
			x.Class = "pass"
		case "unchanged", "candidate":
			x.Class = "dim"
		default:
			x.Logs = w.logs(i)
		}
		if slices.ContainsFunc(w.rows, func(r row) bool { return r.Name == i.Name }) {
			x.Page = path.Join("images", i.Name, "index.html")
		}
		n := slices.IndexFunc(page.Outcomes, func(o outcome) bool { return o.Name == x.Result })
		if n < 0 {
			n, page.Outcomes = len(page.Outcomes), append(page.Outcomes, outcome{Name: x.Result, Class: x.Class})
		}
		page.Outcomes[n].Count++
		page.Images = append(page.Images, x)
	}
	data, err := w.pages.make("night", page)
	if err != nil {
		return err
	}
	return p.put("night.html", data)
}

// took says how long the stages took, those of a factory first.
func took(ms map[string]int64) string {
	var parts []string
	for _, stage := range []string{"build", "inspect", "test", "seal", "publish"} {
		if n, ok := ms[stage]; ok {
			parts = append(parts, stage+" "+duration(n))
		}
	}
	return strings.Join(parts, ", ")
}

// logs are the ends of the logs that a failed image left below the download
// directory.
func (w *writer) logs(i runResult) []logTailOf {
	root, err := os.OpenRoot(w.Dir)
	if err != nil {
		return nil
	}
	defer root.Close()
	var list []logTailOf
	for _, name := range i.Artifacts {
		if !strings.HasSuffix(name, ".log") || len(list) == maxLogs {
			continue
		}
		if tail, err := tailOf(root, name); err == nil && tail != "" {
			list = append(list, logTailOf{oneLine(path.Base(name)), tail})
		}
	}
	return list
}

func tailOf(root *os.Root, name string) (string, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file", name)
	}
	data, err := io.ReadAll(io.NewSectionReader(f, max(0, st.Size()-logTail), logTail))
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimRight(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n"), "\n")
	if len(data) == logTail && len(lines) > 1 {
		lines = lines[1:] // which has lost its beginning
	}
	lines = lines[max(0, len(lines)-logLines):]
	return visibleUpTo(strings.ReplaceAll(strings.Join(lines, "\n"), "\t", "    "), 2*logTail), nil
}
