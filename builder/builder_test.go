package builder

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
)

func good() Spec {
	return Spec{
		Name: "Standard_Debian_12", Distribution: "debian", Release: "bookworm", Arch: "amd64", DiskBytes: 4 << 30, User: "linux",
		NTPServers: []string{"ntp01.example.org", "2001:db8::1"}, Mirrors: map[string]string{"debian": "http://mirror.example.org/debian"},
		TrustedKeys:  []TrustedKey{{File: "keys.gpg", Fingerprints: []string{"B8B80B5B623EAB6AD8775C45B7C5D7D6350947F8"}}},
		Repositories: []Repository{{Name: "debian", URL: "https://mirror.example.org/debian", Suites: []string{"bookworm"}, Components: []string{"main"}}},
		WorkDir:      "/var/tmp/build", OutputDir: "out",
	}
}

func TestValidate(t *testing.T) {
	s := good()
	require.NoError(t, s.Validate())
	for name, change := range map[string]func(*Spec){
		"name with a path":      func(s *Spec) { s.Name = "../x" },
		"name as option":        func(s *Spec) { s.Name = "-x" },
		"release for a shell":   func(s *Spec) { s.Release = "bookworm;id" },
		"no disk":               func(s *Spec) { s.DiskBytes = 0 },
		"user for sudoers":      func(s *Spec) { s.User = "a ALL" },
		"time server":           func(s *Spec) { s.NTPServers = []string{"a\nb"} },
		"mirror for a shell":    func(s *Spec) { s.Mirrors["debian"] = "http://x/$(id)" },
		"mirror with space":     func(s *Spec) { s.Mirrors["debian"] = "http://x/ y" },
		"mirror without scheme": func(s *Spec) { s.Mirrors["debian"] = "mirror.example.org" },
		"no keys":               func(s *Spec) { s.TrustedKeys = nil },
		"short fingerprint":     func(s *Spec) { s.TrustedKeys[0].Fingerprints = []string{"350947F8"} },
		"repository's name":     func(s *Spec) { s.Repositories[0].Name = "a/b" },
		"password in a mirror":  func(s *Spec) { s.Mirrors["debian"] = "http://u:secret@mirror.example.org/debian" },
		"root as login user":    func(s *Spec) { s.User = "root" },
		"repository's key":      func(s *Spec) { s.Repositories[0].Key = "CC6D4077" },
		"suite with newline":    func(s *Spec) { s.Repositories[0].Suites = []string{"a\nTrusted: yes"} },
		"work in /":             func(s *Spec) { s.WorkDir = "/" },
		"relative work":         func(s *Spec) { s.WorkDir = "build" },
		"work with a space":     func(s *Spec) { s.WorkDir = "/a b" },
		"no output":             func(s *Spec) { s.OutputDir = "" },
	} {
		t.Run(name, func(t *testing.T) {
			s := good()
			change(&s)
			require.Error(t, s.Validate())
		})
	}
}

// No error shows a password, whatever else is wrong with its URL.
func TestValidateShowsNoPassword(t *testing.T) {
	for _, url := range []string{
		"http://u:hunter2@mirror.example.org/debian", "http://u:hunter2@mirror.example.org:port/", "http://u:hunter2@ mirror/", "http://u:hunter2@[::1/", "http://u:hunter2",
		"http://u:hunter2/", "ftp://u:hunter2@x/", "u:hunter2@x", "//u:hunter2@x/", "http://u:hun/ter2hunter2@x/", "http:/u:hunter2@x", "http://x/?token=hunter2", "http://u:hunter2%zz@x/",
		"http://u:\x00hunter2@x", "http://hunter2@x/", "HTTP://u:hunter2@x/", " http://u:hunter2@x/",
	} {
		for name, change := range map[string]func(*Spec){
			"mirror": func(s *Spec) { s.Mirrors["debian"] = url }, "repository": func(s *Spec) { s.Repositories[0].URL = url },
			"suite": func(s *Spec) { s.Repositories[0].Suites = []string{url} }, "time server": func(s *Spec) { s.NTPServers = []string{url} },
		} {
			s := good()
			change(&s)
			err := s.Validate()
			require.Error(t, err, url)
			require.NotContains(t, err.Error(), "hunter2", name)
		}
	}
	s := good()
	s.Mirrors["debian"] = "ftp://mirror.example.org:21/a"
	require.EqualError(t, s.Validate(), `mirrors: debian: bad value "ftp://mirror.example.org:21/a": want a URL with http, https or file`)
}

const debian = "ID=debian\nVERSION_CODENAME=\"bookworm\"\n"

func TestAptMirrors(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		want  map[string]string // nil: an error
	}{
		"one line": {
			map[string]string{"etc/os-release": debian, "etc/apt/sources.list": "# deb http://no/ bookworm main\ndeb [arch=amd64 signed-by=/k] http://a/debian/ bookworm main # note\n" +
				"deb-src http://src/ bookworm main\ndeb http://b/security bookworm-security main\n"},
			map[string]string{"debian": "http://a/debian", "debian-security": "http://b/security"},
		},
		"deb822": {
			map[string]string{"usr/lib/os-release": debian, "etc/apt/sources.list.d/debian.sources": "Types: deb\n# why\nURIs: http://a/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\n" +
				"Types: deb deb-src\nURIs:\n http://b/security\nSuites: bookworm-security\n\nEnabled: no\nTypes: deb\nURIs: http://c\nSuites: bookworm-backports\n"},
			map[string]string{"debian": "http://a/debian", "debian-security": "http://b/security"},
		},
		"other vendor first": {
			map[string]string{"etc/os-release": debian, "etc/apt/sources.list.d/a.list": "deb http://vendor/ nodistro main\n", "etc/apt/sources.list.d/b.list": "deb http://a/debian bookworm main\n"},
			map[string]string{"debian": "http://a/debian"},
		},
		"list of mirrors": {
			map[string]string{
				"etc/os-release": debian, "etc/apt/sources.list": "deb\tmirror+file:///etc/apt/mirrors/debian.list bookworm main\n",
				"etc/apt/mirrors/debian.list": "# near\nhttps://a/debian\thost:x\nhttps://b/debian\n",
			},
			map[string]string{"debian": "https://a/debian"},
		},
		"other transport": {map[string]string{"etc/os-release": debian, "etc/apt/sources.list": "deb cdrom:[Debian]/ bookworm main\n"}, nil},
		"disabled file":   {map[string]string{"etc/os-release": debian, "etc/apt/sources.list.d/a.list.disabled": "deb http://a/ bookworm main\n"}, nil},
		"another system":  {map[string]string{"etc/os-release": "ID=ubuntu\nVERSION_CODENAME=noble\n", "etc/apt/sources.list": "deb http://a/ noble main\n"}, nil},
		"nothing":         {map[string]string{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := fstest.MapFS{}
			for name, data := range test.files {
				fsys[name] = &fstest.MapFile{Data: []byte(data)}
			}
			got, err := AptMirrors(fsys)
			if test.want == nil {
				require.ErrorContains(t, err, "cannot take Debian's mirror from this machine")
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.want, got)
		})
	}
}

func FuzzAptMirrors(f *testing.F) {
	f.Add("deb [a] http://a/ bookworm main\n", "Types: deb\nURIs: http://b\nSuites: bookworm\n")
	f.Add(" deb", "\n :\n\tx")
	f.Fuzz(func(_ *testing.T, list, sources string) {
		_, _ = AptMirrors(fstest.MapFS{
			"etc/os-release":                   &fstest.MapFile{Data: []byte(debian)},
			"etc/apt/sources.list":             &fstest.MapFile{Data: []byte(list)},
			"etc/apt/sources.list.d/x.sources": &fstest.MapFile{Data: []byte(sources)},
		})
	})
}

func TestLocalRun(t *testing.T) {
	needs.Root(t)
	var out bytes.Buffer
	require.NoError(t, Local{}.Run(t.Context(), Command{Args: []string{"cat"}, Stdin: strings.NewReader("x"), Stdout: &out}))
	require.Equal(t, "x", out.String())

	out.Reset()
	require.NoError(t, Local{}.Run(t.Context(), Command{Args: []string{"env"}, Stdout: &out}))
	require.Equal(t, "PATH="+DefaultPath+"\n", out.String(), "nothing of the caller's environment")

	var exit *ExitError
	require.ErrorAs(t, Local{}.Run(t.Context(), Command{Args: []string{"false"}}), &exit)
	require.Equal(t, 1, exit.Status)
	require.Error(t, Local{}.Run(t.Context(), Command{Args: []string{"no-such-program"}}))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, Local{}.Run(ctx, Command{Args: []string{"true"}}), context.Canceled)
}

// TestLocalRunIsCancelled starts a program that ignores SIGTERM and has a child:
// both are gone afterwards.
func TestLocalRunIsCancelled(t *testing.T) {
	needs.Root(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	pids := &firstWrite{do: cancel}
	err := Local{Grace: 100 * time.Millisecond}.Run(ctx, Command{
		Args: []string{"sh", "-c", `trap "" TERM; sleep 1000 & echo $$ $!; wait; wait; sleep 1000`}, Stdout: pids,
	})
	require.ErrorIs(t, err, context.Canceled)
	require.NotEmpty(t, pids.text)
	for _, pid := range strings.Fields(pids.text) {
		// A killed process goes when the kernel comes to it.
		require.Eventually(t, func() bool {
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			return err != nil || strings.Contains(string(stat), ") Z ")
		}, time.Minute, 10*time.Millisecond, "process %s still runs", pid)
	}
}

type firstWrite struct {
	text string
	do   func()
}

func (w *firstWrite) Write(p []byte) (int, error) {
	w.text += string(p)
	w.do()
	return len(p), nil
}

func TestUpload(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	src := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(src, "sub"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(src, "sub", "hook"), []byte("x"), 0o755))
	require.NoError(t, Local{}.Upload(t.Context(), dir, os.DirFS(src)))
	st, err := os.Stat(filepath.Join(dir, "sub", "hook"))
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o755), st.Mode().Perm())

	require.NoError(t, os.Symlink("sub/hook", filepath.Join(src, "link")))
	require.NoError(t, Local{}.Upload(t.Context(), filepath.Join(t.TempDir(), "other"), os.DirFS(src)))
	for _, out := range []string{"/etc/passwd", "../x", "sub/../../x", "sub/../sub/hook"} {
		require.NoError(t, os.Remove(filepath.Join(src, "link")))
		require.NoError(t, os.Symlink(out, filepath.Join(src, "link")))
		require.ErrorContains(t, Local{}.Upload(t.Context(), filepath.Join(t.TempDir(), "new"), os.DirFS(src)), "leads out of its tree")
	}
}

func TestToolErrorSaysWhy(t *testing.T) {
	e := &ToolError{Tool: "disk-image-create", Phase: "root.d/08-debootstrap", Err: &ExitError{Status: 1}, Tail: []string{
		"I: Retrieving", "E: Failed getting release file", "W: harmless", "+ trap", "cleanup done",
	}}
	require.EqualError(t, e, "disk-image-create failed in root.d/08-debootstrap: exit status 1: mirror unreachable: E: Failed getting release file")
	require.Equal(t, "disk-image-create failed: killed by signal 9 (killed)", (&ToolError{Tool: "disk-image-create", Err: &ExitError{Status: 137}}).Error())
}

func TestToolErrorNamesTheCause(t *testing.T) {
	for line, want := range map[string]string{
		"dpkg: error: cannot write: No space left on device":                                                                 "disk full",
		"fork: Cannot allocate memory":                                                                                       "out of memory",
		"losetup: cannot find an unused loop device: No such device":                                                         "loop devices exhausted",
		"[ ERROR   ]: 12:00:00 | KiwiDescriptionInvalid: Failed to validate schema":                                          "description not valid",
		"diskimage_builder.element_dependencies.MissingElementException: Element 'x' not found":                              "element missing",
		"E: Release file for http://m.example/InRelease is expired (invalid since 3d 2h). Updates will not be applied.":      "index expired",
		"W: GPG error: http://m.example bookworm InRelease: The following signatures were invalid: EXPKEYSIG 0123456789ABCD": "signing key expired",
		"E: Release signed by unknown key (key id 0123456789ABCDEF)":                                                         "not signed by a trusted key",
		"E: The repository 'http://m.example bookworm Release' is not signed.":                                               "not signed by a trusted key",
		"E: Failed to fetch http://m.example/x.deb  404  Not Found":                                                          "mirror unreachable",
		"The following packages have unmet dependencies:":                                                                    "package missing or in conflict",
		"E: Unable to locate package no-such-package":                                                                        "package missing or in conflict",
		"I: Retrieving Release": "",
	} {
		e := &ToolError{Tool: "tool", Err: &ExitError{Status: 1}, Tail: []string{"before", line, "after"}, LogFile: "/x/build.log"}
		require.Equal(t, want, e.Cause(), line)
		require.Contains(t, e.Error(), want)
		require.True(t, strings.HasSuffix(e.Error(), " (its log is /x/build.log)"), e.Error())
	}
	full := &ToolError{Tail: []string{"E: Failed to fetch x", "write: No space left on device"}}
	require.Equal(t, "disk full", full.Cause(), "what follows from it is not the cause")
}
