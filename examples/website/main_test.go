package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/html"

	"github.com/opentelekomcloud/go-imagefactory/capabilities"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
)

// fixture is a download directory with one release, and its public key.
func fixture(t *testing.T) (dir, keyring, image string) {
	t.Helper()
	dir = t.TempDir()
	id, err := publish.ParseBuildID("20261122-031507")
	require.NoError(t, err)
	_, err = publishtest.Release(t.Context(), dir, "Standard_Debian_12", id)
	require.NoError(t, err)
	require.NoError(t, os.Symlink(id.String(), filepath.Join(dir, "Standard_Debian_12", "latest")))
	return dir, filepath.Join(dir, "Standard_Debian_12", id.String()+".pub"), filepath.Join(dir, "Standard_Debian_12", id.String(), "Standard_Debian_12-"+id.String()+".qcow2")
}

func execute(t *testing.T, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestExitCodes(t *testing.T) {
	dir, keyring, image := fixture(t)
	out := filepath.Join(t.TempDir(), "out")
	code, stdout, stderr := execute(t, "-dir", dir, "-keyring", keyring, "-out", out)
	require.Equal(t, 0, code, stderr)
	require.Equal(t, filepath.Join(out, "index.html")+"\n", stdout)
	require.FileExists(t, filepath.Join(out, "latest/Standard_Debian_12/SHA256SUMS.gpg"))

	for name, args := range map[string][]string{
		"nothing": nil, "no out": {"-dir", dir, "-keyring", keyring}, "an argument": {"-dir", dir, "-keyring", keyring, "-out", out, "x"},
		"no directory": {"-dir", dir + "x", "-keyring", keyring, "-out", out}, "no keyring": {"-dir", dir, "-keyring", keyring + "x", "-out", out},
		"no option": {"-x"}, "no key": {"-dir", dir, "-keyring", keyring, "-out", out, "-sign", keyring + "x"},
	} {
		code, stdout, stderr = execute(t, args...)
		assert.Equal(t, 2, code, "%s: %s", name, stderr)
		assert.Empty(t, stdout, name)
		assert.NotEmpty(t, stderr, name)
	}

	f, err := os.OpenFile(image, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("x"), 300)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	code, _, stderr = execute(t, "-dir", dir, "-keyring", keyring, "-out", out)
	assert.Equal(t, 1, code)
	assert.Contains(t, stderr, "Standard_Debian_12/20261122-031507 does not verify")
	page, err := os.ReadFile(filepath.Join(out, "images/Standard_Debian_12/index.html"))
	require.NoError(t, err)
	assert.Contains(t, string(page), "not verified")
	assert.NotContains(t, string(page), "20261122-031507.html")
}

// The table says of each public image and each family what the program flavors says.
func TestTableIsThatOfFlavors(t *testing.T) {
	dir, keyring, _ := fixture(t)
	out := filepath.Join(t.TempDir(), "out")
	code, _, stderr := execute(t, "-dir", dir, "-keyring", keyring, "-catalog", "-out", out)
	require.Equal(t, 0, code, stderr)
	bin := filepath.Join(t.TempDir(), "flavors")
	built, err := exec.Command("go", "build", "-o", bin, "../flavors").CombinedOutput()
	require.NoError(t, err, string(built))
	columns, rows := readTable(t, filepath.Join(out, "index.html"))
	require.Len(t, columns, len(capabilities.Families()))
	require.Len(t, rows, len(imagefactory.Catalog())+1)
	ask := func(args ...string) capabilities.Description {
		answer, err := exec.Command(bin, append(args, "-format", "json")...).Output()
		require.NoError(t, err)
		var d capabilities.Description
		require.NoError(t, json.Unmarshal(answer, &d))
		return d
	}
	for name, cells := range rows {
		var d capabilities.Description
		if name == "Standard_Debian_12" { // of which there is only the release
			d = ask("-mask", "0x1")
		} else {
			d = ask("-image", name)
		}
		require.Len(t, cells, len(d.Flavors))
		for _, v := range d.Flavors {
			cell := cells[columns[v.Name]]
			want := v.Answer
			if v.LiveMigration && v.Accepted {
				want += ", migrated live"
			}
			require.True(t, strings.HasPrefix(cell, want), "%s on %s: %q, want %q", name, v.Name, cell, want)
			for _, need := range v.Missing {
				text := need.String()
				if need == (capabilities.Need{}) {
					text = "something that is not on record"
				}
				require.Contains(t, cell, text, "%s on %s", name, v.Name)
			}
			if len(v.Missing) == 0 {
				require.Equal(t, want, cell, "%s on %s", name, v.Name)
			}
		}
	}
}

// readTable reads the columns of the flavors by name, and the rows' cells as a
// screen reader reads them.
func readTable(t *testing.T, name string) (columns map[string]int, rows map[string][]string) {
	t.Helper()
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	root, err := html.Parse(bytes.NewReader(data))
	require.NoError(t, err)
	columns, rows = map[string]int{}, map[string][]string{}
	for n := range root.Descendants() {
		if n.Data != "tr" {
			continue
		}
		var cells []string
		head := false
		for c := range n.ChildNodes() {
			if c.Type != html.ElementNode {
				continue
			}
			class := attribute(c, "class")
			if strings.HasPrefix(class, "flavor") {
				columns[spoken(c)] = len(columns)
			}
			head = head || attribute(c, "scope") == "row"
			cells = append(cells, spoken(c))
		}
		if head {
			rows[cells[0]] = cells[3:]
		}
	}
	return columns, rows
}

func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

// spoken is the text of a cell but for its symbols.
func spoken(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode && attribute(c.Parent, "aria-hidden") == "" {
			b.WriteString(strings.TrimPrefix(c.Data, "✓"))
		}
	}
	return b.String()
}
