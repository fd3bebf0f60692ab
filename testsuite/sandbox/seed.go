package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
	"golang.org/x/crypto/ssh"
)

// A seed is all that the guest is told: what cloud-init's NoCloud data source
// reads from a volume named cidata. Everything else must come from the image.
type seed struct {
	instanceID string
	hostname   string
	key        ssh.PublicKey // of the login user
}

// metaData is the seed's meta-data file. JSON is YAML, and needs no quoting
// rules of its own.
func (s seed) metaData() ([]byte, error) {
	return json.Marshal(map[string]any{
		"instance-id":    s.instanceID,
		"local-hostname": s.hostname,
		"public-keys":    []string{string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(s.key)))},
	})
}

// seedSize is the size of the seed's volume. An empty ISO 9660 volume needs
// 16 system sectors of 2 KiB and a few more.
const seedSize = 1 << 20

// write makes the volume at path, which must not exist, with an empty
// user-data: cloud-init takes a volume for a seed only where both files are.
func (s seed) write(path string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot make the seed volume: %w", err)
		}
	}()
	meta, err := s.metaData()
	if err != nil {
		return err
	}
	workspace, err := os.MkdirTemp(filepath.Dir(path), "seed-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(workspace)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	if err := f.Truncate(seedSize); err != nil {
		return err
	}
	fs, err := iso9660.Create(file.New(f, false), seedSize, 0, 2048, workspace)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"/meta-data": meta, "/user-data": nil} {
		out, err := fs.OpenFile(name, os.O_CREATE|os.O_RDWR)
		if err != nil {
			return err
		}
		if _, err := out.Write(content); err != nil {
			return err
		}
		if err := out.Close(); err != nil {
			return err
		}
	}
	return fs.Finalize(iso9660.FinalizeOptions{RockRidge: true, VolumeIdentifier: "cidata"})
}
