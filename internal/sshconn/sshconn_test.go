package sshconn_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/opentelekomcloud/go-imagefactory/internal/sshconn"
	"github.com/opentelekomcloud/go-imagefactory/internal/sshtest"
)

func dial(t *testing.T, s *sshtest.Server) *ssh.Client {
	t.Helper()
	client, err := sshconn.Dial(t.Context(), sshconn.Config{Address: s.Address, User: "linux", HostKey: s.HostKey})
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestRun(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{Exec: func(command string, ch ssh.Channel) int {
		in, _ := io.ReadAll(ch)
		_, _ = fmt.Fprintf(ch, "%s got %s", command, in)
		_, _ = fmt.Fprint(ch.Stderr(), "warned")
		return 3
	}})
	res, err := sshconn.Run(t.Context(), dial(t, s), "sh -s", strings.NewReader("input"), 100)
	require.NoError(t, err)
	assert.Equal(t, sshconn.Result{Stdout: []byte("sh -s got input"), Stderr: []byte("warned"), ExitStatus: 3}, res)
}

func TestRunBoundsOutput(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{Exec: func(_ string, ch ssh.Channel) int {
		_, _ = ch.Write(bytes.Repeat([]byte("x"), 8<<20))
		return 0
	}})
	res, err := sshconn.Run(t.Context(), dial(t, s), "yes", nil, 1000)
	require.NoError(t, err)
	assert.Len(t, res.Stdout, 1000)
	assert.True(t, res.Truncated)
}

func TestRunLeavesFrozenPeer(t *testing.T) {
	started := make(chan struct{})
	s := sshtest.Start(t, sshtest.Options{Exec: func(_ string, ch ssh.Channel) int {
		_, _ = ch.Write([]byte("so far"))
		close(started)
		return -1
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-started
		cancel()
	}()
	res, err := sshconn.Run(ctx, dial(t, s), "sleep", nil, 1000)
	require.ErrorIs(t, err, context.Canceled)
	assert.LessOrEqual(t, len(res.Stdout), len("so far")) // what had arrived by then
}

func TestRunLostConnection(t *testing.T) {
	var client *ssh.Client
	s := sshtest.Start(t, sshtest.Options{Exec: func(_ string, _ ssh.Channel) int {
		_ = client.Close()
		return -1
	}})
	client = dial(t, s)
	_, err := sshconn.Run(t.Context(), client, "reboot", nil, 1000)
	require.Error(t, err)
	assert.Contains(t, err.Error(), "cannot run a command on 127.0.0.1:")
}

func TestDialRefusesOtherHostKey(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	other := sshtest.Signer(t).PublicKey()
	_, err := sshconn.Dial(t.Context(), sshconn.Config{Address: s.Address, User: "linux", HostKey: other})
	var keyErr *sshconn.HostKeyError
	require.ErrorAs(t, err, &keyErr)
	assert.Equal(t, other.Marshal(), keyErr.Want.Marshal())
	assert.Equal(t, s.HostKey.Marshal(), keyErr.Got.Marshal())
}

func TestDialNeedsHostKey(t *testing.T) {
	_, err := sshconn.Dial(t.Context(), sshconn.Config{Address: "127.0.0.1:1", User: "linux"})
	require.EqualError(t, err, "cannot connect to 127.0.0.1:1: no host key is known")
}

// A peer that accepts and says nothing: neither a deadline nor a cancel may
// wait for it.
func TestDialLeavesSilentPeer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	config := sshconn.Config{Address: l.Addr().String(), User: "linux", HostKey: sshtest.Signer(t).PublicKey()}

	config.HandshakeTimeout = 50 * time.Millisecond
	_, err = sshconn.Dial(t.Context(), config)
	require.ErrorIs(t, err, context.DeadlineExceeded)

	config.HandshakeTimeout = 0
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err = sshconn.Dial(ctx, config)
	require.ErrorIs(t, err, context.Canceled)
}

func TestDialObserves(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{Config: &ssh.ServerConfig{
		PasswordCallback: func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) { return nil, fmt.Errorf("no") },
	}})
	var offered, tried []string
	_, err := sshconn.Dial(t.Context(), sshconn.Config{
		Address: s.Address, User: "linux", HostKey: s.HostKey, Auth: []ssh.AuthMethod{ssh.Password("secret-word")},
		Observe: func(c *ssh.ClientAuthContext) { offered, tried = c.AllowedMethods, c.TriedMethods },
	})
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "secret-word")
	assert.Equal(t, []string{"password"}, offered)
	assert.Equal(t, []string{"none", "password"}, tried)
}
