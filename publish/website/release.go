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
	"io/fs"
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
	Stamp   string          `json:"stamp"`   // of the files and the keyring; "" if it is not to be relied on
	Gone    bool            `json:"gone"`    // it was there at an earlier run
	Problem string          `json:"problem"` // why it does not verify; then all below is empty

	// Index is kept of one release of an image, which tells of the image.
	Index      *publish.Index `json:"index,omitempty"`
	Image      string         `json:"image"`
	MinDiskGiB int            `json:"min_disk_gib"`
	Tests      publish.Tests  `json:"tests"`
	Digest     string         `json:"digest"`
	Files      []publish.File `json:"files"`
	Signers    []string       `json:"signers"`
	Packages   int            `json:"packages"` // how many
	BuildMS    int64          `json:"build_ms"` // 0 where it is not known, as are these
	TestMS     int64          `json:"test_ms"`
	BootMS     int64          `json:"boot_ms"`
	Page       string         `json:"page"` // what its page was made of

	entry publish.Entry
	state string
	open  *publish.Release // while it is shown
	err   error            // why it does not verify
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
	if r.Image == "" {
		return nil
	}
	name := r.base() + suffix
	i := slices.IndexFunc(r.Files, func(f publish.File) bool { return f.Name == name })
	if i < 0 {
		return nil
	}
	return &r.Files[i]
}

func (r *release) base() string { return r.Image + "-" + r.Build.String() }

func (r *release) shown() bool { return r.state != unverified && r.state != deleted }

// setState sets the state from the target's entry.
func (r *release) setState() {
	switch {
	case r.Gone:
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

// look tells what the regular files of a directory are.
func look(dir string) (map[string]fs.FileInfo, error) {
	dirents, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	files := map[string]fs.FileInfo{}
	for _, d := range dirents {
		if !d.Type().IsRegular() {
			continue
		}
		if info, err := d.Info(); err == nil { // else it was removed since
			files[d.Name()] = info
		}
	}
	return files, nil
}

// stampOf stands for files without reading them: sizes, modes, times and inodes. The
// time of an inode's last change is one that its owner cannot set. It is empty if a
// file is missing.
func stampOf(seen map[string]fs.FileInfo, files []publish.File, keyring string) string {
	h := sha256.New()
	fmt.Fprintln(h, keyring)
	for _, f := range files {
		info, ok := seen[f.Name]
		if !ok {
			return ""
		}
		fmt.Fprintf(h, "%q %d %v %d %s\n", f.Name, info.Size(), info.Mode(), info.ModTime().UnixNano(), inode(info))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// contents are what pages show of a release besides its index.
type contents struct {
	tests       testReport
	packages    []pkg
	changes     []change
	moreChanges int
}

// open verifies a release and reads what is shown of it. An error is that of
// ctx or of reading what was verified; what does not verify is in r.Problem.
func (w *writer) open(ctx context.Context, image string, r *release) (*contents, error) {
	opened, err := publish.Open(ctx, filepath.Join(w.Dir, image, r.Build.String()), w.Keyring)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		r.refuse(err)
		return nil, nil // the site is written all the same
	}
	r.open, r.Index, r.Digest, r.Files, r.Signers = opened, &opened.Index, opened.Digest, opened.Files, nil
	r.Image, r.MinDiskGiB, r.Tests = image, opened.Index.MinDiskGiB, opened.Index.Tests
	for _, f := range opened.Signatures.Files {
		for _, s := range f.Signatures {
			if id := string(s.Fingerprint); id != "" && !slices.Contains(r.Signers, id) {
				r.Signers = append(r.Signers, id)
			}
		}
	}
	c := new(contents)
	if c.tests, err = r.tests(); err != nil {
		return nil, err
	}
	if c.packages, err = r.packages(); err != nil {
		return nil, err
	}
	if c.changes, c.moreChanges, err = r.changes(); err != nil {
		return nil, err
	}
	r.TestMS, r.BootMS = c.tests.DurationMS, c.tests.BootMS
	r.BuildMS, err = r.buildTime()
	return c, err
}

// refuse makes a release one that does not verify. Not a word of what it holds is
// shown, also none that the error quotes.
func (r *release) refuse(err error) {
	*r = release{Build: r.Build, entry: r.entry, err: err, Problem: "its files are not what a trusted key has signed"}
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
	DurationMS int64        `json:"duration_ms"`
	BootMS     int64        `json:"boot_ms"`
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

// packages sets how many there are, and returns those that are shown.
func (r *release) packages() ([]pkg, error) {
	data, err := r.read(".packages", maxList)
	r.Packages = bytes.Count(data, []byte("\n"))
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
