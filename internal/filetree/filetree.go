// Package filetree copies directories and digests them, without following links
// out of them.
package filetree

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/opentelekomcloud/go-imagefactory/builder"
)

// Copy copies a directory's regular files with their modes and its links into
// dst. os.DirFS would follow links out of it, os.Root does not.
func Copy(ctx context.Context, dst, src string) error {
	root, err := os.OpenRoot(src)
	if err != nil {
		return err
	}
	defer root.Close()
	return builder.Local{}.Upload(ctx, dst, root.FS())
}

// Digest stands for the names, modes and contents of a tree.
func Digest(dir string) (string, error) {
	h := sha256.New()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		sum, err := content(root, name, d.Type())
		fmt.Fprintf(h, "%q %v %x\n", name, st.Mode(), sum)
		return err
	})
	return hex.EncodeToString(h.Sum(nil)), err
}

// content digests a file's bytes or a link's target.
func content(root *os.Root, name string, kind fs.FileMode) ([]byte, error) {
	h := sha256.New()
	if kind == fs.ModeSymlink {
		target, err := root.Readlink(name)
		_, _ = io.WriteString(h, target) // a hash takes all
		return h.Sum(nil), err
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	_, err = io.Copy(h, f)
	return h.Sum(nil), err
}
