package imagefactory

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/ledger"
)

// Other people's libraries read what a release states: in-toto's and DSSE's the
// provenance, go-vex what is accepted, CycloneDX's, packageurl-go and go-spdx the bill of
// materials. They are in a module of their own.
func TestOracles(t *testing.T) {
	tools := needs.Tools(t, "go", "gpg", "gpgv")
	const module = "../internal/oracle"
	program := filepath.Join(t.TempDir(), "oracle.test")
	build := exec.Command(tools[0], "test", "-c", "-o", program, ".")
	build.Dir = module
	if out, err := build.CombinedOutput(); err != nil {
		needs.Missing(t, "the module "+module+" cannot be built: "+string(out))
	}
	f, d := newFactory(t)
	d.Gate.Waivers = []Waiver{{Check: "versions.CVE-2026-1", Reason: "not reachable", Expires: Date{time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)}}}
	j := beginRun(t, f, d)
	dir := sealListed(t, j, &ledger.Listing{Contents: map[string][]byte{
		"/var/lib/dpkg/status": []byte(dpkgStatus), "/usr/share/doc/libssl3/copyright": []byte(dep5 + "\nFiles: x\nLicense: GPL-2+ or public-domain\n"),
	}}, nil)
	release := filepath.Join(t.TempDir(), "Standard_Test_1", "20261122-031507")
	require.NoError(t, os.CopyFS(release, os.DirFS(dir)))
	keys := filepath.Join(t.TempDir(), "keys.pub")
	require.NoError(t, testKey.WritePublicFile(keys))
	require.NoError(t, exec.Command(tools[1], "--batch", "--dearmor", "-o", keys+".gpg", keys).Run())
	oracle := exec.Command(program, "-test.v")
	oracle.Dir = module
	oracle.Env = append(os.Environ(), "RELEASE="+release, "KEYS="+keys+".gpg", "LC_ALL=C")
	out, err := oracle.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NotContains(t, string(out), "SKIP")
	for _, name := range []string{"TestEnvelope", "TestVEX", "TestBillOfMaterials"} {
		require.Contains(t, string(out), "--- PASS: "+name)
	}
}
