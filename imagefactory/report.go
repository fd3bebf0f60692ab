package imagefactory

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// Stage is a part of an image's way, in this order.
type Stage string

// The stages.
const (
	StageBuild   Stage = "build"
	StageInspect Stage = "inspect"
	StageTest    Stage = "test"
	StageSeal    Stage = "seal"
	StagePublish Stage = "publish"
)

// Outcome is what came of an image.
type Outcome string

// The outcomes.
const (
	Published Outcome = "published" // there is a new release
	Unchanged Outcome = "unchanged" // from what the latest release is from, or with its packages and configuration
	Failed    Outcome = "failed"    // Stage and Error say where and why
	Waiting   Outcome = "waiting"   // the stages that were asked for are done, others are left
	Candidate Outcome = "candidate" // there is a new release that is not public yet: Held says why
)

// Report is what came of a run.
type Report struct {
	Started  time.Time     `json:"started"`
	Finished time.Time     `json:"finished"`
	Images   []ImageReport `json:"images"` // in the order of the definitions
	// SiteError is why the website could not be written, or which releases on it
	// do not verify; otherwise "".
	SiteError string `json:"site_error,omitempty"`
}

// ImageReport is what came of one image. Paths in it are below Factory.Dir, with
// slashes.
type ImageReport struct {
	Name   string  `json:"name"`
	Build  string  `json:"build"` // build ID; "" where none was begun
	Result Outcome `json:"result"`
	Stage  Stage   `json:"stage"` // where it failed; otherwise ""
	Error  string  `json:"error"` // otherwise ""
	// DurationMS has the stages that were begun, in milliseconds of elapsed time.
	DurationMS map[Stage]int64   `json:"duration_ms"`
	Checks     testsuite.Summary `json:"checks"`
	// Release is the image's latest release below Factory.Dir after the run,
	// NAME/BUILD, or "" where there is none.
	Release string `json:"release"`
	// Artifacts are the files of a new release, where a target has put them
	// below Factory.Dir; for a failed image, what it left for finding out why.
	// Never null.
	Artifacts []string `json:"artifacts"`

	// Targets are what came of each target that the image was brought to, in the
	// definition's order; none where it came to no publication.
	Targets []TargetReport `json:"targets,omitempty"`

	// Stale says by a target's name why what is latest there is older than
	// Factory.MaxAge, or that this cannot be told; it has no other targets.
	Stale map[string]string `json:"stale,omitempty"`

	// Notes are the known issues that the definition lists.
	Notes []string `json:"notes,omitempty"`

	// Findings are what the definition's gate judged, whether it blocked or not.
	Findings []Finding `json:"findings,omitempty"`
	// Due says whether latest was to be renewed, for an image that came so far.
	Due *Due `json:"due,omitempty"`
	// Held is why a release is a candidate, or why the gate keeps it one; otherwise "".
	Held string `json:"held,omitempty"`
	// Alarms are what somebody has to look at beside Error: a latest that has gone
	// unrenewed for too long, releases that cannot be retired.
	Alarms []string `json:"alarms,omitempty"`
	// Retired are the releases that were removed, TARGET/BUILD.
	Retired []string `json:"retired,omitempty"`

	// Err is the error itself, for errors.Is and errors.As; nil unless Failed, and but
	// for Do's ErrNothingToDo.
	Err error `json:"-"`
}

// TargetReport is what came of an image on one target. What failed on it is tried there
// again by the next run.
type TargetReport struct {
	// Name is what the definition calls the target; see [Component].
	Name  string `json:"name"`
	Build string `json:"build"` // that was published
	Error string `json:"error"` // otherwise ""
}

// OK reports whether there are images and each is published, unchanged, a candidate or
// waiting, without an alarm and nowhere stale, and nothing is wrong with the website.
func (r *Report) OK() bool {
	if r == nil || len(r.Images) == 0 || r.SiteError != "" {
		return false
	}
	for _, i := range r.Images {
		if !i.good() {
			return false
		}
	}
	return true
}

// good reports whether nobody has to look at the image.
func (i *ImageReport) good() bool {
	return slices.Contains([]Outcome{Published, Unchanged, Candidate, Waiting}, i.Result) && len(i.Alarms)+len(i.Stale) == 0
}

// WriteJSON writes the report as indented JSON, with the keys that the fields
// name; json.Unmarshal reads it back, but for Err.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// Event is the beginning or the end of a stage.
type Event struct {
	Time  time.Time // by Factory.Now
	Image string
	Build string // build ID
	Stage Stage
	// Done is false at a stage's beginning and true at its end. Then Err is
	// how it failed, or nil, and Duration how long it took.
	Done     bool
	Err      error
	Duration time.Duration
}

// newProgress makes a callback that may be nil safe for several goroutines, and
// its panic an error.
func newProgress(log *slog.Logger, f func(Event)) func(Event) error {
	if f == nil {
		return func(Event) error { return nil }
	}
	var mu sync.Mutex
	return func(e Event) error {
		mu.Lock()
		defer mu.Unlock()
		return contain(log, "Progress", "", func() error {
			f(e)
			return nil
		})
	}
}

// WriteFile writes the report to a file, as WriteJSON does. A regular file is
// replaced in one step and keeps its mode and owner; a new one has what the umask
// leaves of 0666. What is not a regular file, such as a link or a pipe, stays
// and is written to.
func (r *Report) WriteFile(name string) error {
	return writeFile(name, r.WriteJSON)
}

// WriteText writes a line or two for each image.
func (r *Report) WriteText(w io.Writer) error {
	var err error
	printf := func(format string, args ...any) {
		if err == nil {
			_, err = fmt.Fprintf(w, format, args...)
		}
	}
	for _, i := range r.Images {
		var took []string
		for _, s := range stageOrder {
			if ms, ok := i.DurationMS[s]; ok {
				took = append(took, fmt.Sprintf("%s %v", s, (time.Duration(ms)*time.Millisecond).Round(100*time.Millisecond)))
			}
		}
		printf("%s: %s", i.Name, i.Result)
		if i.Result == Failed {
			printf(" in %s: %s", i.Stage, i.Error)
		}
		printf("\n")
		if len(took) > 0 {
			printf("  build %s: %s\n", i.Build, strings.Join(took, ", "))
		}
		if c := i.Checks; c != (testsuite.Summary{}) {
			printf("  checks: %d passed, %d failed, %d errors, %d waived, %d skipped, %d flaky\n", c.Pass, c.Fail, c.Error, c.Waived, c.Skipped, c.Flaky)
		}
		if i.Held != "" && i.Result == Candidate {
			printf("  build %s is held: %s\n", i.Build, i.Held)
		}
		for _, f := range i.Findings {
			if !f.Blocks {
				printf("  finding %s (%s): %s\n", f.ID, f.Severity, f.Text)
			}
		}
		if i.Release != "" {
			printf("  latest release: %s\n", i.Release)
		}
		for _, text := range i.Alarms {
			printf("  ALARM: %s\n", text)
		}
		if n := len(i.Retired); n > 0 {
			printf("  retired: %s\n", strings.Join(i.Retired, ", "))
		}
		for _, t := range i.Targets {
			if t.Error != "" {
				printf("  target %s: build %s waits: %s\n", t.Name, t.Build, t.Error)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(i.Stale)) {
			printf("  target %s is stale: %s\n", name, i.Stale[name])
		}
		for _, note := range i.Notes {
			printf("  note: %s\n", note)
		}
	}
	if r.SiteError != "" {
		printf("%s\n", r.SiteError)
	}
	return err
}

// writeFile writes a file beside its place and renames it there: see
// [Report.WriteFile].
func writeFile(name string, write func(io.Writer) error) error {
	have, err := os.Lstat(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	temp := name
	flags := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	replace := have == nil || have.Mode().IsRegular()
	if replace {
		temp = filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+"-"+rand.Text())
		flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	}
	f, err := os.OpenFile(temp, flags, 0o666)
	if err != nil {
		return err
	}
	err = write(f)
	if replace {
		err = errors.Join(err, keepMode(f, have), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err == nil && replace {
		err = os.Rename(temp, name)
	}
	if err != nil {
		if replace {
			_ = os.Remove(temp)
		}
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	return nil
}

// keepMode gives a file the mode and, where that is allowed, the owner of what
// it replaces.
func keepMode(f *os.File, have fs.FileInfo) error {
	if have == nil {
		return nil
	}
	if sys, ok := have.Sys().(*syscall.Stat_t); ok {
		_ = f.Chown(int(sys.Uid), int(sys.Gid))
	}
	return f.Chmod(have.Mode().Perm())
}
