package imagefactory

import (
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder/dib"
	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/internal/spoil"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/qcow2/guestdisk"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/ledger"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
)

// imageJob is the job of an image of examples/nightly, which the environment names
// with a factory's directory whose cache is used.
func imageJob(t *testing.T) (j *job, image string) {
	image, dir := os.Getenv("IMAGEFACTORY_TEST_IMAGE"), os.Getenv("IMAGEFACTORY_TEST_DIR")
	if image == "" || dir == "" {
		t.Skip("needs an image in IMAGEFACTORY_TEST_IMAGE and a directory in IMAGEFACTORY_TEST_DIR; the test of examples/nightly has them")
	}
	needs.Tools(t, "qemu-system-x86_64", "apt-get", "dpkg-deb")
	definitions, err := LoadFile("../examples/nightly/nightly.yaml")
	require.NoError(t, err)
	f := &Factory{
		Dir: dir, Builders: []BuilderDriver{dib.Driver{}}, Targets: []TargetDriver{directory.Driver{Dir: dir}},
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	parts, err := f.parts()
	require.NoError(t, err)
	p, err := f.newProduct(parts, &definitions[0])
	require.NoError(t, err)
	p.dir = dir
	j = &job{product: p, runDir: t.TempDir(), build: publish.NewBuildID(f.now())}
	require.Empty(t, j.unaccountable())
	return j, image
}

// found are check and path of a fact's findings.
func found(fact testsuite.Fact, group string) []string {
	judge := map[string]string{
		"unexplained": "explained", "changed": "unmodified", "missing": "unmodified missing",
		"permissions": "permissions", "unsigned": "signed",
	}
	got := map[string]bool{}
	for _, line := range strings.Split(strings.TrimSpace(fact.Output), "\n")[1:] {
		kind, rest, _ := strings.Cut(line, " ")
		name, _, _ := strings.Cut(rest, ": ")
		if kind == string(ledger.Leaked) {
			got["boot.secret "+name] = true
			continue
		}
		got[group+judge[kind]+" "+name] = true
	}
	return slices.Sorted(maps.Keys(got))
}

// rows are the table's of a moment that checks of a group see, and what these say.
func rows(t *testing.T, when, group string) (rows []spoil.Spoil, want []string) {
	all, err := spoil.Table()
	require.NoError(t, err)
	texts := map[string]bool{}
	for _, row := range all {
		seen := false
		for id := range row.Fails {
			if row.When == when && strings.HasPrefix(id, group) {
				seen = true
				for _, name := range row.Texts(id) {
					texts[id+" "+name] = true
				}
			}
		}
		if seen {
			rows = append(rows, row)
		}
	}
	return rows, slices.Sorted(maps.Keys(texts))
}

// TestFilesOfImage spoils the disk of an image of examples/nightly in many ways
// at once; each of them, and nothing else, has to be named.
func TestFilesOfImage(t *testing.T) {
	j, image := imageJob(t)
	spoils, want := rows(t, spoil.OnDisk, "files.")
	require.NoError(t, os.Symlink(spoil.Disk(t, image, spoils), j.file(".qcow2")))
	fact, _, err := j.accountFiles(t.Context())
	require.NoError(t, err)
	require.Equal(t, want, found(fact, "files."))
	facts := testsuite.Facts{Facts: map[string]testsuite.Fact{ledger.FactName: fact}}
	for _, c := range ledger.Checks() {
		require.Equal(t, testsuite.Fail, c.Judge(facts, testsuite.Params{}).Status, c.ID)
	}
	st, err := os.Stat(j.file(filesSuffix))
	require.NoError(t, err)
	t.Logf("the ledger has %d KiB", st.Size()>>10)
	v, err := j.readInventory()
	require.NoError(t, err)
	require.Greater(t, len(v.Packages), 200)
	require.Len(t, v.Files, 2, "the kernel and its initial RAM disk")
}

// TestBootOfImage has the first boot of an image of examples/nightly do all that the
// table has for it; each of these, and nothing else that this boot and another one
// wrote, has to be named. That the image itself boots without a finding the test of
// examples/nightly sees.
func TestBootOfImage(t *testing.T) {
	j, image := imageJob(t)
	spoils, want := rows(t, spoil.AtBoot, "boot.")
	require.NoError(t, os.Symlink(spoil.Boot(t, image, spoils), j.file(".qcow2")))
	listing, places, findings, err := j.list(t.Context())
	require.NoError(t, err)
	require.Empty(t, findings)
	declared, err := j.declaredFiles()
	require.NoError(t, err)
	m, err := j.boot(t.Context(), sandbox.Variant{})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	fact, err := j.accountBoot(t.Context(), m, &accounted{listing, places, declared})
	require.NoError(t, err)
	require.NotEmpty(t, m.Target.Password)
	require.NotContains(t, fact.Output, m.Target.Password)
	require.Equal(t, want, found(fact, "boot.files-"))
	facts := testsuite.Facts{Facts: map[string]testsuite.Fact{ledger.BootFactName: fact}}
	for _, c := range ledger.BootChecks() {
		require.Equal(t, testsuite.Fail, c.Judge(facts, testsuite.Params{}).Status, c.ID)
	}
}

func TestMountPoints(t *testing.T) {
	volume := func(name, label string) sandbox.Volume {
		return sandbox.Volume{Name: name, Read: true, Content: &guestdisk.Content{Label: label, UUID: "AB-" + name}}
	}
	l := &ledger.Listing{Contents: map[string][]byte{"/p2/etc/fstab": []byte("# c\nLABEL=root / ext4 defaults 0 1\nUUID=ab-p1 /boot/efi vfat umask=0077 0 1\nLABEL=x ../y ext4\n")}}
	volumes := []sandbox.Volume{volume("p1", "ESP"), volume("p2", "root"), volume("p3", "x")}
	places, err := mountPoints(l, volumes)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"p1": "/boot/efi", "p2": "/"}, places)
	l.Contents["/p3/etc/fstab"] = nil
	_, err = mountPoints(l, volumes)
	require.ErrorContains(t, err, "two volumes look like the root")
	_, err = mountPoints(&ledger.Listing{}, volumes)
	require.ErrorContains(t, err, "no volume has /etc/fstab")
}

// TestFileChanges compares the ledgers of two releases.
func TestFileChanges(t *testing.T) {
	j := &job{product: &product{name: "Standard_Test_1"}, runDir: t.TempDir(), build: publish.NewBuildID((&Factory{}).now())}
	changes, err := j.fileChanges(nil)
	require.NoError(t, err)
	require.Empty(t, changes, "without a ledger")
	require.NoError(t, j.writeFiles(&ledger.Listing{Files: []ledger.File{{Path: "/a", Type: ledger.Directory}}}))
	changes, err = j.fileChanges(nil)
	require.NoError(t, err)
	require.Empty(t, changes, "without a previous release")
	require.FileExists(t, filepath.Join(j.runDir, j.name+"-"+j.build.String()+".files.gz"))
}

// A pipe is not waited for, since nobody may write to it.
func TestOpenKeyOfAPipe(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "signing.key")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	_, _, err := OpenKey(pipe)
	require.EqualError(t, err, "cannot load the secret key "+pipe+": not a regular file")
}

// What is too long is an error and not shorter: what comes behind would not count.
func TestWhole(t *testing.T) {
	_, err := decodeCatalog(io.MultiReader(strings.NewReader("systems: []\n#"), strings.NewReader(strings.Repeat("x", maxConfig)), strings.NewReader("\nsystems: twice\n")))
	require.ErrorIs(t, err, errTooLong)
	for text, want := range map[string]error{"": nil, "abc": nil, "abcd": nil, "abcde": errTooLong} {
		got, err := io.ReadAll(&whole{r: strings.NewReader(text), left: 4})
		require.ErrorIs(t, err, want, text)
		require.Equal(t, text[:min(len(text), 4)], string(got))
	}
}
