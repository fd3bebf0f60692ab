package website

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What waits to be verified is nobody else's to read, also if a server has the whole
// output directory.
func TestWaitingIsPrivate(t *testing.T) {
	dir := t.TempDir()
	for range 2 { // also where an earlier run was killed
		o, err := openOutput(t.Context(), dir)
		require.NoError(t, err)
		st, err := o.root.Stat(nextDir)
		require.NoError(t, err)
		require.Equal(t, "drwx------", st.Mode().String())
		p := o.part("a")
		require.NoError(t, p.put("images/a/index.html", nil))
		require.NoError(t, p.finish())
		require.NoError(t, o.commit([]string{"a"}))
		st, err = o.root.Stat("images/a")
		require.NoError(t, err)
		require.Equal(t, "drwxr-xr-x", st.Mode().String())
		require.NoError(t, o.root.MkdirAll(nextDir, 0o755))
		require.NoError(t, o.lock.Close())
	}
}
