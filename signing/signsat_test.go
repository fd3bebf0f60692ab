package signing_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/signing"
)

func TestSignsAt(t *testing.T) {
	made := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	key, err := signing.GenerateKey(signing.KeyConfig{Name: "A", Lifetime: 24 * time.Hour, Time: func() time.Time { return made }})
	require.NoError(t, err)
	require.NoError(t, key.SignsAt(made.Add(time.Hour)))
	require.ErrorIs(t, key.SignsAt(made.Add(25*time.Hour)), signing.KeyExpired)
	require.ErrorIs(t, key.SignsAt(made.Add(-time.Hour)), signing.KeyInvalid)
	require.ErrorIs(t, (*signing.Key)(nil).SignsAt(made), signing.KeyInvalid)
}
