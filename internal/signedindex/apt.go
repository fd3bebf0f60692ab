package signedindex

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/builder"
)

// Apt is a suite of a Debian archive, or a flat repository, whose suite is its
// directory with "/" at the end.
type Apt struct {
	Mirror     string // its name in the spec
	URL        string // base URL of the mirror
	Path       string // of the archive below it, without "/" at the ends; may be empty
	Suite      string // "bookworm-security"
	Components []string
	Arch       string
}

// Apt reads the index of a suite and compares its lists of packages.
func (r *Reader) Apt(ctx context.Context, a Apt) (builder.Index, error) {
	return r.again(ctx, func() (builder.Index, error) { return r.apt(ctx, a) })
}

func (r *Reader) apt(ctx context.Context, a Apt) (builder.Index, error) {
	dir := path.Join(a.Path, "dists", a.Suite)
	flat := strings.HasSuffix(a.Suite, "/")
	if flat {
		dir = path.Join(a.Path, a.Suite)
	}
	x := builder.Index{Mirror: a.Mirror}
	text, err := r.release(ctx, a.URL, dir, &x)
	if err != nil {
		return x, err
	}
	place := join(a.URL, x.Path)
	release, err := parseRelease(text)
	if err != nil {
		return x, fault(ctx, place, builder.Malformed, err)
	}
	if !flat && !release.is(a.Suite) {
		return x, fault(ctx, place, builder.Malformed, errors.New("it is the index of another suite"))
	}
	x.Date, x.ValidUntil = release.date, release.validUntil
	if until := release.validUntil; !until.IsZero() && !r.now().Before(until) {
		return x, fault(ctx, place, builder.Expired, fmt.Errorf("it was valid until %s", until.Format(time.DateTime)))
	}
	var lists []string
	for _, c := range a.Components {
		lists = append(lists, path.Join(path.Base(c), "binary-"+a.Arch, "Packages"))
	}
	if flat {
		lists = []string{"Packages"}
	}
	for _, list := range lists {
		f, ok := release.list(list)
		if !ok {
			return x, fault(ctx, place, builder.Malformed, fmt.Errorf("it has no list of the packages of %.100q", list))
		}
		if err := r.compare(ctx, join(a.URL, path.Join(dir, f.name)), f.digest, f.size); err != nil {
			return x, err
		}
	}
	return x, nil
}

// release reads and verifies InRelease or, where there is none, Release with
// Release.gpg.
func (r *Reader) release(ctx context.Context, base, dir string, x *builder.Index) ([]byte, error) {
	x.Path = path.Join(dir, "InRelease")
	place := join(base, x.Path)
	signed, err := r.read(ctx, place, maxIndex)
	if errors.Is(err, fs.ErrNotExist) {
		return r.oldRelease(ctx, base, dir, x)
	}
	if err != nil {
		return nil, fault(ctx, place, builder.Unreachable, err)
	}
	x.SHA256 = digest(signed)
	v, err := r.verifier()
	if err != nil {
		return nil, err
	}
	text, seen, err := v.Cleartext(ctx, "InRelease", bytes.NewReader(signed))
	if x.Signer, err = r.signer(v, "InRelease", seen, err); err != nil {
		return nil, fault(ctx, place, builder.Unsigned, err)
	}
	return text, nil
}

func (r *Reader) oldRelease(ctx context.Context, base, dir string, x *builder.Index) ([]byte, error) {
	x.Path = path.Join(dir, "Release")
	place := join(base, x.Path)
	text, err := r.read(ctx, place, maxIndex)
	if err != nil {
		return nil, fault(ctx, place, builder.Unreachable, err)
	}
	x.SHA256 = digest(text)
	x.Signer, err = r.detached(ctx, place, ".gpg", "Release", text)
	return text, err
}

// release is what a Release file says.
type release struct {
	suite, codename  string
	date, validUntil time.Time
	files            map[string]listed // by name
}

type listed struct {
	name   string
	digest string // SHA-256 or SHA-512, in hexadecimal
	size   int64
}

// is reports whether the release is called so. Debian's security suites until 10 are
// "buster/updates" of codename buster.
func (r *release) is(suite string) bool {
	return suite == r.codename || suite == r.suite || r.codename != "" && strings.HasPrefix(suite, r.codename+"/")
}

// list is the file of a list that is the smallest to fetch.
func (r *release) list(name string) (listed, bool) {
	for _, suffix := range []string{".xz", ".gz", ".bz2", ""} {
		if f, ok := r.files[name+suffix]; ok && f.size <= maxList {
			return f, true
		}
	}
	return listed{}, false
}

const maxFiles = 100_000

// parseRelease reads the fields that matter. Their names are of any case.
func parseRelease(text []byte) (*release, error) {
	r := &release{files: map[string]listed{}}
	seen := map[string]bool{}
	key := ""
	for i, line := range strings.Split(string(text), "\n") {
		where := fmt.Sprintf("line %d", i+1)
		if strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
			if key != "sha256" {
				continue
			}
			f, err := parseListed(line)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", where, err)
			}
			if r.files[f.name] = f; len(r.files) > maxFiles {
				return nil, fmt.Errorf("%s: more than %d files", where, maxFiles)
			}
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			if strings.TrimSpace(line) != "" {
				return nil, fmt.Errorf("%s: no field", where)
			}
			continue
		}
		key = strings.ToLower(name)
		if seen[key] {
			return nil, fmt.Errorf("%s: a field is there twice", where)
		}
		seen[key] = true
		if err := r.field(key, strings.TrimSpace(value)); err != nil {
			return nil, fmt.Errorf("%s: %w", where, err)
		}
	}
	if r.date.IsZero() {
		return nil, errors.New("it has no date")
	}
	return r, nil
}

func (r *release) field(key, value string) (err error) {
	switch key {
	case "suite":
		r.suite = value
	case "codename":
		r.codename = value
	case "date":
		r.date, err = parseDate(value)
	case "valid-until":
		r.validUntil, err = parseDate(value)
	}
	return err
}

// parseListed reads " DIGEST SIZE NAME".
func parseListed(line string) (listed, error) {
	f := strings.Fields(line)
	if len(f) != 3 || len(f[0]) != 64 || !isDigest(f[0]) {
		return listed{}, errors.New("want a digest, a size and a name")
	}
	size, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil || size < 0 {
		return listed{}, errors.New("bad size")
	}
	if !fs.ValidPath(f[2]) {
		return listed{}, errors.New("bad name")
	}
	return listed{f[2], f[0], size}, nil
}

func isDigest(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

// parseDate reads what "date -R -u" writes, with UTC or an offset for a zone.
func parseDate(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC1123, time.RFC1123Z, "Mon, _2 Jan 2006 15:04:05 MST", "Mon, _2 Jan 2006 15:04:05 -0700"} {
		t, err := time.Parse(layout, s)
		zone, offset := t.Zone()
		// Of a zone that it does not know, Parse makes up the offset.
		if err == nil && (offset != 0 || slices.Contains([]string{"UTC", "GMT", "Z", ""}, zone)) {
			return t.UTC(), nil
		}
	}
	return time.Time{}, errors.New("bad date: want it as in Sat, 22 Nov 2026 03:15:07 UTC")
}
