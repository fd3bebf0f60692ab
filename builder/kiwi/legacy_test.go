package kiwi

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
)

// legacyHost is a machine with kiwi 7, which does what its manual page says.
type legacyHost struct {
	keys string // in rpm's database
	room string // free disk in bytes, and memory in KiB; if empty, enough
	fail error  // of the tool
	ran  [][]string
}

func (h *legacyHost) Run(_ context.Context, c builder.Command) error {
	say := func(text string) error {
		_, err := io.WriteString(c.Stdout, text)
		return err
	}
	switch {
	case c.Args[0] == "sh": // of the work directory
		return say(cmp.Or(h.room, "8000000000 8000000") + "\n")
	case c.Args[0] == "uname":
		return say("x86_64\n")
	case c.Args[0] == program:
		return errors.New("not found")
	case c.Args[0] == "rpm":
		return say(h.keys)
	case c.Args[0] == legacyProgram && c.Args[1] == "--version":
		return say("kiwi v7.04.50\n\n")
	case c.Args[0] == legacyProgram:
		h.ran = append(h.ran, c.Args)
		return h.fail
	}
	return nil
}

func (h *legacyHost) Upload(context.Context, string, fs.FS) error { return nil }

func (h *legacyHost) Download(_ context.Context, path string, w io.Writer) error {
	text, ok := map[string]string{
		"sles.x86_64-20261122.031507.0.qcow2":    "disk",
		"sles.x86_64-20261122.031507.0.packages": "zypper|(none)|1.6.333|28.1|x86_64|obs://build.suse.de/x\ngpg-pubkey|(none)|307e3d54|5aaa90a5|(none)|(none)\n",
		"sles.x86_64-20261122.031507.0.verified": "S.5....T.  c /etc/sudoers\n",
	}[filepath.Base(path)]
	if !ok {
		return fs.ErrNotExist
	}
	_, err := io.WriteString(w, text)
	return err
}

func legacySpec(t *testing.T) (Config, builder.Spec, string) {
	t.Helper()
	description := t.TempDir()
	text := strings.Replace(strings.Replace(smallDescription, `image="oem"`, `image="vmx"`, 1), ">apt<", ">zypper<", 1)
	require.NoError(t, os.WriteFile(filepath.Join(description, "config.xml"), []byte(text), 0o644))
	spec := debianSpec(t)
	spec.Name = "sles"
	var fingerprint string
	spec.TrustedKeys[0].File, fingerprint = keyFile(t)
	return Config{Description: description, Profiles: []string{"Disk"}}, spec, strings.ToLower(fingerprint[32:])
}

func TestLegacy(t *testing.T) {
	c, spec, key := legacySpec(t)
	b, err := New(c)
	require.NoError(t, err)
	host := &legacyHost{keys: key + "\n"}
	result, err := b.Build(t.Context(), host, spec)
	require.NoError(t, err)
	require.NoError(t, result.Validate(spec))
	const w = "/var/tmp/kiwi-test/"
	require.Equal(t, [][]string{
		{"kiwi", "--prepare", w + "appliance", "--root", w + "root", "--logfile", "terminal", "--nocolor", "--add-profile", "Disk"},
		{"kiwi", "--create", w + "root", "--destdir", w + "result", "--logfile", "terminal", "--nocolor", "--add-profile", "Disk"},
	}, host.ran)
	require.Equal(t, []builder.Package{{Name: "zypper", Version: "1.6.333-28.1", Arch: "x86_64"}}, result.Packages)
	require.Equal(t, "kiwi", result.Tool)
	require.Equal(t, "7.04.50", result.ToolVersion)

	t.Run("a key of the host that is not trusted", func(t *testing.T) {
		spec.OutputDir = t.TempDir()
		host := &legacyHost{keys: key + "\n307e3d54\n"}
		_, err := b.Build(t.Context(), host, spec)
		require.ErrorContains(t, err, `the key "307e3d54" of the host's rpm database`)
		require.Empty(t, host.ran)
	})
	for _, bad := range []string{"", "kiwi v8.1", "KIWI (next generation) version 9.24.56"} {
		_, err := parseLegacyVersion(bad)
		require.Error(t, err, bad)
	}
}

// What has no room is not begun.
func TestNoRoom(t *testing.T) {
	c, spec, key := legacySpec(t)
	b, err := New(c)
	require.NoError(t, err)
	host := &legacyHost{keys: key + "\n", room: "1000000000 8000000"}
	_, err = b.Build(t.Context(), host, spec)
	require.ErrorContains(t, err, "of free disk in "+spec.WorkDir+": a build needs 3072 MiB")
	require.Empty(t, host.ran)
}

// The error of a tool names the file of its log.
func TestLogFile(t *testing.T) {
	c, spec, key := legacySpec(t)
	b, err := New(c)
	require.NoError(t, err)
	log, err := os.Create(filepath.Join(t.TempDir(), "build.log"))
	require.NoError(t, err)
	defer log.Close()
	spec.Log = log
	_, err = b.Build(t.Context(), &legacyHost{keys: key + "\n", fail: &builder.ExitError{Program: "kiwi", Status: 1}}, spec)
	var failed *builder.ToolError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, log.Name(), failed.LogFile)
}
