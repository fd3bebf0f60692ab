package guestdisk_test

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/opentelekomcloud/go-imagefactory/qcow2/guestdisk"
)

// A disk of 2 MiB with boot code and one active partition. For an image file,
// hand qcow2.Open's Image over in the place of the bytes.
func ExampleInspect() {
	disk := make([]byte, 2<<20)
	copy(disk, "\xfa\xf4\xeb\xfd") // boot code: cli; hlt; jmp
	entry := disk[446:]
	entry[0], entry[4] = 0x80, 0x83                 // active, Linux
	binary.LittleEndian.PutUint32(entry[8:], 2048)  // first sector
	binary.LittleEndian.PutUint32(entry[12:], 2048) // sectors
	disk[510], disk[511] = 0x55, 0xaa

	d, err := guestdisk.Inspect(bytes.NewReader(disk), int64(len(disk)))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(d)
	// Output:
	// partition table: mbr
	// partition 1: 1048576 bytes at 1048576, type 0x83
	// boots with: BIOS
	// hw_firmware_type: bios
	// min disk: 1 GiB
}
