package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
	"golang.org/x/crypto/ssh"
)

// A seed is all that the guest is told, whichever data source tells it. Everything
// else must come from the image.
type seed struct {
	instanceID           string
	hostname             string
	key                  ssh.PublicKey // of the login user
	mac                  net.HardwareAddr
	userData, vendorData []byte
}

func (s seed) authorizedKey() string {
	return string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(s.key)))
}

// noCloud are the files of the data source NoCloud: cloud-init takes a volume for a seed
// only where meta-data and user-data are. JSON is YAML, and needs no quoting rules of
// its own.
func (s seed) noCloud() (map[string][]byte, error) {
	meta, err := json.Marshal(map[string]any{
		"instance-id":    s.instanceID,
		"local-hostname": s.hostname,
		"public-keys":    []string{s.authorizedKey()},
	})
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{"meta-data": meta, "user-data": s.userData}
	if s.vendorData != nil {
		files["vendor-data"] = s.vendorData
	}
	return files, nil
}

// openStack are the files of OpenStack's metadata, as its service serves them below
// /openstack/latest and a config drive has them: meta_data.json, network_data.json, and
// user_data and vendor_data.json where there are such. In vendor_data.json cloud-init
// takes its own under the key cloud-init.
func (s seed) openStack() (map[string][]byte, error) {
	link := map[string]any{"id": "tap0", "vif_id": s.instanceID, "type": "ovs", "mtu": 1500, "ethernet_mac_address": s.mac.String()}
	files := map[string][]byte{}
	for name, value := range map[string]any{
		"meta_data.json": map[string]any{
			"uuid": s.instanceID, "name": s.hostname, "hostname": s.hostname, "launch_index": 0, "availability_zone": "eu-de-01",
			"public_keys": map[string]string{"key": s.authorizedKey()},
		},
		"network_data.json": map[string]any{
			"links":    []any{link},
			"networks": []any{map[string]any{"id": "network0", "network_id": s.instanceID, "link": "tap0", "type": "ipv4_dhcp"}},
			"services": []any{},
		},
		"vendor_data.json": map[string]string{"cloud-init": string(s.vendorData)},
	} {
		text, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		files[name] = text
	}
	if s.vendorData == nil {
		files["vendor_data.json"] = []byte("{}")
	}
	if s.userData != nil {
		files["user_data"] = s.userData
	}
	return files, nil
}

// volume returns the name and the files of the volume that source reads, or none.
func (s seed) volume(source DataSource) (label string, files map[string][]byte, err error) {
	switch source {
	case NoCloud:
		files, err = s.noCloud()
		return "cidata", files, err
	case ConfigDrive:
		data, err := s.openStack()
		files = map[string][]byte{}
		for name, content := range data {
			files[path.Join("openstack/latest", name)] = content
		}
		return "config-2", files, err
	}
	return "", nil, nil
}

// seedSize is the size of the seed's volume. An empty ISO 9660 volume needs
// 16 system sectors of 2 KiB and a few more.
const seedSize = 1 << 20

// writeVolume makes a volume with files at name, which must not exist.
func writeVolume(name, label string, files map[string][]byte) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot make the seed volume: %w", err)
		}
	}()
	size := int64(seedSize)
	for _, content := range files {
		size += int64(len(content))
	}
	size -= size % 2048
	workspace, err := os.MkdirTemp(filepath.Dir(name), "seed-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(workspace)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	if err := f.Truncate(size); err != nil {
		return err
	}
	fs, err := iso9660.Create(file.New(f, false), size, 0, 2048, workspace)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if dir := path.Dir(name); dir != "." {
			if err := fs.Mkdir("/" + dir); err != nil {
				return err
			}
		}
		out, err := fs.OpenFile("/"+name, os.O_CREATE|os.O_RDWR)
		if err != nil {
			return err
		}
		if _, err := out.Write(files[name]); err != nil {
			return err
		}
		if err := out.Close(); err != nil {
			return err
		}
	}
	return fs.Finalize(iso9660.FinalizeOptions{RockRidge: true, VolumeIdentifier: label})
}
