package qcow2

import (
	"errors"
	"fmt"
)

// The kinds of a *FormatError, for errors.Is, and ErrInUse.
var (
	// ErrNotQCOW2 says that the file does not begin as a qcow2 image.
	ErrNotQCOW2 = errors.New("not a qcow2 image")
	// ErrMalformed says that the file contradicts the specification.
	ErrMalformed = errors.New("malformed qcow2 image")
	// ErrUnsupported says that the image needs what this package, or the
	// call, does not offer.
	ErrUnsupported = errors.New("unsupported qcow2 image")
	// ErrEncrypted says that the guest's data is encrypted.
	ErrEncrypted = errors.New("encrypted qcow2 image")
	// ErrInUse says that another process, such as QEMU, has the file open for
	// writing: what is read of it may belong to no single moment.
	ErrInUse = errors.New("the file is in use")
)

// A FormatError says what in an image cannot be accepted, and where.
type FormatError struct {
	Kind   error  // ErrNotQCOW2, ErrMalformed, ErrUnsupported or ErrEncrypted
	Offset int64  // in the file, of the field that is not accepted
	Value  uint64 // the field's value
	Text   string // what is wrong with it

	finding string // the name in a Safety verdict, if not of the kind
}

// Error gives kind, text, value and offset in one line.
func (e *FormatError) Error() string {
	kind, text := "qcow2 format error", "no reason given"
	if e.Kind != nil {
		kind = e.Kind.Error()
	}
	if e.Text != "" {
		text = e.Text
	}
	return fmt.Sprintf("%s: %s (value %#x at offset %d)", kind, text, e.Value, e.Offset)
}

// Unwrap returns the kind.
func (e *FormatError) Unwrap() error { return e.Kind }

func malformed(offset int64, value uint64, format string, args ...any) *FormatError {
	return &FormatError{Kind: ErrMalformed, Offset: offset, Value: value, Text: fmt.Sprintf(format, args...)}
}

func unsupported(offset int64, value uint64, format string, args ...any) *FormatError {
	return &FormatError{Kind: ErrUnsupported, Offset: offset, Value: value, Text: fmt.Sprintf(format, args...)}
}
