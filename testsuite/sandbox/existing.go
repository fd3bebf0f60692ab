package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"

	"golang.org/x/crypto/ssh"

	"github.com/opentelekomcloud/go-imagefactory/internal/sshconn"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// Existing is the [Sandbox] of one machine that runs already and was made from the image,
// which the caller vouches for: a server in a cloud, say. It starts nothing and ends
// nothing, and sees neither the machine's console nor its network, so that checks of
// these are skipped. It may be used concurrently.
type Existing struct {
	// Target is the machine. Its Address, Signer and HostKey must be set. If User is
	// empty, the image's counts. With a Password, it is what the machine's console
	// shows.
	Target   testsuite.Target
	Hostname string // what the machine was told that it is called; if empty, nothing
}

// Boot returns the machine when it has let its user in. It refuses an image with a
// variant: the machine is what it is. Its error is a *BootError.
func (e Existing) Boot(ctx context.Context, image Image) (*Machine, error) {
	m, err := e.machine(ctx, image)
	if err != nil {
		return nil, &BootError{Image: image.Path, Err: err}
	}
	return m, nil
}

func (e Existing) machine(ctx context.Context, image Image) (*Machine, error) {
	if !reflect.ValueOf(image.Variant).IsZero() {
		return nil, fmt.Errorf("cannot make another machine of %s, which runs already: %w", e.Target.Address, errors.ErrUnsupported)
	}
	t := e.Target
	if t.Signer == nil || t.HostKey == nil {
		return nil, errors.New("cannot use a machine that runs already without its host key and a key to log in with")
	}
	t.User = cmp.Or(t.User, image.User, "linux")
	t.NoConsole = t.NoConsole || t.Password == ""
	client, err := sshconn.Dial(ctx, sshconn.Config{
		Address: t.Address, User: t.User, HostKey: t.HostKey, Auth: []ssh.AuthMethod{ssh.PublicKeys(t.Signer)}, HandshakeTimeout: loginTimeout,
	})
	if err != nil {
		return nil, err
	}
	if err := client.Close(); err != nil && image.Logger != nil {
		image.Logger.DebugContext(ctx, "the machine's connection ended", "error", err)
	}
	return &Machine{Target: t, Hostname: e.Hostname}, nil
}
