// Package debs fetches and unpacks Debian packages with the distribution's own
// programs: apt-get, which verifies them, and dpkg-deb.
package debs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Apt is a configuration of apt: command-line options, or nil for the machine's
// own.
type Apt []string

// URIs tells what Download would fetch, one line for each package with its
// digest.
func (a Apt) URIs(ctx context.Context, packages ...string) (string, error) {
	out, err := a.output(ctx, "", "apt-get", append([]string{"download", "--print-uris", "-q"}, packages...))
	return string(out), err
}

// Depends returns the packages that one depends on directly, by name.
func (a Apt) Depends(ctx context.Context, name string) ([]string, error) {
	out, err := a.output(ctx, "", "apt-cache", []string{"depends", "--important", name})
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		if dep, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok {
			names = append(names, dep)
		}
	}
	return names, nil
}

// Download fetches packages ("NAME", "NAME:ARCH=VERSION") into a directory.
func (a Apt) Download(ctx context.Context, dir string, packages ...string) error {
	_, err := a.output(ctx, dir, "apt-get", append([]string{"download", "-q"}, packages...))
	return err
}

// Update reads the indexes of all sources anew. One that cannot be read or
// verified is an error.
func (a Apt) Update(ctx context.Context) error {
	_, err := a.output(ctx, "", "apt-get", []string{"update", "-q", "--error-on=any"})
	return err
}

// Indexes are the files of packages that the last Update has read.
func (a Apt) Indexes(ctx context.Context) ([]string, error) {
	out, err := a.output(ctx, "", "apt-get", []string{"indextargets", "--format", "$(FILENAME)", "Created-By: Packages"})
	return strings.Fields(string(out)), err
}

func (a Apt) output(ctx context.Context, dir, program string, args []string) ([]byte, error) {
	return output(ctx, dir, program, append(append([]string{}, a...), args...))
}

// Extract unpacks a package's files below a directory.
func Extract(ctx context.Context, file, dir string) error {
	_, err := output(ctx, "", "dpkg-deb", []string{"--extract", file, dir})
	return err
}

// Tar calls read with one of a package's two archives, "--ctrl-tarfile" or
// "--fsys-tarfile".
func Tar(ctx context.Context, file, archive string, read func(io.Reader) error) error {
	cmd := command(ctx, "dpkg-deb", []string{archive, file})
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot run dpkg-deb: %w", err)
	}
	err = read(out)
	if err == nil {
		_, err = io.Copy(io.Discard, out) // tar's padding
	}
	_ = out.Close()
	if werr := cmd.Wait(); err == nil && werr != nil {
		err = fmt.Errorf("cannot unpack %s: %w: %s", filepath.Base(file), werr, lastLine(stderr.String()))
	}
	return errors.Join(ctx.Err(), err)
}

func command(ctx context.Context, program string, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(cmd.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

func output(ctx context.Context, dir, program string, args []string) ([]byte, error) {
	cmd := command(ctx, program, args)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot run %s: %w: %s", program, err, lastLine(stderr.String()))
	}
	return out, nil
}

// lastLine is the first error of apt, else the last line.
func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for _, l := range lines {
		if strings.HasPrefix(l, "E: ") {
			return l
		}
	}
	return lines[len(lines)-1]
}
