package publish

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzParseState(f *testing.F) {
	f.Add([]byte(`{"newest":"20180201-000000","newest_prev":"20180101-000000"}`))
	f.Add([]byte(`{"newest":"20180201-000000"}`))
	f.Add([]byte(`{"newest":"20180201-000000","newest":"20180101-000000"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseState(data)
		if err != nil {
			return
		}
		require.False(t, s.Newest.IsZero())
		again, err := json.Marshal(s)
		require.NoError(t, err)
		same, err := parseState(again)
		require.NoError(t, err)
		require.Equal(t, s, same)
	})
}

func FuzzParseWithdrawn(f *testing.F) {
	f.Add([]byte(`{"20180101-000000":{"label_lost":"2018-02-01T00:00:00Z","withdrawn":"why"}}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`{"20180101-000000":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		withdrawn, err := parseWithdrawn(data)
		if err == nil && len(withdrawn) > len(data) {
			t.Error("more builds than bytes")
		}
	})
}

// What remember writes it reads, and it never forgets the newest.
func TestRemember(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	require.NoError(t, err)
	defer root.Close()
	build := func(s string) BuildID {
		b, err := ParseBuildID(s)
		require.NoError(t, err)
		return b
	}
	old, prev, latest := build("20180101-000000"), build("20180201-000000"), build("20180301-000000")
	require.NoError(t, remember(root, Prev, old))
	require.NoError(t, remember(root, Prev, prev))
	require.NoError(t, remember(root, "", latest))
	require.NoError(t, remember(root, "", old))
	require.ErrorIs(t, remember(root, Latest, prev), ErrRollback)
	require.ErrorIs(t, remember(root, Prev, old), ErrRollback)
	require.NoError(t, remember(root, Latest, latest))
	require.NoError(t, remember(root, Prev, latest))
	s, err := readState(root)
	require.NoError(t, err)
	require.Equal(t, state{Newest: latest, NewestPrev: latest}, s)
}
