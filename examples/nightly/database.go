package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory/queue"
)

// databaseFlags have a night done by workers instead of this process.
type databaseFlags struct {
	url      *string
	cancel   *bool
	priority *int
}

func newDatabaseFlags(fs *flag.FlagSet) databaseFlags {
	return databaseFlags{
		url:      fs.String("database", "", "`URL` of the database whose workers do the night: sqlite:PATH or postgres://…"),
		cancel:   fs.Bool("cancel", false, "cancel what waits or goes on of the images in -database"),
		priority: fs.Int("priority", 2, "from 1, first, to 4, which images workers take first"),
	}
}

// check reports what does not go together.
func (d databaseFlags) check() error {
	if *d.url == "" && *d.cancel || *d.priority < 1 || *d.priority > 4 {
		return errors.New("-cancel needs -database; -priority is from 1 to 4")
	}
	return nil
}

// run plans a night, has it done, and watches until all images have ended or ctx has:
// the workers then go on. There is no report where nothing was to be done.
func (d databaseFlags) run(ctx context.Context, f *imagefactory.Factory, definitions []imagefactory.Definition, logger *slog.Logger, stdout io.Writer) (report *imagefactory.Report, err error) {
	q, err := queue.Open(ctx, queue.Config{URL: *d.url, Logger: logger})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	if *d.cancel {
		var names []string
		for _, def := range definitions {
			names = append(names, def.Name)
		}
		return nil, q.Cancel(ctx, names...)
	}
	tasks, err := f.Tasks(definitions)
	if err != nil {
		return nil, err
	}
	if len(tasks) == 0 {
		fmt.Fprintln(stdout, "nothing is left to do")
		return nil, nil
	}
	if err := q.Add(ctx, tasks, queue.AddOptions{Priority: *d.priority}); err != nil {
		return nil, err
	}
	report, err = q.Wait(ctx, tasks, func(image imagefactory.ImageReport) {
		fmt.Fprintln(stdout, image.Name, image.Build, image.Result, image.Stage)
	})
	if ctx.Err() != nil {
		fmt.Fprintln(stdout, "not watching any more; the workers go on")
		err = nil
	}
	return report, err
}

// inDatabase has a night done by workers, and returns the exit code.
func (o *options) inDatabase(ctx context.Context, f *imagefactory.Factory, definitions []imagefactory.Definition, stdout, stderr io.Writer) int {
	report, err := o.database.run(ctx, f, definitions, f.Logger, stdout)
	if err != nil {
		return usage(stderr, err)
	}
	if report == nil { // cancelled, or nothing to do
		return 0
	}
	code := tell(ctx, report, filepath.Join(o.out, "report.json"), stdout, stderr)
	if err := o.after.tell(ctx, report); err != nil && code == 0 {
		return usage(stderr, err)
	}
	return code
}
