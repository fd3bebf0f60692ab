package ims

import (
	"errors"
	"fmt"
	"slices"

	"github.com/opentelekomcloud/go-imagefactory/internal/openstackapi"
)

// Errors that callers may act on. What the service answered is in an [Error] beside.
var (
	// ErrQuota is that the project may have no more images, shares or tags.
	ErrQuota = errors.New("the project's quota is used up; delete images or have it raised")
	// ErrBusy is that the service has had too many tasks at a time for long.
	ErrBusy = errors.New("the service has too many tasks; try again later")
	// ErrName is that the service does not take the image's name.
	ErrName = errors.New("the image's name is not one that the service takes")
	// ErrDescription is that it does not take the description.
	ErrDescription = errors.New("the description is not one that the service takes")
	// ErrOSVersion is that it does not know the __os_version.
	ErrOSVersion = errors.New("the service does not know the __os_version; its API reference lists those that it knows")
	// ErrFile is that it cannot use the object: it cannot read it, or its format,
	// size or region is another than it takes.
	ErrFile = errors.New("the service cannot use the object")
)

// codes are the service's error codes (API reference, "Error Codes") that mean one of
// the errors above.
var codes = map[string]error{
	"IMG.0015": ErrQuota, "IMG.0088": ErrQuota, "IMG.0116": ErrQuota,
	"IMG.0060": ErrBusy,
	"IMG.0002": ErrName, "IMG.0003": ErrName, "IMG.0009": ErrName, "IMG.0013": ErrName, "IMG.0062": ErrName,
	"IMG.0004": ErrDescription, "IMG.0054": ErrDescription,
	"IMG.0056": ErrOSVersion,
	"IMG.0057": ErrFile, "IMG.0058": ErrFile, "IMG.0059": ErrFile, "IMG.0068": ErrFile, "IMG.0069": ErrFile, "IMG.0072": ErrFile,
}

// An Error is one of the service's documented errors, of a call or of a job. It
// wraps the one of this package that it means, if there is one.
type Error struct {
	Code   string // such as IMG.0057
	Reason string // the service's, in one line
	What   string // the call or job

	answer error // if it was a call
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s: %s: %q", e.What, e.Code, e.Reason)
	if err := codes[e.Code]; err != nil {
		s += " (" + err.Error() + ")"
	}
	return s
}

// Unwrap returns the error of this package that it means, and the answer.
func (e *Error) Unwrap() []error {
	return slices.DeleteFunc([]error{codes[e.Code], e.answer}, func(err error) bool { return err == nil })
}

// typed makes an answer with a code an [Error].
func typed(err error) error {
	var answer *openstackapi.StatusError
	if errors.As(err, &answer) && answer.Code != "" {
		return &Error{Code: answer.Code, Reason: answer.Reason, What: answer.Method + " " + answer.Path, answer: answer}
	}
	return err
}
