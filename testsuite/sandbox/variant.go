package sandbox

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
)

// A Variant is the machine that an image is booted on, and what tells it who it is.
// The zero value is the sandbox's own choice. A sandbox that cannot give what a
// variant asks for refuses it: its error wraps errors.ErrUnsupported.
type Variant struct {
	Firmware   Firmware   // if empty, BIOS
	Disk       Disk       // if empty, VirtioBlk
	NIC        NIC        // if empty, VirtioNet
	DataSource DataSource // if empty, NoCloud

	CPUs      int   // virtual processors; if 0, the sandbox's
	GrowBytes int64 // how much larger than the image the disk is; if 0, the sandbox's

	// InstanceID is what the data source calls the machine. If empty, it is random.
	// Two machines may have one, to see what an image derives from it.
	InstanceID string
	// UserData and VendorData are cloud-init's: the one is the machine's owner's, the
	// other the cloud's. If nil, there are none.
	UserData, VendorData []byte
}

// Firmware is what starts a machine.
type Firmware string

// The firmwares.
const (
	BIOS Firmware = "bios" // SeaBIOS, which comes with QEMU
	UEFI Firmware = "uefi" // OVMF without secure boot, a package of the distribution's
)

// Disk is the bus that a machine's disk is on.
type Disk string

// The buses.
const (
	VirtioBlk  Disk = "virtio-blk"
	VirtioSCSI Disk = "virtio-scsi"
	NVMe       Disk = "nvme"
)

// NIC is a machine's network card.
type NIC string

// The network cards.
const (
	VirtioNet NIC = "virtio"
	E1000E    NIC = "e1000e"
)

// DataSource is where cloud-init learns who the machine is.
type DataSource string

// The data sources. All but the last tell the same: an instance ID, a host name, one SSH
// public key, and the user-data and vendor-data of the Variant.
const (
	NoCloud     DataSource = "nocloud"     // a volume named cidata
	ConfigDrive DataSource = "configdrive" // a volume named config-2, as OpenStack makes it
	OpenStack   DataSource = "openstack"   // OpenStack's metadata service, at 169.254.169.254
	// NoSource is none at all, as on a host that is not a cloud's. Nobody is let in by a key
	// then: Boot returns when the console asks who logs in, and the Target has no Signer.
	NoSource DataSource = "none"
)

// setDefaults fills in what is not said, and refuses what is not known.
func (v *Variant) setDefaults(q *QEMU) error {
	v.Firmware, v.Disk, v.NIC = cmp.Or(v.Firmware, BIOS), cmp.Or(v.Disk, VirtioBlk), cmp.Or(v.NIC, VirtioNet)
	v.DataSource = cmp.Or(v.DataSource, NoCloud)
	v.CPUs, v.GrowBytes = cmp.Or(v.CPUs, q.CPUs), cmp.Or(v.GrowBytes, q.GrowBytes)
	v.InstanceID = cmp.Or(v.InstanceID, newUUID())
	for _, f := range []struct {
		what, value string
		known       []string
	}{
		{"firmware", string(v.Firmware), []string{string(BIOS), string(UEFI)}},
		{"disk bus", string(v.Disk), []string{string(VirtioBlk), string(VirtioSCSI), string(NVMe)}},
		{"network card", string(v.NIC), []string{string(VirtioNet), string(E1000E)}},
		{"data source", string(v.DataSource), []string{string(NoCloud), string(ConfigDrive), string(OpenStack), string(NoSource)}},
	} {
		if !slices.Contains(f.known, f.value) {
			return fmt.Errorf("cannot boot with %s %.20q: it is none of %q: %w", f.what, f.value, f.known, errors.ErrUnsupported)
		}
	}
	return nil
}

// newUUID is a random UUID, RFC 9562, section 5.4.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// identityArgs are what the machine's firmware says of it: what OpenStack's does, as
// cloud-init knows it. QEMU's own words would let an image see where it is tested.
func identityArgs(uuid string) []string {
	return []string{
		"-uuid", uuid,
		"-smbios", "type=1,manufacturer=OpenStack Foundation,product=OpenStack Nova,version=13.2.1,family=Virtual Machine,serial=" + uuid + ",uuid=" + uuid,
		"-smbios", "type=3,manufacturer=OpenStack Foundation,asset=OpenTelekomCloud",
	}
}

// diskArgs put the disk on its bus. As Nova does, its serial number is the beginning of
// the volume's UUID.
func diskArgs(bus Disk, serial string) []string {
	const common = "drive=disk0,bootindex=1,serial="
	switch bus {
	case VirtioSCSI:
		return []string{"-device", "virtio-scsi-pci,id=scsi0", "-device", "scsi-hd,bus=scsi0.0," + common + serial}
	case NVMe:
		return []string{"-device", "nvme," + common + serial}
	}
	return []string{"-device", "virtio-blk-pci," + common + serial}
}

// nicArgs put the network card into a slot. It is another one on each kind of machine, so
// that an image that knows its card by the name of its slot is seen.
func nicArgs(v Variant, mac net.HardwareAddr) []string {
	device, slot := "virtio-net-pci", 0x10
	if v.NIC == E1000E {
		device = "e1000e"
	}
	switch v.Disk {
	case VirtioSCSI:
		slot = 0x11
	case NVMe:
		slot = 0x12
	}
	return []string{"-device", fmt.Sprintf("%s,netdev=net0,romfile=,addr=0x%x,mac=%s", device, slot, mac)}
}

// ErrNoFirmware says that OVMF is not installed, which UEFI needs.
var ErrNoFirmware = errors.New("there is no OVMF: install the package ovmf, or edk2-ovmf")

// ovmf is where distributions keep OVMF's code and the variables that it starts with.
var ovmf = [][2]string{
	{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},     // Debian, Ubuntu
	{"/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"}, // Fedora, Enterprise Linux
	{"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},           // Debian 11 and before
}

func (g *guest) variablesPath() string { return filepath.Join(g.dir, "variables.fd") }

// firmwareArgs are what makes QEMU start OVMF, with variables of the machine's own.
func (g *guest) firmwareArgs() ([]string, error) {
	if g.variant.Firmware != UEFI {
		return nil, nil
	}
	for _, f := range ovmf {
		if _, err := os.Stat(f[0]); err != nil {
			continue
		}
		if _, err := os.Stat(g.variablesPath()); err != nil { // a machine that starts again keeps what it wrote
			variables, err := os.ReadFile(f[1])
			if err != nil {
				return nil, fmt.Errorf("cannot start with UEFI: %w", err)
			}
			if err := os.WriteFile(g.variablesPath(), variables, 0o600); err != nil { //nolint:gosec // in a directory of our own
				return nil, fmt.Errorf("cannot start with UEFI: %w", err)
			}
		}
		code, err := blockdev(map[string]any{"driver": "raw", "node-name": "code0", "read-only": true,
			"file": map[string]any{"driver": "file", "filename": f[0], "read-only": true}})
		if err != nil {
			return nil, err
		}
		variables, err := blockdev(map[string]any{"driver": "raw", "node-name": "variables0",
			"file": map[string]any{"driver": "file", "filename": g.variablesPath()}})
		if err != nil {
			return nil, err
		}
		return slices.Concat(code, variables, []string{"-machine", "pflash0=code0,pflash1=variables0"}), nil
	}
	return nil, ErrNoFirmware
}
