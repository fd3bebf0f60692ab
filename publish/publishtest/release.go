package publishtest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// Release makes a small release of the image's build in dir/IMAGE/BUILD, signs
// it with a new key, whose public part it writes to dir/IMAGE/BUILD.pub, and
// opens it. Files that are there already are part of it; without an
// IMAGE-BUILD.qcow2 it has a valid one, of an empty disk. Two releases of the
// same build differ, because their keys do.
func Release(ctx context.Context, dir, image string, build publish.BuildID) (*publish.Release, error) {
	r, err := release(ctx, dir, image, build)
	if err != nil {
		return nil, fmt.Errorf("cannot make release %s %s: %w", image, build, err)
	}
	return r, nil
}

func release(ctx context.Context, dir, image string, build publish.BuildID) (*publish.Release, error) {
	dir = filepath.Join(dir, image, build.String())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	name := image + "-" + build.String()
	for _, file := range []struct {
		name string
		data []byte
	}{
		{name + ".qcow2", emptyQcow2(name)},
		{name + ".packages", []byte("base-files 12.4+deb12u8 amd64\n")},
	} {
		err := writeNew(filepath.Join(dir, file.name), file.data)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	files, err := digests(dir)
	if err != nil {
		return nil, err
	}
	return seal(ctx, dir, &publish.Index{
		Image: image, Build: build, DefinitionSHA256: fmt.Sprintf("%064x", 1), Capabilities: "0x1",
		Properties: map[string]string{"__support_kvm": "true"},
		MinDiskGiB: 1, Tests: publish.Tests{Pass: 1},
		Files: files,
	})
}

func writeNew(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// digests returns the files of the directory.
func digests(dir string) ([]publish.File, error) {
	dirents, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []publish.File
	for _, d := range dirents {
		f, err := os.Open(filepath.Join(dir, d.Name()))
		if err != nil {
			return nil, err
		}
		sum := sha256.New()
		size, err := io.Copy(sum, f)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		files = append(files, publish.File{Name: d.Name(), SizeBytes: size, SHA256: hex.EncodeToString(sum.Sum(nil))})
	}
	return files, nil
}

// seal writes x to dir as release.json, signs the directory with a new key, and
// opens it.
func seal(ctx context.Context, dir string, x *publish.Index) (*publish.Release, error) {
	f, err := os.Create(filepath.Join(dir, publish.IndexName))
	if err != nil {
		return nil, err
	}
	if err := publish.WriteIndex(f, x); err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	key, err := signing.GenerateKey(signing.KeyConfig{Name: "publishtest"})
	if err != nil {
		return nil, err
	}
	signer, err := signing.NewSigner(key, signing.SignerConfig{})
	if err != nil {
		return nil, err
	}
	if _, err := signing.SignDir(ctx, dir, signer); err != nil {
		return nil, err
	}
	if err := key.WritePublicFile(dir + ".pub"); err != nil {
		return nil, err
	}
	keyring, err := signing.PinKeys(key)
	if err != nil {
		return nil, err
	}
	return publish.Open(ctx, dir, keyring)
}

// emptyQcow2 returns a qcow2 of an empty disk of 1 MiB with the text in the
// unused rest of its first cluster.
func emptyQcow2(text string) []byte {
	const clusterBits, cluster = 9, 1 << 9
	b := make([]byte, 4*cluster) // header, refcount table, refcount block, L1 table
	copy(b, "QFI\xfb")
	binary.BigEndian.PutUint32(b[4:], 3) // version
	binary.BigEndian.PutUint32(b[20:], clusterBits)
	binary.BigEndian.PutUint64(b[24:], 1<<20)     // virtual size
	binary.BigEndian.PutUint32(b[36:], 32)        // L1 entries
	binary.BigEndian.PutUint64(b[40:], 3*cluster) // L1 table
	binary.BigEndian.PutUint64(b[48:], cluster)   // refcount table
	binary.BigEndian.PutUint32(b[56:], 1)         // its clusters
	binary.BigEndian.PutUint32(b[96:], 4)         // refcount order: 16 bits
	binary.BigEndian.PutUint32(b[100:], 104)      // header length
	copy(b[112:cluster], text)                    // after an empty list of extensions
	binary.BigEndian.PutUint64(b[cluster:], 2*cluster)
	for i := range 4 {
		binary.BigEndian.PutUint16(b[2*cluster+2*i:], 1)
	}
	return b
}
