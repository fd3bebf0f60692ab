package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	theirs "github.com/lima-vm/go-qcow2reader/image/qcow2"

	"github.com/opentelekomcloud/go-imagefactory/qcow2"
	"github.com/opentelekomcloud/go-imagefactory/qcow2/diskfile"
	"github.com/opentelekomcloud/go-imagefactory/qcow2/guestdisk"
	"github.com/opentelekomcloud/go-imagefactory/qcow2/qcow2reader"
)

func info(_ context.Context, c *command) error {
	policy, err := choosePolicy(c)
	if err != nil {
		return err
	}
	f, size, err := openFile(c)
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
	switch {
	case c.chain && (c.policy != "" || c.disk):
		return errors.New("-backing-chain goes with neither -policy nor -disk")
	case c.chain:
		return printChain(c)
	}
	safety := info.Safety(policy)
	if c.policy != "" && err == nil {
		if safety, err = withContent(c, policy, safety); err != nil {
			return err
		}
	}
	if err := printInfo(c, info, safety, disk); err != nil {
		return err
	}
	if c.policy != "" && !safety.Safe {
		return errFindings
	}
	return nil
}

// withContent judges also how the guest's disk begins. Where it cannot be read
// something was found that says why, or it is encrypted; else that is an error.
func withContent(c *command, policy qcow2.Policy, safety qcow2.Safety) (qcow2.Safety, error) {
	judged, err := contentSafety(c, policy)
	if err == nil {
		return judged, nil
	}
	if !safety.Safe || errors.Is(err, qcow2.ErrEncrypted) {
		return safety, nil
	}
	return safety, err
}

func contentSafety(c *command, policy qcow2.Policy) (qcow2.Safety, error) {
	image, err := open(c, c.args[0], "")
	if err != nil {
		return qcow2.Safety{}, err
	}
	defer image.Close()
	safety, err := image.Safety(policy)
	if err != nil {
		err = fmt.Errorf("%s: %w", c.args[0], err)
	}
	return safety, err
}

// printChain describes the image and each backing file under it.
func printChain(c *command) error {
	image, err := open(c, c.args[0], "")
	if err != nil {
		return err
	}
	defer image.Close()
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
		fields, err := infoFields(name, info, map[string]any{})
		if err != nil {
			return err
		}
		if list = append(list, fields); !c.json {
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
	image, err := open(c, c.args[0], "")
	if err != nil {
		return nil, err
	}
	defer image.Close()
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

// printInfoJSON adds the verdict and the guest's disk.
func printInfoJSON(c *command, info *qcow2.Info, safety qcow2.Safety, disk *guestdisk.Disk) error {
	more := map[string]any{}
	if c.policy != "" {
		more["safety"] = safety
	}
	if disk != nil {
		more["guest-disk"] = disk
	}
	fields, err := infoFields(c.args[0], info, more)
	if err != nil {
		return err
	}
	return printJSON(c.out, fields)
}

// infoFields adds to qemu-img's fields the file's name, and more.
func infoFields(name string, info *qcow2.Info, more map[string]any) (map[string]json.RawMessage, error) {
	b, err := json.Marshal(info)
	if err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		return nil, err
	}
	more["filename"] = name
	for name, v := range more {
		if fields[name], err = json.Marshal(v); err != nil {
			return nil, err
		}
	}
	return fields, nil
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "    ")
	return e.Encode(v)
}

func check(ctx context.Context, c *command) error {
	f, size, err := openFile(c)
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

// mapExtents writes each extent as it is found: there can be very many.
func mapExtents(ctx context.Context, c *command) error {
	image, err := open(c, c.args[0], c.format)
	if err != nil {
		return err
	}
	defer image.Close()
	out := bufio.NewWriter(c.out)
	defer out.Flush()
	line := func(e qcow2.Extent) { fmt.Fprintln(out, e) }
	if c.json {
		between := "[\n    "
		line = func(e qcow2.Extent) {
			b, _ := e.MarshalJSON() // never fails
			_, _ = out.WriteString(between)
			_, _ = out.Write(b)
			between = ",\n    "
		}
	} else {
		fmt.Fprintln(out, "Offset          Length          Depth  Kind")
	}
	for e, err := range image.Map(ctx) {
		if err != nil {
			return fmt.Errorf("%s: %w", c.args[0], err)
		}
		line(e)
	}
	switch {
	case c.json && image.Size() > 0:
		_, _ = out.WriteString("\n]\n")
	case c.json:
		_, _ = out.WriteString("[]\n")
	}
	return out.Flush() // has the first error
}

func convert(ctx context.Context, c *command) error {
	image, err := open(c, c.args[0], c.format)
	if err != nil {
		return err
	}
	defer image.Close()
	stream := func(w io.Writer) error { return qcow2.Stream(ctx, w, image, c.options()) }
	if c.args[1] == "-" {
		return stream(&interruptible{ctx: ctx, w: c.out})
	}
	if err := freeOutput(c.args[1]); err != nil {
		return err
	}
	o := diskfile.Options{SizeBytes: image.Size(), IsInput: image.Uses, Stream: stream, NoSync: !c.sync}
	return diskfile.Write(ctx, c.args[1], o, func(dst io.WriterAt) error {
		return qcow2.Convert(ctx, dst, image, c.options())
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
	if c.args[1] == "-" {
		return errors.New("cannot compact to the standard output: name a file, as ./-")
	}
	image, err := open(c, c.args[0], c.format)
	if err != nil {
		return err
	}
	defer image.Close()
	if err := freeOutput(c.args[1]); err != nil {
		return err
	}
	return diskfile.Write(ctx, c.args[1], diskfile.Options{IsInput: image.Uses, NoSync: !c.sync}, func(dst io.WriterAt) error {
		_, err := qcow2.Compact(ctx, dst, image, o)
		return err
	})
}

// freeOutput returns an error if QEMU has the output open for writing: what it
// wrote from then on would be lost.
func freeOutput(name string) error {
	f, _, err := diskfile.Open(name)
	if err != nil {
		return nil // new, or no file: that is for diskfile.Write to say
	}
	defer f.Close()
	if err := qcow2.InUse(f); err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	return nil
}

// interruptible writes to where a write may wait for ever.
type interruptible struct {
	ctx context.Context //nolint:containedctx // for one command
	w   io.Writer
}

// Write returns when ctx ends, whatever becomes of the bytes: the program ends.
func (i *interruptible) Write(p []byte) (n int, err error) {
	done := make(chan struct{})
	go func() {
		n, err = i.w.Write(p)
		close(done)
	}()
	select {
	case <-done:
		return n, err
	case <-i.ctx.Done():
		return 0, context.Cause(i.ctx)
	}
}

func compare(ctx context.Context, c *command) error {
	a, err := open(c, c.args[0], c.format)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := open(c, c.args[1], c.second)
	if err != nil {
		return err
	}
	defer b.Close()
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
	image, err := open(c, c.args[0], c.format)
	if err != nil {
		return err
	}
	defer image.Close()
	if c.crossCheck {
		if err := crossCheck(ctx, c); err != nil {
			return err
		}
	}
	sum, err := qcow2.Digest(ctx, image, c.options())
	if err != nil {
		return fmt.Errorf("%s: %w", c.args[0], err)
	}
	_, err = fmt.Fprintf(c.out, "%x  %s\n", sum, c.args[0])
	return err
}

// crossCheck fails where go-qcow2reader reads another disk than we do.
func crossCheck(ctx context.Context, c *command) error {
	if c.format == "raw" || c.snapshot != "" {
		return errors.New("-cross-check is for qcow2 images, not for raw disks or snapshots")
	}
	f, size, err := openFile(c)
	if err != nil {
		return err
	}
	defer f.Close()
	theirs.SetDecompressor(theirs.CompressionTypeZstd, qcow2reader.Zstd)
	err = qcow2reader.CrossCheck(ctx, f, size)
	if errors.Is(err, qcow2reader.ErrDiffers) {
		fmt.Fprintf(c.out, "%s: %v\n", c.args[0], err)
		return errFindings
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.args[0], err)
	}
	return nil
}

// openFile opens a file to look at its metadata.
func openFile(c *command) (*os.File, int64, error) {
	f, size, err := diskfile.Open(c.args[0])
	if err != nil || c.force {
		return f, size, err
	}
	if err := qcow2.InUse(f); err != nil {
		return nil, 0, errors.Join(fmt.Errorf("cannot read %s: %w", c.args[0], inUse(err)), f.Close())
	}
	return f, size, nil
}

// open opens an image, with the files it refers to if -files allows them.
func open(c *command, name, format string) (*qcow2.Image, error) {
	image, err := qcow2.OpenFile(name, qcow2.OpenOptions{Format: format, Dir: c.files, MaxDepth: c.depth, Snapshot: c.snapshot, Force: c.force})
	return image, inUse(err)
}

// inUse adds what to do.
func inUse(err error) error {
	if errors.Is(err, qcow2.ErrInUse) {
		return fmt.Errorf("%w; -force reads it all the same", err)
	}
	return err
}
