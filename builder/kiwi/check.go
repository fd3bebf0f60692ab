package kiwi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/internal/buildlog"
)

var _ builder.Checker = tool{}

// Check implements [builder.Checker]: the spec is one that the driver handles, the
// description is there and one that the driver accepts, and kiwi-ng's schema does.
// Where this machine has no kiwi-ng, the last is not known.
func (t tool) Check(spec builder.Spec) error {
	dir, err := os.MkdirTemp("", "kiwi-check-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r := &run{Config: t.config, spec: spec, log: slog.New(slog.DiscardHandler), config: filepath.Join(dir, "config")}
	if err := errors.Join(r.validate(), r.write(context.Background())); err != nil {
		return err
	}
	config, _, err := r.render(version(spec.Build), r.mirror)
	if err != nil {
		return err
	}
	if err := os.WriteFile(r.given(applianceDir, "config.xml"), config, 0o644); err != nil {
		return err
	}
	return r.checkSchema()
}

// checkSchema lets the kiwi-ng of this machine read the description.
func (r *run) checkSchema() error {
	tool, err := exec.LookPath(program)
	if err != nil {
		return nil //nolint:nilerr // that it is not installed is said above
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	r.spec.WorkDir = r.config // where the description lies
	log := buildlog.New(ctx, nil, r.log, parseLine)
	cmd := exec.CommandContext(ctx, tool, r.infoArgs()[1:]...)
	cmd.Env = []string{"PATH=" + builder.DefaultPath, "HOME=" + r.config, "LANG=C.UTF-8"}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.WaitDelay = 10 * time.Second
	if err := os.Mkdir(r.given("tmp"), 0o755); err != nil {
		return err
	}
	if err := errors.Join(cmd.Run(), log.Close()); err != nil {
		return fmt.Errorf("description: %w", &builder.ToolError{Tool: program, Phase: log.Phase, Err: err, Tail: log.Tail})
	}
	return nil
}
