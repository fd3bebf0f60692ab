package publish_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

type rebuilder struct {
	key    *signing.Key
	sealer signing.Sealer
}

func newRebuilder(t testing.TB) *rebuilder {
	t.Helper()
	key, err := signing.GenerateKey(signing.KeyConfig{Name: "Rebuilder", Email: "r@example.com"})
	require.NoError(t, err)
	signer, err := signing.NewSigner(key, signing.SignerConfig{})
	require.NoError(t, err)
	return &rebuilder{key, signing.Sealer{Signers: []*signing.Signer{signer}}}
}

// says writes a statement about the release.
func (b *rebuilder) says(t testing.TB, path string, r *publish.Release, change func(*signing.Rebuild)) {
	t.Helper()
	image := r.Index.Image + "-" + r.Index.Build.String() + ".qcow2"
	says := signing.Rebuild{
		Subjects: []signing.FileDigest{{Name: signing.SumsFile, SHA256: r.Digest}, {Name: image, SHA256: strings.Repeat("a", 64)}},
		Image:    r.Index.Image, Build: r.Index.Build.String(), Same: signing.SameContent,
		Rebuilt:   []signing.Resource{{Name: "again.qcow2", Digest: map[string]string{"sha256": strings.Repeat("b", 64)}}},
		Rebuilder: "https://example.com/rebuilder", Finished: time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC),
	}
	if change != nil {
		change(&says)
	}
	statement, err := says.Statement()
	require.NoError(t, err)
	envelope, err := b.sealer.Envelope(t.Context(), statement)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, envelope, 0o644))
}

// noImage is a source that must not be asked for an image.
type noImage struct {
	publish.Source
	t testing.TB
}

func (s noImage) Open(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	require.NotContains(s.t, name, ".qcow2")
	return s.Source.Open(ctx, name, offset)
}

// So many of the keys that were chosen must say of this very release that they have
// built it again; whatever else is there counts for nothing, and it is said why.
func TestFetchRebuilt(t *testing.T) {
	o := newOrigin(t, 2)
	latest, older := o.releases[1], o.releases[0]
	one, two, stranger := newRebuilder(t), newRebuilder(t), newRebuilder(t)
	keyring, err := signing.PinKeys(one.key, two.key, o.keys[1])
	require.NoError(t, err)
	statements := t.TempDir()
	fetch := func(n int, source publish.Source) error {
		f := publish.Fetcher{Source: source, Keyring: o.keyring, Dir: t.TempDir(), Rebuilds: publish.Rebuilds{By: n, Keyring: keyring, Dir: statements}}
		_, err := f.Fetch(t.Context(), "Image")
		return err
	}
	one.says(t, filepath.Join(statements, "1.json"), latest, nil)
	require.NoError(t, fetch(1, o.Target))
	require.ErrorIs(t, fetch(2, noImage{o.Target, t}), publish.ErrNotRebuilt)

	flipped := func(name string) {
		data, err := os.ReadFile(filepath.Join(statements, "1.json"))
		require.NoError(t, err)
		at := strings.Index(string(data), `"payload": "`) + 40
		data[at] ^= 1
		require.NoError(t, os.WriteFile(filepath.Join(statements, name), data, 0o644))
	}
	for _, c := range []struct {
		name, want string
		write      func(path string)
	}{
		{"same-key.json", "1 of 2", func(p string) { one.says(t, p, latest, nil) }},
		{"stranger.json", "not in the keyring", func(p string) { stranger.says(t, p, latest, nil) }},
		{"older.json", "it is about another release", func(p string) { two.says(t, p, older, nil) }},
		{"other-files.json", "about another release: other files", func(p string) {
			two.says(t, p, latest, func(r *signing.Rebuild) { r.Subjects[0].SHA256 = strings.Repeat("c", 64) })
		}},
		{"differs.json", `differs in ".packages"`, func(p string) {
			two.says(t, p, latest, func(r *signing.Rebuild) { r.Same, r.Differences = signing.Differs, []string{".packages"} })
		}},
		{"files-only.json", "not in \"content\"", func(p string) {
			two.says(t, p, latest, func(r *signing.Rebuild) { r.Same, r.Differences = signing.SameFiles, []string{".qcow2"} })
		}},
		{"forged.json", "forged.json", func(p string) { flipped(filepath.Base(p)) }},
		{"provenance.json", "about something else", func(p string) {
			s, err := signing.Provenance{Subjects: []signing.FileDigest{{Name: signing.SumsFile, SHA256: latest.Digest}}, BuildType: "x", BuilderID: "y"}.Statement()
			require.NoError(t, err)
			data, err := two.sealer.Envelope(t.Context(), s)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(p, data, 0o644))
		}},
		{"empty.json", "empty.json", func(p string) { require.NoError(t, os.WriteFile(p, nil, 0o644)) }},
		{"directory.json", "not a regular file", func(p string) { require.NoError(t, os.Mkdir(p, 0o755)) }},
	} {
		path := filepath.Join(statements, c.name)
		c.write(path)
		err := fetch(2, noImage{o.Target, t})
		require.ErrorIs(t, err, publish.ErrNotRebuilt, c.name)
		require.ErrorContains(t, err, c.want, c.name)
		require.NoError(t, os.RemoveAll(path))
	}
	two.says(t, filepath.Join(statements, "2.json"), latest, nil)
	require.NoError(t, fetch(2, o.Target))
	require.ErrorIs(t, fetch(3, noImage{o.Target, t}), publish.ErrNotRebuilt)

	// Who publishes confirms nothing by saying it twice.
	f := publish.Fetcher{Source: o.Target, Dir: t.TempDir(), Rebuilds: publish.Rebuilds{By: 2, Keyring: keyring, Dir: statements}}
	f.Keyring, err = signing.PinKeys(append(o.keys, one.key)...)
	require.NoError(t, err)
	_, err = f.Fetch(t.Context(), "Image")
	require.ErrorContains(t, err, "publisher's key")

	// Nor by a key that signs no longer, or something else, where it publishes; but who
	// signs together with a publisher has said it as well.
	f.Keyring, err = signing.NewKeyring([]signing.Pin{{Fingerprint: o.keys[1].Fingerprint()}, {Fingerprint: one.key.Fingerprint(), Until: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)}}, o.keys[1], one.key)
	require.NoError(t, err)
	_, err = f.Fetch(t.Context(), "Image")
	require.ErrorContains(t, err, "publisher's key")
	both := &rebuilder{one.key, signing.Sealer{Signers: []*signing.Signer{one.sealer.Signers[0], two.sealer.Signers[0]}}}
	require.NoError(t, os.Remove(filepath.Join(statements, "2.json")))
	both.says(t, filepath.Join(statements, "1.json"), latest, nil)
	f.Rebuilds.By = 1
	_, err = f.Fetch(t.Context(), "Image")
	require.NoError(t, err)
	f.Rebuilds.By = 2
	_, err = f.Fetch(t.Context(), "Image")
	require.ErrorIs(t, err, publish.ErrNotRebuilt)
}
