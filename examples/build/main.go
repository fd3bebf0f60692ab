// Build builds single images, without testing or releasing them.
//
//	build build -config FILE -image NAME [-mirror NAME=URL]… [-v] OUT
//	build rebuild -archive FILE [-mirror NAME=URL]… [-v] OUT
//	build compare DIR DIR
//	build attest -release IMAGE/BUILD -keyring FILE -key FILE -rebuilder URI DIR OUT
//	build cleanup WORKDIR…
//
// Build builds the image of a definition file into the new directory OUT. Rebuild
// builds it again from the archive of configuration that a release holds
// (NAME-BUILD.config.tar.gz, verified before: signing verify), with your mirrors in
// place of its own. Compare says what differs between two such builds, or releases:
// packages, files with content, owners and modes, configuration, and what the mirrors
// had. Attest compares what Rebuild has made with the release and writes what comes of it,
// the same or not, into the new file OUT, signed with the rebuilder's own key: a statement
// for those who fetch with "publish fetch -rebuilt-by N". Cleanup frees what a killed build has left of its work directory: mounts, loop
// devices, files.
//
// It exits with 0 when the image is built or both are the same, 1 when the build failed
// or they differ, and 2 on bad usage or configuration. Attest exits with 2 whenever there
// is no statement.
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
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/builder/dib"
	"github.com/opentelekomcloud/go-imagefactory/builder/existing"
	"github.com/opentelekomcloud/go-imagefactory/builder/kiwi"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory/rebuild"
	"github.com/opentelekomcloud/go-imagefactory/internal/passphrase"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

func main() {
	syscall.Umask(0o022) // builders take it into images
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

const usage = "want build, rebuild, compare, attest or cleanup; -h after it tells more"

// errUsage is the caller's mistake.
var errUsage = errors.New("bad usage")

// errNothing is that there is no statement to attest.
var errNothing = errors.New("nothing is attested")

// errDiffers says that two builds are not the same.
var errDiffers = errors.New("they differ")

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	commands := map[string]func(context.Context, *flag.FlagSet, []string, io.Writer, io.Writer) error{
		"build": buildImage, "rebuild": rebuildImage, "compare": compare, "attest": attest, "cleanup": cleanup,
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
	if errors.Is(err, errUsage) || errors.Is(err, errNothing) || errors.As(err, &config) || errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrExist) {
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
	return showSame(stdout, same, differences)
}

// showSame shows how far two builds are the same; that they differ is the error.
func showSame(stdout io.Writer, same signing.Sameness, differences []string) error {
	fmt.Fprintln(stdout, "same:", same)
	for _, d := range differences {
		fmt.Fprintln(stdout, d)
	}
	if same == signing.Differs {
		return errDiffers
	}
	return nil
}

// attestation is what attest is told.
type attestation struct {
	release, keyring, key, rebuilder string
	passphrases                      passphrase.Asker
}

func attest(ctx context.Context, fs *flag.FlagSet, args []string, stdout, _ io.Writer) error {
	var a attestation
	fs.StringVar(&a.release, "release", "", "`directory` IMAGE/BUILD of the release")
	fs.StringVar(&a.keyring, "keyring", "", "`file` of the publisher's keys, which have signed the release")
	fs.StringVar(&a.key, "key", "", "`file` with the secret key of the rebuilder, which is not the publisher")
	fs.StringVar(&a.rebuilder, "rebuilder", "", "`URI` that names the rebuilder")
	fs.IntVar(&a.passphrases.FD, "passphrase-fd", -1, "file descriptor `number` to read the passphrase of -key from, not the terminal")
	if err := parse(fs, args, 2, "the directory of the rebuild and the file to make"); err != nil {
		return err
	}
	if a.release == "" || a.keyring == "" || a.key == "" || a.rebuilder == "" {
		return fmt.Errorf("%w: want -release, -keyring, -key and -rebuilder", errUsage)
	}
	r, envelope, err := a.state(ctx, fs.Arg(0))
	if err == nil {
		err = writeNew(fs.Arg(1), envelope)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errNothing, err)
	}
	return showSame(stdout, r.Same, r.Differences)
}

// state compares the rebuild in a directory with the release, and signs the result.
func (a *attestation) state(ctx context.Context, dir string) (*signing.Rebuild, []byte, error) {
	keyring, err := signing.LoadKeyring(a.keyring)
	if err != nil {
		return nil, nil, err
	}
	key, err := signing.LoadKey(a.key, a.passphrases.Ask)
	if err != nil {
		return nil, nil, err
	}
	if slices.ContainsFunc(keyring.Pins(), func(p signing.Pin) bool { return p.Fingerprint == key.Fingerprint() }) {
		return nil, nil, errors.New("the key of -key is one of the publisher's, whose word confirms nothing")
	}
	signer, err := signing.NewSigner(key, signing.SignerConfig{})
	if err != nil {
		return nil, nil, err
	}
	released, err := publish.Open(ctx, a.release, keyring)
	if err != nil {
		return nil, nil, err
	}
	r, err := rebuild.Compare(ctx, released, dir, a.rebuilder, time.Now())
	if err != nil {
		return nil, nil, err
	}
	statement, err := r.Statement()
	if err != nil {
		return nil, nil, err
	}
	sealer := signing.Sealer{Signers: []*signing.Signer{signer}}
	envelope, err := sealer.Envelope(ctx, statement)
	return r, envelope, err
}

// writeNew writes a file that is not there yet, and leaves none that is not whole.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // the path is the caller's
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path)) //nolint:gosec // as above
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
