package signing_test

import (
	"bytes"
	"compress/zlib"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/stretchr/testify/require"
)

// listing signs a SHA256SUMS of the given text beside two files.
func listing(t *testing.T, key *signing.Key, text string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "one"), []byte("one"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "two"), []byte("two"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, signing.SumsFile), []byte(text), 0o644))
	_, err := (&signing.Sealer{Signers: []*signing.Signer{newSigner(t, key)}}).SignFile(t.Context(), filepath.Join(dir, signing.SumsFile))
	require.NoError(t, err)
	return dir
}

func sum(content string) string {
	s := sha256.Sum256([]byte(content))
	return hex.EncodeToString(s[:])
}

// TestListings: a SHA256SUMS that a trusted key has signed can still be wrong.
func TestListings(t *testing.T) {
	key := newKey(t, signing.KeyConfig{})
	one, two := sum("one"), sum("two")
	for name, c := range map[string]struct {
		text string
		file string // about which something is wrong
		want signing.Reason
	}{
		"GNU":            {one + "  one\n" + two + " *two\n", "", ""},
		"BSD":            {"SHA256 (one) = " + one + "\nSHA256 (two) = " + strings.ToUpper(two) + "\n", "", ""},
		"CR LF":          {one + "  one\r\n" + two + "  two\r\n", "", ""},
		"no line end":    {one + "  one\n" + two + "  two", "", ""},
		"blank lines":    {"\n" + one + "  one\n\n  \n" + two + "  two\n\n", "", ""},
		"comments":       {"# one: 3 bytes\nSHA256 (one) = " + one + "\n#\n" + two + "  two\n", "", ""},
		"here":           {one + "  ./one\n" + two + " *./two\n", "", ""},
		"openssl":        {"SHA256(one)= " + one + "\nSHA2-256(two)= " + two + "\n", "", ""},
		"byte order":     {"\xef\xbb\xbf" + one + "  one\n" + two + "  two\n", "", ""},
		"weak hashes":    {"MD5 (one) = " + one[:32] + "\n" + one + "  one\n" + two[:40] + "  two\n" + two + "  two\n", "", ""},
		"needless slash": {`\` + one + "  one\n" + two + "  two\n", "", ""},

		"weak hash alone":        {"MD5 (one) = " + one[:32] + "\n" + two + "  two\n", "one", signing.WeakHash},
		"unknown hash alone":     {"RMD160 (one) = " + one[:40] + "\n" + two + "  two\n", "one", signing.Unsupported},
		"other SHA-512":          {one + "  one\n" + two + "  two\nSHA512 (one) = " + one + one + "\n", "one", signing.DigestDiffers},
		"changed":                {two + "  one\n" + two + "  two\n", "one", signing.DigestDiffers},
		"extra":                  {one + "  one\n", "two", signing.FileExtra},
		"missing":                {one + "  one\n" + two + "  two\n" + two + "  three\n", "three", signing.FileMissing},
		"twice":                  {one + "  one\n" + two + "  two\n" + one + "  one\n", "one", signing.DuplicateName},
		"twice, other digest":    {one + "  one\n" + two + "  two\n" + two + "  one\n", "one", signing.DuplicateName},
		"twice by escape":        {one + "  one\n" + two + "  two\n" + `\` + one + "  one\n", "one", signing.DuplicateName},
		"parent":                 {one + "  one\n" + two + "  two\n" + one + "  ../one\n", "../one", signing.BadName},
		"absolute":               {one + "  one\n" + two + "  two\n" + one + "  /etc/passwd\n", "/etc/passwd", signing.BadName},
		"NUL":                    {one + "  one\n" + two + "  two\n" + one + "  a\x00b\n", "a\x00b", signing.BadName},
		"hidden parent":          {one + "  one\n" + two + "  two\n" + one + "  ./../one\n", "../one", signing.BadName},
		"twice by ./":            {one + "  one\n" + two + "  two\n" + one + "  ./one\n", "one", signing.DuplicateName},
		"below":                  {one + "  one\n" + two + "  two\n" + one + "  a/b\n", "a/b", signing.BadName},
		"dot":                    {one + "  one\n" + two + "  two\n" + one + "  .\n", ".", signing.BadName},
		"dot dot":                {one + "  one\n" + two + "  two\n" + one + "  ..\n", "..", signing.BadName},
		"BSD parent":             {one + "  one\n" + two + "  two\nSHA256 (../one) = " + one + "\n", "../one", signing.BadName},
		"escaped line end":       {one + "  one\n" + two + "  two\n" + `\` + one + `  a\nb` + "\n", "a\nb", signing.BadName},
		"escaped backslash":      {one + "  one\n" + two + "  two\n" + `\` + one + `  a\\b` + "\n", `a\b`, signing.BadName},
		"control character":      {one + "  one\n" + two + "  two\n" + one + "  a\x1b[2Jb\n", "a\x1b[2Jb", signing.BadName},
		"right to left override": {one + "  one\n" + two + "  two\n" + one + "  a\u202eb\n", "a\u202eb", signing.BadName},
		"not UTF-8":              {one + "  one\n" + two + "  two\n" + one + "  a\xffb\n", "a\xffb", signing.BadName},
		"itself":                 {one + "  one\n" + two + "  two\n" + one + "  SHA256SUMS\n", "SHA256SUMS", signing.BadName},
		"long name":              {one + "  one\n" + two + "  two\n" + one + "  " + strings.Repeat("x", 300) + "\n", strings.Repeat("x", 300), signing.BadName},

		"unknown escape": {`\` + one + `  o\x6ee` + "\n", signing.SumsFile, signing.Malformed},
		"escape cut":     {`\` + one + `  one\` + "\n", signing.SumsFile, signing.Malformed},
		"empty":          {"", signing.SumsFile, signing.Malformed},
		"no name":        {one + "  \n", signing.SumsFile, signing.Malformed},
		"short digest":   {one[1:] + "  one\n", signing.SumsFile, signing.Malformed},
		"not hex":        {"x" + one[1:] + "  one\n", signing.SumsFile, signing.Malformed},
		"one space":      {one + " one\n", signing.SumsFile, signing.Malformed},
		"only comments":  {"# one\n\n", signing.SumsFile, signing.Malformed},
		"prose":          {"these are the checksums\n", signing.SumsFile, signing.Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			dir := listing(t, key, c.text)
			result, err := verifier(pinned(t, key)).VerifyDir(t.Context(), dir)
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, c.want)
			found := false
			for _, f := range result.Files {
				found = found || f.Name == c.file && f.Reason == c.want
			}
			require.True(t, found, "%+v", result.Files)
		})
	}
}

// TestListingsAsSha256sum: what sha256sum writes is read, in each of its forms.
func TestListingsAsSha256sum(t *testing.T) {
	tool := needs.Tools(t, "sha256sum")[0]
	key := newKey(t, signing.KeyConfig{})
	for _, form := range []string{"--text", "--binary", "--tag"} {
		dir := listing(t, key, "")
		cmd := exec.Command(tool, form, "one", "two")
		cmd.Dir = dir
		out, err := cmd.Output()
		require.NoError(t, err)
		dir = listing(t, key, string(out))
		_, err = verifier(pinned(t, key)).VerifyDir(t.Context(), dir)
		require.NoError(t, err, form)
	}
}

// TestHostileEntries: things in the directory that are no regular files. None
// of them may be opened, least of all waited for.
func TestHostileEntries(t *testing.T) {
	key := newKey(t, signing.KeyConfig{})
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("one"), 0o644))
	text := sum("one") + "  one\n" + sum("two") + "  two\n"
	for name, place := range map[string]func(path string) error{
		"link outside":      func(p string) error { return os.Symlink(secret, p) },
		"link beside":       func(p string) error { return os.Symlink("two", p) },
		"link to nothing":   func(p string) error { return os.Symlink("nothing", p) },
		"link to itself":    func(p string) error { return os.Symlink(filepath.Base(p), p) },
		"link to a device":  func(p string) error { return os.Symlink("/dev/zero", p) },
		"directory":         func(p string) error { return os.Mkdir(p, 0o755) },
		"pipe":              func(p string) error { return syscall.Mkfifo(p, 0o644) },
		"link to directory": func(p string) error { return os.Symlink(filepath.Dir(secret), p) },
	} {
		for _, file := range []string{"one", "three", signing.SumsFile, signing.SumsSig} {
			t.Run(name+"/"+file, func(t *testing.T) {
				dir := listing(t, key, text)
				require.NoError(t, os.RemoveAll(filepath.Join(dir, file)))
				require.NoError(t, place(filepath.Join(dir, file)))
				result, err := verifier(pinned(t, key)).VerifyDir(t.Context(), dir)
				require.Error(t, err)
				require.NotNil(t, result)
				about := file
				if file == signing.SumsSig {
					about = signing.SumsFile
				}
				f := result.File(about)
				require.NotEqual(t, signing.Good, f.Status)
				require.Contains(t, string(f.Reason)+f.Detail, string(signing.NotRegular))

				// And nothing of it is signed.
				if file == "one" || file == "three" {
					_, err = signing.SignDir(t.Context(), dir, newSigner(t, key))
					require.ErrorIs(t, err, signing.NotRegular)
				}
			})
		}
	}
}

func TestVerifyDirCannotRead(t *testing.T) {
	key := newKey(t, signing.KeyConfig{})
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	for _, dir := range []string{filepath.Join(t.TempDir(), "none"), file, ""} {
		result, err := signing.VerifyDir(t.Context(), dir, pinned(t, key))
		require.ErrorContains(t, err, "cannot verify directory")
		require.Nil(t, result)
	}
	_, err := signing.VerifyDir(t.Context(), t.TempDir(), nil)
	require.ErrorContains(t, err, "no keyring")
	result, err := signing.VerifyDir(t.Context(), t.TempDir(), pinned(t, key))
	require.ErrorIs(t, err, signing.FileMissing)
	require.Len(t, result.Files, 1)
	require.Equal(t, signing.Missing, result.Files[0].Status)
}

func TestSignDirRefuses(t *testing.T) {
	key := newKey(t, signing.KeyConfig{})
	for name, want := range map[string]signing.Reason{"a\nb": signing.BadName, `a\b`: signing.BadName, "a\x1bb": signing.BadName} {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
		_, err := signing.SignDir(t.Context(), dir, newSigner(t, key))
		require.ErrorIs(t, err, want)
		require.Len(t, list(t, dir), 1, "nothing was written")
	}
	_, err := signing.SignDir(t.Context(), newRelease(t))
	require.ErrorContains(t, err, "there is no signer")
}

// endless is more than anybody should read.
type endless struct{ read int64 }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'A'
	}
	e.read += int64(len(p))
	return len(p), nil
}

// TestBadSignatureFiles: whatever comes as a signature ends in one clear error.
func TestBadSignatureFiles(t *testing.T) {
	key := newKey(t, signing.KeyConfig{})
	v := verifier(pinned(t, key))
	sealer := &signing.Sealer{Signers: []*signing.Signer{newSigner(t, key)}}
	good, _, err := sealer.Detached(t.Context(), "a", strings.NewReader("data"))
	require.NoError(t, err)
	armored, err := signing.Armor(good)
	require.NoError(t, err)
	var public bytes.Buffer
	require.NoError(t, key.WritePublic(&public))

	nested := good
	for range 40 {
		var b bytes.Buffer
		z := zlib.NewWriter(&b)
		_, err := z.Write(nested)
		require.NoError(t, err)
		require.NoError(t, z.Close())
		nested = append([]byte{0xc8, 0xff, byte(b.Len() >> 24), byte(b.Len() >> 16), byte(b.Len() >> 8), byte(b.Len()), 2}, b.Bytes()[1:]...)
	}
	for name, sig := range map[string][]byte{
		"empty":             nil,
		"text":              []byte("nothing signed\n"),
		"junk before":       append([]byte("junk\n"), armored...),
		"junk after":        append(bytes.Clone(armored), "junk\n"...),
		"junk inside":       bytes.Replace(armored, []byte("\n\n"), []byte("\n\n!!!!\n"), 1),
		"public key":        public.Bytes(),
		"twice":             append(bytes.Clone(good), good...),
		"padding":           append([]byte{0xd5, 2, 1, 2}, good...),
		"nested":            nested,
		"huge length":       {0xc2, 0xff, 0xff, 0xff, 0xff, 0xff, 4, 0, 22, 8},
		"endless partial":   append([]byte{0xc2}, bytes.Repeat([]byte{0xe0, 4}, 60_000)...),
		"65 signatures":     bytes.Repeat(good, 65),
		"huge subpackets":   {0xc2, 10, 4, 0, 22, 8, 0xff, 0xff, 0, 0, 0, 0},
		"version 3":         {0xc2, 19, 3, 5, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 1, 8, 0, 0},
		"only a header":     []byte("-----BEGIN PGP SIGNATURE-----\n\n-----END PGP SIGNATURE-----\n"),
		"128 KiB of lines":  append([]byte("-----BEGIN PGP SIGNATURE-----\n\n"), bytes.Repeat([]byte("A\n"), 60_000)...),
		"one hundred bytes": bytes.Repeat([]byte{0xc2}, 100),
	} {
		t.Run(name, func(t *testing.T) {
			result, err := v.Detached(t.Context(), "a", strings.NewReader("data"), bytes.NewReader(sig))
			require.Error(t, err)
			var problem *signing.Error
			require.ErrorAs(t, err, &problem)
			require.Contains(t, []signing.Reason{signing.Malformed, signing.Unsupported}, problem.Reason)
			require.NotContains(t, err.Error(), "\n")
			require.Equal(t, signing.Bad, result.Files[0].Status)
		})
	}
	t.Run("endless", func(t *testing.T) {
		e := &endless{}
		_, err := v.Detached(t.Context(), "a", strings.NewReader("data"), e)
		require.ErrorIs(t, err, signing.Malformed)
		require.Less(t, e.read, int64(70<<20))
	})
	t.Run("100 MB", func(t *testing.T) {
		dir := newRelease(t)
		_, err := signing.SignDir(t.Context(), dir, newSigner(t, key))
		require.NoError(t, err)
		require.NoError(t, os.Truncate(filepath.Join(dir, signing.SumsSig), 100_000_000))
		_, err = v.VerifyDir(t.Context(), dir)
		require.ErrorContains(t, err, "larger than")
	})
}

func TestLargeKeyring(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 10,000 keys")
	}
	const n = 10_000
	var armored bytes.Buffer
	var last *signing.Key
	for range n {
		last = newKey(t, signing.KeyConfig{})
		require.NoError(t, last.WritePublic(&armored))
	}
	path := filepath.Join(t.TempDir(), "keyring.asc")
	require.NoError(t, os.WriteFile(path, armored.Bytes(), 0o644))
	ring, err := signing.LoadKeyring(path)
	require.NoError(t, err)
	require.Len(t, ring.Pins(), n)
	dir := newRelease(t)
	_, err = signing.SignDir(t.Context(), dir, newSigner(t, last))
	require.NoError(t, err)
	_, err = verifier(ring).VerifyDir(t.Context(), dir)
	require.NoError(t, err)

	_, err = signing.ReadKeys(&endless{})
	require.ErrorContains(t, err, "larger than")
}

func TestLargeDirectory(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("makes 100,000 files")
	}
	key := newKey(t, signing.KeyConfig{})
	dir := t.TempDir()
	const most = 100_000
	for i := range most - 2 {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("file%06d", i)))
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	files, err := signing.SignDir(t.Context(), dir, newSigner(t, key))
	require.NoError(t, err)
	require.Len(t, files, most-2)
	_, err = verifier(pinned(t, key)).VerifyDir(t.Context(), dir)
	require.NoError(t, err)

	require.NoError(t, os.WriteFile(filepath.Join(dir, "one more"), nil, 0o644))
	sums := filepath.Join(dir, signing.SumsFile)
	require.NoError(t, os.Rename(sums, filepath.Join(t.TempDir(), "sums")))
	require.NoError(t, os.Rename(sums+".asc", filepath.Join(t.TempDir(), "sums")))
	_, err = signing.SignDir(t.Context(), dir, newSigner(t, key))
	require.ErrorContains(t, err, "would have 100001 entries")
	require.NoFileExists(t, sums)
	require.NoError(t, os.WriteFile(sums, nil, 0o644))
	require.NoError(t, os.WriteFile(sums+".asc", nil, 0o644))
	_, err = verifier(pinned(t, key)).VerifyDir(t.Context(), dir)
	require.ErrorContains(t, err, "more than 100000 entries")
	_, err = signing.SignDir(t.Context(), dir, newSigner(t, key))
	require.ErrorContains(t, err, "more than 100000 entries")
}

var _ io.Reader = (*endless)(nil)
