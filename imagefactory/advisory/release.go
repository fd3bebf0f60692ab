package advisory

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory/sbom"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// A Release is a release of an image and what is installed in it.
type Release struct {
	Image  string
	Build  publish.BuildID
	Latest bool // the label latest is on it
	// Installed is nil where Err says why it is not known.
	Installed *Installed
	Err       error
}

// ReadReleases reads what is installed in the releases below a download directory,
// DIR/IMAGE/BUILD, sorted by image and build; of the named images only, if any are
// named. Of each release the signature of SHA256SUMS, the index and the list of
// packages are verified, NAME-BUILD.sources or else NAME-BUILD.cdx.json; the image
// itself is not read. A release that does not verify has an Err, as has one that
// has no list. What is no release is passed over.
func ReadReleases(ctx context.Context, dir string, keyring *signing.Keyring, images ...string) ([]Release, error) {
	fail := func(err error) ([]Release, error) {
		return nil, fmt.Errorf("cannot read the releases in %s: %w", dir, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fail(err)
	}
	var releases []Release
	for _, e := range entries {
		if !e.IsDir() || publish.CheckImage(e.Name()) != nil || len(images) > 0 && !slices.Contains(images, e.Name()) {
			continue
		}
		builds, err := os.ReadDir(filepath.Join(dir, e.Name()))
		if err != nil {
			return fail(err)
		}
		latest, _ := os.Readlink(filepath.Join(dir, e.Name(), string(publish.Latest)))
		for _, b := range builds { // sorted by name, so by time
			if build, err := publish.ParseBuildID(b.Name()); err == nil && b.IsDir() {
				releases = append(releases, Release{Image: e.Name(), Build: build, Latest: latest == b.Name()})
			}
		}
	}
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range releases {
		r := &releases[i]
		g.Go(func() error {
			r.Installed, r.Err = readRelease(ctx, filepath.Join(dir, r.Image, r.Build.String()), r, keyring)
			return ctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return fail(err)
	}
	return releases, nil
}

const (
	maxSums = 1 << 20
	maxList = 64 << 20
)

func readRelease(ctx context.Context, dir string, r *Release, keyring *signing.Keyring) (*Installed, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	sums, err := readBounded(root, signing.SumsFile, maxSums)
	if err != nil {
		return nil, err
	}
	signature, err := readBounded(root, signing.SumsSig, maxSums)
	if err != nil {
		return nil, err
	}
	v := signing.Verifier{Keyring: keyring}
	if _, err := v.Detached(ctx, signing.SumsFile, bytes.NewReader(sums), bytes.NewReader(signature)); err != nil {
		return nil, err
	}
	digests := map[string]string{}
	for line := range strings.Lines(string(sums)) {
		if digest, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  "); ok {
			digests[name] = digest
		}
	}
	verified := func(name string) ([]byte, error) {
		data, err := readBounded(root, name, maxList)
		if err != nil {
			return nil, err
		}
		if sum := sha256.Sum256(data); digests[name] != hex.EncodeToString(sum[:]) {
			return nil, fmt.Errorf("%s is not the file that was signed", name)
		}
		return data, nil
	}
	data, err := verified(publish.IndexName)
	if err != nil {
		return nil, err
	}
	index, err := publish.ReadIndex(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	if index.Image != r.Image || index.Build != r.Build {
		return nil, errors.New("the release is one of another image or build")
	}
	base := r.Image + "-" + r.Build.String()
	if digests[base+".sources"] != "" {
		if data, err = verified(base + ".sources"); err != nil {
			return nil, err
		}
		return ParseSources(bytes.NewReader(data))
	}
	if digests[base+".cdx.json"] == "" {
		return nil, errors.New("the release has no list of its packages' sources and no bill of materials")
	}
	if data, err = verified(base + ".cdx.json"); err != nil {
		return nil, err
	}
	bill, err := sbom.Read(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	out := &Installed{Distribution: bill.Distribution, Release: bill.Release}
	for _, p := range bill.Packages {
		out.Packages = append(out.Packages, Package{p.Name, p.Version, p.Arch, p.Source, p.SourceVersion})
	}
	return out, nil
}

func readBounded(root *os.Root, name string, most int64) ([]byte, error) {
	if st, err := root.Lstat(name); err != nil {
		return nil, err
	} else if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s is larger than %d bytes", name, most)
	}
	return data, err
}

// ParseSources reads a release's NAME-BUILD.sources: a line "DISTRIBUTION RELEASE
// ARCH", then "NAME VERSION ARCH SOURCE SOURCE-VERSION" for each package. It takes at
// most 64 MiB.
func ParseSources(r io.Reader) (*Installed, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxList+1))
	if err == nil && len(data) > maxList {
		err = errTooLarge
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the packages' sources: %w", err)
	}
	first, rest, _ := strings.Cut(string(data), "\n")
	f := strings.Fields(first)
	if len(f) != 3 {
		return nil, errors.New(`cannot read the packages' sources: line 1 is not "distribution release arch"`)
	}
	out := &Installed{Distribution: f[0], Release: f[1], Packages: make([]Package, 0, strings.Count(rest, "\n"))}
	n := 1
	for line := range strings.Lines(rest) {
		n++
		f := strings.Fields(line)
		if len(f) != 5 {
			return nil, fmt.Errorf(`cannot read the packages' sources: line %d is not "name version arch source source-version"`, n)
		}
		out.Packages = append(out.Packages, Package{f[0], f[1], f[2], f[3], f[4]})
	}
	return out, nil
}

// An ImageVerdict is what an advisory means for an image and each of its releases.
type ImageVerdict struct {
	Image string `json:"image"`
	// Status is that of the latest release: the one with the label, or the newest.
	Status Status `json:"status"`
	// Since is the first build of those up to the latest one that are free of it,
	// where an earlier one is affected; or empty.
	Since    string           `json:"since,omitempty"`
	Releases []ReleaseVerdict `json:"releases"` // the oldest first
}

// A ReleaseVerdict is what an advisory means for one release.
type ReleaseVerdict struct {
	Build  string `json:"build"`
	Latest bool   `json:"latest,omitempty"`
	Verdict
	// Problem says why the release was not judged; its status is unknown then.
	Problem string `json:"problem,omitempty"`
}

// Report judges releases as [ReadReleases] returns them, by image.
func (d *Database) Report(id string, releases []Release) []ImageVerdict {
	var out []ImageVerdict
	for _, r := range releases {
		if len(out) == 0 || out[len(out)-1].Image != r.Image {
			out = append(out, ImageVerdict{Image: r.Image})
		}
		v := ReleaseVerdict{Build: r.Build.String(), Latest: r.Latest, Verdict: Verdict{ID: id}}
		if r.Err != nil {
			v.Problem = r.Err.Error()
		} else {
			v.Verdict = d.Judge(id, r.Installed)
		}
		out[len(out)-1].Releases = append(out[len(out)-1].Releases, v)
	}
	for i := range out {
		out[i].summarize()
	}
	return out
}

func (v *ImageVerdict) summarize() {
	latest := slices.IndexFunc(v.Releases, func(r ReleaseVerdict) bool { return r.Latest })
	if latest < 0 {
		latest = len(v.Releases) - 1
	}
	v.Status = v.Releases[latest].Status
	since := latest
	for since >= 0 && v.Releases[since].Status != Affected && v.Releases[since].Status != Unknown {
		since--
	}
	if since >= 0 && since < latest && v.Releases[since].Status == Affected {
		v.Since = v.Releases[since+1].Build
	}
}
