package signing

import (
	"bytes"
	"context"
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
	return sig.Bytes(), d.result(name, size), s.readable(sig.Bytes())
}

// armored is detached in the form of an .asc file.
func (s *Sealer) armored(ctx context.Context, name string, r io.Reader) ([]byte, FileDigest, error) {
	sig, digest, err := s.detached(ctx, name, r)
	if err != nil {
		return nil, FileDigest{}, err
	}
	armored, err := Armor(sig)
	if err != nil {
		return nil, FileDigest{}, err
	}
	return armored, digest, s.readable(armored)
}

// readable says that a signature file that was made is within the limits of
// those that read it. Each signature in it was verified when it was made.
func (s *Sealer) readable(sig []byte) error {
	all, err := readSignatures(sig)
	if err == nil && len(all) != len(s.Signers) {
		err = fmt.Errorf("it has %d signatures, not %d", len(all), len(s.Signers))
	}
	if err != nil {
		return fmt.Errorf("the signature would not be read: %w", err)
	}
	return nil
}

// SignFile writes the detached signature FILE.asc beside the named file, and
// returns the digests of the file. An FILE.asc that is there is replaced, by one
// rename, when the new one is complete.
func (s *Sealer) SignFile(ctx context.Context, path string) (FileDigest, error) {
	return s.signFile(ctx, path, s.armored)
}

// ClearSignFile writes FILE.asc with the text of the named file and a cleartext
// signature, as SignFile writes it, and returns the digests of the file.
func (s *Sealer) ClearSignFile(ctx context.Context, path string) (FileDigest, error) {
	return s.signFile(ctx, path, func(ctx context.Context, name string, f io.Reader) ([]byte, FileDigest, error) {
		text, err := readBounded(f, maxSumsFile)
		if err != nil {
			return nil, FileDigest{}, err
		}
		digest, err := digestOf(ctx, s.digester(), name, bytes.NewReader(text))
		if err != nil {
			return nil, FileDigest{}, err
		}
		signed, err := s.cleartext(ctx, bytes.NewReader(text))
		return signed, digest, err
	})
}

type signFileFunc func(ctx context.Context, name string, f io.Reader) ([]byte, FileDigest, error)

func (s *Sealer) signFile(ctx context.Context, path string, sign signFileFunc) (FileDigest, error) {
	var digest FileDigest
	err := func() error {
		dir, name := filepath.Split(path)
		root, err := os.OpenRoot(filepath.Clean(dir + "."))
		if err != nil {
			return err
		}
		defer root.Close()
		f, err := openFile(path)
		if err != nil {
			return err
		}
		defer f.Close()
		var sig []byte
		if sig, digest, err = sign(ctx, name, f); err != nil {
			return err
		}
		st := &stage{root: root, step: s.step}
		return st.replace(ctx, output{name: name + ".asc", data: sig, mode: 0o644})
	}()
	if err != nil {
		return FileDigest{}, fmt.Errorf("cannot sign %s: %w", path, err)
	}
	return digest, nil
}
