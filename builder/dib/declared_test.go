package dib

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
)

// TestDeclaredFiles reads what the elements of examples/nightly bring, and what
// elements cannot bring unseen.
func TestDeclaredFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), mode))
	}
	write("a/element-deps", "b vm\n", 0o644)
	write("a/image-files", "# Written by a script.\nf 0644 root:root /etc/a\n", 0o644)
	write("b/static/usr/bin/b", "x", 0o755)
	write("unused/static/etc/unused", "x", 0o644)
	b, err := New(Config{Elements: []string{"a"}, ElementPaths: []string{dir}})
	require.NoError(t, err)
	spec := builder.Spec{Repositories: []builder.Repository{{Name: "debian", URL: "http://mirror.example/debian", Suites: []string{"bookworm"}}}}
	list, err := b.(builder.Declarer).DeclaredFiles(spec)
	require.NoError(t, err)
	require.Contains(t, list, "\nf 0644 root:root /etc/a\n")
	require.Contains(t, list, "\nf 0755 root:root /usr/bin/b content=2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881\n")
	require.Regexp(t, `\nf 0644 root:root /etc/apt/sources.list.d/debian.sources content=[0-9a-f]{64}\n`, list)
	require.Contains(t, list, " /etc/fstab\n")
	require.NotContains(t, list, "unused")

	write("b/static/etc/a b", "x", 0o644)
	_, err = b.(builder.Declarer).DeclaredFiles(spec)
	require.ErrorContains(t, err, "use plain characters")
	require.NoError(t, os.Remove(filepath.Join(dir, "b/static/etc/a b")))
	require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(dir, "b/static/etc/link")))
	list, err = b.(builder.Declarer).DeclaredFiles(spec)
	require.NoError(t, err)
	require.Contains(t, list, "\nl * root:root /etc/link target=/etc/passwd\n")
}
