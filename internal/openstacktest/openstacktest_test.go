package openstacktest_test

import (
	"net/http"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/openstacktest"
)

func TestMain(m *testing.M) { os.Exit(openstacktest.Main(m)) }

func TestStart(t *testing.T) {
	c := openstacktest.Start(t)
	require.Same(t, c, openstacktest.Start(t))
	require.FileExists(t, c.CloudsFile)
	for url, want := range map[string]int{c.Keystone: 200, c.Glance + "/v2/images": 401} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, want, resp.StatusCode, url)
	}
}
