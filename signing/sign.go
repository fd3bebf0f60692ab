package signing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Detached reads r once and returns the binary detached signatures of all
// signers over it, one packet after the other, and the digests. [Armor] makes
// an .asc file of it. Name is only for the result and errors.
func (s *Sealer) Detached(ctx context.Context, name string, r io.Reader) ([]byte, FileDigest, error) {
	sig, digest, err := s.detached(ctx, name, r)
	if err != nil {
		return nil, FileDigest{}, fmt.Errorf("cannot sign %s: %w", name, err)
	}
	return sig, digest, nil
}

func (s *Sealer) detached(ctx context.Context, name string, r io.Reader) ([]byte, FileDigest, error) {
	d := s.digester()
	all, err := begin(d, s.Signers, packet.SigTypeBinary)
	if err != nil {
		return nil, FileDigest{}, err
	}
	size, err := d.read(ctx, r)
	if err != nil {
		return nil, FileDigest{}, err
	}
	var sig bytes.Buffer
	if err := complete(ctx, &sig, d, all); err != nil {
		return nil, FileDigest{}, err
	}
	return sig.Bytes(), d.result(name, size), nil
}

// SignFile writes the detached signature FILE.asc beside the named file,
// replacing one that is there, and returns the digests of the file.
func (s *Sealer) SignFile(ctx context.Context, path string) (FileDigest, error) {
	var digest FileDigest
	err := s.signFile(path, func(name string, f io.Reader) (armored []byte, err error) {
		sig, d, err := s.detached(ctx, name, f)
		if err != nil {
			return nil, err
		}
		digest = d
		return Armor(sig)
	})
	return digest, err
}

// ClearSignFile writes FILE.asc with the text of the named file and a cleartext
// signature, replacing one that is there, and returns the digests of the file.
func (s *Sealer) ClearSignFile(ctx context.Context, path string) (FileDigest, error) {
	var digest FileDigest
	err := s.signFile(path, func(name string, f io.Reader) ([]byte, error) {
		text, err := readBounded(f, maxSumsFile)
		if err != nil {
			return nil, err
		}
		if digest, err = digestOf(ctx, s.digester(), name, bytes.NewReader(text)); err != nil {
			return nil, err
		}
		return s.cleartext(ctx, bytes.NewReader(text))
	})
	return digest, err
}

func (s *Sealer) signFile(path string, sign func(name string, f io.Reader) ([]byte, error)) error {
	err := func() error {
		dir, name := filepath.Split(path)
		root, err := os.OpenRoot(filepath.Clean(dir + "."))
		if err != nil {
			return err
		}
		defer root.Close()
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
			return errors.Join(NotRegular, err)
		}
		sig, err := sign(name, f)
		if err != nil {
			return err
		}
		return errors.Join(replaceFile(root, name+".asc", sig), syncDir(root))
	}()
	if err != nil {
		return fmt.Errorf("cannot sign %s: %w", path, err)
	}
	return nil
}
