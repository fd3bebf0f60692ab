package sandbox_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/sshtest"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
)

func TestExisting(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{})
	target := testsuite.Target{Address: server.Address, HostKey: server.HostKey, Signer: sshtest.Signer(t)}
	var box sandbox.Sandbox = sandbox.Existing{Target: target, Hostname: "ecs-1f0a"}
	m, err := box.Boot(t.Context(), sandbox.Image{Path: "image.qcow2", User: "debian"})
	require.NoError(t, err)
	assert.Equal(t, "debian", m.Target.User)
	assert.Equal(t, "ecs-1f0a", m.Hostname)
	assert.True(t, m.Target.NoConsole)
	assert.Nil(t, m.Reboot)
	assert.Nil(t, m.Restart)
	require.NoError(t, m.Close(), "the machine stays")
	_, err = box.Boot(t.Context(), sandbox.Image{})
	require.NoError(t, err)

	for name, v := range map[string]sandbox.Variant{
		"firmware": {Firmware: sandbox.UEFI}, "disk": {Disk: sandbox.NVMe}, "data": {UserData: []byte{}}, "instance": {InstanceID: "1"},
	} {
		_, err := box.Boot(t.Context(), sandbox.Image{Path: "image.qcow2", Variant: v})
		require.ErrorIs(t, err, errors.ErrUnsupported, name)
		var boot *sandbox.BootError
		require.ErrorAs(t, err, &boot)
		assert.Equal(t, "image.qcow2", boot.Image)
	}

	other := target
	other.HostKey = sshtest.Signer(t).PublicKey()
	_, err = sandbox.Existing{Target: other}.Boot(t.Context(), sandbox.Image{})
	var key *sandbox.HostKeyError
	require.ErrorAs(t, err, &key)
	_, err = sandbox.Existing{Target: testsuite.Target{Address: server.Address}}.Boot(t.Context(), sandbox.Image{})
	require.ErrorContains(t, err, "without its host key")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = box.Boot(ctx, sandbox.Image{})
	require.ErrorIs(t, err, context.Canceled)
}
