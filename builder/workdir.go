package builder

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/internal/isolate"
)

// Claim makes a build's work directory on the host, after it has freed what an
// earlier build has left there: see [Cleanup]. It fails where the host cannot run
// a command in namespaces of its own, for then nothing could be built. The
// directory belongs to the build as long as the file workDir + ".owner" lies
// beside it. Who claims a directory cleans it up.
func Claim(ctx context.Context, host Host, workDir string) error {
	if err := Cleanup(ctx, host, workDir); err != nil {
		return err
	}
	if err := run(ctx, host, Command{Args: isolate.Claim(workDir)}); err != nil {
		return fmt.Errorf("cannot make the work directory %s: %w", workDir, err)
	}
	if err := run(ctx, host, Command{Args: []string{"true"}, WorkDir: workDir}); err != nil {
		err = fmt.Errorf("cannot run builds in mount and PID namespaces of their own, which the host's kernel and container must allow: %w", err)
		return errors.Join(err, Cleanup(context.WithoutCancel(ctx), host, workDir))
	}
	return nil
}

// Cleanup frees what a build in workDir has left on the host, also one that was
// killed or whose caller was: it kills the build's processes, which takes its mounts
// along, detaches the loop devices whose file is in workDir and removes it. A
// Cleanup that was cut is completed by the next. It touches nothing that does not
// belong to workDir, does nothing where there is nothing, and refuses a directory
// with content that was not claimed.
func Cleanup(ctx context.Context, host Host, workDir string) error {
	err := isolate.Check(workDir)
	if err == nil {
		err = run(ctx, host, Command{Args: isolate.Cleanup(workDir)})
	}
	if err != nil {
		return fmt.Errorf("cannot clean up %s: %w", workDir, err)
	}
	return nil
}

// run runs a command whose error is what it says.
func run(ctx context.Context, host Host, c Command) error {
	var said tail
	c.Stdout, c.Stderr = &said, &said
	err := host.Run(ctx, c)
	if text := strings.Join(strings.Fields(string(said)), " "); err != nil && ctx.Err() == nil && text != "" {
		return fmt.Errorf("%w: %s", err, text)
	}
	return err
}

// tail keeps the end of what is written.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	const most = 1000
	*t = append(*t, p...)
	*t = (*t)[max(0, len(*t)-most):]
	return len(p), nil
}
