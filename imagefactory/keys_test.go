package imagefactory

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/website"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

func otherKey(t *testing.T, made time.Time, lifetime time.Duration) *signing.Key {
	t.Helper()
	key, err := signing.GenerateKey(signing.KeyConfig{Name: "next", Lifetime: lifetime, Time: func() time.Time { return made }})
	require.NoError(t, err)
	return key
}

func signerOf(t *testing.T, key *signing.Key, now func() time.Time) *signing.Signer {
	t.Helper()
	s, err := signing.NewSigner(key, signing.SignerConfig{Time: now})
	require.NoError(t, err)
	return s
}

// Nights across a change of the key: what either key signed in its span verifies, with
// the directory's keyring, for who fetches and on the website, and nothing else does.
func TestNightsAcrossAKeyChange(t *testing.T) {
	needs.Tools(t, "gpg")
	f, d, now, _ := changing(t)
	f.Website = &website.Site{Out: t.TempDir(), List: (&directory.Target{Dir: f.Dir}).List}
	oldKey, newKey := testKey, otherKey(t, *now, 0)
	from := now.AddDate(0, 0, 9)
	at := func(days int, key *signing.Key) ImageReport {
		*now, f.Key = from.AddDate(0, 0, days), key
		report, err := f.Run(t.Context(), []Definition{d})
		require.NoError(t, err)
		require.Empty(t, report.SiteError)
		return report.Images[0]
	}
	require.Equal(t, Published, at(-5, oldKey).Result)
	*now = from.AddDate(0, 0, -3)
	require.NoError(t, rotateKey(t.Context(), f.Dir, signerOf(t, oldKey, f.Now), newKey, from, *now))
	require.NoError(t, rotateKey(t.Context(), f.Dir, nil, newKey, from, *now), "again is nothing to do")
	require.Equal(t, Published, at(-2, oldKey).Result)

	f.Key, *now = newKey, from.Add(-time.Second)
	_, err := f.Run(t.Context(), []Definition{d})
	require.ErrorContains(t, err, "signs from 2026-01-10 03:00:00 on; sign with the one before until then")

	got := at(0, newKey)
	require.Equal(t, Published, got.Result, got.Error)
	got = at(1, oldKey) // a night that had begun
	require.Equal(t, Published, got.Result, got.Error)
	require.Equal(t, "signing.key-expires", got.Findings[0].ID)
	*now, f.Key = from.Add(KeyOverlap), oldKey
	_, err = f.Run(t.Context(), []Definition{d})
	require.ErrorContains(t, err, "has signed until 2026-01-12 03:00:00; sign with the one after it")
	require.ErrorContains(t, f.Check([]Definition{d}), "has signed until")
	require.Equal(t, Published, at(3, newKey).Result)

	keyring, err := signing.LoadKeyring(filepath.Join(f.Dir, keysName))
	require.NoError(t, err)
	builds, err := filepath.Glob(filepath.Join(f.Dir, d.Name, "2*"))
	require.NoError(t, err)
	require.Len(t, builds, 5)
	for _, dir := range builds {
		_, err := publish.Open(t.Context(), dir, keyring)
		require.NoError(t, err)
	}
	fetched := t.TempDir()
	for _, build := range []string{"20260105-030000", "latest"} {
		_, err := publish.Fetch(t.Context(), &directory.Target{Dir: f.Dir}, d.Name+"/"+build, keyring, fetched)
		require.NoError(t, err)
	}
	// What the old key signs after its span, to deceive, is worth nothing.
	late := filepath.Join(t.TempDir(), d.Name, "20260113-030000")
	require.NoError(t, os.CopyFS(late, os.DirFS(builds[4])))
	_, err = signing.SignDir(t.Context(), late, signerOf(t, oldKey, func() time.Time { return from.Add(KeyOverlap) }))
	require.NoError(t, err)
	_, err = publish.Open(t.Context(), late, keyring)
	var bad *signing.Error
	require.ErrorAs(t, err, &bad)

	gpg := func(args ...string) error {
		command := exec.Command("gpg", append([]string{"--batch", "--homedir", filepath.Join(fetched, "gpg")}, args...)...)
		output, err := command.CombinedOutput()
		t.Log(string(output))
		return err
	}
	require.NoError(t, os.Mkdir(filepath.Join(fetched, "gpg"), 0o700))
	require.NoError(t, gpg("--import", filepath.Join(f.Dir, publicKeyName)))
	for _, dir := range []string{builds[0], builds[4]} {
		require.NoError(t, gpg("--verify", filepath.Join(dir, "SHA256SUMS.asc"), filepath.Join(dir, "SHA256SUMS")))
	}
	ofOld, err := signing.PinKeys(oldKey)
	require.NoError(t, err)
	signature, err := os.Open(filepath.Join(f.Dir, keysName+".asc"))
	require.NoError(t, err)
	defer signature.Close()
	spans, err := os.Open(filepath.Join(f.Dir, keysName))
	require.NoError(t, err)
	defer spans.Close()
	_, err = (&signing.Verifier{Keyring: ofOld}).Detached(t.Context(), keysName, spans, signature)
	require.NoError(t, err, "who trusts the old key can trust the new one")
}

// A release that the old key sealed and that could not be published is published by a
// night with the new one.
func TestSealedBeforeAKeyChange(t *testing.T) {
	f, d, now, _ := changing(t)
	down := errors.New("the target is down")
	f.Targets = append(f.Targets, targetDriver{"own", func(func(any) error) (publish.Target, error) {
		return downTarget{Target: &directory.Target{Dir: filepath.Join(f.Dir, ".work", "elsewhere")}, err: &down}, nil
	}})
	d.Publish = []Component{{Driver: "own"}}
	require.Equal(t, Failed, night(t, f, d).Result)
	next := otherKey(t, *now, 0)
	require.NoError(t, rotateKey(t.Context(), f.Dir, signerOf(t, f.Key, f.Now), next, time.Time{}, *now))
	down, f.Key, *now = nil, next, now.Add(time.Hour)
	got := night(t, f, d)
	require.Equal(t, Published, got.Result, got.Error)
}

type downTarget struct {
	publish.Target
	err *error
}

func (t downTarget) Push(ctx context.Context, r *publish.Release) (publish.Entry, error) {
	if *t.err != nil {
		return publish.Entry{}, *t.err
	}
	return t.Target.Push(ctx, r)
}

func TestRotateKeyRefuses(t *testing.T) {
	f, d, now, _ := changing(t)
	require.Equal(t, Published, night(t, f, d).Result)
	rotate := func(old, next *signing.Key, from time.Time) error {
		var signer *signing.Signer
		if old != nil {
			signer = signerOf(t, old, f.Now)
		}
		return rotateKey(t.Context(), f.Dir, signer, next, from, *now)
	}
	second, third := otherKey(t, *now, 0), otherKey(t, *now, 0)
	require.ErrorContains(t, RotateKey(t.Context(), t.TempDir(), nil, second, time.Time{}), "no such file")
	require.ErrorContains(t, rotate(nil, nil, time.Time{}), "there is no new key")
	require.ErrorContains(t, rotate(second, third, time.Time{}), "the releases are signed with "+string(testKey.Fingerprint()))
	require.ErrorContains(t, rotate(testKey, second, now.AddDate(0, 0, -1)), "2025-12-31 03:00:00 has passed")
	require.ErrorContains(t, rotate(testKey, otherKey(t, now.AddDate(-2, 0, 0), time.Hour), time.Time{}), "the new key does not sign then")
	require.NoError(t, rotate(testKey, testKey, time.Time{}), "it is that key already")
	require.NoFileExists(t, filepath.Join(f.Dir, keysName), "nothing has changed")

	// A change that was cut has changed nothing, and can be made again.
	both, err := os.Create(filepath.Join(f.Dir, publicKeyName))
	require.NoError(t, err)
	require.NoError(t, errors.Join(testKey.WritePublic(both), second.WritePublic(both), both.Close()))
	*now = now.AddDate(0, 0, 1)
	require.Equal(t, Published, night(t, f, d).Result)
	f.Key = second
	_, err = f.Run(t.Context(), []Definition{d})
	require.ErrorContains(t, err, "use that one, or change to the new one with RotateKey")
	require.NoError(t, rotate(testKey, second, time.Time{}))
	require.ErrorContains(t, rotate(second, third, now.AddDate(0, 0, 1)), "for 48h0m0s at least")
	require.ErrorContains(t, rotate(second, testKey, now.AddDate(0, 0, 9)), "has been used before")
	require.NoError(t, rotate(nil, third, now.AddDate(0, 0, 9)), "the second is lost")
	require.NoFileExists(t, filepath.Join(f.Dir, keysName+".asc"))
	keyring, err := signing.LoadKeyring(filepath.Join(f.Dir, keysName))
	require.NoError(t, err)
	require.Len(t, keyring.Pins(), 3)
	require.Empty(t, keyring.Skipped())
	f.Key = otherKey(t, *now, 0)
	_, err = f.Run(t.Context(), []Definition{d})
	require.ErrorContains(t, err, "the releases in "+f.Dir+" are signed with another")
	d.Name = keysName
	require.ErrorContains(t, f.Validate([]Definition{d}), "name")
}

// A release that is public on one target comes to the others as it is, also when the key
// has changed meanwhile.
func TestRotateKeyBetweenTargets(t *testing.T) {
	f, d, now, builds := changing(t)
	require.Equal(t, Published, night(t, f, d).Result)
	dir, push, _ := shelf(t, f)
	d.Publish = []Component{{Driver: "directory"}, {Driver: "shelf"}}
	*push, *now = errors.New("the shelf is full"), now.Add(time.Hour)
	require.Equal(t, Failed, night(t, f, d).Result)
	next := otherKey(t, *now, 0)
	require.NoError(t, rotateKey(t.Context(), f.Dir, signerOf(t, f.Key, f.Now), next, time.Time{}, *now))
	*push, f.Key, *now = nil, next, now.Add(time.Hour)
	got := night(t, f, d)
	require.Equal(t, Published, got.Result, got.Error)
	require.Equal(t, 2, *builds)
	require.FileExists(t, filepath.Join(dir, d.Name, got.Build, "SHA256SUMS"))
}

func TestSignerOfAnotherKey(t *testing.T) {
	f, d, now, builds := changing(t)
	f.Signer = signerOf(t, otherKey(t, *now, 0), f.Now)
	_, err := f.Run(t.Context(), []Definition{d})
	require.ErrorContains(t, err, "cannot use the signing key: the signer's is ")
	require.Zero(t, *builds)
}
