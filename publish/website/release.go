package website

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// Bounds of what is read of a release. What is larger is offered for download
// and not shown.
const (
	maxTestReport = 16 << 20
	maxList       = 8 << 20
	maxProvenance = 4 << 20
	maxChecks     = 2000
	maxPackages   = 20000
	maxChanges    = 2000
	maxCache      = 64 << 20
)

// release is what is kept of a release between runs.
type release struct {
	Build   publish.BuildID `json:"build"`
	Stamp   string          `json:"stamp"`   // of the files and the keyring; "" if it is gone
	Problem string          `json:"problem"` // why it does not verify; then all below is empty

	Index    *publish.Index `json:"index"`
	Digest   string         `json:"digest"`
	Files    []publish.File `json:"files"`
	Signers  []string       `json:"signers"`
	Packages int            `json:"packages"` // how many
	BuildMS  int64          `json:"build_ms"` // 0 where it is not known, as are these
	TestMS   int64          `json:"test_ms"`
	Page     string         `json:"page"` // what its page was made of

	entry publish.Entry
	state string
	open  *publish.Release // where it was opened in this run
}

// The states of a release in the feeds.
const (
	active     = "active"
	deprecated = "deprecated"
	withdrawn  = "withdrawn"
	unverified = "unverified"
	deleted    = "deleted"
)

// File returns the release's file with the suffix after its IMAGE-BUILD.
func (r *release) file(suffix string) *publish.File {
	if r.Index == nil {
		return nil
	}
	name := r.base() + suffix
	i := slices.IndexFunc(r.Files, func(f publish.File) bool { return f.Name == name })
	if i < 0 {
		return nil
	}
	return &r.Files[i]
}

func (r *release) base() string { return r.Index.Image + "-" + r.Build.String() }

func (r *release) shown() bool { return r.state != unverified && r.state != deleted }

// setState sets the state from the target's entry.
func (r *release) setState() {
	switch {
	case r.Stamp == "":
		r.state = deleted
	case r.Problem != "":
		r.state = unverified
	case r.entry.Withdrawn != "":
		r.state = withdrawn
	case len(r.entry.Labels) > 0:
		r.state = active
	default:
		r.state = deprecated
	}
}

// stampOf stands for the files of a directory without reading them: names, sizes,
// times and inodes. The time of an inode's last change is one that its owner cannot
// set.
func stampOf(dir, keyring string) (string, error) {
	dirents, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintln(h, keyring)
	for _, d := range dirents {
		info, err := d.Info()
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%q %d %v %d %s\n", d.Name(), info.Size(), info.Mode(), info.ModTime().UnixNano(), inode(info))
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// verify opens a release and takes what is shown of it from its files.
func (w *writer) verify(ctx context.Context, image string, r *release) error {
	opened, err := publish.Open(ctx, filepath.Join(w.Dir, image, r.Build.String()), w.Keyring)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		// Not a word of what it holds is shown, also none that the error quotes.
		r.Problem = "its files are not what a trusted key has signed"
		w.bad = append(w.bad, &BadReleaseError{Image: image, Build: r.Build.String(), Err: err})
		return nil //nolint:nilerr // kept in w.bad: the site is written all the same
	}
	r.open, r.Index, r.Digest, r.Files = opened, &opened.Index, opened.Digest, opened.Files
	for _, f := range opened.Signatures.Files {
		for _, s := range f.Signatures {
			if id := string(s.Fingerprint); id != "" && !slices.Contains(r.Signers, id) {
				r.Signers = append(r.Signers, id)
			}
		}
	}
	list, err := r.read(".packages", maxList)
	if err != nil {
		return err
	}
	r.Packages = bytes.Count(list, []byte("\n"))
	tests, err := r.tests()
	if err != nil {
		return err
	}
	r.TestMS = tests.DurationMS
	r.BuildMS, err = r.buildTime()
	return err
}

// again opens a release whose facts are from an earlier run.
func (w *writer) again(ctx context.Context, image string, r *release) error {
	if r.open != nil {
		return nil
	}
	fresh := &release{Build: r.Build}
	if err := w.verify(ctx, image, fresh); err != nil {
		return err
	}
	if fresh.Problem != "" {
		return fmt.Errorf("release %s changed while the site was written", r.Build)
	}
	r.open = fresh.open
	return nil
}

// read reads a small file of a release that was opened; none if it is not there or
// too large.
func (r *release) read(suffix string, most int64) ([]byte, error) {
	f := r.file(suffix)
	if f == nil || f.SizeBytes > most {
		return nil, nil
	}
	in, err := r.open.Open(f.Name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return io.ReadAll(in)
}

// testReport is what is shown of a test report; see package testsuite.
type testReport struct {
	Profile    string       `json:"profile"`
	DurationMS int64        `json:"duration_ms"`
	Checks     []testResult `json:"checks"`
	Unreadable bool         `json:"-"`
}

type testResult struct {
	ID, Group, Title, Severity, Status, Reason, Expected, Found string
}

func (r *release) tests() (testReport, error) {
	var t testReport
	data, err := r.read(".test.json", maxTestReport)
	if err != nil || data == nil {
		return t, err
	}
	if json.Unmarshal(data, &t) != nil {
		return testReport{Unreadable: true}, nil //nolint:nilerr // the page says so
	}
	return t, nil
}

// buildTime is how long the build took, as its provenance says: an in-toto statement
// (SLSA provenance 1) in a DSSE envelope.
func (r *release) buildTime() (int64, error) {
	data, err := r.read(".provenance.json", maxProvenance)
	if err != nil || data == nil {
		return 0, err
	}
	var envelope struct{ Payload string }
	var statement struct {
		Predicate struct {
			RunDetails struct {
				Metadata struct{ StartedOn, FinishedOn time.Time }
			}
		}
	}
	_ = json.Unmarshal(data, &envelope) // what it does not tell is not shown
	payload, _ := base64.StdEncoding.DecodeString(envelope.Payload)
	_ = json.Unmarshal(payload, &statement)
	m := statement.Predicate.RunDetails.Metadata
	if took := m.FinishedOn.Sub(m.StartedOn); took > 0 && took < 30*24*time.Hour {
		return took.Milliseconds(), nil
	}
	return 0, nil
}

// pkg is a line of a list of packages.
type pkg struct{ Name, Version, Arch string }

func (r *release) packages() ([]pkg, error) {
	data, err := r.read(".packages", maxList)
	var list []pkg
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) == 0 || len(list) == maxPackages {
			continue
		}
		f = append(f, "", "")
		list = append(list, pkg{visibleUpTo(f[0], 200), visibleUpTo(f[1], 200), visibleUpTo(f[2], 40)})
	}
	return list, err
}

// change is a line of the changes since the release before.
type change struct{ Name, Was, Is string }

// changes joins the lines of one package that went and came. more counts those
// that are not shown.
func (r *release) changes() (list []change, more int, err error) {
	data, err := r.read(".changes", maxList)
	in := bufio.NewScanner(bytes.NewReader(data))
	in.Buffer(nil, maxList+1)
	for in.Scan() {
		sign, rest := "", ""
		if line := in.Text(); line != "" {
			sign, rest = line[:1], line[1:]
		}
		name, version, _ := strings.Cut(rest, " ")
		if sign != "-" && sign != "+" || name == "" {
			continue
		}
		name, version = visibleUpTo(name, 300), visibleUpTo(version, 300)
		last := len(list) - 1
		switch {
		case sign == "+" && last >= 0 && list[last].Name == name && list[last].Is == "":
			list[last].Is = version
		case len(list) == maxChanges:
			more++
		case sign == "+":
			list = append(list, change{Name: name, Is: version})
		default:
			list = append(list, change{Name: name, Was: version})
		}
	}
	return list, more, errors.Join(err, in.Err())
}
