package qcow2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opentelekomcloud/go-imagefactory/qcow2"
	"github.com/opentelekomcloud/go-imagefactory/qcow2/diskfile"
)

// The example's images are in memory; an *os.File and its size do as well.
func newImage() *bytes.Reader {
	disk := bytes.Repeat([]byte("guest data "), 20000)
	var file memory
	_, err := qcow2.Compact(context.Background(), &file,
		qcow2.Raw(bytes.NewReader(disk), int64(len(disk))), qcow2.CompactOptions{Compression: qcow2.Zstd})
	if err != nil {
		panic(err)
	}
	return bytes.NewReader(file.b)
}

func ExampleInspect() {
	file := newImage()
	info, err := qcow2.Inspect(file, file.Size())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(info.VirtualSize, info.Header.Compression, info.Safety(qcow2.PublicPolicy()).Safe)
	// Output: 220160 zstd true
}

// An upload is judged while it is stored.
func ExampleInspector() {
	upload, store := newImage(), new(bytes.Buffer)
	inspector := qcow2.NewInspector()
	if _, err := io.Copy(io.MultiWriter(store, inspector), upload); err != nil {
		fmt.Println(err)
		return
	}
	info, err := inspector.Info()
	if err != nil {
		fmt.Println(err)
		return
	}
	safety := info.Safety(qcow2.Policy{MinDiskBytes: 100 << 10})
	fmt.Println(safety.Safe, safety.Findings)
	// Output: false [min_disk: the virtual size of 220160 bytes exceeds the disk of 102400 bytes]
}

func ExampleFormatError() {
	file := bytes.NewReader(append([]byte("QFI\xfb\x00\x00\x00\x09"), make([]byte, 100)...))
	_, err := qcow2.Inspect(file, file.Size())
	var format *qcow2.FormatError
	if errors.As(err, &format) && errors.Is(err, qcow2.ErrUnsupported) {
		fmt.Println(format.Offset, format.Value, format.Text)
	}
	// Output: 4 9 only versions 2 and 3 are known
}

func ExampleOpen() {
	file := newImage()
	image, err := qcow2.Open(file, file.Size(), qcow2.OpenOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer image.Close()
	p := make([]byte, 10)
	if _, err := image.ReadAt(p, 110000); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s\n", p)
	for e, err := range image.Map(context.Background()) {
		fmt.Println(e.Start, e.Length, e.Compressed, err)
	}
	// Output:
	// guest data
	// 0 220160 true <nil>
}

func ExampleCheck() {
	file := newImage()
	result, err := qcow2.Check(context.Background(), file, file.Size())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(result)
	// Output:
	// No errors were found on the image.
	// 4/4 clusters allocated, 4 fragmented, 4 compressed
	// Image end offset: 393216
}

// A new image of the same disk, as small as it can be. A file is opened with
// OpenFile, and written with the package diskfile.
func ExampleCompact() {
	ctx := context.Background()
	disk := make([]byte, 10<<20)
	copy(disk[5<<20:], "the only data")
	var dst memory
	size, err := qcow2.Compact(ctx, &dst, qcow2.Raw(bytes.NewReader(disk), int64(len(disk))), qcow2.CompactOptions{
		Compression: qcow2.Zstd, // read by QEMU 5.1 and later
		Options: qcow2.Options{Progress: func(done, total int64) {
			if done == total {
				fmt.Println("done:", total)
			}
		}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(size)
	image, err := qcow2.Open(bytes.NewReader(dst.b), size, qcow2.OpenOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer image.Close()
	at, err := qcow2.Compare(ctx, image, qcow2.Raw(bytes.NewReader(disk), int64(len(disk))), qcow2.Options{})
	fmt.Println(at, err)
	// Output:
	// done: 10485760
	// 393216
	// -1 <nil>
}

// The digest is that of the guest's disk, however the image stores it: what
// sha256sum says of the raw disk.
func ExampleDigest() {
	ctx := context.Background()
	file := newImage()
	image, err := qcow2.Open(file, file.Size(), qcow2.OpenOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer image.Close()
	compressed, err := qcow2.Digest(ctx, image, qcow2.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	disk := bytes.Repeat([]byte("guest data "), 20000)
	disk = append(disk, make([]byte, 160)...) // images have whole sectors of 512 bytes
	plain, err := qcow2.Digest(ctx, qcow2.Raw(bytes.NewReader(disk), int64(len(disk))), qcow2.Options{})
	fmt.Println(compressed == plain, err)
	fmt.Printf("%x\n", compressed[:8])
	// Output:
	// true <nil>
	// 5716bb8d8bf3536e
}

func ExampleOpenFile() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "image.qcow2")
	b, _ := io.ReadAll(newImage())
	if err := os.WriteFile(name, b, 0o600); err != nil {
		fmt.Println(err)
		return
	}
	image, err := qcow2.OpenFile(name, qcow2.OpenOptions{}) // no backing files
	if err != nil {
		fmt.Println(err)
		return
	}
	defer image.Close()
	fmt.Println(image.Size(), image.Info().ClusterSize)
	// The raw disk comes under its name when it is complete.
	raw := filepath.Join(dir, "disk.raw")
	err = diskfile.Write(context.Background(), raw, diskfile.Options{SizeBytes: image.Size(), IsInput: image.Uses}, func(dst io.WriterAt) error {
		return qcow2.Convert(context.Background(), dst, image, qcow2.Options{})
	})
	fmt.Println(err)
	// Output:
	// 220160 65536
	// <nil>
}
