package imagefactory

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/builder/existing"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandboxtest"
)

// TestExistingImage releases an image that a web server has. Its packages are those
// of the machine that was booted from it.
func TestExistingImage(t *testing.T) {
	f, d := embedded(t)
	store := t.TempDir()
	require.NoError(t, sandboxtest.WriteImage(filepath.Join(store, "vendor.qcow2"), 4<<30))
	digest, err := digestFile(t.Context(), filepath.Join(store, "vendor.qcow2"))
	require.NoError(t, err)
	server := httptest.NewServer(http.FileServer(http.Dir(store)))
	defer server.Close()
	f.Builders = append(f.Builders, existing.Driver{})
	facts := sandboxtest.Good()
	fact := facts["packages"]
	fact.Output += "ii zz-last 1:2-3 all\nrc zz-removed 1 all\nii zz-key 1 (none)\n"
	facts["packages"] = fact
	f.Sandbox = sandboxtest.Sandbox{Facts: facts}
	d.Builder = Component{Driver: "existing", Config: map[string]any{"image": server.URL + "/vendor.qcow2", "sha256": digest.SHA256}}
	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	got := report.Images[0]
	require.Equal(t, Published, got.Result, got.Error)
	dir := filepath.Join(f.Dir, got.Release)
	base := filepath.Join(dir, d.Name+"-"+got.Build)
	list, err := os.ReadFile(base + ".packages")
	require.NoError(t, err)
	require.Equal(t, "zz-last 1:2-3 all\n", string(list))
	changes, err := os.ReadFile(base + ".changes")
	require.NoError(t, err)
	require.Equal(t, "+zz-last 1:2-3 all\n", string(changes))
	require.FileExists(t, base+".cdx.json")

	d.Builder.Config = map[string]any{"image": server.URL + "/vendor.qcow2", "sha256": fmt.Sprintf("%064d", 0)}
	report, err = f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	require.Equal(t, StageBuild, report.Images[0].Stage)
	require.Contains(t, report.Images[0].Error, "is not the image that is named")
}

func TestGuestPackages(t *testing.T) {
	for text, want := range map[string][]builder.Package{
		"": nil,
		"ii b 2 amd64\nhi a 1 all\nrc c 1 all\nii b 2 amd64\n": {{Name: "a", Version: "1", Arch: "all"}, {Name: "b", Version: "2", Arch: "amd64"}},
		"ii gpg-pubkey 1-2 (none)\n":                           nil,
		"ii old 1\n":                                           nil, // facts of before
	} {
		have, err := guestPackages(testsuite.Facts{Facts: map[string]testsuite.Fact{"packages": {Output: text}}})
		require.NoError(t, err)
		require.Equal(t, want, have)
	}
	_, err := guestPackages(testsuite.Facts{Facts: map[string]testsuite.Fact{"packages": {Output: "ii b\x1b[2J 2 amd64\n"}}})
	require.Error(t, err)
}
