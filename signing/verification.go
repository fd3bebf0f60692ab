package signing

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Status of a file.
type Status string

// The states of a file. Bad is a file or signature that is not what it should
// be; Untrusted one that may be intact, but that no key that counts vouches for.
const (
	Good      Status = "good"
	Bad       Status = "bad"
	Missing   Status = "missing"
	Extra     Status = "extra"
	Untrusted Status = "untrusted"
)

// File is what was found out about one file.
type File struct {
	// FileDigest has name, size and digests as they were read, whatever the
	// status; the digests are empty if the file was not read.
	FileDigest

	Status Status
	Reason Reason // empty if Status is Good
	Detail string

	// Fingerprint of the primary key that vouches for the file, and when it
	// signed: with the file's own signature, or else with SHA256SUMS. Of a file
	// that is not good they say what its signature claims.
	Fingerprint Fingerprint
	SignedAt    time.Time

	// Signatures of the file itself, good or not, in their order.
	Signatures []Signature

	// Notes are worth knowing of a good file: its key has expired since.
	Notes []string
}

func (f *File) fail(s Status, r Reason, detail string) {
	f.Status, f.Reason, f.Detail = s, r, detail
}

// err returns nil for a good file.
func (f *File) err() error {
	if f.Status == Good {
		return nil
	}
	return &Error{File: f.Name, Fingerprint: f.Fingerprint, Reason: f.Reason, Detail: f.Detail}
}

// why is the reason with its detail, or the notes of a good file.
func (f *File) why() string {
	if f.Status == Good {
		return strings.Join(f.Notes, "; ")
	}
	if f.Detail == "" {
		return string(f.Reason)
	}
	return string(f.Reason) + ": " + f.Detail
}

// MarshalJSON writes name, status, reason, fingerprint and signed_at (RFC 3339,
// or null).
func (f File) MarshalJSON() ([]byte, error) {
	var at *time.Time
	if !f.SignedAt.IsZero() {
		at = &f.SignedAt
	}
	return json.Marshal(struct {
		Name        string      `json:"name"`
		Status      Status      `json:"status"`
		Reason      string      `json:"reason"`
		Fingerprint Fingerprint `json:"fingerprint"`
		SignedAt    *time.Time  `json:"signed_at"`
	}{f.Name, f.Status, f.why(), f.Fingerprint, at})
}

// Verification is the result of verifying one or several files.
type Verification struct {
	// Files by name. A file can be in it twice if several things are wrong.
	Files []File
}

// OK says that there are files and all of them are good.
func (v *Verification) OK() bool {
	return len(v.Files) > 0 && !slices.ContainsFunc(v.Files, func(f File) bool { return f.Status != Good })
}

// Err returns nil if OK, and else all that is wrong: each an [Error].
func (v *Verification) Err() error {
	if len(v.Files) == 0 {
		return errors.New("cannot verify: there is no file")
	}
	var all []error
	for i := range v.Files {
		all = append(all, v.Files[i].err())
	}
	return errors.Join(all...)
}

// File returns the named file, or nil.
func (v *Verification) File(name string) *File {
	for i := range v.Files {
		if v.Files[i].Name == name {
			return &v.Files[i]
		}
	}
	return nil
}

// String returns a line for each file: its name, and what was found.
func (v *Verification) String() string {
	var b strings.Builder
	for i := range v.Files {
		f := &v.Files[i]
		fmt.Fprintf(&b, "%s: %s", printable(f.Name), f.Status)
		if f.Status == Good {
			fmt.Fprintf(&b, ", signed %s by %s", day(f.SignedAt), f.Fingerprint)
		}
		if why := f.why(); why != "" {
			b.WriteString(": " + why)
		}
		if f.Status != Good && f.Fingerprint != "" {
			b.WriteString(" (key " + string(f.Fingerprint) + ")")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// printable quotes names that would do something to a terminal.
func printable(name string) string {
	if q := strconv.Quote(name); q != `"`+name+`"` {
		return q
	}
	return name
}

// MarshalJSON writes {"ok": bool, "files": […]}.
func (v *Verification) MarshalJSON() ([]byte, error) {
	files := v.Files
	if files == nil {
		files = []File{}
	}
	return json.Marshal(struct {
		OK    bool   `json:"ok"`
		Files []File `json:"files"`
	}{v.OK(), files})
}

// statusOf sorts reasons into what is broken and what is not trusted.
func statusOf(r Reason) Status {
	switch r {
	case BadSignature, Malformed, Unsupported, NoSignature:
		return Bad
	}
	return Untrusted
}

func sortByName(files []FileDigest) {
	slices.SortFunc(files, func(a, b FileDigest) int { return strings.Compare(a.Name, b.Name) })
}
