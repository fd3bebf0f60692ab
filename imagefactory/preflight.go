package imagefactory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// Preflight reports what a run would meet now: it returns the [Factory.Tasks] that
// would be done, and an error that joins the targets that do not answer within half
// a minute and a file system that has too little room. It is for after
// [Factory.Check], needs no Key, and only reads.
func (f *Factory) Preflight(ctx context.Context, definitions []Definition) ([]Task, error) {
	tasks, err := f.Tasks(definitions)
	if err != nil {
		return nil, err
	}
	products, err := f.products(definitions)
	if err != nil {
		return nil, err
	}
	const atOnce = 8
	var group errgroup.Group
	group.SetLimit(atOnce)
	problems := make([]error, len(products))
	for i, p := range products {
		group.Go(func() error {
			problems[i] = p.reach(ctx)
			return nil
		})
	}
	_ = group.Wait()
	return tasks, errors.Join(append(problems, f.checkRoom(products), ctx.Err())...)
}

// reach lists what each of the image's targets has of it.
func (p *product) reach(ctx context.Context) error {
	const patience = 30 * time.Second
	errs := []error{p.fault}
	for _, t := range append(p.targets[:len(p.targets):len(p.targets)], p.staging...) {
		if t.Target == nil {
			continue // the driver's fault
		}
		err := contain(p.log, t.String(), "List", func() error {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			_, err := t.List(ctx, p.name)
			return err
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("image %s: %v cannot be listed: %w", p.name, t, err))
		}
	}
	return errors.Join(errs...)
}

// checkRoom reports whether what is built at once has room: about half of a disk's
// size each, for it is sparse and compressed in the end.
func (f *Factory) checkRoom(products []*product) error {
	var largest Size
	for _, p := range products {
		largest = max(largest, p.def.DiskBytes)
	}
	builds := max(f.Jobs, 1)
	if n := f.Limits.Builds; n > 0 {
		builds = min(builds, n)
	}
	need := int64(largest) / 2 * int64(min(builds, len(products)))
	free, err := freeBytes(f.Dir)
	if err != nil {
		return fmt.Errorf("cannot tell how much room %s has: %w", f.Dir, err)
	}
	if free < need {
		return fmt.Errorf("%s has room for %v, and %d builds at once take about %v", f.Dir, Size(free), min(builds, len(products)), Size(need))
	}
	return nil
}

// freeBytes is the room that the file system has where a directory is, or is to be.
func freeBytes(dir string) (int64, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return 0, err
	}
	for {
		var st syscall.Statfs_t
		err := syscall.Statfs(dir, &st)
		if err == nil {
			return int64(st.Bavail) * st.Bsize, nil
		}
		if !errors.Is(err, os.ErrNotExist) || dir == filepath.Dir(dir) {
			return 0, err
		}
		dir = filepath.Dir(dir)
	}
}
