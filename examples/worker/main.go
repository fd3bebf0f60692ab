// Worker does stages of an image factory that are in a database, as bin/nightly -database
// puts them there, or on a schedule of its own: builds, tests, publications.
//
//	worker -config FILE -out DIR [-database URL] [-queues build[=N],test[=N],publish[=N]] [-night HH:MM]
//	       [-key FILE] [-force] [-mirror URL] [-any-class] [-grace DURATION] [-v]
//
// Any number of workers may run with the same definitions, download directory and
// database: sqlite:PATH on one machine, by default DIR/.work/queue.sqlite, or
// postgres://USER@HOST/DATABASE on several, which share DIR. What the password is, say
// with PGPASSWORD or ~/.pgpass. Of each queue that is named it does N stages at once, one
// if that is missing. What a worker has that is killed, another takes up within a minute.
//
// With -night a night of all definitions is planned each day at that time, UTC; once,
// though all workers have it. One that was missed is made up for within twelve hours.
//
// SIGTERM lets the stages in hand go on until -grace is over, and hands back what is not
// done by then; an interrupt (SIGINT) or a second SIGTERM hands them back at once. It exits
// with 0 when it was stopped, 1 when it could not go on, and 2 on bad usage or
// configuration.
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
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/builder/dib"
	"github.com/opentelekomcloud/go-imagefactory/builder/existing"
	"github.com/opentelekomcloud/go-imagefactory/builder/kiwi"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory/queue"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/glance"
	"github.com/opentelekomcloud/go-imagefactory/publish/ims"
	"github.com/opentelekomcloud/go-imagefactory/publish/obs"
)

func main() {
	syscall.Umask(0o022) // releases are public, and builders take it into images
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stderr))
}

// options are what the command line says.
type options struct {
	config, out, database, key, mirror string
	force, anyClass, verbose           bool
	grace                              time.Duration
	queues                             map[string]int
	schedule                           queue.Schedule
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("worker", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.config, "config", "", "definition `file` (YAML)")
	fs.StringVar(&o.out, "out", "", "download `directory`, the same for all workers")
	fs.StringVar(&o.database, "database", "", "`URL` of the database: sqlite:PATH or postgres://…; default: sqlite:DIR/.work/queue.sqlite")
	fs.StringVar(&o.key, "key", ".imagefactory/signing.key", "`file` of the secret signing key, made if there is none")
	fs.Func("queues", "`NAME[=N],…`, which queues to take from, and how many stages at once; default: build,test,publish", o.parseQueues)
	fs.Func("night", "`HH:MM`, UTC, when a night is planned each day", func(text string) error {
		t, err := time.Parse("15:04", text)
		o.schedule = queue.Daily{At: time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute}
		return err
	})
	fs.BoolVar(&o.force, "force", false, "release also images that are unchanged")
	fs.StringVar(&o.mirror, "mirror", "", "base `URL` of Debian's mirror that \"host\" stands for in definitions; default: what this machine's apt uses")
	fs.BoolVar(&o.anyClass, "any-class", false, "allow names without a class of the cloud's public images, such as my_Debian_12")
	fs.DurationVar(&o.grace, "grace", time.Minute, "how long stages may go on after a SIGTERM")
	fs.BoolVar(&o.verbose, "v", false, "log every line of the builders")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if o.config == "" || o.out == "" || fs.NArg() > 0 || o.grace < 0 {
		err := errors.New("want -config FILE -out DIR and no other arguments")
		fmt.Fprintln(stderr, "worker:", err)
		return nil, err
	}
	if o.database == "" {
		o.database = "sqlite:" + filepath.Join(o.out, ".work", "queue.sqlite")
	}
	return o, nil
}

func (o *options) parseQueues(text string) error {
	o.queues = map[string]int{}
	for item := range strings.SplitSeq(text, ",") {
		name, number, found := strings.Cut(item, "=")
		n := 1
		if found {
			var err error
			if n, err = strconv.Atoi(number); err != nil {
				return errors.New("want NAME[=N],…")
			}
		}
		o.queues[name] = n
	}
	return nil
}

func run(ctx context.Context, args []string, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil: // which was said
		return 2
	}
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	logger := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	factory, err := o.factory(logger)
	if err != nil {
		fmt.Fprintln(stderr, "worker:", err)
		return 2
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	factory.Stop = onTerminate(ctx, cancel, o.grace)
	q, err := queue.Open(ctx, queue.Config{URL: o.database, Logger: logger})
	if err == nil {
		err = errors.Join(q.Work(ctx, queue.Worker{Factory: factory, Queues: o.queues, Schedule: o.schedule}), q.Close())
	}
	if err != nil {
		fmt.Fprintln(stderr, "worker:", err)
		return 1
	}
	return 0
}

func (o *options) factory(logger *slog.Logger) (*imagefactory.Factory, error) {
	definitions, err := imagefactory.LoadFile(o.config)
	if err != nil {
		return nil, err
	}
	factory := &imagefactory.Factory{
		Dir: o.out, Force: o.force, AnyClass: o.anyClass, Definitions: definitions,
		Builders: []imagefactory.BuilderDriver{dib.Driver{}, kiwi.Driver{}, existing.Driver{}},
		Targets: []imagefactory.TargetDriver{
			directory.Driver{Dir: o.out, Logger: logger},
			glance.Driver{Logger: logger},
			ims.Driver{Logger: logger},
			obs.Driver{Logger: logger},
		},
		Logger: logger,
	}
	if o.mirror != "" {
		factory.HostMirrors = map[string]string{"debian": o.mirror}
	}
	if err := factory.Validate(definitions); err != nil {
		return nil, err
	}
	factory.Key, _, err = imagefactory.OpenKey(o.key)
	return factory, err
}

// onTerminate is for SIGTERM: the first closes stopping, and cuts what is in hand when
// grace is over; a second one does so at once.
func onTerminate(ctx context.Context, cut func(), grace time.Duration) (stopping <-chan struct{}) {
	stop, signals := make(chan struct{}), make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM)
	go func() {
		defer signal.Stop(signals)
		select {
		case <-ctx.Done():
			return
		case <-signals:
			close(stop)
		}
		select {
		case <-ctx.Done():
		case <-signals:
			cut()
		case <-time.After(grace):
			cut()
		}
	}()
	return stop
}
