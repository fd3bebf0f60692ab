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
	"slices"
	"strings"
	"syscall"

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
// named. Of each release the signature of SHA256SUMS and, by it, the list of packages are
// verified, IMAGE-BUILD.sources or else IMAGE-BUILD.cdx.json; nothing else is read. A
// release that does not verify has an Err, as has one without a list of its own name:
// one of another image or build. What is no release is passed over.
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
	g.SetLimit(atOnce)
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
	// atOnce is how many releases are read at once. Most of the time goes by waiting
	// for the file system, so there are more than processors.
	atOnce = 32
)

// readRelease reads no more than is needed: the signed checksums, which name the
// list by image and build, and the list.
func readRelease(ctx context.Context, dir string, r *Release, keyring *signing.Keyring) (*Installed, error) {
	sums, err := readBounded(filepath.Join(dir, signing.SumsFile), maxSums)
	if err != nil {
		return nil, err
	}
	signature, err := readBounded(filepath.Join(dir, signing.SumsSig), maxSums)
	if err != nil {
		return nil, err
	}
	v := signing.Verifier{Keyring: keyring}
	if _, err := v.Detached(ctx, signing.SumsFile, bytes.NewReader(sums), bytes.NewReader(signature)); err != nil {
		return nil, err
	}
	base := r.Image + "-" + r.Build.String()
	for _, list := range []struct {
		suffix string
		read   func(io.Reader) (*Installed, error)
	}{{".sources", ParseSources}, {".cdx.json", readBill}} {
		digest, ok := digestIn(string(sums), base+list.suffix)
		if !ok {
			continue
		}
		data, err := readBounded(filepath.Join(dir, base+list.suffix), maxList)
		if err != nil {
			return nil, err
		}
		if sum := sha256.Sum256(data); digest != hex.EncodeToString(sum[:]) {
			return nil, fmt.Errorf("%s is not the file that was signed", base+list.suffix)
		}
		return list.read(bytes.NewReader(data))
	}
	return nil, fmt.Errorf("%s names no %s.sources or .cdx.json: the release has no list of what is installed, or is one of another image or build", signing.SumsFile, base)
}

// digestIn returns the digest of the named file in verified checksums.
func digestIn(sums, name string) (string, bool) {
	for line := range strings.Lines(sums) {
		if digest, of, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  "); ok && of == name {
			return digest, true
		}
	}
	return "", false
}

// readBill takes from a bill of materials what advisories are about.
func readBill(r io.Reader) (*Installed, error) {
	bill, err := sbom.Read(r)
	if err != nil {
		return nil, err
	}
	out := &Installed{Distribution: bill.Distribution, Release: bill.Release}
	for _, p := range bill.Packages {
		out.Packages = append(out.Packages, Package{p.Name, p.Version, p.Arch, p.Source, p.SourceVersion})
	}
	return out, nil
}

// readBounded reads a regular file; a link is none, and a named pipe is not waited for.
func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	case st.Size() > most:
		return nil, fmt.Errorf("%s is larger than %d bytes", path, most)
	}
	data := make([]byte, st.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return data, nil // what came behind it meanwhile is not as signed
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
		var f [5]string
		more, ok := strings.TrimSuffix(line, "\n"), true
		for i := range f {
			last := i == len(f)-1
			var found bool
			f[i], more, found = strings.Cut(more, " ")
			ok = ok && found != last && f[i] != ""
		}
		if !ok {
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
