package dib

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/internal/pkgkeys"
)

// TestState reads the indexes of this machine's own mirror.
func TestState(t *testing.T) {
	needs.Tools(t, "disk-image-create")
	mirrors, err := builder.AptMirrors(os.DirFS("/"))
	if err != nil {
		needs.Missing(t, err.Error())
	}
	b, err := New(Config{Elements: []string{"debian-minimal"}})
	require.NoError(t, err)
	spec := builder.Spec{
		Name: "Standard_Debian_12", Distribution: "debian", Release: "bookworm", Arch: "amd64", DiskBytes: 4 << 30, User: "linux", Mirrors: mirrors,
		TrustedKeys: []builder.TrustedKey{{File: "/usr/share/keyrings/debian-archive-keyring.gpg"}},
	}
	s, err := b.(builder.Stater).State(t.Context(), builder.Local{}, spec)
	require.NoError(t, err)
	require.NoError(t, s.Validate())
	require.Regexp(t, `^disk-image-create \d`, s.Tool)
	require.Len(t, s.Indexes, 3)
	for _, x := range s.Indexes {
		require.Less(t, time.Since(x.Date), 20*365*24*time.Hour)
		t.Log(x.Mirror, x.Path, x.Date, x.ValidUntil, x.Signer)
	}

	spec.Mirrors = map[string]string{"debian": "http://user:hunter2@mirror.example.org/debian"}
	_, err = b.(builder.Stater).State(t.Context(), builder.Local{}, spec)
	require.ErrorContains(t, err, "user or password")
	require.NotContains(t, err.Error(), "hunter2")

	spec.Mirrors = mirrors
	spec.TrustedKeys[0].File = foreignKey(t)
	_, err = b.(builder.Stater).State(t.Context(), builder.Local{}, spec)
	var fault *builder.MirrorError
	require.ErrorAs(t, err, &fault)
	require.Equal(t, builder.Unsigned, fault.Fault)
}

// foreignKey is a file of a key that has signed nothing.
func foreignKey(t *testing.T) string {
	e, err := openpgp.NewEntity("test", "", "test@example.org", nil)
	require.NoError(t, err)
	name := filepath.Join(t.TempDir(), "foreign.gpg")
	require.NoError(t, pkgkeys.Write(name, e))
	return name
}
