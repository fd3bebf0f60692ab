package publish

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// Errors that Fetch returns, wrapped in what was being done, besides those of
// publications.
var (
	// ErrRollback is that the source names an older build than was seen before.
	ErrRollback = errors.New("an older build than was seen before")
	// ErrTooOld is that the build is older than the caller allows.
	ErrTooOld = errors.New("the build is too old")
	// ErrNotAsSigned is that the source does not have the release as it was
	// signed: files are missing, cut short or have other content.
	ErrNotAsSigned = errors.New("the source does not have the release as it was signed")
)

// A Source is a place from which releases are fetched, laid out as package
// publish/directory writes it. Nothing that it gives is trusted. It may be used
// concurrently. Package publishtest checks that a source keeps what is promised here.
type Source interface {
	// Open opens a file for reading from the offset, in bytes. The name has
	// slashes and is one of
	//
	//	IMAGE/BUILD/FILE
	//	IMAGE/LABEL/FILE
	//	IMAGE/lifecycle.json
	//
	// A file that is not there is [fs.ErrNotExist]; an offset at or behind the
	// file's end gives a reader at its end. What waits, in Open or in the reader, ends
	// with ctx. The caller closes the reader.
	Open(ctx context.Context, name string, offset int64) (io.ReadCloser, error)
}

// Bounds of what is read of a source, in bytes. What comes before the signature
// is verified is held in memory.
const (
	maxFetchSums = 1 << 20
	maxFetchSig  = 128 << 10
	maxLifecycle = 4 << 20
	maxUnlisted  = 16 << 20 // a file whose size release.json does not say: a signature or an attestation
	maxFiles     = 1000     // of a release

	defaultMaxBytes = 1 << 40
)

// A Fetcher fetches releases from a source into a download directory. The zero
// value of each field but the first three is usable. It is not changed by its
// methods and may be used concurrently.
type Fetcher struct {
	Source  Source
	Keyring *signing.Keyring // of the keys that may have signed the releases
	Dir     string           // the download directory; it is made where it is missing

	// Suffixes choose the files whose names end in one of them; if empty, all.
	// The checksums, their signature and release.json always come with them.
	Suffixes []string
	// MaxAge is how long ago the build may have begun; if zero, that does not
	// matter.
	MaxAge time.Duration
	// MaxBytes bounds the size of the files that are fetched; if zero, 1 TiB.
	MaxBytes int64
	// Rebuilds may demand that others have built the release again. That is judged
	// before any of it is fetched.
	Rebuilds Rebuilds
	// Now is the clock. If nil, time.Now.
	Now func() time.Time
	// Logger is told when another run holds the image's lock, and what is left of
	// older builds and cannot be removed. If nil, nobody is.
	Logger *slog.Logger
}

// Fetch fetches a release with the defaults of [Fetcher].
func Fetch(ctx context.Context, source Source, name string, keyring *signing.Keyring, dir string) (*Release, error) {
	return (&Fetcher{Source: source, Keyring: keyring, Dir: dir}).Fetch(ctx, name)
}

// Fetch fetches the release IMAGE/latest, IMAGE/prev or IMAGE/BUILD; IMAGE alone
// is the latest. The release appears as DIR/IMAGE/BUILD, by one rename, when all
// of it is verified. If it is there already, it is verified and nothing but the
// source's checksums is fetched.
//
// What was fetched when Fetch ended early, for whatever reason, lies in
// DIR/IMAGE/.fetch-BUILD. The next Fetch of the build goes on from there and
// verifies all of it as if it had just been fetched. When a build has appeared,
// what is left of older ones is removed. Runs at once take turns, by flock(2) on
// DIR/IMAGE, also with one that publishes there.
//
// DIR/IMAGE/fetch.json keeps the newest build that was seen, whatever it was
// fetched as, and the newest one that was prev. A latest or prev that is older is
// ErrRollback: also one to which the publisher went back, for only the source says
// so. A build that is asked for by its ID may be older. If that file is damaged it is
// an error.
//
// Refused are, too, a build that the source's lifecycle.json says was withdrawn
// (ErrWithdrawn), one older than MaxAge (ErrTooOld), one dated in the future
// (ErrFuture), one that is not what its name says ([WrongReleaseError]), one
// without a good signature ([signing.Error]), one that too few rebuilders confirm
// (ErrNotRebuilt), and one that is otherwise not as it was signed (ErrNotAsSigned or
// signing.Error). What is not at the source is
// ErrUnknownBuild.
//
// With Suffixes the Release has only the files that are there, and cannot be
// published.
func (f *Fetcher) Fetch(ctx context.Context, name string) (*Release, error) {
	r, err := f.fetch(ctx, name)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot fetch %.300q: %w", name, err)
	}
	return r, nil
}

func (f *Fetcher) fetch(ctx context.Context, name string) (*Release, error) {
	switch {
	case f.Source == nil:
		return nil, errors.New("there is no source")
	case f.Keyring == nil:
		return nil, errors.New("there is no keyring")
	case f.Dir == "":
		return nil, errors.New("there is no directory to fetch to")
	}
	asked, err := parseWanted(name)
	if err != nil {
		return nil, err
	}
	o, err := f.offer(ctx, asked)
	if err != nil {
		return nil, err
	}
	return f.bring(ctx, asked.label, o)
}

func (f *Fetcher) now() time.Time {
	if f.Now == nil {
		return time.Now()
	}
	return f.Now()
}

func (f *Fetcher) verifier() *signing.Verifier {
	return &signing.Verifier{Keyring: f.Keyring, Time: f.now}
}

// wants reports whether the file is to be fetched.
func (f *Fetcher) wants(name string) bool {
	return len(f.Suffixes) == 0 || name == signing.SumsFile || name == signing.SumsSig || name == IndexName ||
		slices.ContainsFunc(f.Suffixes, func(s string) bool { return strings.HasSuffix(name, s) })
}

// wanted is a release by its label or, where that is "", its build.
type wanted struct {
	image string
	label Label
	build BuildID
}

func parseWanted(name string) (wanted, error) {
	image, which, ok := strings.Cut(name, "/")
	if !ok {
		which = string(Latest)
	}
	w := wanted{image: image}
	if err := CheckImage(image); err != nil {
		return w, err
	}
	if l := Label(which); l == Latest || l == Prev {
		w.label = l
		return w, nil
	}
	build, err := ParseBuildID(which)
	if err != nil {
		return w, fmt.Errorf("want IMAGE, IMAGE/latest, IMAGE/prev or IMAGE/BUILD: %w", err)
	}
	w.build = build
	return w, nil
}

// offer is a release that a source has, as far as its verified checksums and
// index tell.
type offer struct {
	index  *Index
	small  map[string][]byte // the files that say it, by name
	digest string
}

func (o *offer) path(name string) string {
	return path.Join(o.index.Image, o.index.Build.String(), name)
}

// size returns the size of the file, or -1 if the index does not say.
func (o *offer) size(name string) int64 {
	i := slices.IndexFunc(o.index.Files, func(f File) bool { return f.Name == name })
	if i < 0 {
		return -1
	}
	return o.index.Files[i].SizeBytes
}

// offer finds and judges the release, before anything is written.
func (f *Fetcher) offer(ctx context.Context, w wanted) (*offer, error) {
	if w.label != "" {
		var err error
		if w.build, err = f.labelled(ctx, w.image, w.label); err != nil {
			return nil, err
		}
	}
	if err := f.checkWithdrawn(ctx, w.image, w.build); err != nil {
		return nil, err
	}
	o := &offer{small: make(map[string][]byte)}
	for _, file := range []struct {
		name string
		most int64
	}{{signing.SumsFile, maxFetchSums}, {signing.SumsSig, maxFetchSig}, {IndexName, maxIndex}} {
		data, err := f.read(ctx, path.Join(w.image, w.build.String(), file.name), file.most)
		switch {
		case errors.Is(err, fs.ErrNotExist) && file.name == signing.SumsFile:
			return nil, fmt.Errorf("%w: %w", ErrUnknownBuild, err)
		case errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("%w: %w", ErrNotAsSigned, err)
		case err != nil:
			return nil, err
		}
		o.small[file.name] = data
	}
	if err := f.verifySmall(ctx, o); err != nil {
		return nil, err
	}
	if err := o.index.checkIs(w.image, w.build); err != nil {
		return nil, err
	}
	if err := f.judge(o); err != nil {
		return nil, err
	}
	return o, f.Rebuilds.check(ctx, o, *f.verifier())
}

// verifySmall verifies the signature of the checksums, and by them the index.
func (f *Fetcher) verifySmall(ctx context.Context, o *offer) error {
	sums, index := o.small[signing.SumsFile], o.small[IndexName]
	if _, err := f.verifier().Detached(ctx, signing.SumsFile, bytes.NewReader(sums), bytes.NewReader(o.small[signing.SumsSig])); err != nil {
		return err
	}
	o.digest = hexSHA256(sums)
	line := hexSHA256(index) + "  " + IndexName + "\n"
	if !strings.Contains("\n"+string(sums), "\n"+line) {
		return &signing.Error{File: IndexName, Reason: signing.DigestDiffers}
	}
	var err error
	if o.index, err = ReadIndex(bytes.NewReader(index)); err != nil {
		return fmt.Errorf("%w: %w", ErrNotAsSigned, err)
	}
	return nil
}

// judge applies the bounds to what is known to be signed.
func (f *Fetcher) judge(o *offer) error {
	build, now := o.index.Build, f.now()
	if err := inFuture(build, now); err != nil {
		return err
	}
	if f.MaxAge > 0 && now.Sub(build.Time()) > f.MaxAge {
		return fmt.Errorf("%w: %s is more than %s ago", ErrTooOld, build, f.MaxAge)
	}
	if n := bytes.Count(o.small[signing.SumsFile], []byte("\n")); n > maxFiles {
		return fmt.Errorf("%s has %d files, more than %d", build, n, maxFiles)
	}
	left := f.MaxBytes
	if left == 0 {
		left = defaultMaxBytes
	}
	chosen := false
	for _, file := range o.index.Files {
		if !f.wants(file.Name) {
			continue
		}
		chosen = true
		if left -= file.SizeBytes; left < 0 {
			return fmt.Errorf("%s has more bytes than the bound on them", build)
		}
	}
	if !chosen {
		return fmt.Errorf("no file of %s ends in %q", build, f.Suffixes)
	}
	return nil
}

// labelled asks the source which build has the label. What it says decides only
// which build is verified.
func (f *Fetcher) labelled(ctx context.Context, image string, label Label) (BuildID, error) {
	name := path.Join(image, string(label), IndexName)
	data, err := f.read(ctx, name, maxIndex)
	if errors.Is(err, fs.ErrNotExist) {
		return BuildID{}, fmt.Errorf("%w: %w", ErrUnknownBuild, err)
	}
	if err != nil {
		return BuildID{}, err
	}
	x, err := ReadIndex(bytes.NewReader(data))
	if err != nil {
		return BuildID{}, fmt.Errorf("%w: %s is no index of a release", ErrNotAsSigned, name)
	}
	return x.Build, nil
}

// checkWithdrawn reports a build that the source says was withdrawn. Its word is
// not signed, so it is only believed to somebody's disadvantage: what cannot be
// read is an error.
func (f *Fetcher) checkWithdrawn(ctx context.Context, image string, build BuildID) error {
	name := path.Join(image, "lifecycle.json")
	data, err := f.read(ctx, name, maxLifecycle)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	withdrawn, err := parseWithdrawn(data)
	if err != nil {
		return fmt.Errorf("%s, which says what was withdrawn, cannot be read: it is not the JSON that it should be", name)
	}
	if withdrawn[build.String()] {
		return fmt.Errorf("%w: %s; %s says why", ErrWithdrawn, build, name)
	}
	return nil
}

// parseWithdrawn returns the builds that a lifecycle.json says were withdrawn. It
// passes over what a newer publisher may write besides.
func parseWithdrawn(data []byte) (map[string]bool, error) {
	var fates map[string]struct {
		Withdrawn string `json:"withdrawn"`
	}
	if err := json.Unmarshal(data, &fates); err != nil {
		return nil, err
	}
	withdrawn := make(map[string]bool)
	for build, fate := range fates {
		if fate.Withdrawn != "" {
			withdrawn[build] = true
		}
	}
	return withdrawn, nil
}

// read reads a whole file of the source of at most so many bytes.
func (f *Fetcher) read(ctx context.Context, name string, most int64) ([]byte, error) {
	r, err := f.open(ctx, name, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%w: %s has more than %d bytes", ErrNotAsSigned, name, most)
	}
	return data, nil
}

// open opens a file of the source. The reader ends with ctx, and when the source
// gives nothing again and again.
func (f *Fetcher) open(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	r, err := f.Source.Open(ctx, name, offset)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the source has no %s: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if r == nil {
		return nil, fmt.Errorf("%s: the source returned neither a reader nor an error", name)
	}
	const empty = 100
	return readCloser{Closer: r, read: func(p []byte) (int, error) {
		for range empty {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			if n, err := r.Read(p); n > 0 || err != nil || len(p) == 0 {
				return n, err
			}
		}
		return 0, io.ErrNoProgress
	}}, nil
}

type readCloser struct {
	io.Closer
	read func([]byte) (int, error)
}

func (r readCloser) Read(p []byte) (int, error) { return r.read(p) }

func hexSHA256(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
