package signing_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/stretchr/testify/require"
)

// found returns what of the patterns is on this machine: files that Debian's
// packages and package lists bring.
func found(t *testing.T, patterns ...string) []string {
	t.Helper()
	var all []string
	for _, pattern := range patterns {
		names, err := filepath.Glob(pattern)
		require.NoError(t, err)
		all = append(all, names...)
	}
	all = slices.DeleteFunc(all, func(name string) bool {
		info, err := os.Stat(name)
		return err != nil || !info.Mode().IsRegular() || info.Size() > 4<<20
	})
	if len(all) == 0 {
		needs.Missing(t, fmt.Sprintf("there is none of %v", patterns))
	}
	return all
}

func realKeyrings(t *testing.T) []string {
	t.Helper()
	return found(t, "/usr/share/keyrings/*.gpg", "/usr/share/keyrings/*.pgp", "/usr/share/keyrings/*.asc",
		"/etc/apt/trusted.gpg.d/*.gpg", "/etc/apt/trusted.gpg.d/*.asc", "/etc/apt/keyrings/*")
}

// TestRealKeyrings: of each keyring on the machine gpg and we see the same keys,
// and the same part of them is expired or revoked.
func TestRealKeyrings(t *testing.T) {
	g := newGnuPG(t)
	total := 0
	for _, path := range realKeyrings(t) {
		ring, err := signing.LoadKeyring(path)
		require.NoError(t, err, path)
		var ours, theirs []string
		for _, pin := range ring.Pins() {
			ours = append(ours, string(pin.Fingerprint))
		}
		for _, err := range ring.Skipped() {
			var e *signing.Error
			require.ErrorAs(t, err, &e)
			ours = append(ours, string(e.Fingerprint))
			t.Log(path, err)
		}
		primary := false
		for line := range strings.Lines(g.gpg("--with-colons", "--show-keys", path)) {
			fields := strings.Split(line, ":")
			switch {
			case fields[0] == "pub":
				primary = true
			case fields[0] == "fpr" && primary:
				theirs, primary = append(theirs, fields[9]), false
			}
		}
		slices.Sort(ours)
		slices.Sort(theirs)
		require.Equal(t, slices.Compact(theirs), ours, path)
		total += len(ours)
	}
	t.Logf("%d keys", total)
}

// verdicts are the primary keys whose signatures of a text gpgv believes, that
// are neither expired nor revoked. It may refuse the text altogether.
func (g *gnupg) verdicts(keyring, text string) []string {
	g.t.Helper()
	binary := keyring
	if content, err := os.ReadFile(keyring); err == nil && bytes.HasPrefix(content, []byte("-----")) {
		binary = filepath.Join(g.home, "dearmored.gpg")
		g.gpg("--output", binary, "--dearmor", keyring)
	}
	out, _ := g.try("gpgv", "--status-fd", "1", "--keyring", binary, text) // any unknown key is a failure to it
	if strings.Contains(out, " BADSIG ") {
		return nil
	}
	var all []string
	good := false
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		switch {
		case len(fields) < 2 || fields[0] != "[GNUPG:]":
		case fields[1] == "GOODSIG" || fields[1] == "EXPKEYSIG": // we judge by the time of signing
			good = true
		case fields[1] == "NEWSIG":
			good = false
		case fields[1] == "VALIDSIG" && good:
			all = append(all, fields[len(fields)-1])
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func ourVerdicts(ctx context.Context, t *testing.T, keyring, text string) []string {
	t.Helper()
	ring, err := signing.LoadKeyring(keyring)
	require.NoError(t, err)
	result, err := now(ring).File(ctx, text)
	require.NotNil(t, result, "%v", err)
	if result.Files[0].Reason == signing.Malformed {
		return nil
	}
	var all []string
	for _, s := range result.Files[0].Signatures {
		if s.Reason == "" {
			all = append(all, string(s.Fingerprint))
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	require.Equal(t, len(all) > 0, err == nil)
	return all
}

// TestRealReleases: the InRelease files of this machine's own package sources
// against each keyring, as they are and spoiled: gpgv and we believe the same
// signatures.
func TestRealReleases(t *testing.T) {
	g := newGnuPG(t)
	keyrings := realKeyrings(t)
	good, refused := 0, 0
	for _, path := range found(t, "/var/lib/apt/lists/*InRelease") {
		for _, keyring := range keyrings {
			theirs := g.verdicts(keyring, path)
			require.Equal(t, theirs, ourVerdicts(t.Context(), t, keyring, path), "%s by %s", path, keyring)
			if len(theirs) > 0 {
				good++
			}
		}
		all := "/usr/share/keyrings/debian-archive-keyring.gpg"
		if !slices.Contains(keyrings, all) {
			continue
		}
		for name, text := range spoiled(must(os.ReadFile(path))) {
			spoilt := filepath.Join(t.TempDir(), "InRelease")
			require.NoError(t, os.WriteFile(spoilt, text, 0o644))
			require.Empty(t, g.verdicts(all, spoilt), "%s: %s", path, name)
			require.Empty(t, ourVerdicts(t.Context(), t, all, spoilt), "%s: %s", path, name)
			refused++
		}
	}
	t.Logf("%d good, %d spoiled and refused", good, refused)
	require.Positive(t, good)
}

// spoiled are changes of a signed text that both must refuse.
func spoiled(text []byte) map[string][]byte {
	flip := func(at int) []byte {
		changed := bytes.Clone(text)
		changed[at] ^= 1
		return changed
	}
	body := bytes.Index(text, []byte("\n\n")) + 2
	end := bytes.LastIndex(text, []byte("\n-----BEGIN PGP SIGNATURE-----"))
	return map[string][]byte{
		"first letter":   flip(body),
		"middle":         flip((body + end) / 2),
		"last letter":    flip(end - 1),
		"a line more":    slices.Concat(text[:end], []byte("\nMore: x"), text[end:]),
		"a line less":    slices.Concat(text[:body], text[body+bytes.IndexByte(text[body:], '\n')+1:]),
		"no signature":   text[:end+1],
		"cut":            text[:end+200],
		"spoilt armor":   flip(end + 200),
		"twice the text": slices.Concat(text[:end], text[body-1:end], text[end:]),
	}
}

// TestCleartextAsOthers: what we sign of any text gpg and sq verify, and what gpg
// signs of it we do. Text that not all would verify is refused.
func TestCleartextAsOthers(t *testing.T) {
	sq := needs.Tools(t, "sq")[0]
	g := newGnuPG(t)
	fpr := g.generate("text@example.com", "ed25519", "sign", "never")
	theirKey := g.exported(fpr)
	key := newKey(t, signing.KeyConfig{})
	public := filepath.Join(t.TempDir(), "key.asc")
	require.NoError(t, key.WritePublicFile(public))
	g.gpg("--import", public)
	sealer := &signing.Sealer{Signers: []*signing.Signer{newSigner(t, key)}}

	pieces := []string{"a", "-", "- ", " ", "\t", "\r\n", "\n", "\n\n", "\r", "\x00", "\f", "\v", "é", "\xff", "From ", "-----BEGIN PGP SIGNATURE-----\n", strings.Repeat("x", 19_990)}
	random := newRandom(t)
	for range 40 {
		var text strings.Builder
		for range 1 + random.IntN(6) {
			text.WriteString(pieces[random.IntN(len(pieces))])
		}
		path := filepath.Join(t.TempDir(), "text")
		require.NoError(t, os.WriteFile(path, []byte(text.String()), 0o644))
		if _, err := sealer.ClearSignFile(t.Context(), path); err != nil {
			require.ErrorContains(t, err, "sign it with a detached signature")
			continue
		}
		out, err := g.try("gpg", "--batch", "--verify", path+".asc")
		require.NoError(t, err, "%q: %s", text.String(), out)
		out, err = g.try(sq, "verify", "--signer-cert", public, path+".asc")
		require.NoError(t, err, "%q: %s", text.String(), out)
		_, err = verifier(pinned(t, key)).File(t.Context(), path)
		require.NoError(t, err, "%q", text.String())

		g.gpg("--local-user", string(fpr), "--output", path+".asc", "--clearsign", path)
		if _, err := g.try("gpg", "--batch", "--verify", path+".asc"); err == nil {
			_, _, err = now(pinned(t, theirKey)).Cleartext(t.Context(), "text", bytes.NewReader(must(os.ReadFile(path+".asc"))))
			require.NoError(t, err, "%q", text.String())
		}
	}
}

// newRandom is seeded by the clock; a failure tells how to repeat it.
func newRandom(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
