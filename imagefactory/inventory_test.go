package imagefactory

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory/sbom"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/ledger"
)

const dpkgStatus = `Package: libssl3
Status: install ok installed
Maintainer: Debian OpenSSL Team <pkg-openssl-devel@alioth-lists.debian.net>
Architecture: amd64
Source: openssl
Version: 3.0.15-1~deb12u1
Depends: libc6 (>= 2.34)

Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc
Version: 2.36-9
`

// What the disk says goes into the release, whatever the factory is called.
func TestBillOfMaterials(t *testing.T) {
	for _, builderID := range []string{"", "https://example.com/factory", "urn:example:factory"} {
		f, d := newFactory(t)
		f.BuilderID = builderID
		j := beginRun(t, f, d)
		stageDone(t, j, StageBuild)
		stageDone(t, j, StageInspect)
		digest := "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
		require.NoError(t, j.writeInventory(&ledger.Listing{
			Files: []ledger.File{
				{Path: "/boot/initrd.img-6.1", Type: ledger.Regular, SHA256: digest}, {Path: "/boot/vmlinuz-6.1", Type: ledger.Regular, SHA256: digest},
				{Path: "/initrd.img", Type: ledger.Symlink, Target: "boot/initrd.img-6.1"},
			},
			Contents: map[string][]byte{"/var/lib/dpkg/status": []byte(dpkgStatus)},
		}))
		fakeTest(t, j)
		require.NotEmpty(t, j.journal.output(StageTest, inventorySuffix))
		require.NotContains(t, j.sealedFiles(), inventorySuffix)
		stageDone(t, j, StageSeal)
		dir := filepath.Join(j.sealedDir(), j.build.String())
		base := filepath.Join(dir, "Standard_Test_1-20261122-031507")
		sources, err := os.ReadFile(base + sourcesSuffix)
		require.NoError(t, err)
		require.Equal(t, "test 1 amd64\nlibc6 2.36-9 amd64 glibc 2.36-9\nlibssl3 3.0.15-1~deb12u1 amd64 openssl 3.0.15-1~deb12u1\n", string(sources))
		data, err := os.ReadFile(base + sbomSuffix)
		require.NoError(t, err)
		bill, err := sbom.Read(bytes.NewReader(data))
		require.NoError(t, err)
		require.Equal(t, "Standard_Test_1-20261122-031507.qcow2", bill.Filename)
		require.Equal(t, j.journal.output(StageBuild, ".qcow2"), bill.SHA256)
		require.Len(t, bill.Packages, 2)
		require.Equal(t, []string{"libc6/2.36-9/amd64"}, bill.Packages[1].Needs)
		require.Equal(t, []sbom.File{
			{Path: "/boot/initrd.img-6.1", Version: "6.1", SHA256: digest, Archive: true},
			{Path: "/boot/vmlinuz-6.1", Version: "6.1", SHA256: digest, Executable: true},
		}, bill.Files)
	}
}
