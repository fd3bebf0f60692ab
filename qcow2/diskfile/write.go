package diskfile

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Options configure Write.
type Options struct {
	// SizeBytes is the length of what will be written, if it is known. A
	// block device that is smaller is refused.
	SizeBytes int64
	// IsInput, if not nil, says that a file is read while the output is
	// written. Such a file is refused.
	IsInput func(os.FileInfo) bool
	// Stream writes to what can only be written from its beginning to its
	// end, as a pipe or a terminal. If nil that is refused.
	Stream func(io.Writer) error
	// NoSync leaves it to the system when the data is brought to the disk.
	// Then a complete file can be lost when the machine fails.
	NoSync bool
}

// Write makes or overwrites the file with a name; see the package's
// documentation for what that does to the one that is there. It calls write,
// or o.Stream, once. The destination that write gets is an *os.File, empty; or
// for a block device one with the method WriteZeros(off, length int64) error
// and without Truncate.
func Write(ctx context.Context, name string, o Options, write func(io.WriterAt) error) error {
	if err := o.write(ctx, name, write); err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	return nil
}

func (o *Options) write(ctx context.Context, name string, write func(io.WriterAt) error) error {
	stat, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && name != "":
		target, _ := follow(name)
		return o.create(ctx, target, nil, write)
	case err != nil:
		return err
	case o.IsInput != nil && o.IsInput(stat):
		return errors.New("it is what is read")
	case stat.Mode().IsRegular():
		return o.replace(ctx, name, stat, write)
	case isBlock(stat):
		return o.device(name, write)
	case stat.Mode()&(fs.ModeNamedPipe|fs.ModeCharDevice) != 0 && o.Stream != nil:
		return o.stream(ctx, name, stat)
	}
	return fmt.Errorf("%s is not a regular file or block device", kind(stat))
}

// follow returns what a symbolic link, or a chain of them, leads to. It is not
// a plain link if it goes through /proc, where links stand for open files.
func follow(name string) (target string, plain bool) {
	for range 40 {
		link, err := os.Readlink(name)
		if err != nil {
			return name, true
		}
		dir := name[:strings.LastIndexByte(name, '/')+1]
		if at, err := filepath.EvalSymlinks(dir + "."); err != nil || strings.HasPrefix(at+"/", "/proc/") {
			return name, false
		}
		// Without cleaning: ".." may follow another link.
		if name = link; !filepath.IsAbs(link) {
			name = dir + link
		}
	}
	return name, false
}

// replace writes over a regular file, by a new one if nothing is lost.
func (o *Options) replace(ctx context.Context, name string, stat os.FileInfo, write func(io.WriterAt) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0) // says whether that is allowed
	if err != nil {
		return err
	}
	defer f.Close()
	target, plain := follow(name)
	if same, err := os.Lstat(target); plain && err == nil && os.SameFile(same, stat) && replaceable(target, stat) {
		err := o.create(ctx, target, stat, write)
		if !errors.Is(err, errInPlace) {
			return err
		}
	}
	err = f.Truncate(0)
	if err == nil {
		err = errors.Join(write(f), o.sync(f))
	}
	if err != nil {
		return errors.Join(err, f.Truncate(0))
	}
	return f.Close()
}

// errInPlace says that a file cannot be made beside the one that is there.
var errInPlace = errors.New("cannot be replaced")

// create writes a new file and gives it its name; instead of old, if that is
// not nil.
func (o *Options) create(ctx context.Context, name string, old os.FileInfo, write func(io.WriterAt) error) (err error) {
	f, err := partial(name, old)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignore(f.Close(), fs.ErrClosed), ignore(os.Remove(f.Name()), fs.ErrNotExist))
		}
	}()
	stop := func() {}
	if !o.NoSync {
		stop = flush(f)
	}
	err = write(f)
	stop()
	if err != nil {
		return err
	}
	if err = errors.Join(o.sync(f), f.Close(), context.Cause(ctx)); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), name); err != nil || o.NoSync {
		return err
	}
	return syncDir(filepath.Dir(f.Name()))
}

// partial makes the file that gets a name when it is complete. If it cannot be
// as old, nothing is left and the error is errInPlace.
func partial(name string, old os.FileInfo) (*os.File, error) {
	at := strings.LastIndexByte(name, '/') + 1
	base := name[at:]
	path := name[:at] + "." + base[:min(len(base), 200)] + "." + rand.Text()[:10] + ".partial"
	mode := fs.FileMode(0o666)
	if old != nil {
		mode = 0o600
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
	if err != nil && old != nil && !errors.Is(err, syscall.ENOSPC) {
		return nil, errInPlace
	}
	if err != nil || old == nil {
		return f, err
	}
	if err := likeness(f, old); err != nil {
		return nil, errors.Join(errInPlace, f.Close(), os.Remove(path))
	}
	return f, nil
}

func (o *Options) sync(f *os.File) error {
	if o.NoSync {
		return nil
	}
	return f.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return ignore(err, fs.ErrPermission) // may be written but not read
	}
	return errors.Join(ignore(d.Sync(), syscall.EINVAL), d.Close())
}

// ignore returns err, but nil for one that does not matter.
func ignore(err, harmless error) error {
	if errors.Is(err, harmless) {
		return nil
	}
	return err
}

// flush begins to bring a file to the disk while it is written, so that
// little is left to wait for at the end. The caller must call what it returns.
func flush(f *os.File) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(150 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				_ = f.Sync() // an error comes again with the last one
			}
		}
	}()
	return func() { close(done); <-ended }
}

// stream writes to a pipe or a character device. A pipe that nobody reads is
// waited for.
func (o *Options) stream(ctx context.Context, name string, stat os.FileInfo) error {
	const pause = 20 * time.Millisecond
	f, err := os.OpenFile(name, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	for stat.Mode()&fs.ModeNamedPipe != 0 && errors.Is(err, syscall.ENXIO) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
		f, err = os.OpenFile(name, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	}
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	err = errors.Join(o.Stream(f), f.Close())
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// device writes to a block device.
func (o *Options) device(name string, write func(io.WriterAt) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_EXCL, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if size < o.SizeBytes {
		return fmt.Errorf("the device has %d bytes, and the image %d", size, o.SizeBytes)
	}
	if err := write(device{f}); err != nil {
		return err
	}
	return errors.Join(o.sync(f), f.Close())
}

// device is a block device: not zero where nothing was written, and of a fixed
// length.
type device struct{ f *os.File }

// WriteAt implements io.WriterAt.
func (d device) WriteAt(p []byte, off int64) (int, error) { return d.f.WriteAt(p, off) }

// WriteZeros has the device zero a range, or writes the zeros.
func (d device) WriteZeros(off, length int64) error {
	if zeroRange(d.f, off, length) == nil {
		return nil
	}
	b := make([]byte, min(length, 1<<20))
	for end := off + length; off < end; off += int64(len(b)) {
		if _, err := d.f.WriteAt(b[:min(int64(len(b)), end-off)], off); err != nil {
			return err
		}
	}
	return nil
}
