package qcow2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opentelekomcloud/go-imagefactory/qcow2"
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
