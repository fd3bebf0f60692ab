package signing

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
)

// sealedTwice returns a sealed directory, a sealer with another key for it, and
// the keyrings of both.
func sealedTwice(t *testing.T) (dir string, again *Sealer, before, after *Keyring) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "release")
	require.NoError(t, os.Mkdir(dir, 0o755))
	for _, name := range []string{"a.qcow2", "b.config.tar.gz", "release.json"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644))
	}
	var signers []*Signer
	var rings []*Keyring
	for range 2 {
		key, err := GenerateKey(KeyConfig{Name: "Factory"})
		require.NoError(t, err)
		signer, err := NewSigner(key, SignerConfig{})
		require.NoError(t, err)
		ring, err := PinKeys(key)
		require.NoError(t, err)
		signers, rings = append(signers, signer), append(rings, ring)
	}
	_, err := SignDir(t.Context(), dir, signers[0])
	require.NoError(t, err)
	require.NoError(t, os.Chmod(filepath.Join(dir, SumsFile), 0o640))
	return dir, &Sealer{Signers: signers[1:]}, rings[0], rings[1]
}

// snapshot is the contents and modes of a directory.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(t, err)
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		all[e.Name()] = info.Mode().String() + string(content)
	}
	return all
}

func good(t *testing.T, dir string, ring *Keyring) bool {
	t.Helper()
	result, err := VerifyDir(t.Context(), dir, ring)
	require.NotNil(t, result)
	return err == nil
}

// TestFaults: whichever step of sealing a sealed directory anew fails, it is as
// it was.
func TestFaults(t *testing.T) {
	dir, sealer, before, after := sealedTwice(t)
	was := snapshot(t, dir)
	fault := errors.New("a fault")
	for n := 1; ; n++ {
		count := 0
		sealer.step = func(string) error {
			if count++; count == n {
				return fault
			}
			return nil
		}
		_, err := sealer.SignDir(t.Context(), dir)
		if count < n {
			require.NoError(t, err)
			require.GreaterOrEqual(t, n, 12, "four files are written, kept and renamed")
			break
		}
		require.ErrorIs(t, err, fault, "step %d", n)
		require.Equal(t, was, snapshot(t, dir), "step %d", n)
		require.True(t, good(t, dir, before))
	}
	require.True(t, good(t, dir, after))
	info, err := os.Stat(filepath.Join(dir, SumsFile))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o640), info.Mode().Perm(), "it keeps its mode")
}

// TestOwnerIsKept: what root signs anew for somebody stays his.
func TestOwnerIsKept(t *testing.T) {
	needs.Root(t)
	dir, sealer, _, after := sealedTwice(t)
	path := filepath.Join(dir, SumsSig)
	require.NoError(t, os.Chown(path, 1234, 5678))
	_, err := sealer.SignDir(t.Context(), dir)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	stat, ok := info.Sys().(*syscall.Stat_t)
	require.True(t, ok)
	require.Equal(t, []uint32{1234, 5678}, []uint32{stat.Uid, stat.Gid})
	require.True(t, good(t, dir, after))
}

// TestCancel: sealing that is cancelled at any step did all or nothing.
func TestCancel(t *testing.T) {
	dir, sealer, before, after := sealedTwice(t)
	was := snapshot(t, dir)
	for n := 1; ; n++ {
		ctx, cancel := context.WithCancel(t.Context())
		count := 0
		sealer.step = func(string) error {
			if count++; count == n {
				cancel()
			}
			return nil
		}
		_, err := sealer.SignDir(ctx, dir)
		cancel()
		if err == nil {
			require.True(t, good(t, dir, after))
			break
		}
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, was, snapshot(t, dir), "step %d", n)
		require.True(t, good(t, dir, before))
	}
}

// TestKilled: a process that is killed at any step leaves what was there, or what
// the next run completes. The test's own program is the process.
func TestKilled(t *testing.T) {
	const dirVar, keyVar, stepVar = "SIGNING_TEST_DIR", "SIGNING_TEST_KEY", "SIGNING_TEST_STEP"
	if dir := os.Getenv(dirVar); dir != "" {
		n, err := strconv.Atoi(os.Getenv(stepVar))
		require.NoError(t, err)
		key, err := LoadKey(os.Getenv(keyVar), nil)
		require.NoError(t, err)
		signer, err := NewSigner(key, SignerConfig{})
		require.NoError(t, err)
		sealer := &Sealer{Signers: []*Signer{signer}, step: func(string) error {
			if n--; n == 0 {
				return syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
			return nil
		}}
		_, err = sealer.SignDir(t.Context(), dir)
		require.NoError(t, err)
		return
	}
	dir, sealer, before, after := sealedTwice(t)
	key := filepath.Join(t.TempDir(), "key")
	require.NoError(t, sealer.Signers[0].key.WriteSecretFile(key))
	was := snapshot(t, dir)
	for n := 1; ; n++ {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestKilled$")
		cmd.Env = append(os.Environ(), dirVar+"="+dir, keyVar+"="+key, stepVar+"="+strconv.Itoa(n))
		out, err := cmd.CombinedOutput()
		if err == nil {
			require.Greater(t, n, 12)
			require.True(t, good(t, dir, after))
			return
		}
		status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
		require.True(t, ok && status.Signaled(), string(out))
		if n <= 9 { // nothing is renamed before
			for name, content := range snapshot(t, dir) {
				if !isUnfinished(name) {
					require.Equal(t, was[name], content, "step %d", n)
				}
			}
		}
		_, err = sealer.SignDir(t.Context(), dir)
		require.NoError(t, err, "step %d", n)
		require.True(t, good(t, dir, after), "step %d", n)
		for name := range snapshot(t, dir) {
			require.False(t, isUnfinished(name), name)
		}
		back := &Sealer{Signers: []*Signer{signerOf(t, before)}}
		_, err = back.SignDir(t.Context(), dir)
		require.NoError(t, err)
		require.True(t, good(t, dir, before))
		was = snapshot(t, dir)
	}
}

func signerOf(t *testing.T, ring *Keyring) *Signer {
	t.Helper()
	signer, err := NewSigner(ring.Key(ring.Pins()[0].Fingerprint), SignerConfig{})
	require.NoError(t, err)
	return signer
}

// TestSingleFileFaults: a signature, signed text or attestation that cannot be
// written leaves the old one.
func TestSingleFileFaults(t *testing.T) {
	dir, sealer, _, _ := sealedTwice(t)
	path := filepath.Join(dir, "a.qcow2")
	fault := errors.New("a fault")
	for name, do := range map[string]func() error{
		"detached": func() error { _, err := sealer.SignFile(t.Context(), path); return err },
		"clear":    func() error { _, err := sealer.ClearSignFile(t.Context(), path); return err },
		"attest": func() error {
			_, err := sealer.Attest(t.Context(), path+".asc", Provenance{BuildType: "urn:a", BuilderID: "urn:b"}, path)
			return err
		},
	} {
		was := snapshot(t, dir)
		for n := 1; ; n++ {
			count := 0
			sealer.step = func(string) error {
				if count++; count == n {
					return fault
				}
				return nil
			}
			err := do()
			if count < n {
				require.NoError(t, err, name)
				break
			}
			require.ErrorIs(t, err, fault, name)
			require.Equal(t, was, snapshot(t, dir), name)
		}
		require.NotEqual(t, was["a.qcow2.asc"], snapshot(t, dir)["a.qcow2.asc"])
	}
}

// TestNeverReplaced: what is no regular file is not replaced, nor is anything
// else then.
func TestNeverReplaced(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	require.NoError(t, os.WriteFile(elsewhere, []byte("mine"), 0o644))
	for what, place := range map[string]func(path string) error{
		"link":      func(p string) error { return os.Symlink(elsewhere, p) },
		"directory": func(p string) error { return os.Mkdir(p, 0o755) },
		"pipe":      func(p string) error { return syscall.Mkfifo(p, 0o644) },
	} {
		for _, name := range []string{"a.qcow2.asc", "b.config.tar.gz.asc", SumsFile, SumsSig} {
			t.Run(what+"/"+name, func(t *testing.T) {
				dir, sealer, _, _ := sealedTwice(t)
				require.NoError(t, os.Remove(filepath.Join(dir, name)))
				require.NoError(t, place(filepath.Join(dir, name)))
				was := modes(t, dir)
				_, err := sealer.SignDir(t.Context(), dir)
				require.ErrorIs(t, err, NotRegular)
				require.Equal(t, was, modes(t, dir))
				if of, ok := strings.CutSuffix(name, ".asc"); ok {
					_, err = sealer.SignFile(t.Context(), filepath.Join(dir, of))
					require.ErrorIs(t, err, NotRegular)
					require.Equal(t, was, modes(t, dir))
				}
			})
		}
	}
	content, err := os.ReadFile(elsewhere)
	require.NoError(t, err)
	require.Equal(t, "mine", string(content))
}

func modes(t *testing.T, dir string) map[string]fs.FileMode {
	t.Helper()
	all := map[string]fs.FileMode{}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		all[e.Name()] = e.Type()
	}
	return all
}
