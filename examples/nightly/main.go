// Nightly runs an image factory once: it builds, inspects, boots, tests, signs
// and publishes the images of a definition file.
//
//	nightly -config FILE -out DIR [-key FILE] [-only PATTERN,…] [-until STAGE] [-from STAGE | -fresh] [-force] [-mirror URL] [-any-class] [-v]
//	        [-jobs N [-builds N] [-tests N] [-uploads N] [-memory SIZE]] [-time STAGE=DURATION,…] [-grace DURATION] [-site DIR] [-max-age DAYS]
//	        [-junit FILE] [-metrics FILE] [-webhook URL -webhook-secret FILE] [-hook PROGRAM]
//	nightly -config FILE -out DIR -database URL [-priority N | -cancel] [-only PATTERN,…] …
//	nightly -config FILE -out DIR -task IMAGE/STAGE [-key FILE] [-force] [-mirror URL] [-any-class] [-time STAGE=DURATION,…] [-grace DURATION] [-v]
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
// With -database the night is done by the workers that take their stages from there (see
// worker), with their own limits, and this process only plans it and watches; who stops
// it does not stop them. With -cancel too, what they have of the images is cancelled.
//
// The report goes to -junit, -metrics, -webhook and -hook too; that one of them could not
// be told exits with 2, where nothing else was wrong.
//
// With -due it says of each image whether its latest is to be renewed and why. With
// -promote it makes a candidate public that an earlier night has held. With -rotate-key
// it changes the signing key, and keeps what the old one has signed good.
//
// With -check it says what is wrong with the definitions and what they refer to and, with
// -out, which targets do not answer, whether there is room, and what would be done. It
// neither builds nor writes anything.
//
// An interrupt (SIGINT) cuts what is in hand. SIGTERM lets the stages in hand go on until
// -grace is over, and begins no others; a second one cuts them at once. The next run goes
// on where this one was.
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// options are what the command line says.
type options struct {
	config, out, key, only, until, from, task, mirror, site string
	fresh, force, anyClass, check, verbose                  bool
	jobs, maxAge                                            int
	limits                                                  imagefactory.Limits
	grace                                                   time.Duration
	policy                                                  policyFlags
	after                                                   afterFlags
	database                                                databaseFlags
}

// parse reads the command line; what is wrong with it, flag may have said already.
func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{limits: imagefactory.Limits{Time: map[imagefactory.Stage]time.Duration{}}}
	fs := flag.NewFlagSet("nightly", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.config, "config", "", "definition `file` (YAML)")
	fs.StringVar(&o.out, "out", "", "download `directory`; work and failed runs are below its .work")
	fs.StringVar(&o.key, "key", ".imagefactory/signing.key", "`file` of the secret signing key, made if there is none")
	fs.StringVar(&o.only, "only", "", "run only the images whose names match one of these `patterns`, separated by commas, such as Standard_*")
	fs.StringVar(&o.until, "until", "", "last `stage` to do")
	fs.StringVar(&o.from, "from", "", "`stage` from which on to do the newest runs again")
	fs.BoolVar(&o.fresh, "fresh", false, "begin new runs, whatever was cut")
	fs.StringVar(&o.task, "task", "", "do this one stage: `IMAGE/STAGE`")
	fs.IntVar(&o.jobs, "jobs", 1, "images at once")
	fs.IntVar(&o.limits.Builds, "builds", 0, "of these, builds at once; 0 for as many as there are jobs")
	fs.IntVar(&o.limits.Tests, "tests", 0, "of these, tests at once; 0 for as many as there are jobs")
	fs.IntVar(&o.limits.Uploads, "uploads", 0, "of these, publications at once; 0 for as many as there are jobs")
	fs.Func("memory", "what the machines of all tests may take at once, such as 8GiB", func(text string) error {
		size, err := imagefactory.ParseSize(text)
		o.limits.MemoryBytes = int64(size)
		return err
	})
	fs.Func("time", "`STAGE=DURATION,…`, how long a stage may take, such as build=2h,test=1h; others may take any time", o.parseTimes)
	fs.DurationVar(&o.grace, "grace", time.Minute, "how long stages may go on after a SIGTERM")
	fs.BoolVar(&o.force, "force", false, "release also images that are unchanged")
	fs.StringVar(&o.mirror, "mirror", "", "base `URL` of Debian's mirror that \"host\" stands for in definitions; default: what this machine's apt uses")
	fs.BoolVar(&o.anyClass, "any-class", false, "allow names without a class of the cloud's public images, such as my_Debian_12")
	fs.BoolVar(&o.check, "check", false, "report what is wrong with the definitions, drivers, keys, files and, with -out, targets and room, and what would be done; build and write nothing")
	fs.StringVar(&o.site, "site", "", "`directory` to write pages of the releases and of the run to")
	fs.IntVar(&o.maxAge, "max-age", 0, "exit with 1 if what is latest on a target is older than so many `days`; 0 allows any age")
	fs.BoolVar(&o.verbose, "v", false, "log every line of the builders")
	o.policy, o.after, o.database = newPolicyFlags(fs), newAfterFlags(fs), newDatabaseFlags(fs)
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	return o, o.validate(fs.NArg())
}

// errUsage says that the flags do not fit together.
var errUsage = errors.New("bad usage")

func (o *options) parseTimes(text string) error {
	for item := range strings.SplitSeq(text, ",") {
		stage, limit, _ := strings.Cut(item, "=")
		d, err := time.ParseDuration(limit)
		if err != nil || d <= 0 || !slices.Contains(imagefactory.Stages(), imagefactory.Stage(stage)) {
			return fmt.Errorf("want STAGE=DURATION, the stage one of %v", imagefactory.Stages())
		}
		o.limits.Time[imagefactory.Stage(stage)] = d
	}
	return nil
}

func (o *options) validate(more int) error {
	least := min(o.maxAge, o.limits.Builds, o.limits.Tests, o.limits.Uploads, int(o.grace))
	if o.config == "" || o.out == "" && !o.check || more > 0 || o.jobs < 1 || least < 0 || o.maxAge > maxDays {
		return fmt.Errorf("%w: want -config FILE -out DIR and no other arguments, or -config FILE -check; -jobs from 1, -max-age and limits from 0", errUsage)
	}
	if o.task != "" && (o.check || o.only+o.until+o.from+o.site != "" || o.fresh) || o.from != "" && o.fresh {
		return fmt.Errorf("%w: -task goes with none of -check, -only, -until, -from, -fresh and -site; -from not with -fresh", errUsage)
	}
	if n := o.policy.asked(); n > 1 || n > 0 && (o.check || o.task != "") {
		return fmt.Errorf("%w: -due, -promote and -rotate-key go with no other of them, and neither with -check nor -task", errUsage)
	}
	if *o.database.url != "" && o.task+o.site != "" {
		return fmt.Errorf("%w: -database goes with neither -task nor -site", errUsage)
	}
	for _, stage := range []string{o.until, o.from} {
		if stage != "" && !slices.Contains(imagefactory.Stages(), imagefactory.Stage(stage)) {
			return fmt.Errorf("%w: there is no stage %q: want one of %v", errUsage, stage, imagefactory.Stages())
		}
	}
	if o.out != "" && inside(o.key, o.out) {
		return fmt.Errorf("%w: the secret key %s must not lie in the download directory %s", errUsage, o.key, o.out)
	}
	if err := errors.Join(o.after.check(), o.database.check()); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	return nil
}

func (o *options) factory(logger *slog.Logger) *imagefactory.Factory {
	factory := &imagefactory.Factory{
		Dir: o.out, Jobs: o.jobs, Limits: o.limits, Force: o.force, AnyClass: o.anyClass,
		Until: imagefactory.Stage(o.until), From: imagefactory.Stage(o.from), Fresh: o.fresh,
		Builders: []imagefactory.BuilderDriver{dib.Driver{}, kiwi.Driver{}, existing.Driver{}},
		Targets: []imagefactory.TargetDriver{
			directory.Driver{Dir: cmp.Or(o.out, "."), Logger: logger},
			glance.Driver{Logger: logger},
			ims.Driver{Logger: logger},
			obs.Driver{Logger: logger},
		},
		Logger: logger, MaxAge: time.Duration(o.maxAge) * 24 * time.Hour,
	}
	if o.mirror != "" {
		factory.HostMirrors = map[string]string{"debian": o.mirror}
	}
	if o.site != "" {
		factory.Website = &website.Site{Out: o.site, List: (&directory.Target{Dir: o.out}).List}
	}
	return factory
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		return usage(stderr, err)
	case err != nil: // which flag has said
		return 2
	}
	definitions, err := imagefactory.LoadFile(o.config)
	if err == nil {
		definitions, err = choose(definitions, o.only)
	}
	if err != nil {
		return usage(stderr, err)
	}
	level := new(slog.LevelVar)
	if o.verbose {
		level.Set(slog.LevelDebug)
	}
	factory := o.factory(slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})))
	if o.check {
		return checkOnly(ctx, factory, definitions, o, stdout, stderr)
	}
	if err := factory.Validate(definitions); err != nil {
		return usage(stderr, err)
	}
	key, made, err := imagefactory.OpenKey(o.key)
	if err != nil {
		return usage(stderr, err)
	}
	factory.Key = key
	if made {
		fmt.Fprintf(stdout, "made a new signing key in %s; keep it safe\nits fingerprint is %s\n", o.key, key.Fingerprint())
	}
	if code, done := o.policy.do(ctx, factory, definitions, stdout, stderr); done {
		return code
	}
	if *o.database.url != "" {
		return o.inDatabase(ctx, factory, definitions, stdout, stderr)
	}
	ctx, stopping, done := onTerminate(ctx, o.grace)
	defer done()
	factory.Stop = stopping
	if o.task != "" {
		return doTask(ctx, factory, definitions, o.task, stdout, stderr)
	}
	stop := func() {}
	if f, ok := stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) && !o.verbose {
		level.Set(slog.LevelWarn)
		stop = onTerminal(f, factory, len(definitions))
	}
	report, err := factory.Run(ctx, definitions)
	stop()
	if err != nil {
		return usage(stderr, err)
	}
	if page := filepath.Join(o.site, "index.html"); o.site != "" && ctx.Err() == nil {
		defer fmt.Fprintln(stdout, "pages to open:", page)
	}
	code := tell(ctx, report, filepath.Join(o.out, "report.json"), stdout, stderr)
	select {
	case <-stopping:
		fmt.Fprintln(stderr, "nightly: stopped; the next run goes on")
		code = 1
	default:
	}
	if err := o.after.tell(ctx, report); err != nil {
		return cmp.Or(code, usage(stderr, err)) // what came of the images counts first
	}
	return code
}

// usage says what is wrong, a line each.
func usage(stderr io.Writer, err error) int {
	for line := range strings.Lines(strings.TrimPrefix(err.Error(), errUsage.Error()+": ")) {
		fmt.Fprintln(stderr, "nightly:", strings.TrimSuffix(line, "\n"))
	}
	return 2
}

// onTerminate is for SIGTERM: the first closes stopping, and ends ctx when grace is
// over; a second ends it at once.
func onTerminate(ctx context.Context, grace time.Duration) (_ context.Context, stopping <-chan struct{}, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop, signals := make(chan struct{}), make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM)
	go func() {
		select {
		case <-ctx.Done():
			return
		case <-signals:
			close(stop)
		}
		select {
		case <-ctx.Done():
		case <-signals:
			cancel(errors.New("terminated"))
		case <-time.After(grace):
			cancel(fmt.Errorf("terminated, and %v are over", grace))
		}
	}()
	return ctx, stop, func() {
		signal.Stop(signals)
		cancel(nil)
	}
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

// checkOnly reports what a run would fail with before it began an image and, where it is
// said where to publish, what it would do.
func checkOnly(ctx context.Context, factory *imagefactory.Factory, definitions []imagefactory.Definition, o *options, stdout, stderr io.Writer) int {
	key, err := signing.LoadKey(o.key, nil)
	switch {
	case err == nil:
		factory.Key = key
	case errors.Is(err, os.ErrNotExist):
		err = canMake(filepath.Dir(o.key)) // a run would make the key
	}
	if factory.Dir != "" {
		err = errors.Join(err, canMake(factory.Dir))
	}
	if err := errors.Join(err, factory.Check(definitions)); err != nil {
		return usage(stderr, err)
	}
	if factory.Dir != "" {
		tasks, err := factory.Preflight(ctx, definitions)
		if err != nil {
			return usage(stderr, err)
		}
		for _, t := range tasks {
			fmt.Fprintln(stdout, "would do", t)
		}
	}
	fmt.Fprintf(stdout, "%s: nothing is wrong with %d images\n", o.config, len(definitions))
	return 0
}

// canMake reports whether something else stands where a directory is to be.
func canMake(dir string) error {
	for {
		st, err := os.Stat(dir) //nolint:gosec // the user's own argument
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
