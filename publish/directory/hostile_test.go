package directory_test

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
)

// tree returns what lies below dir: each path with its mode, and where links
// point and what files hold.
func tree(t *testing.T, dir string) map[string]string {
	paths := make(map[string]string)
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		what := d.Type().String()
		switch d.Type() {
		case 0:
			info, err := d.Info()
			if err != nil {
				return err
			}
			what += info.ModTime().String()
			if info.Size() < 1<<20 {
				data, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				what += string(data)
			}
		case fs.ModeSymlink:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			what += to
		}
		paths[path] = what
		return nil
	}))
	return paths
}

// What somebody else did to the download directory hinders nobody where it can be
// told from a release and a label; else there is one error that names it, and
// nothing changes. Nothing ever changes outside.
func TestHostileDirectory(t *testing.T) {
	const day = "20180601-000000"
	inBuild := func(spoil func(t *testing.T, build, outside string)) func(t *testing.T, dir, outside string) {
		return func(t *testing.T, dir, outside string) {
			require.NoError(t, os.Mkdir(filepath.Join(dir, day), 0o755))
			spoil(t, filepath.Join(dir, day), outside)
		}
	}
	for name, test := range map[string]struct {
		spoil   func(t *testing.T, dir, outside string) // dir is that of the image
		err     string                                  // of a publication; "" if it succeeds
		problem string                                  // of the build of that day; "" if there is none
	}{
		"image is a file": {func(t *testing.T, dir, _ string) {
			require.NoError(t, os.RemoveAll(dir))
			require.NoError(t, os.WriteFile(dir, nil, 0o644))
		}, "Image is not a directory", ""},
		"image is a link": {func(t *testing.T, dir, outside string) {
			require.NoError(t, os.RemoveAll(dir))
			require.NoError(t, os.Symlink(outside, dir))
		}, "Image is not a directory", ""},
		"image is a link to another image": {func(t *testing.T, dir, _ string) {
			require.NoError(t, os.Rename(dir, filepath.Join(filepath.Dir(dir), "Other")))
			require.NoError(t, os.Symlink("Other", dir))
		}, "Image is not a directory", ""},
		"build is a file": {func(t *testing.T, dir, _ string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, day), nil, 0o644))
		}, "", "it is not a directory"},
		"build is a link": {func(t *testing.T, dir, outside string) {
			require.NoError(t, os.Symlink(outside, filepath.Join(dir, day)))
		}, "", "it is not a directory"},
		"build is a link to another build": {func(t *testing.T, dir, _ string) {
			require.NoError(t, os.Symlink("20180501-000000", filepath.Join(dir, day)))
		}, "", "it is not a directory"},
		"build is a copy of another": {func(t *testing.T, dir, _ string) {
			require.NoError(t, os.CopyFS(filepath.Join(dir, day), os.DirFS(filepath.Join(dir, "20180501-000000"))))
		}, "", "it holds Image 20180501-000000"},
		"build is an empty directory": {inBuild(func(*testing.T, string, string) {}), "", "SHA256SUMS is missing"},
		"checksums are a pipe": {inBuild(func(t *testing.T, build, _ string) {
			require.NoError(t, syscall.Mkfifo(filepath.Join(build, "SHA256SUMS"), 0o644))
		}), "", "SHA256SUMS: not a regular file"},
		"checksums are a link": {inBuild(func(t *testing.T, build, outside string) {
			require.NoError(t, os.Symlink(filepath.Join(outside, "file"), filepath.Join(build, "SHA256SUMS")))
		}), "", "SHA256SUMS: "},
		"checksums are huge": {inBuild(func(t *testing.T, build, _ string) {
			require.NoError(t, os.WriteFile(filepath.Join(build, "SHA256SUMS"), nil, 0o644))
			require.NoError(t, os.Truncate(filepath.Join(build, "SHA256SUMS"), 1<<40))
		}), "", "SHA256SUMS: larger than"},
		"there is only the index": {inBuild(func(t *testing.T, build, _ string) {
			require.NoError(t, os.WriteFile(filepath.Join(build, "SHA256SUMS"), nil, 0o644))
			require.NoError(t, os.WriteFile(filepath.Join(build, "release.json"), []byte("{}"), 0o644))
		}), "", "cannot read release index"},
		"a build that does not exist": {func(t *testing.T, dir, _ string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "20180631-000000"), nil, 0o644))
			require.NoError(t, os.Mkdir(filepath.Join(dir, "notes"), 0o755))
		}, "", ""},
		"latest is gone":           {func(t *testing.T, dir, _ string) { require.NoError(t, os.Remove(filepath.Join(dir, "latest"))) }, "", ""},
		"latest is a file":         {replaceLink("latest", "", ""), "Image/latest is not a symbolic link; move it away and publish again", ""},
		"latest is a directory":    {replaceLink("latest", "/", ""), "Image/latest is not a symbolic link; move it away and publish again", ""},
		"latest leads out":         {replaceLink("latest", "../../outside", ""), "", ""},
		"latest is absolute":       {replaceLink("latest", "/etc", ""), "", ""},
		"latest is itself":         {replaceLink("latest", "latest", ""), "", ""},
		"latest leads to a detour": {replaceLink("latest", "../Image/20180501-000000", ""), "", ""},
		"latest dangles":           {replaceLink("latest", day, ""), "", ""},
		"latest points to a file":  {replaceLink("latest", day, "file"), "", "it is not a directory"},
		"prev is a file":           {replaceLink("prev", "", ""), "Image/prev is not a symbolic link", ""},
		"prev leads out":           {replaceLink("prev", "../../outside", ""), "", ""},
		"prev dangles":             {replaceLink("prev", day, ""), "", ""},
		"the record is damaged": {func(t *testing.T, dir, _ string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "lifecycle.json"), []byte("{"), 0o644))
		}, "Image/lifecycle.json, which says what was withdrawn: unexpected EOF; mend it", ""},
		"the record is a pipe": {func(t *testing.T, dir, _ string) {
			require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "lifecycle.json"), 0o644))
		}, "lifecycle.json, which says what was withdrawn: not a regular file", ""},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			outside := filepath.Join(top, "outside")
			require.NoError(t, os.Mkdir(outside, 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(outside, "file"), []byte("precious"), 0o644))
			target := &directory.Target{Dir: filepath.Join(top, "dist")}
			for _, day := range []string{"20180401", "20180501"} {
				publishOne(t, target, day)
			}
			test.spoil(t, filepath.Join(target.Dir, "Image"), outside)
			before, beforeOutside := tree(t, top), tree(t, outside)

			_, err := publish.Retire(t.Context(), target, "Image", time.Now())
			if test.err == "" {
				require.NoError(t, err)
			}
			assert.True(t, maps.Equal(before, tree(t, top)), "retiring changed something")
			p, err := publish.Publish(t.Context(), target, release(t, "20180701"))
			if test.err != "" {
				assert.ErrorContains(t, err, test.err)
				assert.True(t, maps.Equal(before, tree(t, top)), "publishing changed something")
				return
			}
			require.NoError(t, err)
			assert.True(t, maps.Equal(beforeOutside, tree(t, outside)))
			have, err := target.List(t.Context(), "Image")
			require.NoError(t, err)
			var complete []publish.Entry
			var problem string
			for _, e := range have {
				if e.Problem == "" {
					complete = append(complete, e)
				} else {
					assert.Equal(t, day, e.Build.String())
					assert.Empty(t, e.Labels)
					problem = e.Problem
				}
			}
			assert.Equal(t, "20180401-000000 20180501-000000:prev 20180701-000000:latest", describe(complete))
			assert.Contains(t, problem, test.problem)
			assert.Equal(t, test.problem != "", problem != "")
			assert.Len(t, p.Problems, min(1, len(problem)))
		})
	}
}

// replaceLink replaces a label by a link, a file (to "") or a directory (to
// "/"). file, if not "", is what the link points to.
func replaceLink(label, to, file string) func(t *testing.T, dir, outside string) {
	return func(t *testing.T, dir, _ string) {
		path := filepath.Join(dir, label)
		require.NoError(t, os.Remove(path))
		switch to {
		case "":
			require.NoError(t, os.WriteFile(path, []byte("file"), 0o644))
		case "/":
			require.NoError(t, os.Mkdir(path, 0o755))
		default:
			require.NoError(t, os.Symlink(to, path))
		}
		if file != "" {
			require.NoError(t, os.WriteFile(filepath.Join(dir, to), nil, 0o644))
		}
	}
}

func TestDirectoryIsAFile(t *testing.T) {
	target := &directory.Target{Dir: filepath.Join(t.TempDir(), "file")}
	require.NoError(t, os.WriteFile(target.Dir, nil, 0o644))
	_, err := target.List(t.Context(), "Image")
	require.ErrorContains(t, err, "file: not a directory")
	_, err = publish.Publish(t.Context(), target, release(t, "20180701"))
	require.ErrorContains(t, err, "file: not a directory")
}

func TestImageNamesAreChecked(t *testing.T) {
	target := &directory.Target{Dir: t.TempDir()}
	for _, image := range []string{"", ".", "..", "../Image", "/Image", "Image/", ".work", "a/b", "Image\x00", "-n"} {
		_, err := target.List(t.Context(), image)
		assert.ErrorContains(t, err, "image name", "%q", image)
		_, err = target.Lock(t.Context(), image)
		assert.ErrorContains(t, err, "image name", "%q", image)
		err = target.Apply(t.Context(), publish.Step{Op: publish.Remove, Entry: publish.Entry{Image: image, Build: day(t, "20180401")}})
		assert.ErrorContains(t, err, "image name", "%q", image)
	}
	assert.Len(t, tree(t, target.Dir), 1)
}

func TestApplyRefuses(t *testing.T) {
	target := &directory.Target{Dir: t.TempDir()}
	publishOne(t, target, "20180401")
	there := publish.Entry{Image: "Image", Build: day(t, "20180401")}
	before := tree(t, target.Dir)
	for _, test := range []struct {
		step publish.Step
		want string
	}{
		{publish.Step{}, "no build"},
		{publish.Step{Op: publish.Push, Entry: there}, `no step "push"`},
		{publish.Step{Op: publish.Assign, Entry: there}, `label "" is unknown`},
		{publish.Step{Op: publish.Assign, Label: "../latest", Entry: there}, `label "../latest" is unknown`},
		{publish.Step{Op: publish.Assign, Label: publish.Latest, Entry: publish.Entry{Image: "Image"}}, "no build"},
		{publish.Step{Op: publish.Assign, Label: publish.Latest, Entry: publish.Entry{Image: "Image", Build: day(t, "20180501")}}, "is not complete"},
		{publish.Step{Op: publish.Remove, Entry: publish.Entry{Image: "Image"}}, "no build"},
		{publish.Step{Op: publish.Remove, Entry: there}, "20180401-000000 is latest"},
	} {
		assert.ErrorContains(t, target.Apply(t.Context(), test.step), test.want, "%+v", test.step)
	}
	assert.Equal(t, before, tree(t, target.Dir))
}

// What a killed run left is removed with what it is, not what it points to.
func TestLeftoversAreSwept(t *testing.T) {
	top := t.TempDir()
	outside := filepath.Join(top, "outside")
	require.NoError(t, os.Mkdir(outside, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(outside, "file"), nil, 0o644))
	target := &directory.Target{Dir: filepath.Join(top, "dist")}
	publishOne(t, target, "20180401")
	image := filepath.Join(target.Dir, "Image")
	require.NoError(t, os.Symlink(outside, filepath.Join(image, ".publish-20180301-000000")))
	require.NoError(t, os.MkdirAll(filepath.Join(image, ".publish-latest", "x"), 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(image, ".publish-20180501-000000", "x"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(image, "index.html"), nil, 0o644)) // not ours

	publishOne(t, target, "20180501")
	assert.Equal(t, []string{"20180401-000000", "20180501-000000", "index.html", "latest", "prev"}, names(t, image))
	assert.Equal(t, []string{"file"}, names(t, outside))
}
