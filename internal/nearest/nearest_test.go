package nearest

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestName(t *testing.T) {
	known := []string{"disk", "min_disk", "name", "os", "notes", "dib"}
	for name, want := range map[string]string{
		"disc": "disk", "Disk": "disk", "mindisk": "min_disk", "naem": "name", "note": "notes", "so": "os", "dbi": "dib",
		"publish": "", "": "", strings.Repeat("x", 1<<20): "",
	} {
		require.Equal(t, want, Name(name, known), name)
	}
}

func TestUnknown(t *testing.T) {
	require.EqualError(t, Unknown("key", "disc", []string{"disk", "os"}), `unknown key "disc"; the nearest known is disk`)
	require.EqualError(t, Unknown("key", "publish", []string{"disk", "os"}), `unknown key "publish"; known are disk, os`)
	require.EqualError(t, Unknown("driver", "dib", nil), `unknown driver "dib"; there is none`)
	require.Less(t, len(Unknown("key", strings.Repeat("x", 1<<20), nil).Error()), 100)
}
