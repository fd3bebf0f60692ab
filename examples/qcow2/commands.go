package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/qcow2"
	"github.com/opentelekomcloud/go-imagefactory/qcow2/guestdisk"
)

func info(_ context.Context, c *command) error {
	policy, err := choosePolicy(c)
	if err != nil {
		return err
	}
	f, size, err := openFile(c, c.args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := qcow2.Inspect(f, size)
	if err != nil && (info == nil || c.policy == "") {
		return fmt.Errorf("%s: %w", c.args[0], err)
	}
	var disk *guestdisk.Disk
	if c.disk {
		if disk, err = guestDisk(c); err != nil {
			return err
		}
	}
	safety := info.Safety(policy)
	if c.policy != "" && err == nil {
		safety = withContent(c, policy, safety)
	}
	if c.chain {
		if err := printChain(c); err != nil {
			return err
		}
		return nil
	}
	if err := printInfo(c, info, safety, disk); err != nil {
		return err
	}
	if c.policy != "" && !safety.Safe {
		return errFindings
	}
	return nil
}

// withContent judges also how the guest's disk begins, where it can be read:
// where it needs another file or a key, that is a finding already.
func withContent(c *command, policy qcow2.Policy, safety qcow2.Safety) qcow2.Safety {
	image, closeAll, err := open(c, c.args[0])
	if err != nil {
		return safety
	}
	defer closeAll()
	if judged, err := image.Safety(policy); err == nil {
		return judged
	}
	return safety
}

// printChain describes the image and each backing file under it.
func printChain(c *command) error {
	image, closeAll, err := open(c, c.args[0])
	if err != nil {
		return err
	}
	defer closeAll()
	list := []any{}
	for name := c.args[0]; image != nil; image = image.Backing() {
		info := image.Info()
		if info == nil {
			raw := map[string]any{"filename": name, "format": "raw", "virtual-size": image.Size()}
			if list = append(list, raw); !c.json {
				fmt.Fprintf(c.out, "image: %s\nfile format: raw\nvirtual size: %d bytes\n", name, image.Size())
			}
			continue
		}
		if list = append(list, info); !c.json {
			fmt.Fprintf(c.out, "image: %s\n%v\n", name, info)
		}
		name = info.BackingFile
	}
	if c.json {
		return printJSON(c.out, list)
	}
	return nil
}

func guestDisk(c *command) (*guestdisk.Disk, error) {
	image, closeAll, err := open(c, c.args[0])
	if err != nil {
		return nil, err
	}
	defer closeAll()
	disk, err := guestdisk.Inspect(image, image.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.args[0], err)
	}
	return disk, nil
}

func choosePolicy(c *command) (qcow2.Policy, error) {
	var policy qcow2.Policy
	switch c.policy {
	case "", "public":
		policy = qcow2.PublicPolicy()
	case "private":
		policy = qcow2.PrivatePolicy()
	default:
		return policy, fmt.Errorf("unknown policy %q: choose public or private", c.policy)
	}
	if c.minDiskGiB < 0 || c.minDiskGiB > 1<<30 {
		return policy, fmt.Errorf("-min-disk %d is out of range", c.minDiskGiB)
	}
	policy.MinDiskBytes = c.minDiskGiB << 30
	return policy, nil
}

// printInfo writes what was asked for: with a policy its findings, else the
// whole description.
func printInfo(c *command, info *qcow2.Info, safety qcow2.Safety, disk *guestdisk.Disk) error {
	if c.json {
		return printInfoJSON(c, info, safety, disk)
	}
	if c.policy == "" {
		fmt.Fprintf(c.out, "image: %s\n%v", c.args[0], info)
	}
	if disk != nil {
		fmt.Fprint(c.out, disk)
	}
	if c.policy != "" {
		for _, f := range safety.Findings {
			fmt.Fprintln(c.out, f)
		}
	}
	return nil
}

// printInfoJSON adds to qemu-img's fields the file's name, the verdict and
// the guest's disk.
func printInfoJSON(c *command, info *qcow2.Info, safety qcow2.Safety, disk *guestdisk.Disk) error {
	b, err := json.Marshal(info)
	if err != nil {
		return err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		return err
	}
	more := map[string]any{"filename": c.args[0]}
	if c.policy != "" {
		more["safety"] = safety
	}
	if disk != nil {
		more["guest-disk"] = disk
	}
	for name, v := range more {
		if fields[name], err = json.Marshal(v); err != nil {
			return err
		}
	}
	return printJSON(c.out, fields)
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "    ")
	return e.Encode(v)
}

func check(ctx context.Context, c *command) error {
	f, size, err := openFile(c, c.args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	result, err := qcow2.Check(ctx, f, size)
	if err != nil {
		return fmt.Errorf("%s: %w", c.args[0], err)
	}
	if c.json {
		err = printJSON(c.out, struct {
			Filename string `json:"filename"`
			Format   string `json:"format"`
			*qcow2.CheckResult
		}{c.args[0], "qcow2", result})
	} else {
		_, err = fmt.Fprint(c.out, result)
	}
	if err == nil && !result.Clean() {
		return errFindings
	}
	return err
}

func mapExtents(ctx context.Context, c *command) error {
	image, closeAll, err := open(c, c.args[0])
	if err != nil {
		return err
	}
	defer closeAll()
	list := []qcow2.Extent{}
	if !c.json {
		fmt.Fprintln(c.out, "Offset          Length          Depth  Kind")
	}
	for e, err := range image.Map(ctx) {
		if err != nil {
			return fmt.Errorf("%s: %w", c.args[0], err)
		}
		if c.json {
			list = append(list, e)
		} else {
			fmt.Fprintln(c.out, e)
		}
	}
	if c.json {
		return printJSON(c.out, list)
	}
	return nil
}

func convert(ctx context.Context, c *command) error {
	return rewrite(c, func(image *qcow2.Image, out *os.File) error {
		return qcow2.Convert(ctx, out, image, c.options())
	})
}

func compact(ctx context.Context, c *command) error {
	o := qcow2.CompactOptions{Options: c.options()}
	switch c.compression {
	case "zlib":
	case "zstd":
		o.Compression = qcow2.Zstd
	default:
		return fmt.Errorf("unknown compression %q: choose zlib or zstd", c.compression)
	}
	return rewrite(c, func(image *qcow2.Image, out *os.File) error {
		_, err := qcow2.Compact(ctx, out, image, o)
		return err
	})
}

// rewrite lets write make the second file from the first. The file appears
// under its name when it is complete.
func rewrite(c *command, write func(*qcow2.Image, *os.File) error) (err error) {
	image, closeAll, err := open(c, c.args[0])
	if err != nil {
		return err
	}
	defer closeAll()
	name := c.args[1]
	if stat, err := os.Stat(name); err == nil && !stat.Mode().IsRegular() {
		return fmt.Errorf("cannot write %s: not a regular file", name)
	}
	out, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(out.Name()))
		}
	}()
	stop := flush(out)
	err = write(image, out)
	stop()
	if err = errors.Join(err, out.Chmod(0o644), out.Sync(), out.Close()); err != nil {
		return fmt.Errorf("%s: %w", c.args[0], err)
	}
	return os.Rename(out.Name(), name)
}

// flush begins to bring a file to the disk while it is written, so that
// little is left to wait for at the end. The caller must call what it returns.
func flush(f *os.File) (stop func()) {
	done := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
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
	})
	return func() { close(done); group.Wait() }
}

func compare(ctx context.Context, c *command) error {
	a, closeA, err := open(c, c.args[0])
	if err != nil {
		return err
	}
	defer closeA()
	b, closeB, err := open(c, c.args[1])
	if err != nil {
		return err
	}
	defer closeB()
	at, err := qcow2.Compare(ctx, a, b, c.options())
	if err != nil {
		return err
	}
	if at >= 0 {
		fmt.Fprintf(c.out, "Content mismatch at offset %d!\n", at)
		return errFindings
	}
	if a.Size() != b.Size() {
		fmt.Fprintln(c.out, "Warning: Image size mismatch!")
	}
	fmt.Fprintln(c.out, "Images are identical.")
	return nil
}

func digest(ctx context.Context, c *command) error {
	image, closeAll, err := open(c, c.args[0])
	if err != nil {
		return err
	}
	defer closeAll()
	sum, err := qcow2.Digest(ctx, image, c.options())
	if err != nil {
		return fmt.Errorf("%s: %w", c.args[0], err)
	}
	_, err = fmt.Fprintf(c.out, "%x  %s\n", sum, c.args[0])
	return err
}

// openFile opens a file to look at its metadata.
func openFile(c *command, name string) (*os.File, int64, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO does not block
	if err != nil {
		return nil, 0, err
	}
	size, err := f.Seek(0, io.SeekEnd) // of devices too
	if err == nil && !c.force {
		err = qcow2.InUse(f)
	}
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("cannot read %s: %w", name, inUse(err)), f.Close())
	}
	return f, size, nil
}

// open opens an image, with the files it refers to if -files allows them.
func open(c *command, name string) (*qcow2.Image, func(), error) {
	image, err := qcow2.OpenFile(name, qcow2.FileOptions{Dir: c.files, Force: c.force,
		OpenOptions: qcow2.OpenOptions{MaxDepth: c.depth, Snapshot: c.snapshot}})
	if err != nil {
		return nil, nil, inUse(err)
	}
	return image, func() { _ = image.Close() }, nil
}

// inUse adds what to do.
func inUse(err error) error {
	if errors.Is(err, qcow2.ErrInUse) {
		return fmt.Errorf("%w; -force reads it all the same", err)
	}
	return err
}
