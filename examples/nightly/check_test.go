package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
)

const checked = `images:
  - name: Standard_Debian_12
    os: {distribution: debian, version: "12", codename: bookworm}
    disk: 4GiB
    builder: {dib: {elements: [mine], element_paths: [elements]}}
    mirrors: {debian: "http://mirror.example.org/debian"}
    trusted_keys: [{file: keys.asc, fingerprints: [FINGERPRINT]}]
`

// TestCheck says what is wrong with a definition and what it refers to, with
// its place, and leaves everything as it was.
func TestCheck(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	key, _, err := imagefactory.OpenKey(filepath.Join(dir, "other.key"))
	require.NoError(t, err)
	var public bytes.Buffer
	require.NoError(t, key.WritePublic(&public))
	write("keys.asc", public.String())
	write("nokeys.asc", "nothing")
	write("elements/mine/install.d/10-x", "#!/bin/sh\n")
	write("dist/imagefactory.pub", public.String())
	require.NoError(t, os.Mkdir(filepath.Join(dir, "empty"), 0o755))
	good := strings.Replace(checked, "FINGERPRINT", string(key.Fingerprint()), 1)

	for name, test := range map[string]struct {
		old, by string
		args    []string
		want    []string // none: nothing is wrong
	}{
		"good":              {},
		"good for releases": {args: []string{"-out", "dist", "-key", "other.key"}},
		"new directory":     {args: []string{"-out", "new/dist", "-key", "new/signing.key"}},
		"mistake":           {old: "4GiB", by: "4G", want: []string{`f.yaml:4:11: bad size "4G": unknown unit "G"`}},
		"two mistakes":      {old: "4GiB", by: "4G\n    usr: x", want: []string{"f.yaml:4:11: ", `f.yaml:5:5: unknown field "usr"; the nearest known is user`}},
		"own name":          {old: "Standard_", by: "my_", want: []string{`f.yaml:2:11: name: image name "my_Debian_12" has no class`}},
		"any name":          {old: "Standard_", by: "my_", args: []string{"-any-class"}},
		"name with suffix":  {old: "Standard_Debian_12", by: "my_Debian_12_prev", args: []string{"-any-class"}, want: []string{`f.yaml:2:11: name: bad image name`}},
		"unknown driver":    {old: "{dib:", by: "{dbi:", want: []string{`builder: unknown driver "dbi"; the nearest known is dib`}},
		"driver's key":      {old: "element_paths", by: "element_path", want: []string{`f.yaml:5:39: image Standard_Debian_12: builder: unknown field "element_path"; the nearest known is element_paths`}},
		"driver's value":    {old: "[mine]", by: "[mine], environment: {DIB_RELEASE: sid}", want: []string{"f.yaml:5:", "environment: DIB_RELEASE is the driver's own"}},
		"no element":        {old: "[mine]", by: "[min]", want: []string{`f.yaml:5:`, `image Standard_Debian_12: elements: unknown element "min"; the nearest known is mine`}},
		"no elements":       {old: "[elements]", by: "[more]", want: []string{"f.yaml:5:", "element_paths: cannot read the elements"}},
		"unknown target":    {old: "    mirrors", by: "    publish: [{tape: {}}]\n    mirrors", want: []string{`f.yaml:6:22: image Standard_Debian_12: publish: unknown driver "tape"; known are directory, glance, ims, obs`}},
		"cloud":             {old: "    mirrors", by: "    publish: [{glance: {cloud: otc, visibility: public}}]\n    mirrors"},
		"bucket":            {old: "    mirrors", by: "    publish: [{obs: {bucket: images, prefix: linux, cloud: otc, public: true}}]\n    mirrors"},
		"bucket over http":  {old: "    mirrors", by: "    publish: [{obs: {bucket: images, endpoint: \"http://obs.example.org\"}}]\n    mirrors", want: []string{`f.yaml:6:`, `the endpoint is http, over which anybody reads along: use https, or say allow_http: true`}},
		"ims":               {old: "    mirrors", by: "    publish: [{ims: {cloud: otc, bucket: {bucket: imports}, members: [x]}}]\n    mirrors"},
		"ims, no bucket":    {old: "    mirrors", by: "    publish: [{ims: {cloud: otc}}]\n    mirrors", want: []string{`f.yaml:6:`, `no bucket`}},
		"no cloud":          {old: "    mirrors", by: "    publish: [{glance: {clout: otc}}]\n    mirrors", want: []string{`f.yaml:6:`, `unknown field "clout"; the nearest known is cloud`}},
		"unknown profile":   {old: "    mirrors", by: "    test: {profile: oct}\n    mirrors", want: []string{`f.yaml:6:21: image Standard_Debian_12: test: unknown profile "oct"; the nearest known is otc`}},
		"no mirror":         {old: "\"http://mirror.example.org/debian\"", by: "host, ubuntu: host", args: []string{"-mirror", "http://mirror.example.org/debian"}, want: []string{"f.yaml:6:", "mirrors: this machine has no mirror named ubuntu"}},
		"bad mirror":        {old: "\"http://mirror.example.org/debian\"", by: "host", args: []string{"-mirror", "http://u:hunter2@mirror.example.org/"}, want: []string{"f.yaml:6:23: image Standard_Debian_12: mirrors: debian: the URL has a user or password"}},
		"no key file":       {old: "keys.asc", by: "missing.asc", want: []string{"f.yaml:7:", "missing.asc: no such file or directory"}},
		"no keys":           {old: "keys.asc", by: "nokeys.asc", want: []string{"f.yaml:7:20: image Standard_Debian_12: trusted_keys: ", "nokeys.asc: cannot read keys"}},
		"key directory":     {old: "keys.asc", by: "elements", want: []string{"f.yaml:7:20: ", "elements: not a regular file"}},
		"another key":       {old: string(key.Fingerprint()), by: strings.Repeat("AB", 20), want: []string{"f.yaml:7:20: ", "keys.asc: has no key " + strings.Repeat("AB", 20)}},
		"signing key":       {args: []string{"-key", "nokeys.asc"}, want: []string{"cannot load the secret key nokeys.asc"}},
		"key in the way":    {args: []string{"-key", "keys.asc/signing.key"}, want: []string{"keys.asc"}},
		"lost signing key":  {args: []string{"-out", "dist", "-key", "lost.key"}, want: []string{"the releases in dist are signed with the key in dist/imagefactory.pub, whose secret part is missing"}},
		"file in the way":   {args: []string{"-out", "f.yaml/dist"}, want: []string{"f.yaml"}},
		"cloud, none":       {old: "    mirrors", by: "    publish: [{glance: {cloud: nowhere}}]\n    mirrors", args: []string{"-out", "new/dist", "-key", "new/signing.key"}, want: []string{"image Standard_Debian_12: target glance cannot be listed: "}},
		"no room":           {old: "4GiB", by: "900000GiB", args: []string{"-out", "new/dist", "-key", "new/signing.key"}, want: []string{"new/dist has room for ", "and 1 builds at once take about 450000GiB"}},
		"-out is a file":    {args: []string{"-out", "f.yaml"}, want: []string{"f.yaml is not a directory"}},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "no element" {
				needs.Tools(t, "disk-image-create") // or nobody knows what comes with it
			}
			write("f.yaml", strings.Replace(good, test.old, test.by, 1))
			t.Chdir(dir)
			before := tree(t, dir)
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), append([]string{"-check", "-config", "f.yaml"}, test.args...), &stdout, &stderr)
			require.Equal(t, before, tree(t, dir), "nothing is written")
			require.NotContains(t, stderr.String(), "hunter2")
			if test.want == nil {
				require.Equal(t, 0, code, stderr.String())
				want := ""
				if slices.Contains(test.args, "-out") {
					for _, stage := range imagefactory.Stages() {
						want += `would do Standard_Debian_12/\d{8}-\d{6}/` + string(stage) + "\n"
					}
				}
				require.Regexp(t, "^"+want+"f.yaml: nothing is wrong with 1 images\n$", stdout.String())
				return
			}
			require.Equal(t, 2, code)
			require.Empty(t, stdout.String())
			for _, want := range test.want {
				require.Contains(t, stderr.String(), want)
			}
		})
	}
}

// tree is what lies below a directory.
func tree(t *testing.T, dir string) map[string]string {
	files := make(map[string]string)
	require.NoError(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		files[name] = info.Mode().String() + info.ModTime().String()
		return err
	}))
	return files
}
