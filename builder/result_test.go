package builder

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// built makes what a good builder leaves in an output directory, beside which
// is a file that is none of its business.
func built(t *testing.T) (Spec, *Result, string) {
	t.Helper()
	base := t.TempDir()
	out, other := filepath.Join(base, "out"), filepath.Join(base, "other")
	require.NoError(t, os.MkdirAll(filepath.Join(out, "config", "elements"), 0o755))
	require.NoError(t, os.WriteFile(other, []byte("x"), 0o600))
	for _, name := range []string{"image.qcow2", "config/keys.gpg", "config/elements/hook"} {
		require.NoError(t, os.WriteFile(filepath.Join(out, name), []byte("x"), 0o644))
	}
	require.NoError(t, os.Symlink("elements/hook", filepath.Join(out, "config", "link")))
	return Spec{OutputDir: out}, &Result{
		ImagePath: filepath.Join(out, "image.qcow2"), ConfigDir: filepath.Join(out, "config"),
		Packages: []Package{{"a", "1", "all"}, {"a", "2", "all"}, {"b", "1:2~3+x^y", "(none)"}},
		Tool:     "tool", ToolVersion: "1 beta", Args: []string{"tool", "a b\n"}, Env: []string{"A=", "B=x=y"},
	}, other
}

func TestResultValidate(t *testing.T) {
	link := func(to, name string) func(*testing.T, Spec, *Result, string) {
		return func(t *testing.T, s Spec, _ *Result, _ string) {
			require.NoError(t, os.Symlink(to, filepath.Join(s.OutputDir, "config", name)))
		}
	}
	packages := func(p ...Package) func(*testing.T, Spec, *Result, string) {
		return func(_ *testing.T, _ Spec, r *Result, _ string) { r.Packages = p }
	}
	for name, test := range map[string]struct {
		spoil func(t *testing.T, s Spec, r *Result, other string)
		want  string // "" for none
	}{
		"good":             {func(*testing.T, Spec, *Result, string) {}, ""},
		"packages unknown": {packages(), ""},
		"image deeper down": {func(_ *testing.T, s Spec, r *Result, _ string) {
			r.ImagePath = s.OutputDir + "/./config/../image.qcow2"
		}, ""},
		"no image":            {func(_ *testing.T, _ Spec, r *Result, _ string) { r.ImagePath = "" }, "image: no path"},
		"image elsewhere":     {func(_ *testing.T, _ Spec, r *Result, other string) { r.ImagePath = other }, "is not below the output directory"},
		"image upwards":       {func(_ *testing.T, s Spec, r *Result, _ string) { r.ImagePath = s.OutputDir + "/../other" }, "is not below the output directory"},
		"image relative":      {func(_ *testing.T, _ Spec, r *Result, _ string) { r.ImagePath = "image.qcow2" }, "is not below the output directory"},
		"image is the output": {func(_ *testing.T, s Spec, r *Result, _ string) { r.ImagePath = s.OutputDir }, "is not below the output directory"},
		"image in a sibling with the same beginning": {func(t *testing.T, s Spec, r *Result, _ string) {
			require.NoError(t, os.WriteFile(s.OutputDir+"put", []byte("x"), 0o600))
			r.ImagePath = s.OutputDir + "put"
		}, "is not below the output directory"},
		"image with NUL":    {func(_ *testing.T, _ Spec, r *Result, _ string) { r.ImagePath += "\x00" }, "invalid argument"},
		"image missing":     {func(t *testing.T, _ Spec, r *Result, _ string) { require.NoError(t, os.Remove(r.ImagePath)) }, "no such file"},
		"image empty":       {func(t *testing.T, _ Spec, r *Result, _ string) { require.NoError(t, os.Truncate(r.ImagePath, 0)) }, "is empty"},
		"image a directory": {func(_ *testing.T, _ Spec, r *Result, _ string) { r.ImagePath = r.ConfigDir }, "is a directory, not a regular file"},
		"image a pipe": {func(t *testing.T, s Spec, r *Result, _ string) {
			r.ImagePath = filepath.Join(s.OutputDir, "pipe")
			require.NoError(t, syscall.Mkfifo(r.ImagePath, 0o600))
		}, "is a named pipe, not a regular file"},
		"image a link": {func(t *testing.T, s Spec, r *Result, _ string) {
			r.ImagePath = filepath.Join(s.OutputDir, "link")
			require.NoError(t, os.Symlink("image.qcow2", r.ImagePath))
		}, "is a symbolic link, not a regular file"},
		"image behind a link that leads out": {func(t *testing.T, s Spec, r *Result, other string) {
			require.NoError(t, os.Symlink(filepath.Dir(other), filepath.Join(s.OutputDir, "up")))
			r.ImagePath = filepath.Join(s.OutputDir, "up", "other")
		}, "is not below the output directory"},
		"image with another name": {func(t *testing.T, _ Spec, r *Result, other string) {
			require.NoError(t, os.Link(r.ImagePath, other+"2"))
		}, ""},
		"image in the configuration": {func(t *testing.T, _ Spec, r *Result, _ string) {
			moved := filepath.Join(r.ConfigDir, "image.qcow2")
			require.NoError(t, os.Rename(r.ImagePath, moved))
			r.ImagePath = moved
		}, "configuration directory: the image lies in it"},
		"no configuration":         {func(_ *testing.T, _ Spec, r *Result, _ string) { r.ConfigDir = "" }, "configuration directory: no path"},
		"configuration elsewhere":  {func(t *testing.T, _ Spec, r *Result, _ string) { r.ConfigDir = t.TempDir() }, "is not below the output directory"},
		"configuration all output": {func(_ *testing.T, s Spec, r *Result, _ string) { r.ConfigDir = s.OutputDir + "/" }, "is not below the output directory"},
		"configuration a file":     {func(_ *testing.T, _ Spec, r *Result, _ string) { r.ConfigDir = r.ImagePath }, "is a regular file, not a directory"},
		"configuration a link": {func(t *testing.T, s Spec, r *Result, _ string) {
			r.ConfigDir = filepath.Join(s.OutputDir, "c")
			require.NoError(t, os.Symlink("/etc", r.ConfigDir))
		}, "is a symbolic link, not a directory"},
		"configuration's link to nothing": {link("elements/none", "l"), ""},
		"configuration's link in circles": {link("l", "l"), `the link "l" leads out of it or in circles`},
		"configuration's link out":        {link("../../none", "l"), `the link "l" leads out of it`},
		"configuration's link to root":    {link("/etc/hostname", "l"), `the link "l" leads out of it`},
		"configuration's link in two":     {link("link/../../image.qcow2", "l"), `the link "l" leads out of it`},
		"configuration's pipe": {func(t *testing.T, _ Spec, r *Result, _ string) {
			require.NoError(t, syscall.Mkfifo(filepath.Join(r.ConfigDir, "p"), 0o600))
		}, `"p" is a named pipe`},
		"configuration too large": {func(t *testing.T, _ Spec, r *Result, _ string) {
			require.NoError(t, os.Truncate(filepath.Join(r.ConfigDir, "keys.gpg"), 1<<30))
		}, "more than 67108864 bytes"},
		"package's name empty":           {packages(Package{"", "1", "all"}), "packages: number 1"},
		"package's version empty":        {packages(Package{"a", "", "all"}), "packages: number 1"},
		"package's architecture":         {packages(Package{"a", "1", ""}), "packages: number 1"},
		"package with a line of its own": {packages(Package{"a", "1\nevil 1", "all"}), "packages: number 1"},
		"package with a space":           {packages(Package{"a", "1", "all"}, Package{"b c", "1", "all"}), "packages: number 2"},
		"package with a long name":       {packages(Package{strings.Repeat("a", 256), "1", "all"}), "packages: number 1"},
		"packages not sorted":            {packages(Package{"b", "1", "all"}, Package{"a", "1", "all"}), "packages: number 2, a,"},
		"package twice":                  {packages(Package{"a", "1", "all"}, Package{"a", "1", "all"}), "packages: number 2, a, is there twice"},
		"too many packages":              {packages(make([]Package, maxPackages+1)...), "are more than"},
		"no tool":                        {func(_ *testing.T, _ Spec, r *Result, _ string) { r.Tool = "" }, "tool: bad name"},
		"tool of two lines":              {func(_ *testing.T, _ Spec, r *Result, _ string) { r.Tool = "a\nb" }, "tool: bad name"},
		"version of two lines":           {func(_ *testing.T, _ Spec, r *Result, _ string) { r.ToolVersion = "1\n2" }, "tool: bad version"},
		"argument is no text":            {func(_ *testing.T, _ Spec, r *Result, _ string) { r.Args[1] = "\xff" }, "args: number 2 is not text"},
		"environment without a name":     {func(_ *testing.T, _ Spec, r *Result, _ string) { r.Env[0] = "secret" }, "env: number 1 is not NAME=VALUE"},
		"too long a command":             {func(_ *testing.T, _ Spec, r *Result, _ string) { r.Args[1] = strings.Repeat("a", maxCommand) }, "are more than"},
	} {
		t.Run(name, func(t *testing.T) {
			s, r, other := built(t)
			test.spoil(t, s, r, other)
			err := r.Validate(s)
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "secret")
		})
	}

	s, r, _ := built(t)
	alias := filepath.Join(t.TempDir(), "alias") // as /tmp is on some systems
	require.NoError(t, os.Symlink(s.OutputDir, alias))
	require.NoError(t, r.Validate(Spec{OutputDir: alias}))
	require.ErrorContains(t, (*Result)(nil).Validate(s), "neither a result nor an error")
}

// What is empty says so, and does not panic.
func TestZeroValues(t *testing.T) {
	require.Equal(t, "a tool failed", (&ToolError{}).Error())
	require.Equal(t, "exit status 0", (&ExitError{}).Error())
	require.Error(t, (&Spec{}).Validate())
	require.Error(t, (&Result{}).Validate(Spec{}))
	require.EqualError(t, Local{}.Run(t.Context(), Command{}), "cannot run a command without Args")
	require.Error(t, Local{}.Upload(t.Context(), "", os.DirFS("/")))
	require.Error(t, Local{}.Download(t.Context(), "", nil))
	require.Zero(t, Package{}.Compare(Package{}))
}
