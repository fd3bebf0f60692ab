package signing_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/stretchr/testify/require"
)

// TestAgent signs with keys that only gpg-agent has: we get the public key.
func TestAgent(t *testing.T) {
	t.Parallel()
	g := newGnuPG(t)
	out, err := g.try("gpgconf", "--list-dirs", "agent-socket")
	require.NoError(t, err)
	agent := signing.AgentConfig{Socket: strings.TrimSpace(out)}
	fprs := map[string]signing.Fingerprint{}
	for _, algorithm := range []string{"rsa2048", "ed25519", "nistp256", "nistp384", "nistp521"} {
		fprs[algorithm] = g.generate(algorithm+"@example.com", algorithm, "sign", "never")
	}
	fprs["subkey"] = g.generate("subkey@example.com", "ed25519", "cert", "never")
	g.gpg("--quick-add-key", string(fprs["subkey"]), "rsa2048", "sign", "never")

	for name, fpr := range fprs {
		t.Run(name, func(t *testing.T) {
			key := g.exported(fpr)
			signer, err := signing.NewAgentSigner(t.Context(), key, agent, signing.SignerConfig{})
			require.NoError(t, err)
			dir := newRelease(t)
			_, err = signing.SignDir(t.Context(), dir, signer)
			require.NoError(t, err)
			_, err = signing.VerifyDir(t.Context(), dir, pinned(t, key))
			require.NoError(t, err)
			sums := filepath.Join(dir, signing.SumsFile)
			require.Contains(t, g.gpg("--status-fd", "1", "--verify", sums+".asc", sums), "GOODSIG")

			_, err = (&signing.Sealer{Signers: []*signing.Signer{signer}}).ClearSignFile(t.Context(), writeData(t))
			require.NoError(t, err)
		})
	}

	t.Run("a key that the agent does not have", func(t *testing.T) {
		_, err := signing.NewAgentSigner(t.Context(), newKey(t, signing.KeyConfig{}), agent, signing.SignerConfig{})
		require.ErrorContains(t, err, "the agent does not have it")
	})
	t.Run("no agent", func(t *testing.T) {
		none := signing.AgentConfig{Socket: filepath.Join(t.TempDir(), "none")}
		_, err := signing.NewAgentSigner(t.Context(), g.exported(fprs["ed25519"]), none, signing.SignerConfig{})
		require.ErrorIs(t, err, os.ErrNotExist)
	})
	t.Run("the key leaves the agent", func(t *testing.T) {
		signer, err := signing.NewAgentSigner(t.Context(), g.exported(fprs["nistp256"]), agent, signing.SignerConfig{})
		require.NoError(t, err)
		g.gpg("--delete-secret-keys", string(fprs["nistp256"]))
		_, err = signing.SignDir(t.Context(), newRelease(t), signer)
		require.ErrorContains(t, err, "gpg-agent cannot sign")
	})
}

// TestAgentExample runs the example of the documentation with a real agent.
func TestAgentExample(t *testing.T) {
	g := newGnuPG(t)
	key := g.exported(g.generate("example@example.com", "ed25519", "sign", "never"))
	release := newRelease(t)
	t.Setenv("GNUPGHOME", g.home)
	t.Chdir(filepath.Dir(release))
	require.NoError(t, os.Rename(release, "release"))
	require.NoError(t, key.WritePublicFile("imagefactory.gpg"))
	ExampleSignDir_agent()
	_, err := signing.VerifyDir(t.Context(), "release", pinned(t, key))
	require.NoError(t, err)
}

// TestAgentCancel: an agent that waits for its PIN entry does not hold us.
func TestAgentCancel(t *testing.T) {
	g := newGnuPG(t)
	asked, pinentry := filepath.Join(g.home, "asked"), filepath.Join(g.home, "pinentry")
	script := "#!/bin/sh\necho $$ > " + asked + ".new\nmv " + asked + ".new " + asked + "\nexec sleep 600\n"
	require.NoError(t, os.WriteFile(pinentry, []byte(script), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(g.home, "gpg-agent.conf"), []byte("pinentry-program "+pinentry+"\n"), 0o600))
	g.gpg("--passphrase", "locked", "--quick-generate-key", "locked@example.com", "ed25519", "sign", "never")
	out, err := g.try("gpgconf", "--reload", "gpg-agent") // it forgets the passphrase
	require.NoError(t, err, out)
	out, err = g.try("gpgconf", "--list-dirs", "agent-socket")
	require.NoError(t, err)
	signer, err := signing.NewAgentSigner(t.Context(), g.exported(g.fingerprint("locked@example.com")),
		signing.AgentConfig{Socket: strings.TrimSpace(out)}, signing.SignerConfig{})
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := signing.SignDir(ctx, newRelease(t), signer)
		done <- err
	}()
	var pid []byte
	require.Eventually(t, func() bool {
		pid, err = os.ReadFile(asked)
		return err == nil
	}, time.Minute, 10*time.Millisecond, "the agent starts the PIN entry")
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	out, err = g.try("kill", strings.TrimSpace(string(pid)))
	require.NoError(t, err, out)
}
