package signing_test

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/stretchr/testify/require"
)

// TestRefusedChangesNothing: what cannot be signed, or would not be read when it
// was, is refused before a release that is good is touched.
func TestRefusedChangesNothing(t *testing.T) {
	key := newKey(t, signing.KeyConfig{})
	signer := newSigner(t, key)
	for name, c := range map[string]struct {
		spoil   func(t *testing.T, dir string)
		signers []*signing.Signer
		undo    string
	}{
		"name too long for its signature": {spoil: write(strings.Repeat("z", 246)+".qcow2", ""), undo: strings.Repeat("z", 246) + ".qcow2"},
		"name with a line end":            {spoil: write("z\n.qcow2", ""), undo: "z\n.qcow2"},
		"name not in UTF-8":               {spoil: write("z\xff.qcow2", ""), undo: "z\xff.qcow2"},
		"name with a backslash":           {spoil: write(`z\.qcow2`, ""), undo: `z\.qcow2`},
		"a directory": {spoil: func(t *testing.T, dir string) {
			require.NoError(t, os.Mkdir(filepath.Join(dir, "z"), 0o755))
		}, undo: "z"},
		"a signature that is none": {spoil: write("release.json.asc", "not a signature\n"), undo: "release.json.asc"},
		"provenance that is none":  {spoil: write("z.provenance.json", "{}"), undo: "z.provenance.json"},
		"65 signers":               {signers: many(t, 65)},
		"a signer twice":           {signers: []*signing.Signer{signer, newSigner(t, key)}},
		"a nil signer":             {signers: []*signing.Signer{signer, nil}},
		"an empty signer":          {signers: []*signing.Signer{signer, {}}},
		"an expired key":           {signers: []*signing.Signer{outlived(t)}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := newRelease(t)
			_, err := signing.SignDir(t.Context(), dir, signer)
			require.NoError(t, err)
			if c.spoil != nil {
				c.spoil(t, dir)
			}
			signers := c.signers
			if signers == nil {
				signers = []*signing.Signer{signer}
			}
			before := list(t, dir)
			_, err = signing.SignDir(t.Context(), dir, signers...)
			require.ErrorContains(t, err, "cannot sign directory")
			require.Equal(t, before, list(t, dir))
			if c.undo != "" {
				require.NoError(t, os.RemoveAll(filepath.Join(dir, c.undo)))
			}
			_, err = verifier(pinned(t, key)).VerifyDir(t.Context(), dir)
			require.NoError(t, err)
		})
	}
}

func write(name, content string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
}

func many(t *testing.T, n int) []*signing.Signer {
	var all []*signing.Signer
	for range n {
		all = append(all, newSigner(t, newKey(t, signing.KeyConfig{})))
	}
	return all
}

// outlived is a signer whose key expires after the signer was made.
func outlived(t *testing.T) *signing.Signer {
	var later atomic.Bool
	key := newKey(t, signing.KeyConfig{Lifetime: month})
	signer, err := signing.NewSigner(key, signing.SignerConfig{Time: func() time.Time {
		if later.Load() {
			return at.Add(year)
		}
		return at
	}})
	require.NoError(t, err)
	later.Store(true)
	return signer
}

// TestLongestName: a name that just leaves room for .asc is sealed.
func TestLongestName(t *testing.T) {
	key := newKey(t, signing.KeyConfig{})
	dir := newRelease(t)
	write(strings.Repeat("z", 245)+".qcow2", "image")(t, dir)
	_, err := signing.SignDir(t.Context(), dir, newSigner(t, key))
	require.NoError(t, err)
	_, err = verifier(pinned(t, key)).VerifyDir(t.Context(), dir)
	require.NoError(t, err)
}

// TestMostSigners: 64 signatures are made and read.
func TestMostSigners(t *testing.T) {
	signers := many(t, 64)
	dir := newRelease(t)
	_, err := signing.SignDir(t.Context(), dir, signers...)
	require.NoError(t, err)
}

// TestSignerFailsAtEachCall: whichever signature cannot be made, a good release
// stays good.
func TestSignerFailsAtEachCall(t *testing.T) {
	old := newKey(t, signing.KeyConfig{})
	module := &countdown{Signer: hsmKeys(t)["ed25519"]}
	key := newKey(t, signing.KeyConfig{Signer: module})
	signer, err := signing.NewSigner(key, signing.SignerConfig{External: module, Time: clock(at)})
	require.NoError(t, err)
	for n := 1; ; n++ {
		dir := newRelease(t)
		_, err := signing.SignDir(t.Context(), dir, newSigner(t, old))
		require.NoError(t, err)
		module.left.Store(int32(n))
		_, err = signing.SignDir(t.Context(), dir, signer)
		if err == nil {
			require.Equal(t, 4, n, "image, config and checksums")
			_, err = verifier(pinned(t, key)).VerifyDir(t.Context(), dir)
			require.NoError(t, err)
			return
		}
		require.ErrorContains(t, err, "no more")
		_, err = verifier(pinned(t, old)).VerifyDir(t.Context(), dir)
		require.NoError(t, err, "call %d", n)
	}
}

// TestChangedMeanwhile: what changes after it was read is not signed.
func TestChangedMeanwhile(t *testing.T) {
	for name, change := range map[string]func(dir string) error{
		"written": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "release.json"), []byte("{...}"), 0o644)
		},
		"came": func(dir string) error { return os.WriteFile(filepath.Join(dir, "zzz"), nil, 0o644) },
		"went": func(dir string) error { return os.Remove(filepath.Join(dir, "release.json")) },
		"replaced": func(dir string) error {
			return os.Rename(filepath.Join(dir, "release.json"), filepath.Join(dir, "Standard_Debian_12-20240301-120000.build.log"))
		},
	} {
		dir := newRelease(t)
		module := &meddler{Signer: hsmKeys(t)["ed25519"], calls: 3, meddle: func() error { return change(dir) }}
		key := newKey(t, signing.KeyConfig{Signer: module.Signer})
		signer, err := signing.NewSigner(key, signing.SignerConfig{External: module, Time: clock(at)})
		require.NoError(t, err)
		_, err = signing.SignDir(t.Context(), dir, signer)
		require.Error(t, err, name)
		require.NoFileExists(t, filepath.Join(dir, signing.SumsFile), name)
	}
}

// meddler does something else when it signs for the last time.
type meddler struct {
	crypto.Signer
	calls  int
	meddle func() error
}

func (m *meddler) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if m.calls--; m.calls == 0 {
		if err := m.meddle(); err != nil {
			return nil, err
		}
	}
	return m.Signer.Sign(r, digest, opts)
}

// countdown fails when it is called for the n-th time.
type countdown struct {
	crypto.Signer
	left atomic.Int32
}

func (c *countdown) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if c.left.Add(-1) == 0 {
		return nil, errors.New("no more")
	}
	return c.Signer.Sign(r, digest, opts)
}

// alone notices when it is called by two at once.
type alone struct {
	crypto.Signer
	in, most atomic.Int32
}

func (a *alone) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	n := a.in.Add(1)
	defer a.in.Add(-1)
	for {
		most := a.most.Load()
		if n <= most || a.most.CompareAndSwap(most, n) {
			break
		}
	}
	time.Sleep(time.Millisecond)
	return a.Signer.Sign(r, digest, opts)
}

// TestExternalSignerIsAlone: many files in several directories at once, and one
// call at a time; unless it is told that more may come.
func TestExternalSignerIsAlone(t *testing.T) {
	for _, concurrent := range []bool{false, true} {
		module := &alone{Signer: hsmKeys(t)["p256"]}
		key := newKey(t, signing.KeyConfig{Signer: module})
		signer, err := signing.NewSigner(key, signing.SignerConfig{External: module, Concurrent: concurrent, Time: clock(at)})
		require.NoError(t, err)
		done := make(chan error)
		for range 3 {
			dir := newRelease(t)
			for i := range 20 {
				write(fmt.Sprintf("%d.qcow2", i), "image")(t, dir)
			}
			go func() {
				_, err := (&signing.Sealer{Signers: []*signing.Signer{signer}, Parallel: 8}).SignDir(t.Context(), dir)
				done <- err
			}()
		}
		for range 3 {
			require.NoError(t, <-done)
		}
		require.Equal(t, concurrent, module.most.Load() > 1, "%d at once", module.most.Load())
	}
}

// service is a signer that waits for something until it is told to give up.
type service struct {
	crypto.Signer
	asked chan struct{}
}

func (s *service) SignContext(ctx context.Context, _ io.Reader, _ []byte, _ crypto.SignerOpts) ([]byte, error) {
	s.asked <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestContextSigner: a signer that knows a context gets it, and who waits for his
// turn gives up too.
func TestContextSigner(t *testing.T) {
	var _ signing.ContextSigner = (*service)(nil)
	secret := hsmKeys(t)["rsa2048"]
	key := newKey(t, signing.KeyConfig{Signer: secret})
	module := &service{Signer: secret, asked: make(chan struct{}, 100)}
	signer, err := signing.NewSigner(key, signing.SignerConfig{External: module, Time: clock(at)})
	require.NoError(t, err)
	dir := newRelease(t)
	before := list(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-module.asked
		cancel()
	}()
	_, err = signing.SignDir(ctx, dir, signer)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, before, list(t, dir))
}

// panicking is a signer with a fault of its own.
type panicking struct{ crypto.Signer }

func (panicking) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { panic("a fault") }

func TestSignerPanics(t *testing.T) {
	secret := hsmKeys(t)["ed25519"]
	key := newKey(t, signing.KeyConfig{Signer: secret})
	signer, err := signing.NewSigner(key, signing.SignerConfig{External: panicking{secret}, Time: clock(at)})
	require.NoError(t, err)
	_, err = signing.SignDir(t.Context(), newRelease(t), signer)
	require.ErrorContains(t, err, "panicked: a fault")
}

// TestUnsignableText: text whose cleartext signature gpg or sq would find bad is
// refused, and the old signature stays.
func TestUnsignableText(t *testing.T) {
	key := newKey(t, signing.KeyConfig{})
	sealer := &signing.Sealer{Signers: []*signing.Signer{newSigner(t, key)}}
	path := filepath.Join(t.TempDir(), "text")
	require.NoError(t, os.WriteFile(path+".asc", []byte("old"), 0o644))
	for name, text := range map[string]string{
		"lone CR":           "one\rtwo\n",
		"CR CR LF":          "one\r\r\n",
		"CR space LF":       "one\r \n",
		"CR at the end":     "one\r",
		"line of 25 kB":     strings.Repeat("x", 25_000) + "\n",
		"line of 19,991":    strings.Repeat("x", 19_990) + "\n",
		"grows too much":    strings.Repeat("-\n", 10<<20),
		"NUL":               "one\x00\n",
		"last line is long": "one\n" + strings.Repeat("x", 25_000),
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		_, err := sealer.ClearSignFile(t.Context(), path)
		require.ErrorContains(t, err, "sign it with a detached signature", name)
		old, err := os.ReadFile(path + ".asc")
		require.NoError(t, err)
		require.Equal(t, "old", string(old), name)
	}
}
