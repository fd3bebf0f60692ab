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
	// guest's disk are done. Calls come one after the other.
	Progress func(done, total int64)
}

func (o *Options) workers() int {
	return min(maxWorkers, cmp.Or(max(0, o.Workers), runtime.GOMAXPROCS(0)))
}

// A part is a piece of the disk, or of two disks, that is worked on at once.
type part struct {
	start, length int64
	zero          bool // reads as zero, of any length; else at most a buffer long
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
	next func(off int64) (part, error)
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
		next, err := p.next(off)
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

// part returns the part that begins at off, which is a multiple of grain.
func (i *Image) part(off int64) (part, error) {
	end := off
	for end < i.virtual && end-off < 1<<40 {
		// Not farther than a part, or long runs of data would be walked along
		// for each of their parts; runs of zeros become one part.
		e, err := i.extent(end, min(end+i.partSize(), i.virtual))
		if err == nil && e.zero() {
			e, err = i.extent(end, i.virtual)
		}
		if err != nil {
			return part{}, err
		}
		if !e.zero() {
			break
		}
		end += e.length
	}
	if end < i.virtual {
		end &^= grain - 1
	}
	if end > off {
		return part{start: off, length: end - off, zero: true}, nil
	}
	size := i.partSize()
	end = min(off&^(size-1)+size, i.virtual)
	return part{start: off, length: end - off}, nil
}

// partSize is the length of the image's parts: whole clusters.
func (i *Image) partSize() int64 { return max(partBytes, i.cluster) }

// fill reads the part's data into the job's buffer.
func (i *Image) fill(j *job) ([]byte, error) {
	b := j.buffer()
	_, err := i.read(b, j.start, false)
	return b, err
}

// isZero says whether b, which is at most grain bytes long, is zero.
func isZero(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }
