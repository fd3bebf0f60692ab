// Nightly runs an image factory once: it builds, inspects, boots, tests, signs
// and publishes the images of a definition file.
//
//	nightly -config FILE -out DIR [-key FILE] [-only PATTERN,…] [-until STAGE] [-from STAGE | -fresh] [-jobs N] [-force] [-mirror URL] [-any-class] [-site DIR] [-max-age DAYS] [-v]
//	        [-junit FILE] [-metrics FILE] [-webhook URL -webhook-secret FILE] [-hook PROGRAM]
//	nightly -config FILE -out DIR -task IMAGE/STAGE [-key FILE] [-force] [-mirror URL] [-any-class] [-v]
//	nightly -config FILE -out DIR -due | -promote NAME[/BUILD] | -rotate-key FILE [-key FILE] [-advisories PATH] …
//	nightly -config FILE -check [-out DIR] [-key FILE] [-only PATTERN,…] [-mirror URL] [-any-class]
//
// The stages are build, inspect, test, seal and publish. A run that was cut goes on
// where it was, within twelve hours; with -fresh a new one is begun, and with -from
// the newest is done again from that stage on, also where it has failed.
//
// With -task it does one stage of one image, as a scheduler may have it: the next
// stages are for other calls, by whichever process on the same DIR. A build begins a
// run where none goes on.
//
// The report goes to -junit, -metrics, -webhook and -hook too; that one of them could not
// be told exits with 2, where nothing else was wrong.
//
// With -due it says of each image whether its latest is to be renewed and why. With
// -promote it makes a candidate public that an earlier night has held. With -rotate-key
// it changes the signing key, and keeps what the old one has signed good.
//
// With -check it says what is wrong with the definitions and what they refer to,
// and neither builds nor writes anything.
//
// It exits with 0 when every image is published, unchanged or a candidate, or has come
// to -until, 1 when one failed, there is an alarm or the run was interrupted, and 2 on
// bad usage or configuration.
// With -task: 0 when the stage was done, 1 when it failed, 3 when there is nothing to
// do, since it is done already or an unchanged image does not need it, and 4 when it
// has to wait, for an earlier stage or for who works on the image now. What came of
// each image is in DIR/report.json, but for -task. With -site it writes pages of the
// releases and of the run too, and names the one to open; a release that does not
// verify is shown there and exits with 1. With -max-age, so does a target on which
// what is latest of an image is older than so many days, whatever the night brought.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/opentelekomcloud/go-imagefactory/builder/dib"
	"github.com/opentelekomcloud/go-imagefactory/builder/existing"
	"github.com/opentelekomcloud/go-imagefactory/builder/kiwi"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/glance"
	"github.com/opentelekomcloud/go-imagefactory/publish/ims"
	"github.com/opentelekomcloud/go-imagefactory/publish/obs"
	"github.com/opentelekomcloud/go-imagefactory/publish/website"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// maxDays bounds -max-age, so that it fits a time.Duration.
const maxDays = 100 * 366

func main() {
	syscall.Umask(0o022) // releases are public, and builders take it into images
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("nightly", flag.ContinueOnError)
	fs.SetOutput(stderr)
	config := fs.String("config", "", "definition `file` (YAML)")
	out := fs.String("out", "", "download `directory`; work and failed runs are below its .work")
	keyFile := fs.String("key", ".imagefactory/signing.key", "`file` of the secret signing key, made if there is none")
	only := fs.String("only", "", "run only the images whose names match one of these `patterns`, separated by commas, such as Standard_*")
	until := fs.String("until", "", "last `stage` to do")
	from := fs.String("from", "", "`stage` from which on to do the newest runs again")
	fresh := fs.Bool("fresh", false, "begin new runs, whatever was cut")
	task := fs.String("task", "", "do this one stage: `IMAGE/STAGE`")
	jobs := fs.Int("jobs", 1, "images at once")
	force := fs.Bool("force", false, "release also images that are unchanged")
	mirror := fs.String("mirror", "", "base `URL` of Debian's mirror that \"host\" stands for in definitions; default: what this machine's apt uses")
	anyClass := fs.Bool("any-class", false, "allow names without a class of the cloud's public images, such as my_Debian_12")
	check := fs.Bool("check", false, "report what is wrong with the definitions, drivers, keys and files, and build and write nothing")
	site := fs.String("site", "", "`directory` to write pages of the releases and of the run to")
	policy, after := newPolicyFlags(fs), newAfterFlags(fs)
	maxAge := fs.Int("max-age", 0, "exit with 1 if what is latest on a target is older than so many `days`; 0 allows any age")
	verbose := fs.Bool("v", false, "log every line of the builders")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	usage := func(err error) int {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintln(stderr, "nightly:", strings.TrimSuffix(line, "\n"))
		}
		return 2
	}
	if *config == "" || *out == "" && !*check || fs.NArg() > 0 || *jobs < 1 || *maxAge < 0 || *maxAge > maxDays {
		return usage(errors.New("want -config FILE -out DIR and no other arguments, or -config FILE -check; -jobs from 1, -max-age from 0"))
	}
	if *task != "" && (*check || *only+*until+*from+*site != "" || *fresh) || *from != "" && *fresh {
		return usage(errors.New("-task goes with none of -check, -only, -until, -from, -fresh and -site; -from not with -fresh"))
	}
	for _, stage := range []string{*until, *from} {
		if stage != "" && !slices.Contains(imagefactory.Stages(), imagefactory.Stage(stage)) {
			return usage(fmt.Errorf("there is no stage %q: want one of %v", stage, imagefactory.Stages()))
		}
	}
	definitions, err := imagefactory.LoadFile(*config)
	if err != nil {
		return usage(err)
	}
	if definitions, err = choose(definitions, *only); err != nil {
		return usage(err)
	}
	if err := after.check(); err != nil {
		return usage(err)
	}
	if *out != "" && inside(*keyFile, *out) {
		return usage(fmt.Errorf("the secret key %s must not lie in the download directory %s", *keyFile, *out))
	}
	level := new(slog.LevelVar)
	if *verbose {
		level.Set(slog.LevelDebug)
	}
	logger := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	factory := &imagefactory.Factory{
		Dir: *out, Jobs: *jobs, Force: *force, AnyClass: *anyClass,
		Until: imagefactory.Stage(*until), From: imagefactory.Stage(*from), Fresh: *fresh,
		Builders: []imagefactory.BuilderDriver{dib.Driver{}, kiwi.Driver{}, existing.Driver{}},
		Targets: []imagefactory.TargetDriver{
			directory.Driver{Dir: cmp.Or(*out, "."), Logger: logger},
			glance.Driver{Logger: logger},
			ims.Driver{Logger: logger},
			obs.Driver{Logger: logger},
		},
		Logger: logger, MaxAge: time.Duration(*maxAge) * 24 * time.Hour,
	}
	if *mirror != "" {
		factory.HostMirrors = map[string]string{"debian": *mirror}
	}
	if *check {
		if err := checkOnly(factory, definitions, *keyFile); err != nil {
			return usage(err)
		}
		fmt.Fprintf(stdout, "%s: nothing is wrong with %d images\n", *config, len(definitions))
		return 0
	}
	if err := factory.Validate(definitions); err != nil {
		return usage(err)
	}
	key, made, err := imagefactory.OpenKey(*keyFile)
	if err != nil {
		return usage(err)
	}
	factory.Key = key
	if made {
		fmt.Fprintf(stdout, "made a new signing key in %s; keep it safe\nits fingerprint is %s\n", *keyFile, key.Fingerprint())
	}
	if code, done := policy.do(ctx, factory, definitions, stdout, stderr); done {
		return code
	}
	if *task != "" {
		return doTask(ctx, factory, definitions, *task, stdout, stderr)
	}
	stop := func() {}
	if f, ok := stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) && !*verbose {
		level.Set(slog.LevelWarn)
		screen := newLines(stdout, len(definitions), func() (int, int) {
			width, height, err := term.GetSize(int(f.Fd()))
			if err != nil {
				return 80, 24
			}
			return width, height
		})
		factory.Progress = screen.show
		factory.Logger = slog.New(handler{Handler: logger.Handler(), lines: screen})
		stop = screen.start()
	}
	if *site != "" {
		factory.Website = &website.Site{Out: *site, List: (&directory.Target{Dir: *out}).List}
	}
	report, err := factory.Run(ctx, definitions)
	stop()
	if err != nil {
		return usage(err)
	}
	if page := filepath.Join(*site, "index.html"); *site != "" && ctx.Err() == nil {
		defer fmt.Fprintln(stdout, "pages to open:", page)
	}
	code := tell(ctx, report, filepath.Join(*out, "report.json"), stdout, stderr)
	if err := after.tell(ctx, report); err != nil {
		return cmp.Or(code, usage(err)) // what came of the images counts first
	}
	return code
}

// What -task exits with beside 0, 1 and 2.
const (
	exitNothing = 3
	exitWaits   = 4
)

// doTask does one stage of one image, and returns the exit code.
func doTask(ctx context.Context, factory *imagefactory.Factory, definitions []imagefactory.Definition, name string, stdout, stderr io.Writer) int {
	image, stage := path.Split(name)
	image = strings.TrimSuffix(image, "/")
	at := slices.IndexFunc(definitions, func(d imagefactory.Definition) bool { return d.Name == image })
	if at < 0 || !slices.Contains(imagefactory.Stages(), imagefactory.Stage(stage)) {
		fmt.Fprintf(stderr, "nightly: -task: no task is called %q: want IMAGE/STAGE, the stage one of %v\n", name, imagefactory.Stages())
		return 2
	}
	tasks, err := factory.Tasks(definitions[at : at+1])
	if err != nil {
		fmt.Fprintln(stderr, "nightly:", err)
		return 2
	}
	at = slices.IndexFunc(tasks, func(t imagefactory.Task) bool { return t.Stage == imagefactory.Stage(stage) })
	if at < 0 {
		fmt.Fprintf(stdout, "%s: nothing to do: the run is beyond it\n", name)
		return exitNothing
	}
	report, err := factory.Do(ctx, tasks[at])
	switch {
	case errors.Is(err, imagefactory.ErrNothingToDo):
		fmt.Fprintf(stdout, "%s: %v\n", name, err)
		return exitNothing
	case errors.Is(err, imagefactory.ErrWaits), errors.Is(err, imagefactory.ErrBusy):
		fmt.Fprintf(stdout, "%s: %v\n", name, err)
		return exitWaits
	case report == nil:
		fmt.Fprintln(stderr, "nightly:", err)
		return 2
	}
	all := imagefactory.Report{Images: []imagefactory.ImageReport{*report}}
	if werr := all.WriteText(stdout); err != nil || werr != nil {
		return 1
	}
	return 0
}

// tell writes the report, and returns the exit code.
func tell(ctx context.Context, report *imagefactory.Report, file string, stdout, stderr io.Writer) int {
	// The text first: it is the one that a full disk does not stop.
	err := errors.Join(report.WriteText(stdout), report.WriteFile(file))
	if err != nil {
		fmt.Fprintln(stderr, "nightly:", err)
	}
	switch {
	case !report.OK() || ctx.Err() != nil:
		return 1
	case err != nil:
		return 2
	}
	return 0
}

// checkOnly reports what a run would fail with before it began an image.
func checkOnly(factory *imagefactory.Factory, definitions []imagefactory.Definition, keyFile string) error {
	key, err := signing.LoadKey(keyFile, nil)
	switch {
	case err == nil:
		factory.Key = key
	case errors.Is(err, os.ErrNotExist):
		err = canMake(filepath.Dir(keyFile)) // a run would make the key
	}
	if factory.Dir != "" {
		err = errors.Join(err, canMake(factory.Dir))
	}
	return errors.Join(err, factory.Check(definitions))
}

// canMake reports whether something else stands where a directory is to be.
func canMake(dir string) error {
	for {
		st, err := os.Stat(dir)
		switch {
		case err == nil && st.IsDir():
			return nil
		case err == nil:
			return fmt.Errorf("%s is not a directory", dir)
		case !errors.Is(err, os.ErrNotExist):
			return err
		}
		dir = filepath.Dir(dir)
	}
}

// choose keeps the definitions whose names match a pattern; no patterns keep all.
// Each has to match one.
func choose(definitions []imagefactory.Definition, patterns string) ([]imagefactory.Definition, error) {
	if patterns == "" {
		return definitions, nil
	}
	chosen := make([]bool, len(definitions))
	for pattern := range strings.SplitSeq(patterns, ",") {
		found := false
		for i, d := range definitions {
			match, err := path.Match(pattern, d.Name)
			if err != nil {
				return nil, fmt.Errorf("-only: bad pattern %q: %w", pattern, err)
			}
			found, chosen[i] = found || match, chosen[i] || match
		}
		if !found {
			return nil, fmt.Errorf("-only: no image is called %q", pattern)
		}
	}
	var kept []imagefactory.Definition
	for i, d := range definitions {
		if chosen[i] {
			kept = append(kept, d)
		}
	}
	return kept, nil
}

// inside reports whether a file lies below a directory, whatever links are on
// the way.
func inside(file, dir string) bool {
	resolve := func(name string) string {
		name, _ = filepath.Abs(name)
		rest := ""
		for name != filepath.Dir(name) {
			if resolved, err := filepath.EvalSymlinks(name); err == nil {
				name = resolved
				break
			}
			name, rest = filepath.Dir(name), filepath.Join(filepath.Base(name), rest) // not there yet
		}
		return filepath.Join(name, rest)
	}
	rel, err := filepath.Rel(resolve(dir), resolve(file))
	return err == nil && filepath.IsLocal(rel)
}
