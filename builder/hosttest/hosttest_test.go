package hosttest_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/builder/hosttest"
	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
)

func TestLocal(t *testing.T) {
	needs.Root(t)
	require.NoError(t, hosttest.Test(t.Context(), builder.Local{Grace: time.Second}, filepath.Join(t.TempDir(), "host")))
}
