// Package rebuild compares what somebody has built again with a release.
//
//	released, err := publish.Open(ctx, dir, keyring)        // verified
//	r, err := rebuild.Compare(ctx, released, again, "https://example.com/rebuilder", time.Now())
//	statement, err := r.Statement()
//	envelope, err := sealer.Envelope(ctx, statement)        // with the rebuilder's own key
//
// The directory of the rebuild has an image and, as far as there are, its lists, with
// the suffixes that they have in a release: .qcow2, .packages, .sources, .config.tar.gz
// and .files.gz. What comes before the suffix does not matter, since another build has
// another ID. Another release directory is one; the release itself is an error.
//
// # What is compared
//
// The image by the bytes that a guest can read of it, so that another compression is
// no difference. Where they differ, by the list of all files on the disk with their
// content, owners and modes (.files.gz), if both sides have one: file systems hold
// UUIDs and times of their own that no builder repeats. What lies in no file, such as
// boot sectors, is then not compared, and the result is [signing.SameFiles]. The other
// lists are compared by their bytes; one that is missing differs. The image's archive
// of configuration says what both were built from: where it differs in more than its
// mirrors.json, they were not built from the same, and the result is [signing.Differs]
// unless the image's bytes are the same.
//
// The result is a claim of whoever signs it. The rebuild's own lists are taken as they
// are: who rebuilds makes them. A consumer demands several such statements of keys that
// it has chosen: publish.Rebuilds.
//
// # Limits
//
// Lists are read up to 64 MiB, packed and unpacked. Compare may be called concurrently.
package rebuild

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/internal/configtar"
	"github.com/opentelekomcloud/go-imagefactory/internal/visible"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/qcow2"
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/ledger"
)

const (
	imageSuffix  = ".qcow2"
	filesSuffix  = ".files.gz"
	configSuffix = ".config.tar.gz"

	maxList        = 64 << 20
	maxDifferences = 1000
)

// lists are compared by their bytes.
var lists = []string{configSuffix, ".packages", ".sources"}

// Compare compares the rebuild in a directory with a release. The rebuilder is a URI
// that names who built again, and now the time of the comparison. Differences are a
// result and no error.
func Compare(ctx context.Context, released *publish.Release, rebuilt, rebuilder string, now time.Time) (*signing.Rebuild, error) {
	c := comparison{released: released, rebuilt: rebuilt}
	r, err := c.compare(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot compare %s with %s: %w", rebuilt, released.Dir, err)
	}
	r.Rebuilder, r.Finished = rebuilder, now.UTC().Truncate(time.Second)
	return r, nil
}

// CompareBuilds compares two builds, directories as Compare takes them, of which none
// is a release or both are taken as they are. It returns how far they are the same, and
// what differs, a line each. Where they differ it says as well what their mirrors had,
// as far as their archives of configuration tell.
func CompareBuilds(ctx context.Context, one, other string) (signing.Sameness, []string, error) {
	c := comparison{first: one, rebuilt: other}
	r, err := c.compare(ctx)
	if err == nil && len(r.Differences) > 0 {
		err = c.mirrors()
	}
	if err != nil {
		return "", nil, fmt.Errorf("cannot compare %s with %s: %w", one, other, err)
	}
	return r.Same, r.Differences, nil
}

// comparison is one, as far as it has come.
type comparison struct {
	released *publish.Release
	first    string // the directory of what is compared with, if it is no release
	rebuilt  string
	result   signing.Rebuild
}

func (c *comparison) compare(ctx context.Context) (*signing.Rebuild, error) {
	r := &c.result
	if c.released != nil {
		r.Image, r.Build = c.released.Index.Image, c.released.Index.Build.String()
		r.Subjects = []signing.FileDigest{{Name: signing.SumsFile, SHA256: c.released.Digest}}
	}
	sameBuilt := true
	for _, suffix := range lists {
		same, err := c.list(suffix)
		if err != nil {
			return nil, err
		}
		sameBuilt = sameBuilt && (same || suffix != configSuffix)
	}
	if err := c.image(ctx); err != nil {
		return nil, err
	}
	if !sameBuilt && r.Same != signing.SameBytes {
		r.Same = signing.Differs
	}
	return r, nil
}

// differs notes a difference, of more than can be stated only the first.
func (c *comparison) differs(format string, args ...any) {
	if len(c.result.Differences) == maxDifferences {
		return
	}
	c.result.Differences = append(c.result.Differences, fmt.Sprintf(format, args...))
}

// list compares a small file.
func (c *comparison) list(suffix string) (same bool, err error) {
	was, err := c.releasedFile(suffix)
	if err != nil {
		return false, err
	}
	is, err := c.rebuiltFile(suffix)
	switch {
	case err != nil:
		return false, err
	case was == nil && is == nil:
		return true, nil
	case was == nil || is == nil:
		c.differs("%s, which one of them has not", suffix)
		return false, nil
	case bytes.Equal(was, is), suffix == configSuffix && sameConfig(was, is):
		return true, nil
	}
	c.differs("%s", suffix)
	switch suffix {
	case ".packages":
		c.lines("package", was, is)
	case configSuffix:
		c.entries(was, is)
	}
	return false, nil
}

// lines notes each line that only one of two lists has, what went before what came.
func (c *comparison) lines(what string, was, is []byte) {
	one, other := lineSet(was), lineSet(is)
	for _, l := range slices.Sorted(maps.Keys(one)) {
		if !other[l] {
			c.differs("%s -%.300s", what, l)
		}
	}
	for _, l := range slices.Sorted(maps.Keys(other)) {
		if !one[l] {
			c.differs("%s +%.300s", what, l)
		}
	}
}

func lineSet(data []byte) map[string]bool {
	set := map[string]bool{}
	for l := range strings.Lines(string(data)) {
		set[visible.Line(strings.TrimSuffix(l, "\n"))] = true
	}
	return set
}

// entries notes the files of two archives of configuration that are not the same.
func (c *comparison) entries(was, is []byte) {
	one, err1 := configtar.Entries(bytes.NewReader(was))
	other, err2 := configtar.Entries(bytes.NewReader(is))
	if err1 != nil || err2 != nil {
		return // the archives differ, and cannot be read
	}
	all := maps.Clone(one)
	maps.Copy(all, other)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if name != configtar.Mirrors && one[name] != other[name] {
			c.differs("configuration %.300q", name)
		}
	}
}

// mirrors notes what the mirrors had when both were built, if that is not the same.
func (c *comparison) mirrors() error {
	var text [2][]byte
	for i, read := range []func(string) ([]byte, error){c.releasedFile, c.rebuiltFile} {
		archive, err := read(configSuffix)
		if archive == nil || err != nil {
			return err
		}
		if text[i], err = configtar.File(bytes.NewReader(archive), configtar.Mirrors); err != nil {
			return nil //nolint:nilerr // the archives differ, and cannot be read
		}
	}
	var states [2]builder.State
	for i := range states {
		if json.Unmarshal(text[i], &states[i]) != nil || states[i].Validate() != nil {
			c.differs("mirrors: it is not known what they had")
			return nil //nolint:nilerr // as said
		}
	}
	if states[0].Tool != states[1].Tool {
		c.differs("tool %s, %s", states[0].Tool, states[1].Tool)
	}
	for _, x := range states[0].Indexes {
		i, found := slices.BinarySearchFunc(states[1].Indexes, x, builder.Index.Compare)
		if y := states[1].Indexes; found && y[i].SHA256 != x.SHA256 {
			c.differs("mirror %s, %s: of %s, %s", x.Mirror, x.Path, x.Date.UTC().Format(time.DateTime), y[i].Date.UTC().Format(time.DateTime))
		}
	}
	return nil
}

// sameConfig compares archives of configuration, but for what the mirrors had.
func sameConfig(was, is []byte) bool {
	if bytes.Equal(was, is) {
		return true
	}
	a, err1 := configtar.Digest(bytes.NewReader(was))
	b, err2 := configtar.Digest(bytes.NewReader(is))
	return err1 == nil && err2 == nil && a == b
}

// releasedFile reads the release's file with that suffix, or nil.
func (c *comparison) releasedFile(suffix string) ([]byte, error) {
	if c.released == nil {
		data, _, err := readFile(c.first, suffix)
		return data, err
	}
	name := c.result.Image + "-" + c.result.Build + suffix
	if !slices.ContainsFunc(c.released.Files, func(f publish.File) bool { return f.Name == name }) {
		return nil, nil
	}
	f, err := c.released.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return bounded(name, f)
}

// rebuiltFile reads the rebuild's file with that suffix, or nil, and notes it.
func (c *comparison) rebuiltFile(suffix string) ([]byte, error) {
	data, name, err := readFile(c.rebuilt, suffix)
	if data == nil || err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	c.note(name, sum[:])
	return data, nil
}

// readFile reads a directory's file with that suffix; it is nil if there is none.
func readFile(dir, suffix string) ([]byte, string, error) {
	name, err := find(dir, suffix)
	if name == "" || err != nil {
		return nil, "", err
	}
	f, err := openRegular(filepath.Join(dir, name))
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	data, err := bounded(name, f)
	return data, name, err
}

func (c *comparison) note(name string, sum []byte) {
	c.result.Rebuilt = append(c.result.Rebuilt, signing.Resource{Name: name, Digest: map[string]string{"sha256": hex.EncodeToString(sum)}})
}

// find returns the name of a directory's only file with that suffix, or "".
func find(dir, suffix string) (string, error) {
	dirents, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	found := ""
	for _, d := range dirents {
		if strings.HasSuffix(d.Name(), suffix) && d.Type().IsRegular() {
			if found != "" {
				return "", fmt.Errorf("there are several files *%s", suffix)
			}
			found = d.Name()
		}
	}
	return found, nil
}

// image compares the images, and their files where that is not enough.
func (c *comparison) image(ctx context.Context) error {
	r := &c.result
	original, want, err := c.original(ctx)
	if err != nil {
		return err
	}
	again, err := find(c.rebuilt, imageSuffix)
	if err != nil {
		return err
	}
	if again == "" {
		return errors.New("the rebuild has no image")
	}
	if c.released != nil {
		if err := differentFiles(original, filepath.Join(c.rebuilt, again)); err != nil {
			return err
		}
	}
	sum, err := digest(ctx, filepath.Join(c.rebuilt, again))
	if err != nil {
		return err
	}
	c.note(again, sum)
	if hex.EncodeToString(sum) == want {
		r.Same = signing.SameBytes
		return nil
	}
	at, err := compareContent(ctx, original, filepath.Join(c.rebuilt, again))
	if err != nil {
		return err
	}
	if at < 0 {
		r.Same = signing.SameContent
		return nil
	}
	c.differs("%s at byte %d of the disk", imageSuffix, at)
	return c.files()
}

// differentFiles reports two paths of one file: who states that a release is the same as
// itself has built nothing.
func differentFiles(a, b string) error {
	x, err := os.Stat(a)
	if err != nil {
		return err
	}
	y, err := os.Stat(b)
	if err == nil && os.SameFile(x, y) {
		err = errors.New("it is the release itself, and no rebuild")
	}
	return err
}

// original is the path and the SHA-256 of the image that is compared with.
func (c *comparison) original(ctx context.Context) (path, want string, err error) {
	if c.released == nil {
		name, err := find(c.first, imageSuffix)
		if name == "" || err != nil {
			return "", "", errors.Join(err, errors.New("the first build has no image"))
		}
		path = filepath.Join(c.first, name)
		sum, err := digest(ctx, path)
		return path, hex.EncodeToString(sum), err
	}
	r := &c.result
	name := r.Image + "-" + r.Build + imageSuffix
	i := slices.IndexFunc(c.released.Files, func(f publish.File) bool { return f.Name == name })
	if i < 0 {
		return "", "", errors.New("the release has no image")
	}
	want = c.released.Files[i].SHA256
	r.Subjects = append(r.Subjects, signing.FileDigest{Name: name, SHA256: want})
	return filepath.Join(c.released.Dir, name), want, nil
}

// unread matches a file without a digest in ledger.Listing's text: one that was too
// large.
var unread = regexp.MustCompile(`(?m) f [0-7]+ [0-9]+:[0-9]+ [0-9]+ -( |$)`)

// files compares the lists of the disks' files.
func (c *comparison) files() error {
	r := &c.result
	r.Same = signing.Differs
	was, err := c.releasedFile(filesSuffix)
	if err != nil {
		return err
	}
	is, err := c.rebuiltFile(filesSuffix)
	if err != nil {
		return err
	}
	if was == nil || is == nil {
		c.differs("%s, which one of them has not", filesSuffix)
		return nil
	}
	if was, err = unpacked(was); err == nil {
		is, err = unpacked(is)
	}
	if err != nil {
		return fmt.Errorf("*%s: %w", filesSuffix, err)
	}
	var out bytes.Buffer
	if err := ledger.Compare(&out, bytes.NewReader(was), bytes.NewReader(is)); err != nil {
		return err
	}
	if out.Len() == 0 && unread.Match(was) {
		c.differs("%s names files that nobody has read", filesSuffix)
		return nil
	}
	if out.Len() == 0 {
		r.Same = signing.SameFiles
		return nil
	}
	for line := range strings.Lines(out.String()) {
		c.differs("file %s", strings.TrimSuffix(line, "\n"))
	}
	return nil
}

func compareContent(ctx context.Context, a, b string) (int64, error) {
	x, err := qcow2.OpenFile(a, qcow2.OpenOptions{})
	if err != nil {
		return 0, err
	}
	defer x.Close()
	y, err := qcow2.OpenFile(b, qcow2.OpenOptions{})
	if err != nil {
		return 0, err
	}
	defer y.Close()
	if x.Size() != y.Size() { // equal as far as the shorter one goes is not the same
		return min(x.Size(), y.Size()), nil
	}
	return qcow2.Compare(ctx, x, y, qcow2.Options{})
}

func unpacked(data []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, errors.New("it is not compressed with gzip")
	}
	return bounded("its content", z)
}

func bounded(name string, r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxList+1))
	if err == nil && len(data) > maxList {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxList)
	}
	return data, err
}

func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(err, f.Close(), fmt.Errorf("%s is not a regular file", path))
	}
	return f, nil
}

// digest is the SHA-256 of a file.
func digest(ctx context.Context, path string) ([]byte, error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := f.Read(buf)
		h.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return h.Sum(nil), nil
		}
		if err != nil {
			return nil, err
		}
	}
}
