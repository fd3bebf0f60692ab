package dib

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/internal/isolate"
	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/internal/pkgkeys"
)

func TestNewRefuses(t *testing.T) {
	for name, c := range map[string]Config{
		"no element":         {},
		"element with path":  {Elements: []string{"../x"}},
		"element as option":  {Elements: []string{"-x"}},
		"unchecked packages": {Elements: []string{"vm"}, Environment: map[string]string{"DIB_DEBOOTSTRAP_EXTRA_ARGS": "--no-check-gpg"}},
		"other sources":      {Elements: []string{"vm"}, Environment: map[string]string{"DIB_APT_SOURCES_CONF": "x"}},
		"other keys":         {Elements: []string{"vm"}, Environment: map[string]string{"DIB_ADD_APT_KEYS": "/x"}},
		"other programs":     {Elements: []string{"vm"}, Environment: map[string]string{"PATH": "/x"}},
		"driver's own":       {Elements: []string{"vm"}, Environment: map[string]string{"TMP_DIR": "/x"}},
		"for a shell":        {Elements: []string{"vm"}, Environment: map[string]string{"DIB_X": "$(id)"}},
		"second command":     {Elements: []string{"vm"}, Environment: map[string]string{"http_proxy": "http://p; id"}},
		"password":           {Elements: []string{"vm"}, Environment: map[string]string{"http_proxy": "http://user:hunter2@proxy:3128"}},
		"password no scheme": {Elements: []string{"vm"}, Environment: map[string]string{"https_proxy": "user:hunter2@proxy:3128"}},
		"comment":            {Elements: []string{"vm"}, Environment: map[string]string{"DIB_X": "a # b"}},
		"components":         {Elements: []string{"vm"}, Environment: map[string]string{"DIB_DEBIAN_COMPONENTS": "main --no-check-gpg"}},
		"apt's settings":     {Elements: []string{"vm"}, Environment: map[string]string{"DIB_APT_CONF": "/x"}},
		"apt's environment":  {Elements: []string{"vm"}, Environment: map[string]string{"APT_CONFIG": "/x"}},
		"perl":               {Elements: []string{"vm"}, Environment: map[string]string{"PERL5OPT": "-Mx"}},
		"temporary":          {Elements: []string{"vm"}, Environment: map[string]string{"TMPDIR": "/x"}},
		"unsigned packages":  {Elements: []string{"vm", "openstack-ci-mirrors"}},
		"another shell":      {Elements: []string{"vm"}, Environment: map[string]string{"BASH_ENV": "/x"}},
		"bad name":           {Elements: []string{"vm"}, Environment: map[string]string{"a b": "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(c)
			require.Error(t, err)
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
	_, err := New(Config{Elements: []string{"debian-minimal", "vm"}, Environment: map[string]string{"DIB_GRUB_TIMEOUT": "3", "http_proxy": "http://proxy:3128/"}})
	require.NoError(t, err)
}

func TestInputsDigest(t *testing.T) {
	dir := t.TempDir()
	hook := filepath.Join(dir, "elements", "x", "install.d", "10-x")
	require.NoError(t, os.MkdirAll(filepath.Dir(hook), 0o755))
	require.NoError(t, os.WriteFile(hook, []byte("#!/bin/sh\n"), 0o755))
	e, err := openpgp.NewEntity("test", "", "test@example.org", nil)
	require.NoError(t, err)
	var key bytes.Buffer
	require.NoError(t, e.Serialize(&key))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "keys.gpg"), key.Bytes(), 0o644))
	b, err := New(Config{Elements: []string{"x"}, ElementPaths: []string{"elements"}})
	require.NoError(t, err)
	digest := func() string {
		d, err := b.(builder.Digester).InputsDigest(builder.Spec{Dir: dir, TrustedKeys: []builder.TrustedKey{{File: "keys.gpg"}}})
		require.NoError(t, err)
		return d
	}
	first := digest()
	require.Equal(t, first, digest())
	require.NoError(t, os.WriteFile(hook, []byte("#!/bin/sh\ntrue\n"), 0o755))
	second := digest()
	require.NotEqual(t, first, second)
	require.NoError(t, os.Chmod(hook, 0o644))
	require.NotEqual(t, second, digest())
}

func TestParseLine(t *testing.T) {
	text, phase := parseLine("2026-11-22 20:43:21.173 | dib-run-parts Running /x/hooks/root.d/08-debootstrap")
	require.Equal(t, "dib-run-parts Running /x/hooks/root.d/08-debootstrap", text)
	require.Equal(t, "root.d/08-debootstrap", phase)
	text, phase = parseLine("more")
	require.Equal(t, "more", text)
	require.Empty(t, phase)
}

func TestParseManifest(t *testing.T) {
	got, err := parseManifest([]byte(`{"packages": [
{"package": "zlib1g:amd64","arch": "amd64","version": "1:1.2","status": "ii "},
{"package": "gone","arch": "all","version": "1","status": "rc "},
{"package": "adduser","arch": "all","version": "3.134","status": "ii "}
]}`))
	require.NoError(t, err)
	require.Equal(t, []builder.Package{{Name: "adduser", Version: "3.134", Arch: "all"}, {Name: "zlib1g", Version: "1:1.2", Arch: "amd64"}}, got)
	for _, bad := range []string{"", "{}", `{"packages":[{"package":"a b","version":"1","status":"ii "}]}`} {
		_, err := parseManifest([]byte(bad))
		require.Error(t, err, bad)
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"packages": [{"package": "a","arch": "all","version": "1","status": "ii "}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		packages, err := parseManifest(data)
		if err == nil && len(packages) == 0 {
			t.Fatal("no packages and no error")
		}
		for _, p := range packages {
			if strings.ContainsAny(p.Name+p.Version+p.Arch, " \n") {
				t.Fatalf("%q would break a .packages line", p)
			}
		}
	})
}

func TestKeyringHoldsOnlyPinnedKeys(t *testing.T) {
	dir := t.TempDir()
	var keys bytes.Buffer
	var fingerprints []string
	for range 3 {
		e, err := openpgp.NewEntity("test", "", "test@example.org", nil)
		require.NoError(t, err)
		require.NoError(t, e.Serialize(&keys))
		fingerprints = append(fingerprints, fmt.Sprintf("%X", e.PrimaryKey.Fingerprint))
	}
	file := filepath.Join(dir, "keys.gpg")
	require.NoError(t, os.WriteFile(file, keys.Bytes(), 0o644))
	all, err := pkgkeys.Read(file)
	require.NoError(t, err)
	require.Len(t, all, 3)

	pin := fingerprints[1]
	r := &run{config: dir, spec: builder.Spec{TrustedKeys: []builder.TrustedKey{{File: file, Fingerprints: []string{pin}}}}}
	trusted, err := pkgkeys.Trusted(r.spec)
	require.NoError(t, err)
	require.NoError(t, pkgkeys.Write(filepath.Join(dir, "keyring.gpg"), trusted...))
	got, err := pkgkeys.Read(filepath.Join(dir, "keyring.gpg"))
	require.NoError(t, err)
	require.Len(t, got, 1)
	require.Equal(t, pin, fmt.Sprintf("%X", got[0].PrimaryKey.Fingerprint))

	r.spec.TrustedKeys[0].Fingerprints = []string{strings.Repeat("A", 40)}
	_, err = pkgkeys.Trusted(r.spec)
	require.ErrorContains(t, err, "has no key AAAA")
}

// A repository that is not the distribution's own brings its key along.
func TestRepositoriesWithAKeyOfTheirOwn(t *testing.T) {
	var keys openpgp.EntityList
	for range 2 {
		e, err := openpgp.NewEntity("test", "", "test@example.org", nil)
		require.NoError(t, err)
		keys = append(keys, e)
	}
	r := &run{config: t.TempDir(), spec: builder.Spec{Repositories: []builder.Repository{
		{Name: "debian", URL: "http://mirror.example/debian", Suites: []string{"stretch"}},
		{Name: "otc", URL: "http://mirror.example/obs", Suites: []string{"Debian_9.0/"}, Key: pkgkeys.Fingerprint(keys[1])},
	}}}
	require.NoError(t, r.writeRepositories(keys))
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(r.config, "repositories", name))
		require.NoError(t, err)
		return string(data)
	}
	require.Contains(t, read("debian.sources"), "Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n")
	require.Equal(t, "Types: deb\nURIs: http://mirror.example/obs\nSuites: Debian_9.0/\nSigned-By: /usr/share/keyrings/imagefactory-otc.gpg\n", read("otc.sources"))
	got, err := pkgkeys.Read(filepath.Join(r.config, "repositories", "imagefactory-otc.gpg"))
	require.NoError(t, err)
	require.Len(t, got, 1)
	require.Equal(t, r.spec.Repositories[1].Key, pkgkeys.Fingerprint(got[0]))
	require.ErrorContains(t, r.writeRepositories(keys[:1]), "which is none of the trusted keys")
}

// What follows runs the real tool against this machine's mirror.

func realSpec(t *testing.T) (Config, builder.Spec) {
	needs.Tools(t, "disk-image-create", "debootstrap", "qemu-img")
	needs.Root(t)
	mirrors, err := builder.AptMirrors(os.DirFS("/"))
	if err != nil {
		needs.Missing(t, err.Error())
	}
	work, err := os.MkdirTemp("", "dib-test-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.Remove(work) })
	spec := builder.Spec{
		Name: "test", Distribution: "debian", Release: "bookworm", Arch: "amd64", DiskBytes: 4 << 30, User: "linux",
		Mirrors:     mirrors,
		TrustedKeys: []builder.TrustedKey{{File: "/usr/share/keyrings/debian-archive-keyring.gpg"}},
		WorkDir:     filepath.Join(work, "build"), OutputDir: t.TempDir(),
	}
	return Config{Elements: []string{"debian-minimal", "vm", "block-device-mbr"}}, spec
}

// nothingLeft checks that a build has left nothing on this machine.
func nothingLeft(t *testing.T, spec builder.Spec) {
	t.Helper()
	require.NoDirExists(t, spec.WorkDir)
	require.NoFileExists(t, isolate.Record(spec.WorkDir))
	mounts, err := os.ReadFile("/proc/self/mounts")
	require.NoError(t, err)
	require.NotContains(t, string(mounts), spec.WorkDir)
	loops, err := exec.Command("losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE").Output()
	require.NoError(t, err)
	require.NotContains(t, string(loops), spec.WorkDir)
	links, _ := filepath.Glob("/dev/mapper/loop*")
	for _, link := range links {
		_, err := os.Stat(link)
		require.NoError(t, err, "a link to a partition that is gone")
	}
}

func TestBuildFails(t *testing.T) {
	foreign := filepath.Join(t.TempDir(), "foreign.gpg")
	e, err := openpgp.NewEntity("foreign", "", "foreign@example.org", nil)
	require.NoError(t, err)
	var key bytes.Buffer
	require.NoError(t, e.Serialize(&key))
	require.NoError(t, os.WriteFile(foreign, key.Bytes(), 0o644))

	for name, test := range map[string]struct {
		change func(*Config, *builder.Spec)
		want   string
	}{
		"foreign keyring": {
			func(_ *Config, s *builder.Spec) { s.TrustedKeys = []builder.TrustedKey{{File: foreign}} },
			"Release signed by unknown key",
		},
		"missing element": {
			func(c *Config, _ *builder.Spec) { c.Elements = append(c.Elements, "no-such-element") },
			"Element 'no-such-element' not found",
		},
		"unreachable mirror": {
			func(_ *Config, s *builder.Spec) {
				s.Mirrors = map[string]string{"debian": "http://127.0.0.1:9/debian"}
			},
			"Failed getting release file",
		},
		"unreachable security mirror": {
			func(_ *Config, s *builder.Spec) {
				s.Mirrors = maps.Clone(s.Mirrors)
				s.Mirrors["debian-security"] = "http://127.0.0.1:9/debian-security"
			},
			"Failed to fetch http://127.0.0.1:9/debian-security",
		},
		"security mirror signed by an untrusted key": {
			func(_ *Config, s *builder.Spec) {
				s.TrustedKeys[0].Fingerprints = []string{"B8B80B5B623EAB6AD8775C45B7C5D7D6350947F8", "4D64FEC119C2029067D6E791F8D2585B8783D481"}
			},
			"is not signed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			config, spec := realSpec(t)
			test.change(&config, &spec)
			var log bytes.Buffer
			spec.Log = &log
			b, err := New(config)
			require.NoError(t, err)
			_, err = b.Build(t.Context(), builder.Local{}, spec)
			var failed *builder.ToolError
			require.ErrorAs(t, err, &failed)
			require.Contains(t, log.String(), test.want)
			require.Contains(t, err.Error(), test.want)
			nothingLeft(t, spec)
		})
	}
}

func TestCancelledBuildLeavesNothing(t *testing.T) {
	config, spec := realSpec(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	spec.Log = &trigger{text: "Running /tmp/in_target.d/pre-install.d/", do: cancel} // the chroot is mounted
	b, err := New(config)
	require.NoError(t, err)
	_, err = b.Build(ctx, builder.Local{}, spec)
	require.ErrorIs(t, err, context.Canceled)
	nothingLeft(t, spec)
}

// TestKilledBuild kills the tool while everything is mounted.
func TestKilledBuild(t *testing.T) {
	config, spec := realSpec(t)
	spec.Log = &trigger{text: "Running /tmp/in_target.d/pre-install.d/", do: func() {
		record, err := os.ReadFile(isolate.Record(spec.WorkDir))
		require.NoError(t, err)
		leader, err := isolate.Leader(record)
		require.NoError(t, err)
		require.NoError(t, syscall.Kill(leader, syscall.SIGKILL))
	}}
	b, err := New(config)
	require.NoError(t, err)
	_, err = b.Build(t.Context(), builder.Local{}, spec)
	require.Error(t, err)
	require.NotContains(t, err.Error(), "clean up")
	nothingLeft(t, spec)
}

// trigger calls do when text has been written.
type trigger struct {
	text string
	do   func()
	once sync.Once
}

func (w *trigger) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.text) {
		w.once.Do(w.do)
	}
	return len(p), nil
}
