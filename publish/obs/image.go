package obs

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
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// Names that are the package's own, in a release.
const (
	ownPrefix   = ".publish-"
	begunPrefix = ".publish-begun-"  // + digest: a run is at work, or was killed
	sealPrefix  = ".publish-sealed-" // + digest-listing
)

const (
	pointerName   = publish.IndexName // of a label
	lifecycleName = "lifecycle.json"
)

// Bounds of what is read whole, in bytes.
const (
	maxSums      = 32 << 20
	maxIndex     = 1 << 20
	maxLifecycle = 4 << 20
)

var labels = []publish.Label{publish.Latest, publish.Prev}

// release is what lies under IMAGE/BUILD/.
type release struct {
	build publish.BuildID
	files map[string]object // by name, without the package's own
	begun []string          // digests
	seals []seal

	digest  string
	problem string
}

type seal struct{ digest, listing string }

func (s seal) name() string { return sealPrefix + s.digest + "-" + s.listing }

// add takes an object of the release into account.
func (r *release) add(name string, o object) {
	if digest, ok := strings.CutPrefix(name, begunPrefix); ok {
		r.begun = append(r.begun, digest)
		return
	}
	if rest, ok := strings.CutPrefix(name, sealPrefix); ok {
		digest, listing, _ := strings.Cut(rest, "-")
		r.seals = append(r.seals, seal{digest, listing})
		return
	}
	if !strings.HasPrefix(name, ownPrefix) {
		r.files[name] = o
	}
}

// listing is a digest of the names, sizes and ETags of the release's files.
func (r *release) listing() string {
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(r.files)) {
		fmt.Fprintf(sum, "%s %d %s\n", name, r.files[name].size, r.files[name].etag)
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

// sealed returns the seal that is of what is there.
func (r *release) sealed() (seal, bool) {
	listing := r.listing()
	i := slices.IndexFunc(r.seals, func(s seal) bool { return s.listing == listing })
	if i < 0 {
		return seal{}, false
	}
	return r.seals[i], true
}

// unfinished reports what a killed run of ours left, which is no release yet.
func (r *release) unfinished() bool { return len(r.begun) > 0 && len(r.seals) == 0 }

// state is what is there of an image.
type state struct {
	image    string
	releases map[publish.BuildID]*release
	labelled map[publish.Label]publish.BuildID
	fates    lifecycle
}

// releasesUnder reads the listing of the image, or of one build of it.
func (d *image) releasesUnder(ctx context.Context, under string) (map[publish.BuildID]*release, error) {
	objects, err := d.b.list(ctx, d.key(under))
	if err != nil {
		return nil, err
	}
	found := make(map[publish.BuildID]*release)
	for _, o := range objects {
		which, name, ok := strings.Cut(strings.TrimPrefix(o.key, d.base), "/")
		build, err := publish.ParseBuildID(which)
		if !ok || err != nil || name == "" {
			continue
		}
		r := found[build]
		if r == nil {
			r = &release{build: build, files: make(map[string]object)}
			found[build] = r
		}
		r.add(name, o)
	}
	return found, nil
}

// look returns what is there. The labels come first: a run that publishes meanwhile
// moves them only to what is there by then.
func (d *image) look(ctx context.Context) (*state, error) {
	s := &state{image: d.name, labelled: make(map[publish.Label]publish.BuildID)}
	for _, label := range labels {
		build, err := d.labelled(ctx, label)
		if err != nil {
			return nil, err
		}
		s.labelled[label] = build
	}
	var err error
	if s.fates, err = d.lifecycle(ctx); err != nil {
		return nil, err
	}
	if s.releases, err = d.releasesUnder(ctx, ""); err != nil {
		return nil, err
	}
	for _, build := range s.labelled { // which a list that lags may lack
		if !build.IsZero() && s.releases[build] == nil {
			s.releases[build] = &release{build: build, files: make(map[string]object)}
		}
	}
	for build, r := range s.releases {
		if r.unfinished() && !s.has(build) {
			delete(s.releases, build)
			continue
		}
		if err := d.judge(ctx, r); err != nil {
			return nil, err
		}
		if r.digest == "" && len(r.files) == 0 && s.has(build) { // a label of nothing
			delete(s.releases, build)
		}
	}
	return s, nil
}

// has reports whether the build has a label.
func (s *state) has(build publish.BuildID) bool {
	return slices.ContainsFunc(labels, func(l publish.Label) bool { return s.labelled[l] == build })
}

func (s *state) entries() []publish.Entry {
	var entries []publish.Entry
	for build, r := range s.releases {
		fate := s.fates[build.String()]
		e := publish.Entry{
			ID: s.image + "/" + build.String(), Image: s.image, Build: build,
			Digest: r.digest, Problem: r.problem, Withdrawn: fate.Withdrawn,
		}
		for _, l := range labels {
			if s.labelled[l] == build {
				e.Labels = append(e.Labels, l)
			}
		}
		if fate.LabelLost != nil && len(e.Labels) == 0 {
			e.LabelLost = *fate.LabelLost
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b publish.Entry) int { return a.Build.Compare(b.Build) })
	return entries
}

// judge says what the release is, and what is wrong with it as far as names, sizes
// and ETags tell. The error is that the service cannot be asked.
func (d *image) judge(ctx context.Context, r *release) error {
	if s, ok := r.sealed(); ok {
		r.digest = s.digest
		return nil
	}
	files, err := d.content(ctx, r)
	if len(r.seals) > 0 && r.digest == "" {
		r.digest = r.seals[0].digest
	}
	var problem *problemError
	if errors.As(err, &problem) {
		r.problem = problem.text
		return nil
	}
	if err != nil {
		return err
	}
	for _, f := range append(files, publish.File{Name: signing.SumsSig, SizeBytes: -1}) {
		o, ok := r.files[f.Name]
		if !ok { // the list may lag
			switch o, err = d.b.head(ctx, d.key(r.build.String()+"/"+f.Name)); {
			case errors.Is(err, fs.ErrNotExist):
				r.problem = f.Name + " is missing"
				return nil
			case err != nil:
				return err
			}
			r.files[f.Name] = o
		}
		switch {
		case f.SizeBytes >= 0 && o.size != f.SizeBytes:
			r.problem = fmt.Sprintf("%s has %d bytes instead of %d", f.Name, o.size, f.SizeBytes)
			return nil
		case f.SizeBytes < 0 && o.size == 0:
			r.problem = f.Name + " is empty"
			return nil
		}
	}
	if _, ok := r.sealed(); !ok && len(r.seals) > 0 {
		r.problem = "a file was replaced after it was published"
	}
	return nil
}

// problemError is what is wrong with a release, not with the service.
type problemError struct{ text string }

func (e *problemError) Error() string { return e.text }

func problem(format string, args ...any) error {
	return &problemError{fmt.Sprintf(format, args...)}
}

// content reads the checksums and the index, and sets the digest. SizeBytes is -1
// where the index does not say.
func (d *image) content(ctx context.Context, r *release) ([]publish.File, error) {
	read := func(name string, most int64) ([]byte, error) {
		data, err := d.b.get(ctx, d.key(r.build.String()+"/"+name), most)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, problem("%s is missing", name)
		}
		return data, err
	}
	sums, err := read(signing.SumsFile, maxSums)
	if err != nil {
		return nil, err
	}
	r.digest = hexSum(sums)
	data, err := read(publish.IndexName, maxIndex)
	if err != nil {
		return nil, err
	}
	index, err := publish.ReadIndex(bytes.NewReader(data))
	if err != nil {
		return nil, problem("%v", err)
	}
	if index.Image != d.name || index.Build != r.build {
		return nil, problem("it holds %s %s", index.Image, index.Build)
	}
	files, ok := parseSums(sums)
	if !ok {
		return nil, problem("%s is not one of a release", signing.SumsFile)
	}
	sizes := map[string]int64{publish.IndexName: int64(len(data))}
	for _, f := range index.Files {
		sizes[f.Name] = f.SizeBytes
	}
	rightly := false
	for i, f := range files {
		if size, ok := sizes[f.Name]; ok {
			files[i].SizeBytes = size
			delete(sizes, f.Name)
		}
		rightly = rightly || f.Name == publish.IndexName && f.SHA256 == hexSum(data)
	}
	if !rightly || len(sizes) > 0 {
		return nil, problem("%s and %s do not belong together", signing.SumsFile, publish.IndexName)
	}
	return files, nil
}

// parseSums reads the lines that a release's SHA256SUMS has.
func parseSums(data []byte) ([]publish.File, bool) {
	var files []publish.File
	for line := range strings.Lines(string(data)) {
		digest, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		sum, err := hex.DecodeString(digest)
		if !ok || err != nil || len(sum) != sha256.Size || name == "" || strings.HasPrefix(name, ".") || strings.Contains(name, "/") {
			return nil, false
		}
		files = append(files, publish.File{Name: name, SizeBytes: -1, SHA256: strings.ToLower(digest)})
	}
	return files, true
}

// labelled returns the build that has the label, or none.
func (d *image) labelled(ctx context.Context, label publish.Label) (publish.BuildID, error) {
	data, err := d.b.get(ctx, d.key(string(label)+"/"+pointerName), maxIndex)
	if errors.Is(err, fs.ErrNotExist) {
		return publish.BuildID{}, nil
	}
	if err != nil {
		return publish.BuildID{}, err
	}
	index, err := publish.ReadIndex(bytes.NewReader(data))
	if err != nil || index.Image != d.name {
		return publish.BuildID{}, nil //nolint:nilerr // what is no index labels nothing, and is replaced
	}
	return index.Build, nil
}

// assign lets the label name the build, if that is what its checksums say.
func (d *image) assign(ctx context.Context, label publish.Label, build publish.BuildID, now time.Time) error {
	if !slices.Contains(labels, label) {
		return fmt.Errorf("label %q is unknown", label)
	}
	was, err := d.labelled(ctx, label)
	if err != nil || was == build {
		return err
	}
	if err := d.compare(ctx, build); err != nil {
		return err
	}
	if err := d.recordLoss(ctx, was, label, now); err != nil {
		return err
	}
	index, err := d.b.get(ctx, d.key(build.String()+"/"+publish.IndexName), maxIndex)
	if err != nil {
		return err
	}
	_, err = d.b.put(ctx, d.key(string(label)+"/"+pointerName), index)
	return err
}

// compare compares the content of the build with SHA256SUMS, unless its seal says that
// it is what was compared before.
func (d *image) compare(ctx context.Context, build publish.BuildID) error {
	found, err := d.releasesUnder(ctx, build.String()+"/")
	if err != nil {
		return err
	}
	r := found[build]
	if r == nil {
		r = &release{build: build, files: make(map[string]object)}
	}
	if _, ok := r.sealed(); ok {
		for _, digest := range r.begun { // by a run that was cut just then
			if err := d.b.remove(ctx, d.key(build.String()+"/"+begunPrefix+digest)); err != nil {
				return err
			}
		}
		return nil
	}
	incomplete := func(text string) error {
		return fmt.Errorf("%s%s: %w: %s", d.base, build, publish.ErrIncomplete, text)
	}
	if err := d.judge(ctx, r); err != nil {
		return err
	}
	if r.problem != "" {
		return incomplete(r.problem)
	}
	files, err := d.content(ctx, r)
	if err != nil {
		return err
	}
	for _, f := range files {
		same, err := d.same(ctx, build.String()+"/"+f.Name, f.SHA256)
		if err != nil {
			return err
		}
		if !same {
			return incomplete(fmt.Sprintf("the content of %s differs from %s", f.Name, signing.SumsFile))
		}
	}
	_, err = d.b.put(ctx, d.key(build.String()+"/"+seal{r.digest, r.listing()}.name()), nil)
	return err
}

// same reads an object and reports whether it has the SHA-256.
func (d *image) same(ctx context.Context, name, want string) (bool, error) {
	f := &file{ctx: ctx, b: d.b, key: d.key(name)}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return false, err
	}
	return hex.EncodeToString(sum.Sum(nil)) == want, nil
}

// recordLoss records that the build is about to lose the label, if that is its last.
// Before, so that it is not forgotten: while it has the label, nobody asks.
func (d *image) recordLoss(ctx context.Context, build publish.BuildID, label publish.Label, now time.Time) error {
	if build.IsZero() {
		return nil
	}
	for _, l := range labels {
		if l == label {
			continue
		}
		if other, err := d.labelled(ctx, l); err != nil || other == build {
			return err
		}
	}
	now = now.UTC().Truncate(time.Second)
	return d.record(ctx, build, func(f *fate) { f.LabelLost = &now })
}

// delete removes the build: first what makes it complete, and last what tells that it
// was a release, so that what a killed run leaves is removed by the next.
func (d *image) delete(ctx context.Context, build publish.BuildID) error {
	for _, label := range labels {
		switch b, err := d.labelled(ctx, label); {
		case err != nil:
			return err
		case b == build:
			return fmt.Errorf("%s%s is %s", d.base, build, label)
		}
	}
	objects, err := d.b.list(ctx, d.key(build.String()+"/"))
	if err != nil {
		return err
	}
	rank := func(key string) int {
		switch name := strings.TrimPrefix(key, d.key(build.String()+"/")); {
		case strings.HasPrefix(name, sealPrefix):
			return 2
		case name == signing.SumsFile, name == publish.IndexName:
			return 1
		}
		return 0
	}
	slices.SortStableFunc(objects, func(a, b object) int { return rank(a.key) - rank(b.key) })
	for _, o := range objects {
		if err := d.b.remove(ctx, o.key); err != nil {
			return err
		}
	}
	return d.record(ctx, build, func(f *fate) { f.LabelLost = nil })
}

// lifecycle is what lifecycleName holds, by build; see package publish/directory.
type lifecycle map[string]fate

type fate struct {
	LabelLost *time.Time `json:"label_lost,omitempty"`
	Withdrawn string     `json:"withdrawn,omitempty"`
}

// lifecycle reads the object; a missing one is empty. One that cannot be read is an
// error, for a release that was withdrawn could come back.
func (d *image) lifecycle(ctx context.Context) (lifecycle, error) {
	data, err := d.b.get(ctx, d.key(lifecycleName), maxLifecycle)
	if errors.Is(err, fs.ErrNotExist) {
		return lifecycle{}, nil
	}
	if err != nil {
		return nil, err
	}
	var l lifecycle
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&l); err != nil {
		return nil, fmt.Errorf("%s, which says what was withdrawn, is damaged; mend it, or remove it if nothing was", d.key(lifecycleName))
	}
	if l == nil {
		l = lifecycle{}
	}
	return l, nil
}

// record changes what the object says of a build.
func (d *image) record(ctx context.Context, build publish.BuildID, change func(*fate)) error {
	l, err := d.lifecycle(ctx)
	if err != nil {
		return err
	}
	key := build.String()
	old, now := l[key], l[key]
	change(&now)
	if now == old {
		return nil
	}
	if l[key] = now; now == (fate{}) {
		delete(l, key)
	}
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	if len(data) >= maxLifecycle {
		return fmt.Errorf("%s would exceed %d bytes", d.key(lifecycleName), maxLifecycle)
	}
	_, err = d.b.put(ctx, d.key(lifecycleName), append(data, '\n'))
	return err
}

func hexSum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
