package advisory

import (
	"archive/zip"
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const (
	maxFile     = 2 << 30  // bytes of a file, unpacked
	maxAdvisory = 64 << 20 // bytes of one advisory, or of all about one source package
	maxFiles    = 10_000
	maxZipped   = 1_000_000 // files in an archive
)

var (
	errTooLarge = errors.New("it is larger than is read")
	errTooMany  = errors.New("there are more advisories than are read")
	errFormat   = errors.New("it is no format of advisories that is known")
)

// Load reads a file of advisories or all files of a directory but those in
// directories below it; of the advisories with these IDs only, if any are named,
// which is faster and takes less memory: [Database.Judge] says the same of them. The
// names of the files do not matter.
func Load(ctx context.Context, path string, ids ...string) (*Database, error) {
	d := &Database{entries: map[string][]*entry{}, covers: map[string]bool{}, definitions: map[string][]*ovalDefinition{}}
	for _, id := range ids {
		d.only = append(d.only, []byte(id))
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read advisories: %w", err)
	}
	files := []string{path}
	if st.IsDir() {
		entries, err := os.ReadDir(path)
		if err != nil {
			return nil, fmt.Errorf("cannot read advisories: %w", err)
		}
		files = files[:0]
		for _, e := range entries {
			if e.Type().IsRegular() && !strings.HasPrefix(e.Name(), ".") {
				files = append(files, filepath.Join(path, e.Name()))
			}
		}
		if len(files) > maxFiles {
			return nil, fmt.Errorf("cannot read advisories: %s has more than %d files", path, maxFiles)
		}
	}
	for _, name := range files {
		d.files = append(d.files, fileRead{Name: filepath.Base(name)})
		if err := d.file(ctx, name); err != nil {
			return nil, fmt.Errorf("cannot read the advisories in %s: %w", name, err)
		}
	}
	if len(d.covers)+len(d.entries)+len(d.definitions) == 0 {
		return nil, fmt.Errorf("cannot read advisories: %s holds none", path)
	}
	return d, nil
}

func (d *Database) file(ctx context.Context, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return errors.New("it is not a regular file")
	}
	b := bufio.NewReaderSize(f, 1<<16)
	magic, _ := b.Peek(4)
	switch {
	case bytes.HasPrefix(magic, []byte("PK\x03\x04")):
		return d.zip(ctx, f, st.Size())
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(b)
		if err != nil {
			return errors.New("it is damaged")
		}
		return d.read(ctx, z)
	case bytes.HasPrefix(magic, []byte("BZh")):
		return d.read(ctx, bzip2.NewReader(b))
	}
	return d.read(ctx, b)
}

// zip reads an archive of advisories, one a file.
func (d *Database) zip(ctx context.Context, r io.ReaderAt, size int64) error {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return errors.New("it is a damaged archive")
	}
	if len(z.File) > maxZipped {
		return errTooMany
	}
	left := int64(maxFile)
	for i, f := range z.File {
		if f.FileInfo().IsDir() {
			continue
		}
		r, err := f.Open()
		if err != nil {
			return fmt.Errorf("file %d of the archive is damaged", i+1)
		}
		l := &limited{ctx: ctx, r: r, left: min(left, maxAdvisory)}
		before := l.left
		err = errors.Join(d.json(l), r.Close())
		if left -= before - l.left; err != nil {
			return fmt.Errorf("file %d of the archive: %w", i+1, err)
		}
	}
	return nil
}

// read reads what is not compressed: OVAL or JSON.
func (d *Database) read(ctx context.Context, r io.Reader) error {
	b := bufio.NewReader(r)
	l := &limited{ctx: ctx, r: b, left: maxFile}
	if first, _ := b.Peek(1); string(first) == "<" {
		return d.oval(l)
	}
	return d.json(l)
}

// limited ends with an error where more comes than is read, of all or of one
// advisory, or ctx is done.
type limited struct {
	ctx  context.Context //nolint:containedctx // of one call
	r    io.Reader
	left int64
	one  int64 // read since begin
}

// begin is called before each advisory.
func (l *limited) begin() { l.one = 0 }

func (l *limited) Read(p []byte) (int, error) {
	if err := l.ctx.Err(); err != nil {
		return 0, err
	}
	if l.left <= 0 || l.one > maxAdvisory {
		return 0, errTooLarge
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	l.one += int64(n)
	return n, err
}

// json reads an advisory of OSV, an array of them, or the tracker's object. Which
// one it is the first key tells: a source package has an object.
func (d *Database) json(l *limited) error {
	j := json.NewDecoder(l)
	t, err := j.Token()
	if err != nil {
		return decodeError(err)
	}
	switch t {
	case json.Delim('['):
		for j.More() {
			l.begin()
			var value json.RawMessage
			if err := j.Decode(&value); err != nil {
				return decodeError(err)
			}
			if err := d.advisory(value); err != nil {
				return err
			}
		}
	case json.Delim('{'):
		return d.object(l, j)
	default:
		return errFormat
	}
	return end(j)
}

// end takes the closing bracket, behind which nothing may come.
func end(j *json.Decoder) error {
	if _, err := j.Token(); err != nil {
		return decodeError(err)
	}
	if _, err := j.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something comes after its end")
	}
	return nil
}

// object reads the tracker's object, or collects the fields of an advisory.
func (d *Database) object(l *limited, j *json.Decoder) error {
	fields := map[string]json.RawMessage{}
	size := 0
	for j.More() {
		l.begin()
		key, err := j.Token()
		if err != nil {
			return decodeError(err)
		}
		name, _ := key.(string)
		var value json.RawMessage
		if err := j.Decode(&value); err != nil {
			return decodeError(err)
		}
		if !isOSV(name) && bytes.HasPrefix(bytes.TrimSpace(value), []byte("{")) && fields["id"] == nil {
			if err := d.tracker(name, value); err != nil {
				return err
			}
			continue
		}
		if size += len(name) + len(value); size > maxAdvisory {
			return errTooLarge
		}
		fields[name] = value
	}
	if err := end(j); err != nil {
		return err
	}
	if len(fields) == 0 {
		return nil
	}
	data, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	return d.advisory(data)
}

// advisory reads one of OSV.
func (d *Database) advisory(data []byte) error {
	var v osv
	if err := json.Unmarshal(data, &v); err != nil {
		return decodeError(err)
	}
	return d.osv(&v)
}

// mayHave reports whether what is wanted may be in the text: an ID, or an escape that
// could write a byte of one.
func (d *Database) mayHave(text []byte) bool {
	if len(d.only) == 0 || escapedASCII.Match(text) {
		return true
	}
	return slices.ContainsFunc(d.only, func(id []byte) bool { return bytes.Contains(text, id) })
}

var escapedASCII = regexp.MustCompile(`\\u00[2-7]`)

// isOSV reports whether an object at this key is an advisory's own.
func isOSV(key string) bool { return key == "database_specific" }

// decodeError says nothing of what stands in the file.
func decodeError(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("it is no JSON at byte %d", syntax.Offset)
	case errors.As(err, &kind):
		return fmt.Errorf("%w: the value at byte %d is of another kind", errFormat, kind.Offset)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it is cut off")
	}
	return err
}
