package sandbox

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A guest must not see by what it is told where it is.
func TestMachinesLookLikeTheCloudsAndDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 2 {
		q := &QEMU{Binary: "none", Img: "true", Accel: "tcg"}
		q.setDefaults()
		g, err := q.prepare(t.Context(), Image{Path: qcow2File(t, nil), WorkDir: t.TempDir()})
		require.NoError(t, err)
		args, err := q.args(g)
		require.NoError(t, err)
		all := strings.Join(args[2:], " ") // without QEMU's own name
		all = strings.ReplaceAll(all, g.dir, "")
		assert.NotRegexp(t, `(?i)imagefactory|otc-sandbox`, all+g.Hostname+g.seed.instanceID)
		assert.Contains(t, all, "product=OpenStack Nova")
		assert.Regexp(t, `^ecs-[0-9a-f]{4}$`, g.Hostname)
		assert.Regexp(t, `^fa:16:3e:`, g.network.MAC.String())
		for _, id := range []string{g.uuid, g.disk, g.seed.instanceID, g.network.MAC.String()} {
			assert.False(t, seen[id], id)
			seen[id] = true
		}
		require.NoError(t, g.Close())
	}
}

func TestVariantsThatAreNone(t *testing.T) {
	for name, v := range map[string]Variant{
		"firmware": {Firmware: "coreboot"}, "disk": {Disk: "ide,file=/etc/passwd"}, "card": {NIC: "rtl8139"}, "source": {DataSource: "ec2"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := QEMU{Accel: "tcg"}.Boot(context.Background(), Image{Path: qcow2File(t, nil), WorkDir: t.TempDir(), Variant: v})
			assert.ErrorIs(t, err, errors.ErrUnsupported)
		})
	}
}
