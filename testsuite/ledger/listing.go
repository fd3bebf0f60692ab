package ledger

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/internal/secretform"
)

// The types of files, as find(1) has them.
const (
	Regular   = 'f'
	Directory = 'd'
	Symlink   = 'l'
	CharDev   = 'c'
	BlockDev  = 'b'
	Pipe      = 'p'
	Socket    = 's'
)

// A File is one file of a disk or of a package. Its names are bytes, not
// necessarily UTF-8.
type File struct {
	Path     string // absolute and clean; "VOLUME:/…" where the volume is mounted nowhere
	Type     byte   // one of the types above
	Mode     uint32 // the lower twelve bits
	UID, GID int
	Size     int64             // of regular files, in bytes
	SHA256   string            // of regular files, hexadecimal; empty if it is larger than what is read
	Target   string            // of symbolic links
	Device   string            // of devices, "MAJOR:MINOR"
	HardLink string            // the path, in the same listing, of an earlier name of the same file; or empty
	Xattrs   map[string]string // extended attributes, POSIX ACLs in their text form; nil if there are none
	Holds    string            // how a secret that ReadArchive looked for stands in it: "text", "base64", "hex"…; or empty
}

// A Listing is every file of a disk, sorted by path.
type Listing struct {
	Files []File
	// Contents are the contents of the files that ReadArchive was asked to keep.
	Contents map[string][]byte
}

// Limits bound what ReadArchive takes. Zero values are the defaults.
type Limits struct {
	Files      int   // 2,000,000
	TotalBytes int64 // of all contents, holes included: 1 TiB
	FileBytes  int64 // of one content, holes included; of a larger one the digest is left out: 64 GiB
	PathBytes  int   // 4,096
}

const (
	maxKept  = 16 << 20 // bytes of one file that is kept
	maxXattr = 64 << 10
)

// ErrTooLarge says that a disk holds more than the limits.
var ErrTooLarge = errors.New("the disk holds more than is read")

func (l *Limits) setDefaults() {
	for _, f := range []struct {
		field *int64
		value int64
	}{{&l.TotalBytes, 1 << 40}, {&l.FileBytes, 64 << 30}} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	if l.Files == 0 {
		l.Files = 2_000_000
	}
	if l.PathBytes == 0 {
		l.PathBytes = 4096
	}
}

// ReadArchive reads a tar archive as sandbox.Reader gives it, to its end; paths
// begin with a volume's name ("/p1/etc/passwd"). keep selects the files whose
// contents are kept, by that path; one of more than 16 MiB is an error then. Secrets,
// each of at least 8 bytes, are looked for in contents, names, targets and attributes.
// The archive is hostile: limits hold.
func ReadArchive(ctx context.Context, archive io.Reader, limits Limits, keep func(path string) bool, secrets ...string) (*Listing, error) {
	limits.setDefaults()
	a := &archiveReader{limits: limits, keep: keep, finder: secretform.NewFinder(secrets...), seen: map[string]int{}, listing: &Listing{Contents: map[string][]byte{}}}
	t := tar.NewReader(archive)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = a.entry(ctx, h, t)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot list the disk's files: %w", err)
		}
	}
	// The reader's verdict comes at the very end, behind tar's padding.
	if _, err := io.Copy(io.Discard, archive); err != nil {
		return nil, fmt.Errorf("cannot list the disk's files: %w", err)
	}
	if !a.complete {
		return nil, errors.New("cannot list the disk's files: the archive has no end")
	}
	a.listing.sort()
	return a.listing, nil
}

func (l *Listing) sort() {
	slices.SortFunc(l.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
}

type archiveReader struct {
	limits   Limits
	keep     func(string) bool
	finder   *secretform.Finder
	listing  *Listing
	seen     map[string]int // index by path
	total    int64
	complete bool
}

// socketList is the archive's last file.
const socketList = "sockets"

func (a *archiveReader) entry(ctx context.Context, h *tar.Header, content io.Reader) error {
	if h.Name == socketList {
		a.complete = true
		return a.sockets(content)
	}
	f := File{Path: path.Join("/", h.Name), Mode: uint32(h.Mode) & 0o7777, UID: h.Uid, GID: h.Gid} //nolint:gosec // nothing is written there
	if len(f.Path) > a.limits.PathBytes || len(h.Linkname) > a.limits.PathBytes {
		return fmt.Errorf("%w: a path of more than %d bytes", ErrTooLarge, a.limits.PathBytes)
	}
	if f.Path == "/" {
		return nil // of the reader itself
	}
	if len(a.listing.Files) >= a.limits.Files {
		return fmt.Errorf("%w: more than %d files", ErrTooLarge, a.limits.Files)
	}
	var err error
	if f.Xattrs, err = xattrs(h.PAXRecords); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		f.Type, f.Size = Regular, h.Size
		err = a.content(ctx, &f, content)
	case tar.TypeDir:
		f.Type = Directory
	case tar.TypeSymlink:
		f.Type, f.Target = Symlink, h.Linkname
	case tar.TypeChar, tar.TypeBlock:
		f.Type, f.Device = CharDev, fmt.Sprintf("%d:%d", h.Devmajor, h.Devminor)
		if h.Typeflag == tar.TypeBlock {
			f.Type = BlockDev
		}
	case tar.TypeFifo:
		f.Type = Pipe
	case tar.TypeLink:
		first, ok := a.seen[path.Join("/", h.Linkname)] //nolint:gosec // nothing is written there
		if !ok {
			return errors.New("a hard link to a file that did not come")
		}
		name := f.Path
		f = a.listing.Files[first]
		f.Path, f.HardLink = name, f.Path
	default:
		return fmt.Errorf("an entry of type %q", h.Typeflag)
	}
	if err != nil {
		return err
	}
	if f.Holds == "" {
		f.Holds = a.inNames(&f)
	}
	if _, ok := a.seen[f.Path]; ok {
		return errors.New("a file that comes twice")
	}
	a.seen[f.Path] = len(a.listing.Files)
	a.listing.Files = append(a.listing.Files, f)
	return nil
}

// inNames looks for the secrets in what a file is called and what it has beside its
// content.
func (a *archiveReader) inNames(f *File) string {
	texts := []string{f.Path, f.Target}
	for name, value := range f.Xattrs {
		texts = append(texts, name, value)
	}
	for _, text := range texts {
		_, _ = a.finder.Write([]byte(text))
		if found := a.finder.Next(); found != "" {
			return found
		}
	}
	return ""
}

// content takes the digest of a file, and the content where it is wanted.
func (a *archiveReader) content(ctx context.Context, f *File, r io.Reader) error {
	if f.Size > a.limits.FileBytes {
		return nil
	}
	if a.total += f.Size; a.total > a.limits.TotalBytes {
		return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, a.limits.TotalBytes)
	}
	h := sha256.New()
	w := io.MultiWriter(h, a.finder)
	var kept bytes.Buffer
	if a.keep(f.Path) {
		if f.Size > maxKept {
			return fmt.Errorf("%w: %d bytes in a file that is looked into", ErrTooLarge, f.Size)
		}
		w = io.MultiWriter(w, &kept)
	}
	for left := f.Size; left > 0; {
		n, err := io.CopyN(w, r, min(left, 64<<20))
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		left -= n
	}
	f.SHA256, f.Holds = hex.EncodeToString(h.Sum(nil)), a.finder.Next()
	if a.keep(f.Path) {
		a.listing.Contents[f.Path] = kept.Bytes()
	}
	return nil
}

func (a *archiveReader) sockets(r io.Reader) error {
	list, err := io.ReadAll(io.LimitReader(r, maxKept+1))
	if err != nil {
		return err
	}
	if len(list) > maxKept {
		return fmt.Errorf("%w: a list of sockets of more than %d bytes", ErrTooLarge, maxKept)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		if name, ok := strings.CutPrefix(name, "/files/"); ok {
			f := File{Path: path.Join("/", name), Type: Socket}
			f.Holds = a.inNames(&f)
			a.listing.Files = append(a.listing.Files, f)
		}
	}
	return nil
}

// xattrs takes the extended attributes and ACLs from tar's records.
func xattrs(records map[string]string) (map[string]string, error) {
	var have map[string]string
	size := 0
	for key, value := range records {
		name, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok {
			if name, ok = strings.CutPrefix(key, "SCHILY.acl."); !ok {
				continue
			}
			name = "acl." + name
		} else if strings.HasPrefix(name, "system.posix_acl_") {
			continue // as text it is easier to read
		}
		if size += len(name) + len(value); size > maxXattr {
			return nil, fmt.Errorf("%w: more than %d bytes of attributes", ErrTooLarge, maxXattr)
		}
		if have == nil {
			have = map[string]string{}
		}
		have[name] = value
	}
	return have, nil
}

// Mount puts the volumes' files at their places: places maps the name of a
// volume to the path that it is mounted on. The files of a volume that has no
// place, and those that another volume hides, get paths that begin with their
// volume's name and a colon.
func (l *Listing) Mount(places map[string]string) {
	at := func(name string) (string, bool) {
		volume, rest, _ := strings.Cut(name[1:], "/")
		place, ok := places[volume]
		return path.Join(place, rest), ok
	}
	alone := func(name string) string {
		volume, rest, _ := strings.Cut(name[1:], "/")
		return volume + ":/" + rest
	}
	// The deepest volumes come first: they hide what the others have there.
	depth := func(f File) int {
		volume, _, _ := strings.Cut(f.Path[1:], "/")
		return -len(places[volume])
	}
	slices.SortStableFunc(l.Files, func(a, b File) int { return cmp.Compare(depth(a), depth(b)) })
	moved := map[string]string{}
	taken := map[string]byte{}
	files := l.Files[:0]
	for _, f := range l.Files {
		place, ok := at(f.Path)
		if kind, hidden := taken[place]; hidden && ok {
			if kind == Directory && f.Type == Directory {
				continue // the directory that a volume is mounted on
			}
			ok = false
		}
		if !ok {
			place = alone(f.Path)
		}
		taken[place] = f.Type
		moved[f.Path] = place
		f.Path = place
		files = append(files, f)
	}
	for i := range files {
		if files[i].HardLink != "" {
			files[i].HardLink = moved[files[i].HardLink]
		}
	}
	contents := map[string][]byte{}
	for name, data := range l.Contents {
		contents[moved[name]] = data
	}
	l.Files, l.Contents = files, contents
	l.sort()
}
