package imagefactory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
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
	path := filepath.Join(t.TempDir(), "image.qcow2")
	require.NoError(t, sandboxtest.WriteImage(path, 4<<30))
	j := &job{
		factory: &Factory{Sandbox: oneKind{}}, def: &Definition{User: "linux"}, built: &builder.Result{ImagePath: path},
		runDir: t.TempDir(), log: slog.New(slog.DiscardHandler),
	}
	m, err := j.boot(t.Context(), sandbox.Variant{InstanceID: "1"})
	require.NoError(t, err)
	require.NoError(t, m.Close())
}
