package qcow2

import (
	"bytes"
	"cmp"
	"context"
	"runtime"
	"sync"
)

const (
	// grain is the alignment of the parts that a disk is worked on in, and the
	// cluster size of what Compact writes.
	grain = 64 << 10
	// partBytes is the length of a part.
	partBytes  = 512 << 10
	maxWorkers = 8
	maxBuffers = 12 << 20
	zeroBlock  = 4 << 10
)

var zeros [grain]byte

// Options configure what works through a whole disk.
type Options struct {
	// Workers is how many goroutines read and decompress, or compress, beside
	// the caller's. If 0 there is one for each processor; never more than 8.
	Workers int
	// Progress, if not nil, is called now and then with how many bytes of the
	// guest's disk are done: up to 2^63-1, so do not multiply them. Calls come
	// one after the other, from the caller's goroutine; the work waits for them.
	Progress func(done, total int64)
}

func (o *Options) workers() int {
	return min(maxWorkers, cmp.Or(max(0, o.Workers), runtime.GOMAXPROCS(0)))
}

// A part is a piece of the disk, or of two disks, that is worked on at once.
type part struct {
	start, length int64
	zero          bool    // reads as zero, of any length; else at most a buffer long
	zeros         [2]bool // of two disks: which one reads as zero
}

func (p part) end() int64 { return p.start + p.length }

// job is a part on its way through the pipeline.
type job struct {
	part
	buf  []byte // for the part's data
	out  output // what the worker made of it
	err  error
	done chan struct{}
}

// output is what a worker leaves for the one that finishes.
type output struct {
	bytes  []byte
	pieces []piece
	at     int64
}

// pipeline cuts a disk into parts, works on several at once, and finishes
// them in order. Memory is bounded by a number of jobs that does not depend
// on the disk.
type pipeline struct {
	options Options
	total   int64
	size    int64 // the greatest part that is not zero
	// next returns the part that begins at off.
	next func(ctx context.Context, off int64) (part, error)
	// newWorker returns the function that works on parts in one goroutine.
	newWorker func() func(*job) error
	// finish is called for each part in the disk's order, and ends the run
	// early with false.
	finish func(*job) (bool, error)
}

func (p *pipeline) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	// A job has at most two buffers.
	workers := p.options.workers()
	jobs := min(2*workers+2, int(max(3, maxBuffers/(2*p.size))))
	workers = min(workers, jobs)
	free, todo, order := make(chan *job, jobs), make(chan *job, jobs), make(chan *job, jobs)
	for range jobs {
		free <- &job{done: make(chan struct{}, 1)}
	}
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	for range workers {
		group.Go(func() {
			work := p.newWorker()
			for j := range todo {
				if j.err = ctx.Err(); j.err == nil {
					j.err = work(j)
				}
				j.done <- struct{}{}
			}
		})
	}
	group.Go(func() {
		defer close(order)
		defer close(todo)
		p.plan(ctx, free, todo, order)
	})
	for j := range order {
		<-j.done
		if j.err != nil {
			return j.err
		}
		more, err := p.finish(j)
		if err != nil || !more {
			return err
		}
		if p.options.Progress != nil {
			p.options.Progress(j.end(), p.total)
		}
		free <- j
	}
	return ctx.Err()
}

// plan hands out the parts in order.
func (p *pipeline) plan(ctx context.Context, free, todo, order chan *job) {
	for off := int64(0); off < p.total; {
		var j *job
		select {
		case j = <-free:
		case <-ctx.Done():
			return
		}
		next, err := p.next(ctx, off)
		j.part, j.err = next, err
		off = next.end()
		order <- j // has room for every job
		if err != nil || next.zero {
			j.done <- struct{}{}
		} else {
			todo <- j // from here on it is the worker's
		}
		if err != nil {
			return
		}
	}
}

// buffer returns the job's buffer, as long as the part.
func (j *job) buffer() []byte {
	if int64(cap(j.buf)) < j.length {
		j.buf = make([]byte, j.length, max(j.length, partBytes))
	}
	return j.buf[:j.length]
}

// fill reads the part's data into the job's buffer.
func (i *Image) fill(j *job) ([]byte, error) {
	b := j.buffer()
	_, err := i.read(b, j.start, false)
	return b, err
}

// isZero says whether b, which is at most grain bytes long, is zero.
func isZero(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }
