package sandbox

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What is empty says so, and does not panic.
func TestZeroValues(t *testing.T) {
	assert.Equal(t, "cannot boot an image", (&BootError{}).Error())
	assert.NoError(t, (&BootError{}).Unwrap())
	assert.Equal(t, "cannot trust host key of the server: want none, got none", (&HostKeyError{}).Error())
	_, err := QEMU{}.Boot(t.Context(), Image{})
	var boot *BootError
	require.ErrorAs(t, err, &boot)
	assert.ErrorIs(t, err, ErrUnsafeImage, "the working directory is no image")
	require.NoError(t, (&Machine{}).Close())
	require.NoError(t, (*Machine)(nil).Close())
	stops := 0
	m := &Machine{Stop: func() error { stops++; return assert.AnError }}
	require.ErrorIs(t, m.Close(), assert.AnError)
	require.ErrorIs(t, m.Close(), assert.AnError)
	require.Equal(t, 1, stops)
}
