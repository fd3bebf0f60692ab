package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// ErrNotRebuilt is that too few of those who build releases again say that the
// release is what comes of it.
var ErrNotRebuilt = errors.New("too few rebuilders confirm the release")

// Rebuilds demand that others than the publisher have built a release again and
// found it the same: each has signed a [signing.Rebuild] with a key of its own.
type Rebuilds struct {
	// By is how many different keys must have signed such a statement. If 0, nothing is
	// demanded and the rest does not matter.
	By int
	// Keyring are the rebuilders' keys. A key that the publisher's keyring names too does
	// not count, whatever it may sign there. Of several that have signed one statement
	// one counts.
	Keyring *signing.Keyring
	// Dir has the statements, in files *.json that the caller has from the rebuilders; at
	// most 1000 of at most 1 MiB. What is no statement about the release counts for
	// nothing, and the error says why.
	Dir string
	// Same is how far the rebuild must be the same; if empty, signing.SameContent.
	Same signing.Sameness
}

const (
	maxStatement  = 1 << 20
	maxStatements = 1000
	maxWhy        = 20 // statements of which the error says why they do not count
)

// check judges the statements about an offered release, before it is fetched.
func (b *Rebuilds) check(ctx context.Context, o *offer, verifier signing.Verifier) error {
	if b.By <= 0 {
		return nil
	}
	if b.Keyring == nil {
		return errors.New("there is no keyring of rebuilders")
	}
	publishers := verifier.Keyring.Pins()
	verifier.Keyring, verifier.Required = b.Keyring, 0
	names, err := b.statements()
	if err != nil {
		return err
	}
	confirmed := map[signing.Fingerprint]bool{}
	var why []string
	for _, name := range names {
		key, err := b.statement(ctx, name, o, &verifier, publishers)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if why = append(why, fmt.Sprintf("%.200q: %v", name, err)); len(why) > maxWhy {
				why = why[:maxWhy]
			}
			continue
		}
		confirmed[key] = true
	}
	if len(confirmed) >= b.By {
		return nil
	}
	text := ""
	if len(why) > 0 {
		text = "; " + strings.Join(why, "; ")
	}
	return fmt.Errorf("%w: %d of %d that are demanded%s", ErrNotRebuilt, len(confirmed), b.By, text)
}

// statements are the names of the files.
func (b *Rebuilds) statements() ([]string, error) {
	dirents, err := os.ReadDir(b.Dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read rebuilders' statements: %w", err)
	}
	var names []string
	for _, d := range dirents {
		if strings.HasSuffix(d.Name(), ".json") {
			names = append(names, d.Name())
		}
	}
	if len(names) > maxStatements {
		return nil, fmt.Errorf("cannot read rebuilders' statements: %s has more than %d", b.Dir, maxStatements)
	}
	return names, nil
}

// statement returns the key that confirms the offered release in a file.
func (b *Rebuilds) statement(ctx context.Context, name string, o *offer, rebuilders *signing.Verifier, publishers []signing.Pin) (signing.Fingerprint, error) {
	f, err := os.OpenFile(filepath.Join(b.Dir, name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return "", errors.Join(err, errors.New("it is not a regular file"))
	}
	data, err := io.ReadAll(io.LimitReader(f, maxStatement+1))
	if err != nil {
		return "", err
	}
	if len(data) > maxStatement {
		return "", fmt.Errorf("it is larger than %d bytes", maxStatement)
	}
	statement, v, err := rebuilders.Envelope(ctx, name, bytes.NewReader(data))
	if err != nil {
		return "", err
	}
	signatures := v.Files[0].Signatures
	i := slices.IndexFunc(signatures, func(s signing.Signature) bool {
		return s.Reason == "" && !slices.ContainsFunc(publishers, func(p signing.Pin) bool { return p.Fingerprint == s.Fingerprint })
	})
	if i < 0 {
		return "", errors.New("it is signed with a publisher's key, which confirms nothing")
	}
	r, err := signing.ReadRebuild(statement)
	if err != nil {
		return "", err
	}
	if err := r.IsOf(o.index.Image, o.index.Build.String(), o.digest); err != nil {
		return "", err
	}
	want := b.Same
	if want == "" {
		want = signing.SameContent
	}
	if !r.Same.Reaches(want) {
		return "", fmt.Errorf("its image is the same in %q only, not in %q: it differs in %s", r.Same, want, few(r.Differences))
	}
	return signatures[i].Fingerprint, nil
}

// few names the first differences.
func few(differences []string) string {
	const most = 5
	var out []string
	for _, d := range differences[:min(most, len(differences))] {
		out = append(out, fmt.Sprintf("%.100q", d))
	}
	if n := len(differences) - most; n > 0 {
		out = append(out, fmt.Sprintf("%d more", n))
	}
	return strings.Join(out, ", ")
}
