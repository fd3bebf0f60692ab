package signing

import (
	"cmp"
	"context"
	"crypto"
	_ "crypto/md5"    //nolint:gosec // a checksum that stores ask for, not a signature's hash
	_ "crypto/sha256" // signatures and digests name their hash by number
	"crypto/sha3"
	_ "crypto/sha512" // as above
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
)

// smallSize is read first, then blockSize at once, with two blocks in use.
const (
	smallSize = 16 << 10
	blockSize = 1 << 20
)

// FileDigest is what one read of a file yields. The digests are lower-case
// hexadecimal, empty where not asked for.
type FileDigest struct {
	Name      string `json:"name"`
	SizeBytes int64  `json:"size_bytes"`
	SHA256    string `json:"sha256"`
	SHA512    string `json:"sha512,omitempty"`
	MD5       string `json:"md5,omitempty"` // for stores that want it, never for security
}

// onePass feeds everything in r to each hash, the hashes in parallel to each
// other and to the reading. A small file, of which a directory may have many,
// takes little memory.
func onePass(ctx context.Context, r io.Reader, hashes []hash.Hash) (size int64, err error) {
	small := make([]byte, smallSize)
	n, err := io.ReadFull(r, small)
	if size = int64(n); !endOrNil(err) || ctx.Err() != nil {
		return 0, cmp.Or(ctx.Err(), err)
	}
	for _, h := range hashes {
		_, _ = h.Write(small[:n]) // a hash never fails
	}
	if err != nil {
		return size, nil
	}

	current, next := make([]byte, blockSize), make([]byte, blockSize)
	n, err = io.ReadFull(r, current)
	for {
		if !endOrNil(err) || ctx.Err() != nil {
			return size, cmp.Or(ctx.Err(), err)
		}
		size += int64(n)
		if err != nil { // the last block
			hashBlock(hashes, current[:n], nil)
			return size, nil
		}
		block := current[:n]
		hashBlock(hashes, block, func() { n, err = io.ReadFull(r, next) })
		current, next = next, current
	}
}

func endOrNil(err error) bool {
	return err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func hashBlock(hashes []hash.Hash, block []byte, meanwhile func()) {
	var wg sync.WaitGroup
	for _, h := range hashes {
		wg.Go(func() { _, _ = h.Write(block) })
	}
	if meanwhile != nil {
		meanwhile()
	}
	wg.Wait()
}

// newHash returns a hash whose state can be cloned, which what is registered for
// SHA-3 cannot.
func newHash(a crypto.Hash) hash.Hash {
	switch a {
	case crypto.SHA3_256:
		return sha3.New256()
	case crypto.SHA3_512:
		return sha3.New512()
	}
	return a.New()
}

// digester shares one hash per algorithm between digests and signatures.
type digester struct {
	shared map[crypto.Hash]hash.Hash
	own    []hash.Hash
	err    error
}

func newDigester(algorithms ...crypto.Hash) *digester {
	d := &digester{shared: map[crypto.Hash]hash.Hash{}}
	for _, a := range algorithms {
		d.use(a)
	}
	return d
}

// use makes the algorithm part of the pass.
func (d *digester) use(a crypto.Hash) {
	if !a.Available() {
		d.err = fmt.Errorf("hash %s is not available", a)
	} else if d.shared[a] == nil {
		d.shared[a] = newHash(a)
	}
}

// add makes h part of the pass: a salted or canonicalising hash.
func (d *digester) add(h hash.Hash) { d.own = append(d.own, h) }

func (d *digester) read(ctx context.Context, r io.Reader) (int64, error) {
	if d.err != nil {
		return 0, d.err
	}
	all := append([]hash.Hash{}, d.own...)
	for _, h := range d.shared {
		all = append(all, h)
	}
	return onePass(ctx, r, all)
}

// clone returns the state after the pass, to be finished by one signature.
func (d *digester) clone(a crypto.Hash) (hash.Hash, error) {
	c, ok := d.shared[a].(hash.Cloner)
	if !ok {
		return nil, fmt.Errorf("hash %s cannot be shared", a)
	}
	return c.Clone()
}

func (d *digester) hex(a crypto.Hash) string {
	if d.shared[a] == nil {
		return ""
	}
	return hex.EncodeToString(d.shared[a].Sum(nil))
}

func (d *digester) result(name string, size int64) FileDigest {
	return FileDigest{
		Name: name, SizeBytes: size,
		SHA256: d.hex(crypto.SHA256), SHA512: d.hex(crypto.SHA512), MD5: d.hex(crypto.MD5),
	}
}

func digestOf(ctx context.Context, d *digester, name string, r io.Reader) (FileDigest, error) {
	size, err := d.read(ctx, r)
	if err != nil {
		return FileDigest{}, err
	}
	return d.result(name, size), nil
}
