package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory/advisory"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

const tracker = `{"openssl": {"CVE-2026-0001": {"releases": {"bookworm": {"status": "resolved", "fixed_version": "3.0.15-1", "urgency": "high"}}},
  "CVE-2026-0002": {"releases": {"bookworm": {"status": "open", "urgency": "low"}}}}}`

// download makes a directory with three releases of two images.
func download(t *testing.T) (dir, advisories string) {
	t.Helper()
	key, err := signing.GenerateKey(signing.KeyConfig{Name: "Test", Email: "test@example.com"})
	require.NoError(t, err)
	signer, err := signing.NewSigner(key, signing.SignerConfig{})
	require.NoError(t, err)
	dir = t.TempDir()
	require.NoError(t, key.WritePublicFile(filepath.Join(dir, "imagefactory.pub")))
	for _, r := range [][3]string{{"Standard_A", "20261101-000000", "3.0.14-1"}, {"Standard_A", "20261102-000000", "3.0.15-1"}, {"Standard_B", "20261101-000000", "3.0.16-1"}} {
		release := filepath.Join(dir, r[0], r[1])
		require.NoError(t, os.MkdirAll(release, 0o755))
		build, err := publish.ParseBuildID(r[1])
		require.NoError(t, err)
		var index bytes.Buffer
		require.NoError(t, publish.WriteIndex(&index, &publish.Index{
			Image: r[0], Build: build, DefinitionSHA256: strings.Repeat("a", 64), MinDiskGiB: 4,
			Files: []publish.File{{Name: r[0] + "-" + r[1] + ".sources", SizeBytes: 1, SHA256: strings.Repeat("a", 64)}},
		}))
		require.NoError(t, os.WriteFile(filepath.Join(release, publish.IndexName), index.Bytes(), 0o644))
		sources := "debian 12 amd64\nlibssl3 " + r[2] + " amd64 openssl " + r[2] + "\n"
		require.NoError(t, os.WriteFile(filepath.Join(release, r[0]+"-"+r[1]+".sources"), []byte(sources), 0o644))
		_, err = signing.SignDir(t.Context(), release, signer)
		require.NoError(t, err)
	}
	advisories = filepath.Join(t.TempDir(), "tracker.json")
	require.NoError(t, os.WriteFile(advisories, []byte(tracker), 0o644))
	return dir, advisories
}

func TestAffected(t *testing.T) {
	dir, advisories := download(t)
	call := func(args ...string) (string, error) {
		var out bytes.Buffer
		err := run(t.Context(), append(args, "-dir", dir, "-advisories", advisories), &out)
		return out.String(), err
	}
	out, err := call("CVE-2026-0001")
	require.NoError(t, err)
	require.Equal(t, `Standard_A fixed since 20261102-000000
  20261101-000000 CVE-2026-0001 affected openssl 3.0.14-1, fixed in 3.0.15-1 (high)
  20261102-000000 CVE-2026-0001 fixed openssl 3.0.15-1, fixed in 3.0.15-1 (high)
Standard_B fixed
  20261101-000000 CVE-2026-0001 fixed openssl 3.0.16-1, fixed in 3.0.15-1 (high)
`, out)
	out, err = call("-since", "CVE-2026-0001")
	require.NoError(t, err)
	require.Equal(t, "Standard_A fixed since 20261102-000000\nStandard_B fixed\n", out)
	out, err = call("CVE-2026-0002", "-json")
	require.ErrorIs(t, err, errAffected)
	require.Contains(t, out, `"status": "affected"`)
	_, err = call("CVE-2026-0003")
	require.ErrorContains(t, err, "not known")
	out, err = call("-image", "Standard_A")
	require.ErrorIs(t, err, errAffected)
	require.Equal(t, "CVE-2026-0002 affected openssl 3.0.15-1, no fix (low)\n", out)
	for _, args := range [][]string{{}, {"a", "b"}, {"a", "-image", "Standard_A"}, {"-image", "Standard_A", "-since"}} {
		_, err = call(args...)
		require.ErrorIs(t, err, errUsage, "%q", args)
	}
	_, err = call("-image", "Standard_None")
	require.ErrorContains(t, err, "no release")

	// An old file of advisories that somebody has put back is refused.
	seen := filepath.Join(t.TempDir(), "seen")
	_, err = call("-since", "CVE-2026-0001", "-seen", seen)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(advisories, []byte(strings.Replace(tracker, `"CVE-2026-0002"`, `"TEMP-0002"`, 1)), 0o644))
	_, err = call("-since", "CVE-2026-0001", "-seen", seen)
	require.ErrorIs(t, err, advisory.ErrOlder)
	require.NoError(t, os.WriteFile(advisories, []byte(tracker), 0o644))

	// A release that somebody has touched is not judged, and nobody gets an all-clear.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Standard_B", "20261101-000000", "Standard_B-20261101-000000.sources"), []byte("debian 12 amd64\n"), 0o644))
	out, err = call("CVE-2026-0001")
	require.ErrorContains(t, err, "not known")
	require.Contains(t, out, "Standard_B unknown")
}
