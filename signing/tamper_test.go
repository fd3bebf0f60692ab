package signing_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/stretchr/testify/require"
)

// tampering changes a file of a release and returns the names that it touches.
type tampering struct {
	name string
	do   func(t *testing.T, dir, file string) []string
}

func flip(at func(size int) int) func(*testing.T, string, string) []string {
	return rewrite(func(content []byte) []byte {
		i := at(len(content))
		content[i/8] ^= 1 << (i % 8)
		return content
	})
}

func rewrite(change func([]byte) []byte) func(*testing.T, string, string) []string {
	return func(t *testing.T, dir, file string) []string {
		path := filepath.Join(dir, file)
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, change(content), 0o644))
		return []string{file}
	}
}

// neighbour is another file of the directory.
func neighbour(t *testing.T, dir, file string) string {
	names := list(t, dir)
	return names[(slices.Index(names, file)+1)%len(names)]
}

func list(t *testing.T, dir string) []string {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

var tamperings = []tampering{
	{"first bit", flip(func(int) int { return 0 })},
	{"first byte's last bit", flip(func(int) int { return 7 })},
	{"middle bit", flip(func(n int) int { return n * 4 })},
	{"last bit", flip(func(n int) int { return n*8 - 1 })},
	{"last byte's first bit", flip(func(n int) int { return n*8 - 8 })},
	{"truncated by one", rewrite(func(c []byte) []byte { return c[:len(c)-1] })},
	{"truncated by half", rewrite(func(c []byte) []byte { return c[:len(c)/2] })},
	{"emptied", rewrite(func([]byte) []byte { return nil })},
	{"extended by NUL", rewrite(func(c []byte) []byte { return append(c, 0) })},
	{"extended by a line end", rewrite(func(c []byte) []byte { return append(c, '\n') })},
	{"extended by itself", rewrite(func(c []byte) []byte { return append(c, c...) })},
	{"swapped", func(t *testing.T, dir, file string) []string {
		other := neighbour(t, dir, file)
		tmp := filepath.Join(dir, "tmp")
		require.NoError(t, os.Rename(filepath.Join(dir, file), tmp))
		require.NoError(t, os.Rename(filepath.Join(dir, other), filepath.Join(dir, file)))
		require.NoError(t, os.Rename(tmp, filepath.Join(dir, other)))
		return []string{file, other}
	}},
	{"renamed", func(t *testing.T, dir, file string) []string {
		require.NoError(t, os.Rename(filepath.Join(dir, file), filepath.Join(dir, "x"+file)))
		return []string{file, "x" + file}
	}},
	{"removed", func(t *testing.T, dir, file string) []string {
		require.NoError(t, os.Remove(filepath.Join(dir, file)))
		return []string{file}
	}},
	{"copied", func(t *testing.T, dir, file string) []string {
		content, err := os.ReadFile(filepath.Join(dir, file))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, file+".copy"), content, 0o644))
		return []string{file + ".copy"}
	}},
	{"linked to itself elsewhere", func(t *testing.T, dir, file string) []string {
		elsewhere := filepath.Join(t.TempDir(), file)
		require.NoError(t, os.Rename(filepath.Join(dir, file), elsewhere))
		require.NoError(t, os.Symlink(elsewhere, filepath.Join(dir, file)))
		return []string{file}
	}},
	{"made a directory", func(t *testing.T, dir, file string) []string {
		require.NoError(t, os.Remove(filepath.Join(dir, file)))
		require.NoError(t, os.Mkdir(filepath.Join(dir, file), 0o755))
		return []string{file}
	}},
}

// harmless is what can be done to armor: blank lines and the last line end say
// nothing. Every other .asc file is listed in SHA256SUMS.
var harmless = []string{"truncated by one", "extended by a line end"}

// TestTampering: whatever is done to whichever file of a release is detected,
// and no untouched file is blamed.
func TestTampering(t *testing.T) {
	t.Parallel()
	key := newKey(t, signing.KeyConfig{})
	v := verifier(pinned(t, key))
	signer := newSigner(t, key)
	seal := func(t *testing.T) string {
		dir := newRelease(t)
		_, err := signing.SignDir(t.Context(), dir, signer)
		require.NoError(t, err)
		return dir
	}
	names := list(t, seal(t))
	require.Len(t, names, 9)
	for _, file := range names {
		for _, tamper := range tamperings {
			t.Run(file+"/"+tamper.name, func(t *testing.T) {
				dir := seal(t)
				touched := tamper.do(t, dir, file)
				result, err := v.VerifyDir(t.Context(), dir)
				if file == signing.SumsSig && slices.Contains(harmless, tamper.name) {
					require.NoError(t, err)
					return
				}
				require.Error(t, err)
				require.NotNil(t, result)
				require.False(t, result.OK())
				sums := slices.ContainsFunc(touched, func(n string) bool { return n == signing.SumsFile || n == signing.SumsSig })
				for _, name := range touched {
					if name == signing.SumsSig {
						name = signing.SumsFile // which it is the signature of
					}
					require.NotNil(t, result.File(name), name)
					if !sums || name == signing.SumsFile {
						require.NotEqual(t, signing.Good, result.File(name).Status, name)
					}
				}
				for _, f := range result.Files {
					if slices.Contains(touched, f.Name) || f.Name == signing.SumsFile {
						continue
					}
					own := strings.HasSuffix(f.Name, ".qcow2") || strings.HasSuffix(f.Name, ".config.tar.gz")
					if sums && (!own || slices.Contains(touched, f.Name+".asc")) {
						require.Contains(t, []signing.Status{signing.Untrusted, signing.Good}, f.Status, f.Name)
						continue
					}
					require.Equal(t, signing.Good, f.Status, "%s: %s %s", f.Name, f.Reason, f.Detail)
				}
			})
		}
	}
}

// TestEveryBitOfASignature: no bit of an armored or binary signature is open.
func TestEveryBitOfASignature(t *testing.T) {
	for _, c := range []signing.KeyConfig{{}, {Algorithm: signing.RSA3072}, {Algorithm: signing.ECDSAP256}, {V6: true}} {
		key := newKey(t, c)
		v := verifier(pinned(t, key))
		path := writeData(t)
		sealer := &signing.Sealer{Signers: []*signing.Signer{newSigner(t, key)}}
		_, err := sealer.SignFile(t.Context(), path)
		require.NoError(t, err)
		armored, err := os.ReadFile(path + ".asc")
		require.NoError(t, err)
		binary, _, err := sealer.Detached(t.Context(), "a.qcow2", strings.NewReader("one\ntwo\n"))
		require.NoError(t, err)
		for _, sig := range [][]byte{armored, binary} {
			for i := range len(sig) * 8 {
				sig[i/8] ^= 1 << (i % 8)
				_, err := v.Detached(t.Context(), "a.qcow2", strings.NewReader("one\ntwo\n"), strings.NewReader(string(sig)))
				require.Error(t, err, "%v bit %d", c, i)
				sig[i/8] ^= 1 << (i % 8)
			}
			for n := range len(sig) - 1 { // a missing last line end says nothing
				_, err := v.Detached(t.Context(), "a.qcow2", strings.NewReader("one\ntwo\n"), strings.NewReader(string(sig[:n])))
				require.Error(t, err, "%v cut at %d", c, n)
			}
			_, err := v.Detached(t.Context(), "a.qcow2", strings.NewReader("one\ntwo\n"), strings.NewReader(string(sig)))
			require.NoError(t, err)
		}
	}
}
