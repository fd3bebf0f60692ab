// Build builds single images, without testing or releasing them.
//
//	build build -config FILE -image NAME [-mirror NAME=URL]… [-v] OUT
//	build rebuild -archive FILE [-mirror NAME=URL]… [-v] OUT
//	build compare DIR DIR
//	build cleanup WORKDIR…
//
// Build builds the image of a definition file into the new directory OUT. Rebuild
// builds it again from the archive of configuration that a release holds
// (NAME-BUILD.config.tar.gz, verified before: signing verify), with your mirrors in
// place of its own. Compare says what differs between two such builds, or releases:
// packages, files with content, owners and modes, configuration, and what the mirrors
// had. Cleanup frees what a killed build has left of its work directory: mounts, loop
// devices, files.
//
// It exits with 0 when the image is built or both are the same, 1 when the build failed
// or they differ, and 2 on bad usage or configuration.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/builder/dib"
	"github.com/opentelekomcloud/go-imagefactory/builder/existing"
	"github.com/opentelekomcloud/go-imagefactory/builder/kiwi"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory/rebuild"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

func main() {
	syscall.Umask(0o022) // builders take it into images
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

const usage = "want build, rebuild, compare or cleanup; -h after it tells more"

// errUsage is the caller's mistake.
var errUsage = errors.New("bad usage")

// errDiffers says that two builds are not the same.
var errDiffers = errors.New("they differ")

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	commands := map[string]func(context.Context, *flag.FlagSet, []string, io.Writer, io.Writer) error{
		"build": buildImage, "rebuild": rebuildImage, "compare": compare, "cleanup": cleanup,
	}
	if len(args) == 0 || commands[args[0]] == nil {
		fmt.Fprintln(stderr, "build:", usage)
		return 2
	}
	fs := flag.NewFlagSet("build "+args[0], flag.ContinueOnError)
	fs.SetOutput(stderr)
	err := commands[args[0]](ctx, fs, args[1:], stdout, stderr)
	var config *imagefactory.ConfigError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errDiffers):
		return 1
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(stderr, "build:", strings.TrimSuffix(line, "\n"))
	}
	if errors.Is(err, errUsage) || errors.As(err, &config) || errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrExist) {
		return 2
	}
	return 1
}

// parse reads flags and so many arguments, or at least one where n is -1.
func parse(fs *flag.FlagSet, args []string, n int, what string) error {
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if fs.NArg() != n && (n >= 0 || fs.NArg() == 0) {
		return fmt.Errorf("%w: want %s", errUsage, what)
	}
	return nil
}

// options are those of both ways to build.
type options struct {
	mirrors mirrors
	verbose bool
}

func (o *options) add(fs *flag.FlagSet) {
	fs.Var(&o.mirrors, "mirror", "`NAME=URL` of a mirror to build from, such as debian=http://…; those of the definition no longer count then")
	fs.BoolVar(&o.verbose, "v", false, "log every line of the builder")
}

func (o *options) factory(stderr io.Writer) *imagefactory.Factory {
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	return &imagefactory.Factory{
		Builders: []imagefactory.BuilderDriver{dib.Driver{}, kiwi.Driver{}, existing.Driver{}},
		Logger:   slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})),
	}
}

// mirrors is a flag that is given for each mirror.
type mirrors map[string]string

func (m *mirrors) String() string { return "" }

func (m *mirrors) Set(s string) error {
	name, url, ok := strings.Cut(s, "=")
	if !ok || name == "" || url == "" {
		return errors.New("want NAME=URL")
	}
	if *m == nil {
		*m = mirrors{}
	}
	(*m)[name] = url
	return nil
}

func buildImage(ctx context.Context, fs *flag.FlagSet, args []string, stdout, stderr io.Writer) error {
	var o options
	o.add(fs)
	config := fs.String("config", "", "definition `file` (YAML)")
	image := fs.String("image", "", "`name` of the image")
	if err := parse(fs, args, 1, "the directory to make"); err != nil {
		return err
	}
	definitions, err := imagefactory.LoadFile(*config)
	if err != nil {
		return err
	}
	for _, d := range definitions {
		if d.Name != *image {
			continue
		}
		if o.mirrors != nil {
			d.Mirrors = o.mirrors
		}
		return show(fs.Arg(0), stdout, o.factory(stderr).Build(ctx, d, fs.Arg(0)))
	}
	return fmt.Errorf("%w: -image: %s has no image called %q", errUsage, *config, *image)
}

func rebuildImage(ctx context.Context, fs *flag.FlagSet, args []string, stdout, stderr io.Writer) error {
	var o options
	o.add(fs)
	archive := fs.String("archive", "", "archive of configuration, a `file` NAME-BUILD.config.tar.gz")
	if err := parse(fs, args, 1, "the directory to make"); err != nil {
		return err
	}
	return show(fs.Arg(0), stdout, o.factory(stderr).Rebuild(ctx, *archive, o.mirrors, fs.Arg(0)))
}

// show lists what a build has made.
func show(dir string, stdout io.Writer, err error) error {
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		fmt.Fprintln(stdout, e.Name())
	}
	return err
}

func compare(ctx context.Context, fs *flag.FlagSet, args []string, stdout, _ io.Writer) error {
	if err := parse(fs, args, 2, "two directories of builds"); err != nil {
		return err
	}
	same, differences, err := rebuild.CompareBuilds(ctx, fs.Arg(0), fs.Arg(1))
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	fmt.Fprintln(stdout, "same:", same)
	for _, d := range differences {
		fmt.Fprintln(stdout, d)
	}
	if same == signing.Differs {
		return errDiffers
	}
	return nil
}

func cleanup(ctx context.Context, fs *flag.FlagSet, args []string, _, _ io.Writer) error {
	if err := parse(fs, args, -1, "work directories"); err != nil {
		return err
	}
	var errs []error
	for _, dir := range fs.Args() {
		errs = append(errs, builder.Cleanup(ctx, builder.Local{}, dir))
	}
	return errors.Join(errs...)
}
