package imagefactory

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// What docs/verify.md gives to consumers takes a release as the factory makes it, and
// none in which a bit of any file is another, nor one of another image, build or key.
func TestConsumersScript(t *testing.T) {
	needs.Tools(t, "sh", "gpg", "sha256sum", "jq")
	f, d := newFactory(t)
	_, dir := sealed(t, f, d)
	release := filepath.Join(t.TempDir(), "Standard_Test_1", "20261122-031507")
	require.NoError(t, os.CopyFS(release, os.DirFS(dir)))
	keys := filepath.Join(t.TempDir(), "keys.pub")
	require.NoError(t, testKey.WritePublicFile(keys))
	verify := func(keys, dir string) (string, error) {
		cmd := exec.Command("sh", "../docs/verify.sh", keys, dir)
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := verify(keys, release)
	require.NoError(t, err, out)
	require.Contains(t, out, "Standard_Test_1-20261122-031507 is as it was signed")

	entries, err := os.ReadDir(release)
	require.NoError(t, err)
	require.Greater(t, len(entries), 15)
	flipped := 0
	for _, e := range entries {
		name := filepath.Join(release, e.Name())
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		if len(data) == 0 {
			continue
		}
		flipped++
		require.NoError(t, os.Remove(name)) // it may be a link of the run's
		bad := append([]byte(nil), data...)
		bad[len(bad)/2] ^= 1
		require.NoError(t, os.WriteFile(name, bad, 0o644))
		out, err := verify(keys, release)
		require.Error(t, err, "%s: %s", e.Name(), out)
		require.NoError(t, os.WriteFile(name, data, 0o644))
	}
	require.Greater(t, flipped, 14)
	out, err = verify(keys, release)
	require.NoError(t, err, out)

	for name, other := range map[string]string{
		"another build": filepath.Join(t.TempDir(), "Standard_Test_1", "20261123-031507"),
		"another image": filepath.Join(t.TempDir(), "Standard_Test_2", "20261122-031507"),
	} {
		require.NoError(t, os.CopyFS(other, os.DirFS(release)))
		_, err := verify(keys, other)
		require.Error(t, err, name)
	}
	stranger, err := signing.GenerateKey(signing.KeyConfig{Name: "Stranger", Email: "s@example.com"})
	require.NoError(t, err)
	strangers := filepath.Join(t.TempDir(), "keys.pub")
	require.NoError(t, stranger.WritePublicFile(strangers))
	_, err = verify(strangers, release)
	require.Error(t, err)

	// What is signed as a whole must fit together: a bill of materials of another build
	// and a provenance by somebody else are named by the file that is wrong.
	signer, err := signing.NewSigner(testKey, signing.SignerConfig{})
	require.NoError(t, err)
	strange, err := signing.NewSigner(stranger, signing.SignerConfig{})
	require.NoError(t, err)
	base := filepath.Join(release, "Standard_Test_1-20261122-031507")
	v := signing.Verifier{Keyring: keyringOf(t, testKey)}
	provenance, err := os.Open(base + ".provenance.json")
	require.NoError(t, err)
	defer provenance.Close()
	statement, _, err := v.Envelope(t.Context(), "p", provenance)
	require.NoError(t, err)
	sealer := signing.Sealer{Signers: []*signing.Signer{strange}}
	forged, err := sealer.Envelope(t.Context(), statement)
	require.NoError(t, err)
	bill, err := os.ReadFile(base + ".cdx.json")
	require.NoError(t, err)
	for suffix, c := range map[string]struct {
		data []byte
		says string
	}{
		".cdx.json":        {bytes.Replace(bill, []byte(`"version": "20261122-031507"`), []byte(`"version": "20261123-031507"`), 1), ""},
		".provenance.json": {forged, "bad signature of Standard_Test_1-20261122-031507.provenance.json"},
	} {
		data, err := os.ReadFile(base + suffix)
		require.NoError(t, err)
		require.NotEqual(t, data, c.data)
		require.NoError(t, os.WriteFile(base+suffix, c.data, 0o644))
		_, err = signing.SignDir(t.Context(), release, signer)
		require.NoError(t, err)
		out, err := verify(keys, release)
		require.Error(t, err, suffix)
		require.Contains(t, out, c.says)
		require.NoError(t, os.WriteFile(base+suffix, data, 0o644))
		_, err = signing.SignDir(t.Context(), release, signer)
		require.NoError(t, err)
		out, err = verify(keys, release)
		require.NoError(t, err, out)
	}
}

// The script is told any names, and takes nothing for granted: not that a tool works, nor
// that a file which it reads is one of those that were signed.
func TestConsumersScriptIsCareful(t *testing.T) {
	tools := needs.Tools(t, "sh", "gpg", "sha256sum", "jq")
	script, err := filepath.Abs("../docs/verify.sh")
	require.NoError(t, err)
	f, d := newFactory(t)
	_, dir := sealed(t, f, d)
	top := filepath.Join(t.TempDir(), "-a \"$(touch oops)\"\n*")
	release := filepath.Join("-dist ", "Standard_Test_1", "20261122-031507")
	require.NoError(t, os.CopyFS(filepath.Join(top, release), os.DirFS(dir)))
	require.NoError(t, os.CopyFS(filepath.Join(top, "elsewhere", release), os.DirFS(t.TempDir())))
	require.NoError(t, os.Mkdir(filepath.Join(top, "tmp dir"), 0o700))
	require.NoError(t, testKey.WritePublicFile(filepath.Join(top, "-keys pub")))
	verify := func(more ...string) error {
		cmd := exec.Command("sh", script, "-keys pub", release)
		cmd.Dir, cmd.Env = top, append(os.Environ(), "LC_ALL=C", "TMPDIR="+filepath.Join(top, "tmp dir"), "CDPATH="+filepath.Join(top, "elsewhere"))
		cmd.Env = append(cmd.Env, more...)
		out, err := cmd.CombinedOutput()
		t.Logf("%q %v: %s", more, err, out)
		return err
	}
	require.NoError(t, verify())
	left, err := os.ReadDir(filepath.Join(top, "tmp dir"))
	require.NoError(t, err)
	require.Empty(t, left)

	// Each call of each tool fails once.
	for _, tool := range tools[1:] {
		bin := t.TempDir()
		stub := fmt.Sprintf("#!/bin/sh\nn=$(($(cat '%[1]s/n') - 1)); echo $n >'%[1]s/n'; [ $n -ne 0 ] || exit 1; exec %[2]s \"$@\"\n", bin, tool)
		require.NoError(t, os.WriteFile(filepath.Join(bin, filepath.Base(tool)), []byte(stub), 0o755))
		n := 1
		for ; n < 30; n++ {
			require.NoError(t, os.WriteFile(filepath.Join(bin, "n"), []byte(fmt.Sprint(n)), 0o644))
			err := verify("PATH=" + bin + ":" + os.Getenv("PATH"))
			data, readErr := os.ReadFile(filepath.Join(bin, "n"))
			require.NoError(t, readErr)
			if left := strings.TrimSpace(string(data)); left != "0" && !strings.HasPrefix(left, "-") {
				require.NoError(t, err)
				break // it is not called so often
			}
			require.Error(t, err, "call %d of %s", n, tool)
		}
		require.Greater(t, n, 1, tool)
	}

	// A file that nobody has signed.
	signer, err := signing.NewSigner(testKey, signing.SignerConfig{})
	require.NoError(t, err)
	for _, name := range []string{"release.json", "Standard_Test_1-20261122-031507.cdx.json", "Standard_Test_1-20261122-031507.provenance.json"} {
		path := filepath.Join(top, release, name)
		aside := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.Rename(path, aside))
		_, err = signing.SignDir(t.Context(), filepath.Join(top, release), signer)
		require.NoError(t, err)
		require.NoError(t, os.Rename(aside, path))
		require.Error(t, verify(), name)
		_, err = signing.SignDir(t.Context(), filepath.Join(top, release), signer)
		require.NoError(t, err)
		require.NoError(t, verify(), name)
	}
}

func keyringOf(t *testing.T, keys ...*signing.Key) *signing.Keyring {
	t.Helper()
	keyring, err := signing.PinKeys(keys...)
	require.NoError(t, err)
	return keyring
}
