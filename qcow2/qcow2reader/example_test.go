package qcow2reader_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/lima-vm/go-qcow2reader/convert"

	"github.com/opentelekomcloud/go-imagefactory/qcow2"
	"github.com/opentelekomcloud/go-imagefactory/qcow2/qcow2reader"
)

// packed returns a file with a compressed image of a small disk, and its
// length.
func packed() (*os.File, int64, error) {
	f, err := os.CreateTemp("", "*.qcow2")
	if err != nil {
		return nil, 0, err
	}
	disk := bytes.Repeat([]byte("guest data "), 100_000)
	disk = disk[:len(disk)&^511]
	size, err := qcow2.Compact(context.Background(), f, qcow2.Raw(bytes.NewReader(disk), int64(len(disk))), qcow2.CompactOptions{})
	return f, size, err
}

// Both readers read the same disk.
func ExampleCrossCheck() {
	f, size, err := packed()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.Remove(f.Name())
	defer f.Close()
	fmt.Println(qcow2reader.CrossCheck(context.Background(), f, size))
	// Output: <nil>
}

// The package convert of go-qcow2reader reads with ours.
func ExampleImage() {
	f, size, err := packed()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.Remove(f.Name())
	defer f.Close()
	image, err := qcow2.Open(f, size, qcow2.OpenOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer image.Close()
	raw, err := os.CreateTemp("", "*.raw")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.Remove(raw.Name())
	defer raw.Close()
	if err := convert.Convert(raw, qcow2reader.Image(image), convert.Options{}); err != nil {
		fmt.Println(err)
		return
	}
	begin := make([]byte, 10)
	_, err = io.ReadFull(raw, begin)
	fmt.Printf("%s %v\n", begin, err)
	// Output: guest data <nil>
}
