package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// rebuilder makes the key of somebody who builds again, and returns the arguments of
// attest up to its flags. The public key goes into keyring.
func rebuilder(t *testing.T, name, keyring string) []string {
	t.Helper()
	key, err := signing.GenerateKey(signing.KeyConfig{Name: name, Email: name + "@example.com"})
	require.NoError(t, err)
	secret := filepath.Join(t.TempDir(), "key")
	require.NoError(t, key.WriteSecretFile(secret))
	f, err := os.OpenFile(keyring, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, key.WritePublic(f))
	return []string{"attest", "-key", secret, "-rebuilder", "https://example.com/" + name}
}

// What two have built again and attested, publish takes; what one has, or what differs,
// it does not.
func TestAttest(t *testing.T) {
	program := filepath.Join(t.TempDir(), "publish")
	out, err := exec.Command("go", "build", "-o", program, "../publish").CombinedOutput()
	require.NoError(t, err, string(out))
	released, err := publishtest.Release(t.Context(), t.TempDir(), "Image", publish.NewBuildID(time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)))
	require.NoError(t, err)
	dist := t.TempDir()
	_, err = publish.Publish(t.Context(), &directory.Target{Dir: dist}, released)
	require.NoError(t, err)
	keyring, keys := released.Dir+".pub", filepath.Join(t.TempDir(), "rebuilders.pub")
	statements := t.TempDir()
	fetch := func(by int) (bool, string) {
		out, err := exec.Command(program, "fetch", "-from", "directory:"+dist, "-keyring", keyring, "-rebuilt-by", fmt.Sprint(by),
			"-rebuilders", keys, "-rebuilds", statements, "Image", t.TempDir()).CombinedOutput()
		return err == nil, string(out)
	}
	// again is what somebody has built again, with another ID.
	again := func(packages string) string {
		dir := t.TempDir()
		for _, suffix := range []string{".qcow2", ".packages"} {
			data, err := os.ReadFile(filepath.Join(released.Dir, "Image-20261122-000000"+suffix))
			require.NoError(t, err)
			if suffix == ".packages" && packages != "" {
				data = []byte(packages)
			}
			require.NoError(t, os.WriteFile(filepath.Join(dir, "Image-20261125-000000"+suffix), data, 0o644))
		}
		return dir
	}
	attest := func(who []string, dir, out string) (int, string, string) {
		args := append(append([]string(nil), who...), "-release", released.Dir, "-keyring", keyring, dir, filepath.Join(statements, out))
		return call(t, args...)
	}
	one, two := rebuilder(t, "one", keys), rebuilder(t, "two", keys)

	code, stdout, stderr := attest(one, again(""), "one.json")
	require.Equal(t, 0, code, stderr)
	require.Equal(t, "same: bytes\n", stdout)
	ok, said := fetch(1)
	require.True(t, ok, said)
	ok, said = fetch(2)
	require.False(t, ok)
	require.Contains(t, said, "too few rebuilders confirm the release: 1 of 2")

	// The same one says it twice, and another says that it differs.
	code, _, stderr = attest(one, again(""), "again.json")
	require.Equal(t, 0, code, stderr)
	differs := again("a 1 all\n")
	images, err := filepath.Glob(filepath.Join(differs, "*.qcow2"))
	require.NoError(t, err)
	smaller, err := os.ReadFile(images[0])
	require.NoError(t, err)
	binary.BigEndian.PutUint64(smaller[24:], 1<<20-512) // the size of the disk
	require.NoError(t, os.WriteFile(images[0], smaller, 0o644))
	code, stdout, stderr = attest(two, differs, "differs.json")
	require.Equal(t, 1, code, stderr)
	require.Contains(t, stdout, "same: differs\n.packages\npackage -base-files 12.4+deb12u8 amd64\npackage +a 1 all\n")
	ok, said = fetch(2)
	require.False(t, ok)
	require.Contains(t, said, "1 of 2")
	require.Contains(t, said, "differs in")

	// Nothing is written over, and nothing where there is no statement.
	code, _, stderr = attest(two, again(""), "one.json")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "file exists")
	code, _, stderr = attest(two, t.TempDir(), "none.json")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "the rebuild has no image")
	require.NoFileExists(t, filepath.Join(statements, "none.json"))
	code, _, stderr = attest(two, released.Dir, "itself.json")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "it is the release itself")
	strangers := filepath.Join(t.TempDir(), "strangers.pub")
	rebuilder(t, "stranger", strangers)
	code, _, stderr = call(t, append(two, "-release", released.Dir, "-keyring", strangers, again(""), filepath.Join(statements, "none.json"))...)
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "not in the keyring")
	code, _, stderr = call(t, append(two, "-release", released.Dir, "-keyring", keys, again(""), filepath.Join(statements, "none.json"))...)
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "is one of the publisher's")
	for _, args := range [][]string{two, append(two, "-release", released.Dir, "-keyring", keyring), {"attest"}} {
		code, _, stderr = call(t, args...)
		require.Equal(t, 2, code, stderr)
	}

	code, _, stderr = attest(two, again(""), "two.json")
	require.Equal(t, 0, code, stderr)
	ok, said = fetch(2)
	require.True(t, ok, said)
	ok, _ = fetch(3)
	require.False(t, ok)
}
