package qcow2_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/qcow2"
)

// sameInspection streams b in pieces of random length and compares what the
// Inspector says with what Inspect says.
func sameInspection(t testing.TB, rnd *rand.Rand, b []byte) {
	t.Helper()
	want, wantErr := qcow2.Inspect(bytes.NewReader(b), int64(len(b)))
	s := qcow2.NewInspector()
	largest := 1 << rnd.IntN(20)
	for rest := b; len(rest) > 0; {
		n := min(1+rnd.IntN(largest), len(rest))
		_, _ = s.Write(rest[:n])
		rest = rest[n:]
	}
	got, err := s.Info()
	require.Equal(t, wantErr, err)
	require.Equal(t, want, got)
}

func TestInspectorRefusesEarly(t *testing.T) {
	s := qcow2.NewInspector()
	_, err := s.Write(make([]byte, 200))
	require.ErrorIs(t, err, qcow2.ErrNotQCOW2)
	s = qcow2.NewInspector()
	_, err = s.Write(put32(20, 63)(emptyImage())[:200])
	require.ErrorIs(t, err, qcow2.ErrMalformed)
	info, err := s.Info()
	require.ErrorIs(t, err, qcow2.ErrMalformed)
	assert.Contains(t, names(info, qcow2.Policy{}), qcow2.FindInvalidValue)
}
