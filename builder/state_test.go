package builder

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestState(t *testing.T) {
	day := func(d int) time.Time { return time.Date(2026, 11, d, 0, 0, 0, 0, time.UTC) }
	state := func(digest string, d int) *State {
		return &State{Tool: "tool 1", Indexes: []Index{
			{Mirror: "debian", Path: "dists/bookworm/InRelease", SHA256: strings.Repeat("a", 64), Date: day(1)},
			{Mirror: "debian-security", Path: "dists/bookworm-security/InRelease", SHA256: strings.Repeat(digest, 64), Date: day(d)},
		}}
	}
	one := state("b", 20)
	require.NoError(t, one.Validate())
	require.NoError(t, (*State)(nil).Validate())
	require.True(t, one.Equal(state("b", 20)))
	require.False(t, one.Equal(state("c", 21)))
	require.False(t, one.Equal(nil))
	require.False(t, (*State)(nil).Equal(nil), "what is not known is not the same")
	other := state("b", 20)
	other.Tool = "tool 2"
	require.False(t, one.Equal(other))

	require.NoError(t, state("c", 21).After(one))
	require.NoError(t, one.After(nil))
	err := state("c", 19).After(one)
	var fault *MirrorError
	require.ErrorAs(t, err, &fault)
	require.Equal(t, WentBack, fault.Fault)
	require.EqualError(t, err, "mirror gone back in time: debian-security: dists/bookworm-security/InRelease: it is of 2026-11-19 00:00:00, and was of 2026-11-20 00:00:00 already")

	for want, s := range map[string]*State{
		"bad tool":   {Tool: "a\nb", Indexes: one.Indexes},
		"0 indexes":  {Tool: "a"},
		"bad mirror": {Tool: "a", Indexes: []Index{{Mirror: "a", Path: "b", SHA256: "c"}}},
		"twice":      {Tool: "a", Indexes: []Index{one.Indexes[1], one.Indexes[0]}},
	} {
		require.ErrorContains(t, s.Validate(), want)
	}
	cause := errors.New("cause")
	require.ErrorIs(t, &MirrorError{Index: "x", Fault: Unreachable, Err: cause}, cause)
}
