package dib

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/internal/buildlog"
)

// Cleanup frees what a build in workDir has left on the host, such as one that
// was killed: processes, mounts, loop devices, device mapper links and files.
// It touches nothing that does not belong to workDir, does nothing where there is
// nothing, and refuses a directory with content that is not a build's.
func Cleanup(ctx context.Context, host builder.Host, workDir string) error {
	if err := cleanup(ctx, host, workDir); err != nil {
		return fmt.Errorf("cannot clean up %s: %w", workDir, err)
	}
	return nil
}

func cleanup(ctx context.Context, host builder.Host, workDir string) error {
	if !plainPath.MatchString(workDir) {
		return errors.New("not an absolute path of plain characters")
	}
	c := cleaner{host: host}
	// The kernel names resolved paths.
	out, err := c.output(ctx, "readlink", "-m", "--", workDir)
	if err != nil {
		return err
	}
	c.dir = strings.TrimSuffix(out, "\n")
	if !path.IsAbs(c.dir) || c.dir == "/" || path.Clean(workDir) == "/" {
		return errors.New("not a work directory")
	}
	if _, err := c.output(ctx, "test", "-e", c.dir); err != nil {
		return ctx.Err()
	}
	if _, err := c.output(ctx, "test", "-e", path.Join(c.dir, marker)); err != nil {
		_, err := c.output(ctx, "rmdir", "--", c.dir) // only if it is empty
		return errors.Join(ctx.Err(), err)
	}
	if err := c.killProcesses(ctx, workDir); err != nil {
		return err
	}
	// The host's /dev is mounted below the work directory during a build:
	// nothing may be removed before everything is unmounted.
	if err := c.unmount(ctx); err != nil {
		return err
	}
	if err := c.detachLoops(ctx); err != nil {
		return err
	}
	left, err := c.mounts(ctx)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("%s is still mounted", left[0])
	}
	_, err = c.output(ctx, "rm", "-rf", "--one-file-system", "--", c.dir)
	return err
}

var plainPath = regexp.MustCompile(`^/[A-Za-z0-9._/+@-]+$`)

type cleaner struct {
	host builder.Host
	dir  string // resolved
}

// output runs a command and returns what it printed, bounded.
func (c cleaner) output(ctx context.Context, args ...string) (string, error) {
	var out, msg buildlog.Limited
	err := c.host.Run(ctx, builder.Command{Args: args, Stdout: &out, Stderr: &msg})
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", args[0], err, strings.TrimSpace(string(msg.Data)))
	}
	return string(out.Data), nil
}

// killProcesses ends the processes of a build whose caller is gone: those that
// are chrooted below the work directory and those of the tool itself, which
// carry its TMP_DIR in their environment.
func (c cleaner) killProcesses(ctx context.Context, workDir string) error {
	// find's exit status is of no use: processes come and go.
	chrooted, _ := c.output(ctx, "find", "/proc", "-maxdepth", "2", "-name", "root", "-lname", c.dir+"/*", "-printf", "%h\\n")
	tools, _ := c.output(ctx, "find", "/proc", "-maxdepth", "2", "-name", "environ",
		"-exec", "grep", "-qszxF", "TMP_DIR="+path.Join(workDir, "tmp"), "{}", ";", "-printf", "%h\\n")
	pids := strings.Fields(chrooted + tools)
	for i, p := range pids {
		pids[i] = path.Base(p)
	}
	if len(pids) > 0 {
		_, _ = c.output(ctx, append([]string{"kill", "-KILL", "--"}, pids...)...) // some may be gone
	}
	return ctx.Err()
}

// mounts lists the mount points below the work directory, deepest first.
func (c cleaner) mounts(ctx context.Context) ([]string, error) {
	table, err := c.output(ctx, "cat", "/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	var points []string
	for line := range strings.Lines(table) {
		if f := strings.Fields(line); len(f) > 1 {
			point := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(f[1])
			if strings.HasPrefix(point, c.dir+"/") {
				points = append(points, point)
			}
		}
	}
	slices.Sort(points)
	slices.Reverse(points)
	return points, nil
}

func (c cleaner) unmount(ctx context.Context) error {
	points, err := c.mounts(ctx)
	if err != nil {
		return err
	}
	for _, p := range points {
		if _, err := c.output(ctx, "umount", "--", p); err == nil {
			continue
		}
		if _, err := c.output(ctx, "umount", "--lazy", "--", p); err != nil {
			return err
		}
	}
	return nil
}

// detachLoops frees the loop devices whose file is in the work directory.
func (c cleaner) detachLoops(ctx context.Context) error {
	list, err := c.output(ctx, "losetup", "--list", "--noheadings", "--raw", "--output", "NAME,BACK-FILE")
	if err != nil {
		return err
	}
	for line := range strings.Lines(list) {
		device, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !strings.HasPrefix(file, c.dir+"/") {
			continue
		}
		// Partitions, by the kernel or by device-mapper; there may be none.
		_, _ = c.output(ctx, "kpartx", "-d", device)
		_, _ = c.output(ctx, "partx", "-d", device)
		links, err := c.output(ctx, "find", "/dev", "-maxdepth", "2", "-path", "/dev/mapper/"+path.Base(device)+"p*", "-type", "l", "-printf", "%p\\n")
		if err != nil {
			return err
		}
		for _, link := range strings.Fields(links) {
			if _, err := c.output(ctx, "rm", "-f", "--", link); err != nil {
				return err
			}
		}
		if _, err := c.output(ctx, "losetup", "--detach", device); err != nil {
			return err
		}
	}
	return nil
}
