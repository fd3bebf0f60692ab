package signing_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/stretchr/testify/require"
)

// at is the time that the tests sign at, long enough ago for the clocks of gpg
// and sq.
var at = time.Date(2024, 3, 1, 12, 0, 0, 0, time.UTC)

func clock(t time.Time) func() time.Time { return func() time.Time { return t } }

// newKey makes a key that is an hour old at the time the tests sign.
func newKey(t testing.TB, c signing.KeyConfig) *signing.Key {
	t.Helper()
	if c.Name == "" {
		c.Name, c.Email = "Image Factory", "imagefactory@example.com"
	}
	if c.Time == nil {
		c.Time = clock(at.Add(-time.Hour))
	}
	key, err := signing.GenerateKey(c)
	require.NoError(t, err)
	return key
}

func newSigner(t testing.TB, key *signing.Key) *signing.Signer {
	t.Helper()
	s, err := signing.NewSigner(key, signing.SignerConfig{Time: clock(at)})
	require.NoError(t, err)
	return s
}

func pinned(t testing.TB, keys ...*signing.Key) *signing.Keyring {
	t.Helper()
	k, err := signing.PinKeys(keys...)
	require.NoError(t, err)
	return k
}

func verifier(k *signing.Keyring) *signing.Verifier {
	return &signing.Verifier{Keyring: k, Time: clock(at.Add(time.Hour))}
}

// newRelease writes a release directory that is not yet signed.
func newRelease(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "20240301-120000")
	require.NoError(t, os.Mkdir(dir, 0o755))
	for name, content := range map[string]string{
		"Standard_Debian_12-20240301-120000.qcow2":         "QFI\xfb" + string(make([]byte, 100_000)),
		"Standard_Debian_12-20240301-120000.config.tar.gz": "\x1f\x8b config",
		"Standard_Debian_12-20240301-120000.packages":      "bash 5.2 amd64\n",
		"Standard_Debian_12-20240301-120000.build.log":     "built\n",
		"release.json": "{}\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
	return dir
}

func TestSignDirThenVerifyDir(t *testing.T) {
	key := newKey(t, signing.KeyConfig{})
	dir := newRelease(t)
	files, err := signing.SignDir(t.Context(), dir, newSigner(t, key))
	require.NoError(t, err)
	require.Len(t, files, 7, "five files and two signatures")

	result, err := verifier(pinned(t, key)).VerifyDir(t.Context(), dir)
	require.NoError(t, err)
	require.True(t, result.OK())
	require.Len(t, result.Files, 8)
	for _, want := range files {
		got := result.File(want.Name)
		require.NotNil(t, got, want.Name)
		require.Equal(t, want.SHA256, got.SHA256)
		require.Equal(t, want.SizeBytes, got.SizeBytes)
		require.Equal(t, key.Fingerprint(), got.Fingerprint)
		require.Equal(t, at, got.SignedAt)
	}

	// Signing again replaces what was there.
	again, err := signing.SignDir(t.Context(), dir, newSigner(t, key))
	require.NoError(t, err)
	require.Len(t, again, 7)
	_, err = verifier(pinned(t, key)).VerifyDir(t.Context(), dir)
	require.NoError(t, err)

	_, err = verifier(pinned(t, newKey(t, signing.KeyConfig{}))).VerifyDir(t.Context(), dir)
	require.ErrorIs(t, err, signing.UnknownKey)
	var problem *signing.Error
	require.True(t, errors.As(err, &problem))
	require.Equal(t, key.Fingerprint(), problem.Fingerprint)
}

func TestKeyFiles(t *testing.T) {
	key := newKey(t, signing.KeyConfig{})
	secret, public := filepath.Join(t.TempDir(), "key"), filepath.Join(t.TempDir(), "key.pub")
	require.NoError(t, key.WriteSecretFile(secret))
	require.NoError(t, key.WritePublicFile(public))
	info, err := os.Stat(secret)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	require.ErrorIs(t, key.WriteSecretFile(secret), os.ErrExist)
	require.ErrorIs(t, key.WritePublicFile(public), os.ErrExist)

	require.Equal(t, []string{"key"}, list(t, filepath.Dir(secret)), "nothing is left beside it")
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink("nowhere", link))
	require.ErrorIs(t, key.WriteSecretFile(link), os.ErrExist)
	require.Equal(t, []string{"link"}, list(t, filepath.Dir(link)))

	loaded, err := signing.LoadKey(secret, nil)
	require.NoError(t, err)
	require.Equal(t, key.Fingerprint(), loaded.Fingerprint())
	ring, err := signing.LoadKeyring(public)
	require.NoError(t, err)

	dir := newRelease(t)
	_, err = signing.SignDir(t.Context(), dir, newSigner(t, loaded))
	require.NoError(t, err)
	_, err = verifier(ring).VerifyDir(t.Context(), dir)
	require.NoError(t, err)

	_, err = signing.LoadKey(public, nil)
	require.ErrorContains(t, err, "holds 0 secret keys")
}
