package publish_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// What is empty says so, and does not panic.
func TestZeroValues(t *testing.T) {
	assert.NotEmpty(t, (&publish.WrongReleaseError{}).Error())
	assert.Empty(t, publish.BuildID{}.String())
	assert.NotEmpty(t, publish.Step{}.String())
	assert.False(t, publish.Entry{}.Has(publish.Latest))
	assert.Empty(t, publish.PlanRetire(nil, time.Time{}))
	_, err := (&publish.Release{}).Open("x")
	require.Error(t, err)
	require.Error(t, publish.WriteIndex(nil, &publish.Index{}))
	for _, r := range []*publish.Release{nil, {}} {
		_, err = publish.Publish(t.Context(), nil, r)
		require.ErrorContains(t, err, "cannot publish a release that Open did not return")
	}
	_, err = publish.Retire(t.Context(), nil, "Standard_Debian_12", time.Now())
	require.EqualError(t, err, "cannot retire releases of Standard_Debian_12: there is no target")
	_, err = publish.Open(t.Context(), "", nil)
	require.Error(t, err)
}
