package publish_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

var update = flag.Bool("update", false, "write the golden files")

func index(t testing.TB) *publish.Index {
	return &publish.Index{
		Image:            "Standard_Debian_12",
		Build:            build(t, "20261122-031507"),
		DefinitionSHA256: strings.Repeat("0f", 32),
		Capabilities:     "0x3",
		Properties:       map[string]string{"__support_kvm": "true", "__os_version": "Debian GNU/Linux 12.0.0 64bit"},
		MinDiskGiB:       4,
		Tests:            publish.Tests{Pass: 41, Waived: 1, Skipped: 2},
		Files: []publish.File{
			{Name: "Standard_Debian_12-20261122-031507.qcow2", SizeBytes: 361758720, SHA256: strings.Repeat("a1", 32)},
			{Name: "Standard_Debian_12-20261122-031507.packages", SizeBytes: 0, SHA256: strings.Repeat("b2", 32)},
		},
	}
}

func TestIndexGolden(t *testing.T) {
	var got bytes.Buffer
	require.NoError(t, publish.WriteIndex(&got, index(t)))
	golden := filepath.Join("testdata", "release.json")
	if *update {
		require.NoError(t, os.WriteFile(golden, got.Bytes(), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	assert.Equal(t, string(want), got.String())

	read, err := publish.ReadIndex(&got)
	require.NoError(t, err)
	assert.Equal(t, index(t), read)
}

func TestReadIndexRefuses(t *testing.T) {
	var good bytes.Buffer
	require.NoError(t, publish.WriteIndex(&good, index(t)))
	replace := func(old, with string) string {
		require.Contains(t, good.String(), old)
		return strings.Replace(good.String(), old, with, 1)
	}
	for name, test := range map[string]struct{ in, want string }{
		"empty":                 {"", "EOF"},
		"cut":                   {good.String()[:good.Len()/2], "unexpected EOF"},
		"null":                  {"null", "no build ID"},
		"array":                 {"[]", "cannot unmarshal array"},
		"unknown key":           {replace(`"image"`, `"signed": true, "image"`), `unknown field "signed"`},
		"unknown key in a file": {replace(`"name"`, `"mode": 1, "name"`), `unknown field "mode"`},
		"key twice":             {replace(`"image"`, `"image": "Other", "image"`), `key "image" twice`},
		"property twice":        {replace(`"__support_kvm"`, `"__support_kvm": "false", "__support_kvm"`), `key "__support_kvm" twice`},
		"second value":          {good.String() + "{}", "more after the end"},
		"text after":            {good.String() + "x", "more after the end"},
		"too large":             {good.String() + strings.Repeat(" ", 1<<20), "larger than"},
		"too deep":              {strings.Repeat("[", 1<<19), "max depth"},
		"image is a path":       {replace("Standard_Debian_12", "../x"), "image name"},
		"no build":              {replace("20261122-031507", "latest"), "cannot parse build ID"},
		"definition":            {replace("0f0f", "0F0F"), "is not a SHA-256"},
		"no definition":         {replace(`"definition_sha256": "`+strings.Repeat("0f", 32)+`",`, ""), "is not a SHA-256"},
		"min disk":              {replace(`"min_disk_gib": 4`, `"min_disk_gib": 0`), "want at least 1"},
		"fraction":              {replace(`"min_disk_gib": 4`, `"min_disk_gib": 4.5`), "cannot unmarshal number 4.5"},
		"negative count":        {replace(`"pass": 41`, `"pass": -1`), "negative count"},
		"file is a path":        {replace(`"name": "Standard`, `"name": "../Standard`), "file name"},
		"hidden file":           {replace(`"name": "Standard`, `"name": ".Standard`), "file name"},
		"lists itself":          {replace("Standard_Debian_12-20261122-031507.packages", "release.json"), "lists itself"},
		"file twice":            {replace(".packages", ".qcow2"), ".qcow2 twice"},
		"negative size":         {replace("361758720", "-1"), "negative size"},
		"huge size":             {replace("361758720", "9223372036854775808"), "cannot unmarshal number"},
		"digest":                {replace("a1a1", "zz"), "is not a SHA-256"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := publish.ReadIndex(strings.NewReader(test.in))
			require.ErrorContains(t, err, test.want)
			assert.ErrorContains(t, err, "cannot read release index: ")
		})
	}
}

func TestIndexErrorsArePassedOn(t *testing.T) {
	broken := errors.New("broken")
	_, err := publish.ReadIndex(iotest.ErrReader(broken))
	assert.ErrorIs(t, err, broken)

	var out bytes.Buffer
	x := index(t)
	x.Image, x.Files = "", nil
	err = publish.WriteIndex(&out, x)
	assert.ErrorContains(t, err, "image name")
	assert.ErrorContains(t, err, "no files")
	assert.Zero(t, out.Len())
}

func FuzzReadIndex(f *testing.F) {
	var good bytes.Buffer
	require.NoError(f, publish.WriteIndex(&good, index(f)))
	f.Add(good.Bytes())
	f.Add([]byte(`{"files":[{}],"files":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := publish.ReadIndex(bytes.NewReader(data))
		if err != nil {
			return
		}
		var once, twice bytes.Buffer
		require.NoError(t, publish.WriteIndex(&once, x))
		again, err := publish.ReadIndex(bytes.NewReader(once.Bytes()))
		require.NoError(t, err)
		require.NoError(t, publish.WriteIndex(&twice, again))
		require.Equal(t, once.String(), twice.String())
	})
}
