package publish_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
)

// Little by little there is more room, until the release fits. Before that there is
// only a part of it, which grows.
func TestFetchFullDisk(t *testing.T) {
	needs.Root(t)
	o := newOrigin(t, 0)
	work := t.TempDir()
	large := filepath.Join(work, "Image", "20180101-000000", "large")
	require.NoError(t, os.MkdirAll(filepath.Dir(large), 0o755))
	require.NoError(t, os.WriteFile(large, make([]byte, 256<<10), 0o644))
	o.publish(t, work)
	for name, options := range map[string]func(n int) string{
		"blocks": func(n int) string { return fmt.Sprintf("size=%dk", 16*(n+1)) },
		"inodes": func(n int) string { return fmt.Sprintf("nr_inodes=%d", 2+n) },
	} {
		t.Run(name, func(t *testing.T) {
			disk := t.TempDir()
			if err := syscall.Mount("fetch", disk, "tmpfs", 0, options(0)); err != nil {
				needs.Missing(t, "cannot mount a tmpfs: "+err.Error())
			}
			t.Cleanup(func() { require.NoError(t, syscall.Unmount(disk, 0)) })
			full := 0
			for n := 0; ; n++ {
				err := syscall.Mount("fetch", disk, "tmpfs", syscall.MS_REMOUNT, options(n))
				if errors.Is(err, syscall.EINVAL) {
					continue // less than what is used
				}
				require.NoError(t, err)
				r, err := o.fetch(t, "Image", disk)
				if err == nil {
					assert.Equal(t, content(t, o.releases[0].Dir), content(t, r.Dir))
					break
				}
				full++
				require.ErrorIs(t, err, syscall.ENOSPC)
				if there(filepath.Join(disk, "Image")) {
					require.Subset(t, []string{".fetch-20180101-000000", "fetch.json"}, names(t, filepath.Join(disk, "Image")))
				}
			}
			assert.Greater(t, full, 3)
		})
	}
}
