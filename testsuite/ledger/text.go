package ledger

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// WriteText writes a line for each file, in the order of their paths:
//
//	PATH TYPE MODE UID:GID [SIZE SHA256] [-> TARGET] [device MAJOR:MINOR] [= FIRST NAME] [NAME=BASE64 …]
//
// SIZE and SHA256 are those of a regular file ("-" where it was too large to be read), FIRST NAME
// another name of the same file, NAME an extended attribute. Paths, targets and names are
// quoted as Go strings where they are not plain words.
func (l *Listing) WriteText(w io.Writer) error {
	b := bufio.NewWriter(w)
	for i := range l.Files {
		f := &l.Files[i]
		fmt.Fprintf(b, "%s %c %04o %d:%d", quote(f.Path), f.Type, f.Mode, f.UID, f.GID)
		switch f.Type {
		case Regular:
			sum := f.SHA256
			if sum == "" {
				sum = "-"
			}
			fmt.Fprintf(b, " %d %s", f.Size, sum)
		case Symlink:
			fmt.Fprintf(b, " -> %s", quote(f.Target))
		case CharDev, BlockDev:
			fmt.Fprintf(b, " device %s", f.Device)
		}
		if f.HardLink != "" {
			fmt.Fprintf(b, " = %s", quote(f.HardLink))
		}
		for _, name := range slices.Sorted(maps.Keys(f.Xattrs)) {
			fmt.Fprintf(b, " %s=%s", quote(name), base64.StdEncoding.EncodeToString([]byte(f.Xattrs[name])))
		}
		_ = b.WriteByte('\n')
	}
	return b.Flush() // keeps the first error
}

// maxLine bounds a line of a text: a path, a target and attributes, quoted.
const maxLine = 1 << 20

// Compare writes how two texts of WriteText differ: "-PATH" for a file that only
// the old one has, "+PATH" for one that only the new one has, "*PATH" for one
// that is not the same, in the order of the paths.
func Compare(w io.Writer, was, is io.Reader) error {
	old, err := readLines(was)
	if err != nil {
		return err
	}
	now, err := readLines(is)
	if err != nil {
		return err
	}
	b := bufio.NewWriter(w)
	paths := maps.Clone(old)
	maps.Copy(paths, now)
	for _, name := range slices.Sorted(maps.Keys(paths)) {
		before, had := old[name]
		after, has := now[name]
		switch {
		case !has:
			fmt.Fprintf(b, "-%s\n", name)
		case !had:
			fmt.Fprintf(b, "+%s\n", name)
		case before != after:
			fmt.Fprintf(b, "*%s\n", name)
		}
	}
	return b.Flush()
}

func readLines(r io.Reader) (map[string]string, error) {
	lines := map[string]string{}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, maxLine)
	for sc.Scan() {
		name, rest, _ := strings.Cut(sc.Text(), " ")
		lines[name] = rest
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("cannot read a list of files: %w", err)
	}
	return lines, nil
}
