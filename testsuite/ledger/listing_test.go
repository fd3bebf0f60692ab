package ledger

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// archive writes a tar archive as the reader gives it.
func archive(t testing.TB, end bool, headers ...*tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if end {
		headers = append(headers, &tar.Header{Name: "sockets", Typeflag: tar.TypeReg, Size: 21})
	}
	for _, h := range headers {
		h.Format = tar.FormatPAX
		require.NoError(t, w.WriteHeader(h))
		text := strings.Repeat("x", int(h.Size))
		if h.Name == "sockets" {
			text = "/files/p1/run/socket\x00"
		}
		_, err := io.WriteString(w, text)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}

func keepNone(string) bool { return false }

func TestReadArchive(t *testing.T) {
	data := archive(t, true,
		&tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		&tar.Header{Name: "./p1/", Typeflag: tar.TypeDir, Mode: 0o755},
		&tar.Header{Name: "./p1/boot/", Typeflag: tar.TypeDir, Mode: 0o755},
		&tar.Header{Name: "./p1/boot/hidden", Typeflag: tar.TypeReg, Mode: 0o644},
		&tar.Header{Name: "./p1/a", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 1, Gid: 2, Size: 3, PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y"}},
		&tar.Header{Name: "./p1/b", Typeflag: tar.TypeLink, Linkname: "./p1/a"},
		&tar.Header{Name: "./p1/link", Typeflag: tar.TypeSymlink, Linkname: "/a b"},
		&tar.Header{Name: "./p1/dev", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
		&tar.Header{Name: "./p2/", Typeflag: tar.TypeDir, Mode: 0o700},
		&tar.Header{Name: "./p2/hidden", Typeflag: tar.TypeReg, Mode: 0o600},
		&tar.Header{Name: "./p3/x", Typeflag: tar.TypeReg},
	)
	l, err := ReadArchive(t.Context(), bytes.NewReader(data), Limits{}, func(p string) bool { return p == "/p1/a" })
	require.NoError(t, err)
	l.Mount(map[string]string{"p1": "/", "p2": "/boot"})
	require.Equal(t, "xxx", string(l.Contents["/a"]))
	var text bytes.Buffer
	require.NoError(t, l.WriteText(&text))
	x, none := sum("xxx"), sum("")
	require.Equal(t, `/ d 0755 0:0
/a f 4755 1:2 3 `+x+` user.x=eQ==
/b f 4755 1:2 3 `+x+` = /a user.x=eQ==
/boot d 0700 0:0
/boot/hidden f 0600 0:0 0 `+none+`
/dev c 0000 0:0 device 1:3
/link l 0000 0:0 -> "/a\x20b"
/run/socket s 0000 0:0
p1:/boot/hidden f 0644 0:0 0 `+none+`
p3:/x f 0000 0:0 0 `+none+`
`, text.String())

	var changes bytes.Buffer
	require.NoError(t, Compare(&changes, bytes.NewReader(text.Bytes()), strings.NewReader("/ d 0700 0:0\n/boot d 0700 0:0\n/c f 0644 0:0 0 -\n")))
	require.Equal(t, "*/\n-/a\n-/b\n-/boot/hidden\n+/c\n-/dev\n-/link\n-/run/socket\n-p1:/boot/hidden\n-p3:/x\n", changes.String())
}

func TestReadArchiveRefuses(t *testing.T) {
	file := func(name string, size int64) *tar.Header {
		return &tar.Header{Name: name, Typeflag: tar.TypeReg, Size: size}
	}
	for name, row := range map[string]struct {
		data   []byte
		limits Limits
		want   string
	}{
		"no end":           {archive(t, false, file("./p1/a", 1)), Limits{}, "has no end"},
		"nothing":          {nil, Limits{}, "has no end"},
		"cut":              {archive(t, true, file("./p1/a", 2000))[:1024], Limits{}, "unexpected EOF"},
		"too many files":   {archive(t, true, file("./p1/a", 1), file("./p1/b", 1)), Limits{Files: 1}, "more than 1 files"},
		"too many bytes":   {archive(t, true, file("./p1/a", 9)), Limits{TotalBytes: 8}, "more than 8 bytes"},
		"a path too long":  {archive(t, true, file("./p1/abc", 1)), Limits{PathBytes: 6}, "more than 6 bytes"},
		"twice":            {archive(t, true, file("./p1/a", 1), file("./p1/x/../a", 1)), Limits{}, "comes twice"},
		"a link to none":   {archive(t, true, &tar.Header{Name: "./p1/a", Typeflag: tar.TypeLink, Linkname: "./p1/b"}), Limits{}, "did not come"},
		"large attributes": {archive(t, true, &tar.Header{Name: "./p1/a", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"SCHILY.xattr.user.x": strings.Repeat("x", maxXattr)}}), Limits{}, "bytes of attributes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadArchive(t.Context(), bytes.NewReader(row.data), row.limits, keepNone)
			require.ErrorContains(t, err, row.want)
		})
	}
	_, err := ReadArchive(t.Context(), io.MultiReader(bytes.NewReader(archive(t, true)), failing{}), Limits{}, keepNone)
	require.ErrorIs(t, err, errFailing, "the reader's verdict counts")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = ReadArchive(ctx, bytes.NewReader(archive(t, true)), Limits{}, keepNone)
	require.ErrorIs(t, err, context.Canceled)

	l, err := ReadArchive(t.Context(), bytes.NewReader(archive(t, true, file("./p1/a", 9))), Limits{FileBytes: 8}, keepNone)
	require.NoError(t, err)
	require.Empty(t, l.Files[0].SHA256, "a larger file has no digest, so it is never what a package has")
}

var errFailing = errors.New("failing")

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errFailing }

func TestParseRules(t *testing.T) {
	for text, want := range map[string]string{
		"f 0644 root:root /a":                                "no reason above it",
		"# why\nf 0644 root:root":                            "line 2: want TYPE",
		"# why\nx 0644 root:root /a":                         "line 2: want TYPE",
		"# why\nf 9 root:root /a":                            "not octal",
		"# why\nf 0644 root /a":                              "USER:GROUP",
		"# why\nf 0644 root:root a":                          "pattern is bad",
		"# why\nf 0644 root:root /[":                         "pattern is bad",
		"# why\nf 0644 root:root /a contents=empty":          "unknown demand",
		"# why\nl * root:root /a alternative=no":             "unknown demand",
		"# why\n\nf 0644 root:root /a\n\nf 0 root:root /b c": "line 5: unknown demand",
	} {
		_, err := ParseRules(text)
		require.ErrorContains(t, err, want, text)
	}
	rules, err := ParseRules("# two\n# lines\nd * *:* /run/**\nf 0644 root:root /a* content=empty\n")
	require.NoError(t, err)
	require.Equal(t, "two lines", rules[1].Reason)
	require.True(t, rules[0].matches("/run/a/b"))
	require.False(t, rules[0].matches("/run"))
	require.False(t, rules[0].matches("/runs/a"))
	require.True(t, rules[1].matches("/ab"))
	require.False(t, rules[1].matches("/a/b"))
}

func FuzzReadArchive(f *testing.F) {
	f.Add(archive(f, true, &tar.Header{Name: "./p1/a", Typeflag: tar.TypeReg, Size: 3}))
	f.Add(archive(f, true, &tar.Header{Name: "./p1/a", Typeflag: tar.TypeSymlink, Linkname: "b"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ReadArchive(t.Context(), bytes.NewReader(data), Limits{Files: 100, TotalBytes: 1 << 20, FileBytes: 1 << 16}, KeepDebian)
		if err != nil {
			return
		}
		l.Mount(map[string]string{"p1": "/"})
		var text bytes.Buffer
		require.NoError(t, l.WriteText(&text))
		require.Equal(t, len(l.Files), bytes.Count(text.Bytes(), []byte("\n")), "one line a file, whatever its name")
		_, _ = Debian{}.Account(l)
	})
}
