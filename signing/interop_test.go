package signing_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/stretchr/testify/require"
)

// gnupg is gpg with a home directory of its own.
type gnupg struct {
	t    testing.TB
	home string
}

func newGnuPG(t testing.TB) *gnupg {
	t.Helper()
	needs.Tools(t, "gpg", "gpgv", "gpg-agent", "gpgconf")
	home, err := os.MkdirTemp("", "gpg") // a short path: the agent's socket is in it
	require.NoError(t, err)
	g := &gnupg{t: t, home: home}
	t.Cleanup(func() {
		_, _ = g.try("gpgconf", "--kill", "all")
		require.NoError(t, os.RemoveAll(home))
	})
	return g
}

func (g *gnupg) try(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "GNUPGHOME="+g.home, "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (g *gnupg) gpg(args ...string) string {
	g.t.Helper()
	out, err := g.try("gpg", append([]string{"--batch", "--yes", "--pinentry-mode", "loopback", "--passphrase", ""}, args...)...)
	require.NoError(g.t, err, "gpg %v: %s", args, out)
	return out
}

// generate makes a key with quick-generate and returns its fingerprint.
func (g *gnupg) generate(user string, args ...string) signing.Fingerprint {
	g.t.Helper()
	g.gpg(append([]string{"--quick-generate-key", user}, args...)...)
	return g.fingerprint(user)
}

func (g *gnupg) fingerprint(user string) signing.Fingerprint {
	g.t.Helper()
	for line := range strings.Lines(g.gpg("--with-colons", "--list-keys", user)) {
		if fields := strings.Split(line, ":"); fields[0] == "fpr" {
			return signing.Fingerprint(fields[9])
		}
	}
	g.t.Fatal("gpg lists no fingerprint")
	return ""
}

// exported returns the public key as gpg has it now.
func (g *gnupg) exported(fpr signing.Fingerprint) *signing.Key {
	g.t.Helper()
	file := filepath.Join(g.home, "exported.gpg")
	g.gpg("--output", file, "--export", string(fpr))
	f, err := os.Open(file)
	require.NoError(g.t, err)
	defer f.Close()
	keys, err := signing.ReadKeys(f)
	require.NoError(g.t, err)
	require.Len(g.t, keys, 1)
	return keys[0]
}

func writeData(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.qcow2")
	require.NoError(t, os.WriteFile(path, []byte("one\ntwo\n"), 0o644))
	return path
}

// now verifies by the clock of the machine, as gpg signs by it.
func now(k *signing.Keyring) *signing.Verifier { return &signing.Verifier{Keyring: k} }

// TestOursWithOthers: what we sign gpg, gpgv and sq verify.
func TestOursWithOthers(t *testing.T) {
	t.Parallel()
	sq := needs.Tools(t, "sq")[0]
	g := newGnuPG(t)
	algorithms := []signing.Algorithm{signing.Ed25519, signing.RSA3072, signing.RSA4096, signing.ECDSAP256, signing.ECDSAP384}
	var all []*signing.Signer
	for _, algorithm := range algorithms {
		t.Run(string(algorithm), func(t *testing.T) {
			key := newKey(t, signing.KeyConfig{Algorithm: algorithm, Comment: string(algorithm), Lifetime: 10 * year})
			public := filepath.Join(t.TempDir(), "key.asc")
			require.NoError(t, key.WritePublicFile(public))
			g.gpg("--import", public)
			signer := newSigner(t, key)
			all = append(all, signer)
			path := writeData(t)
			s := &signing.Sealer{Signers: []*signing.Signer{signer}}

			_, err := s.SignFile(t.Context(), path)
			require.NoError(t, err)
			require.Contains(t, g.gpg("--status-fd", "1", "--verify", path+".asc", path), "VALIDSIG "+string(key.Fingerprint()))
			binary := filepath.Join(t.TempDir(), "key.gpg")
			g.gpg("--output", binary, "--dearmor", public)
			out, err := g.try("gpgv", "--keyring", binary, path+".asc", path)
			require.NoError(t, err, out)
			out, err = g.try(sq, "verify", "--signer-cert", public, "--detached", path+".asc", path)
			require.NoError(t, err, out)

			f, err := os.Open(path)
			require.NoError(t, err)
			defer f.Close()
			sig, _, err := s.Detached(t.Context(), "a.qcow2", f)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path+".sig", sig, 0o644))
			g.gpg("--verify", path+".sig", path)

			_, err = s.ClearSignFile(t.Context(), path)
			require.NoError(t, err)
			require.Contains(t, g.gpg("--status-fd", "1", "--verify", path+".asc"), "GOODSIG")
			out, err = g.try(sq, "verify", "--signer-cert", public, path+".asc")
			require.NoError(t, err, out)
		})
	}
	t.Run("all in one file", func(t *testing.T) {
		require.Len(t, all, len(algorithms))
		path := writeData(t)
		s := &signing.Sealer{Signers: all}
		_, err := s.SignFile(t.Context(), path)
		require.NoError(t, err)
		require.Equal(t, len(all), strings.Count(g.gpg("--status-fd", "1", "--verify", path+".asc", path), "GOODSIG"))
		_, err = s.ClearSignFile(t.Context(), path)
		require.NoError(t, err)
		require.Equal(t, len(all), strings.Count(g.gpg("--status-fd", "1", "--verify", path+".asc"), "GOODSIG"))
	})
	t.Run("secret key", func(t *testing.T) {
		key := newKey(t, signing.KeyConfig{Name: "Secret"})
		secret := filepath.Join(t.TempDir(), "secret.asc")
		require.NoError(t, key.WriteSecretFile(secret))
		g.gpg("--import", secret)
		path := writeData(t)
		g.gpg("--local-user", string(key.Fingerprint()), "--armor", "--detach-sign", path)
		_, err := now(pinned(t, key)).File(t.Context(), path)
		require.NoError(t, err)
	})
}

// TestTheirsGnuPG: what gpg signs we verify.
func TestTheirsGnuPG(t *testing.T) {
	t.Parallel()
	g := newGnuPG(t)
	weak := map[string]signing.Reason{"dsa2048": signing.WeakKey, "secp256k1": signing.WeakKey}
	for _, algorithm := range []string{
		"rsa2048", "rsa3072", "ed25519", "nistp256", "nistp384", "nistp521", "brainpoolP256r1", "dsa2048", "secp256k1",
	} {
		t.Run(algorithm, func(t *testing.T) {
			fpr := g.generate(algorithm+"@example.com", algorithm, "sign", "never")
			ring := pinned(t, g.exported(fpr))
			for name, args := range map[string][]string{
				"armored":   {"--armor", "--detach-sign"},
				"binary":    {"--output", "BINARY", "--detach-sign"},
				"text":      {"--armor", "--textmode", "--detach-sign"},
				"cleartext": {"--clear-sign"},
				"SHA-512":   {"--armor", "--digest-algo", "SHA512", "--detach-sign"},
			} {
				path := writeData(t)
				for i := range args {
					args[i] = strings.Replace(args[i], "BINARY", path+".sig", 1)
				}
				g.gpg(append(append([]string{"--local-user", string(fpr)}, args...), path)...)
				result, err := now(ring).File(t.Context(), path)
				require.ErrorIs(t, err, errorOf(weak[algorithm]), name)
				require.Equal(t, fpr, result.Files[0].Fingerprint, name)
				if weak[algorithm] != "" {
					continue
				}
				require.NoError(t, os.WriteFile(path, []byte("one\ntwo!\n"), 0o644))
				_, err = now(ring).File(t.Context(), path)
				require.ErrorIs(t, err, signing.BadSignature, name)
			}
		})
	}
}

// errorOf is a reason as an error; none is nil.
func errorOf(r signing.Reason) error {
	if r == "" {
		return nil
	}
	return r
}

// TestKeysOfGnuPG: we sign with secret keys as gpg exports them, locked and in
// part, and gpg verifies it.
func TestKeysOfGnuPG(t *testing.T) {
	t.Parallel()
	g := newGnuPG(t)
	const passphrase = "correct horse"
	gpg := func(args ...string) { g.gpg(append([]string{"--passphrase", passphrase}, args...)...) }
	sign := func(t *testing.T, secret string) {
		asked := 0
		key, err := signing.LoadKey(secret, func(hint string) ([]byte, error) {
			asked++
			require.Contains(t, hint, "@example.com")
			return []byte(passphrase), nil
		})
		require.NoError(t, err)
		require.Equal(t, 1, asked)
		signer, err := signing.NewSigner(key, signing.SignerConfig{})
		require.NoError(t, err)
		path := writeData(t)
		_, err = (&signing.Sealer{Signers: []*signing.Signer{signer}}).SignFile(t.Context(), path)
		require.NoError(t, err)
		require.Contains(t, g.gpg("--status-fd", "1", "--verify", path+".asc", path), "GOODSIG")

		_, err = signing.LoadKey(secret, nil)
		require.ErrorContains(t, err, "locked")
		_, err = signing.LoadKey(secret, func(string) ([]byte, error) { return []byte("wrong"), nil })
		require.ErrorContains(t, err, "does not unlock")
		_, err = signing.LoadKey(secret, func(string) ([]byte, error) { return nil, os.ErrClosed })
		require.ErrorIs(t, err, os.ErrClosed)
	}
	for _, algorithm := range []string{"rsa2048", "ed25519", "nistp256", "nistp521", "brainpoolP384r1"} {
		t.Run(algorithm, func(t *testing.T) {
			gpg("--quick-generate-key", algorithm+"@example.com", algorithm, "sign", "never")
			secret := filepath.Join(t.TempDir(), "secret")
			gpg("--output", secret, "--export-secret-keys", algorithm+"@example.com")
			sign(t, secret)
		})
	}
	t.Run("subkey alone", func(t *testing.T) {
		gpg("--quick-generate-key", "alone@example.com", "ed25519", "cert", "never")
		fpr := g.fingerprint("alone@example.com")
		gpg("--quick-add-key", string(fpr), "rsa2048", "sign", "never")
		gpg("--quick-add-key", string(fpr), "cv25519", "encr", "never")
		secret := filepath.Join(t.TempDir(), "secret")
		gpg("--armor", "--output", secret, "--export-secret-subkeys", string(fpr))
		sign(t, secret)
	})
}

// TestTheirsGnuPGStates: keys whose state gpg made.
func TestTheirsGnuPGStates(t *testing.T) {
	t.Parallel()
	g := newGnuPG(t)
	dated := func(when string, args ...string) []string {
		return append([]string{"--faked-system-time", when + "T120000!"}, args...)
	}
	signAt := func(t *testing.T, fpr signing.Fingerprint, when string, args ...string) string {
		path := writeData(t)
		args = append([]string{"--local-user", string(fpr), "--armor"}, args...)
		g.gpg(dated(when, append(args, "--detach-sign", path)...)...)
		return path
	}
	generate := func(user, algorithm, expire string) signing.Fingerprint {
		g.gpg(dated("20200101", "--quick-generate-key", user, algorithm, "sign,cert", expire)...)
		return g.fingerprint(user)
	}
	judge := func(t *testing.T, key *signing.Key, path string) (*signing.File, error) {
		v := &signing.Verifier{Keyring: pinned(t, key), Time: clock(at)}
		result, err := v.File(t.Context(), path)
		return &result.Files[0], err
	}

	t.Run("expired since, and prolonged", func(t *testing.T) {
		fpr := generate("expires@example.com", "ed25519", "2y")
		path := signAt(t, fpr, "20210601")
		f, err := judge(t, g.exported(fpr), path)
		require.NoError(t, err)
		require.Contains(t, f.Notes[0], "expired on 2021-12-31")

		g.gpg(dated("20210701", "--quick-set-expire", string(fpr), "10y")...)
		late := signAt(t, fpr, "20230101")
		f, err = judge(t, g.exported(fpr), late)
		require.NoError(t, err)
		require.Empty(t, f.Notes)
		// gpg's minimal export keeps only the newest self-signature.
		minimal := filepath.Join(t.TempDir(), "minimal.gpg")
		g.gpg("--output", minimal, "--export-options", "export-minimal", "--export", string(fpr))
		ring, err := signing.LoadKeyring(minimal)
		require.NoError(t, err)
		_, err = (&signing.Verifier{Keyring: ring, Time: clock(at)}).File(t.Context(), path)
		require.NoError(t, err)
	})
	t.Run("expiring signature", func(t *testing.T) {
		fpr := generate("sigexpires@example.com", "ed25519", "never")
		path := signAt(t, fpr, "20210601", "--default-sig-expire", "30d")
		_, err := judge(t, g.exported(fpr), path)
		require.ErrorIs(t, err, signing.SignatureExpired)
	})
	t.Run("critical notation", func(t *testing.T) {
		fpr := generate("notation@example.com", "ed25519", "never")
		_, err := judge(t, g.exported(fpr), signAt(t, fpr, "20210601", "--sig-notation", "!must@example.com=know"))
		require.ErrorIs(t, err, signing.CriticalNotation)
		_, err = judge(t, g.exported(fpr), signAt(t, fpr, "20210601", "--sig-notation", "may@example.com=know"))
		require.NoError(t, err)
	})
	t.Run("SHA-1", func(t *testing.T) {
		fpr := generate("sha1@example.com", "rsa2048", "never")
		_, err := judge(t, g.exported(fpr), signAt(t, fpr, "20210601", "--digest-algo", "SHA1"))
		require.ErrorIs(t, err, signing.WeakHash)
	})
	t.Run("signing subkey, expired since", func(t *testing.T) {
		fpr := generate("subkey@example.com", "ed25519", "never")
		g.gpg(dated("20200201", "--quick-add-key", string(fpr), "rsa2048", "sign", "1y")...)
		path := signAt(t, fpr, "20200601")
		f, err := judge(t, g.exported(fpr), path)
		require.NoError(t, err)
		require.Equal(t, fpr, f.Fingerprint, "the primary key's")
		require.NotEqual(t, string(fpr[24:]), f.Signatures[0].KeyID)
		require.Contains(t, f.Notes[0], "expired on 2021-01-31")
	})
	for reason, want := range map[string]signing.Reason{"1": signing.KeyRevoked, "2": "", "3": ""} { // compromised, superseded, retired
		t.Run("revoked for reason "+reason, func(t *testing.T) {
			fpr := generate("revoked"+reason+"@example.com", "ed25519", "never")
			before, after := signAt(t, fpr, "20210601"), signAt(t, fpr, "20230601")
			g.revoke(fpr, "20220101", reason)
			key := g.exported(fpr)
			f, err := judge(t, key, before)
			require.ErrorIs(t, err, errorOf(want))
			require.Equal(t, want, f.Reason)
			_, err = judge(t, key, after)
			require.ErrorIs(t, err, signing.KeyRevoked)
		})
	}
}

// revoke makes and imports a revocation, which gpg does only in a dialogue.
func (g *gnupg) revoke(fpr signing.Fingerprint, when, reason string) {
	g.t.Helper()
	file := filepath.Join(g.home, "revocation")
	cmd := exec.Command("gpg", "--no-tty", "--yes", "--command-fd", "0", "--pinentry-mode", "loopback", "--passphrase", "",
		"--faked-system-time", when+"T120000!", "--output", file, "--gen-revoke", string(fpr))
	cmd.Env = append(os.Environ(), "GNUPGHOME="+g.home, "LC_ALL=C")
	cmd.Stdin = strings.NewReader("y\n" + reason + "\n\ny\n")
	out, err := cmd.CombinedOutput()
	require.NoError(g.t, err, string(out))
	g.gpg("--import", file)
}

// TestTheirsSequoia: what sq signs we verify.
func TestTheirsSequoia(t *testing.T) {
	t.Parallel()
	sq := needs.Tools(t, "sq")[0]
	run := func(t *testing.T, args ...string) {
		out, err := exec.Command(sq, args...).CombinedOutput()
		require.NoError(t, err, "sq %v: %s", args, out)
	}
	for _, suite := range []string{"cv25519", "rsa3k"} {
		t.Run(suite, func(t *testing.T) {
			dir := t.TempDir()
			secret := filepath.Join(dir, "key.pgp")
			run(t, "key", "generate", "--userid", suite+"@example.com", "--cipher-suite", suite, "--expires-in", "2y",
				"--creation-time", "2024-06-01T00:00:00", "--export", secret)
			key, err := signing.LoadKey(secret, nil)
			require.NoError(t, err)
			ring := pinned(t, key)
			early, late := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
			for _, form := range []string{"--detached", "--cleartext-signature"} {
				path := writeData(t)
				run(t, "sign", form, "--time", "2025-01-01T00:00:00", "--signer-key", secret, "--output", path+".asc", path)
				for _, when := range []time.Time{early, late} {
					result, err := (&signing.Verifier{Keyring: ring, Time: clock(when)}).File(t.Context(), path)
					require.NoError(t, err)
					require.Equal(t, key.Fingerprint(), result.Files[0].Fingerprint)
					require.Equal(t, when.Equal(late), len(result.Files[0].Notes) > 0)
				}
			}
			// And with that key, which has a signing subkey, we sign for sq.
			signer, err := signing.NewSigner(key, signing.SignerConfig{Time: clock(early)})
			require.NoError(t, err)
			path := writeData(t)
			_, err = (&signing.Sealer{Signers: []*signing.Signer{signer}}).SignFile(t.Context(), path)
			require.NoError(t, err)
			run(t, "verify", "--signer-cert", secret, "--detached", path+".asc", path)

			// sq makes a revocation, and gpg puts it to the key.
			path = writeData(t)
			run(t, "sign", "--detached", "--time", "2025-01-01T00:00:00", "--signer-key", secret, "--output", path+".asc", path)
			public := filepath.Join(dir, "public.asc")
			require.NoError(t, key.WritePublicFile(public))
			for reason, want := range map[string]signing.Reason{"compromised": signing.KeyRevoked, "superseded": ""} {
				made := exec.Command(sq, "revoke", "certificate", "--time", "2025-06-01T00:00:00",
					"--certificate", secret, "--revocation-key", secret, reason, "so it is")
				out, err := made.Output()
				require.NoError(t, err)
				revocation := filepath.Join(dir, reason)
				require.NoError(t, os.WriteFile(revocation, out, 0o644))
				g := newGnuPG(t)
				g.gpg("--import", public, revocation)
				merged := pinned(t, g.exported(key.Fingerprint()))

				// Appended to the key it counts just so.
				text, err := os.ReadFile(public)
				require.NoError(t, err)
				both := filepath.Join(dir, reason+".both")
				require.NoError(t, os.WriteFile(both, append(text, out...), 0o644))
				appended, err := signing.LoadKeyring(both)
				require.NoError(t, err)
				for _, ring := range []*signing.Keyring{merged, appended} {
					_, err = (&signing.Verifier{Keyring: ring, Time: clock(late)}).File(t.Context(), path)
					require.ErrorIs(t, err, errorOf(want))
				}
			}
		})
	}
}
