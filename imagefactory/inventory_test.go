package imagefactory

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory/sbom"
	"github.com/opentelekomcloud/go-imagefactory/signing"
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

const dep5 = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nCopyright: x\nLicense: Apache-2.0\n"

// What the disk says goes into the release, whatever the factory is called.
func TestBillOfMaterials(t *testing.T) {
	for _, builderID := range []string{"", "https://example.com/factory", "urn:example:factory"} {
		f, d := newFactory(t)
		f.BuilderID = builderID
		j := beginRun(t, f, d)
		digest := "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
		dir := sealListed(t, j, &ledger.Listing{
			Files: []ledger.File{
				{Path: "/boot/initrd.img-6.1", Type: ledger.Regular, SHA256: digest}, {Path: "/boot/vmlinuz-6.1", Type: ledger.Regular, SHA256: digest},
				{Path: "/initrd.img", Type: ledger.Symlink, Target: "boot/initrd.img-6.1"},
				{Path: "/usr/share/doc/libc6", Type: ledger.Symlink, Target: "libssl3"},
			},
			Contents: map[string][]byte{"/var/lib/dpkg/status": []byte(dpkgStatus), "/usr/share/doc/libssl3/copyright": []byte(dep5)},
		}, []signing.Resource{{Name: "index/x_InRelease", Digest: map[string]string{"sha256": digest}}})
		require.NotEmpty(t, j.journal.output(StageTest, inventorySuffix))
		require.NotContains(t, j.sealedFiles(), inventorySuffix)
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
		require.Equal(t, "Apache-2.0", bill.Packages[0].Licence, "by its link")
		require.Equal(t, "Apache-2.0", bill.Packages[1].Licence)
		require.Equal(t, []string{"libc6/2.36-9/amd64"}, bill.Packages[1].Needs)
		require.Equal(t, []sbom.File{
			{Path: "/boot/initrd.img-6.1", Version: "6.1", SHA256: digest, Archive: true},
			{Path: "/boot/vmlinuz-6.1", Version: "6.1", SHA256: digest, Executable: true},
		}, bill.Files)
	}
}

// sealListed is seal, of an image with this disk.
func sealListed(t *testing.T, j *job, l *ledger.Listing, indexes []signing.Resource) string {
	t.Helper()
	stageDone(t, j, StageBuild)
	stageDone(t, j, StageInspect)
	require.NoError(t, j.writeInventory(l, indexes))
	fakeTest(t, j)
	stageDone(t, j, StageSeal)
	return filepath.Join(j.sealedDir(), j.build.String())
}
