package imagefactory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandboxtest"
)

// oneKind is a sandbox that has one kind of machine.
type oneKind struct{ sandboxtest.Sandbox }

func (o oneKind) Boot(ctx context.Context, image sandbox.Image) (*sandbox.Machine, error) {
	if image.Variant.InstanceID != "" {
		return nil, fmt.Errorf("cannot name the machine: %w", errors.ErrUnsupported)
	}
	return o.Sandbox.Boot(ctx, image)
}

// A sandbox that can make one kind of machine only is asked for that.
func TestBootOfOneKind(t *testing.T) {
	p := &product{
		factory: &Factory{Sandbox: oneKind{}}, def: &Definition{User: "linux"}, name: "Standard_Test_1",
		log: slog.New(slog.DiscardHandler),
	}
	j := &job{product: p, runDir: t.TempDir(), build: publish.NewBuildID(p.factory.now())}
	require.NoError(t, sandboxtest.WriteImage(j.file(".qcow2"), 4<<30))
	m, err := j.boot(t.Context(), sandbox.Variant{InstanceID: "1"})
	require.NoError(t, err)
	require.NoError(t, m.Close())
}
