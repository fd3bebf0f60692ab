package imagefactory

import (
	"context"
	"errors"
	"net"
	"net/http"
	"regexp"
	"slices"
	"syscall"

	"github.com/opentelekomcloud/go-imagefactory/builder"
)

// IsTransient reports whether an error is known to be of a kind that passes: a service
// answered that it cannot now (408, 425, 429, 500, 502 to 504), a connection was
// refused, reset or timed out, a name server did not answer, a mirror could not be
// reached, or the error says so itself (Transient() bool). All else is not known to
// pass, and what was tried is not tried again: of several joined errors each has to be
// transient.
func IsTransient(err error) bool {
	switch e := err.(type) { //nolint:errorlint // it walks the tree itself
	case nil:
		return false
	case interface{ Unwrap() []error }:
		list := e.Unwrap()
		return len(list) > 0 && !slices.ContainsFunc(list, func(err error) bool { return !IsTransient(err) })
	case interface{ Transient() bool }:
		return e.Transient()
	case interface{ GetStatusCode() int }: // a cloud's client has it
		return transientStatus(e.GetStatusCode())
	case *builder.ToolError:
		return mirrorHiccup(e)
	case *net.DNSError:
		return e.IsTimeout || e.IsTemporary
	case *PanicError:
		return false
	case syscall.Errno: // which is a net.Error too
		return e.Timeout() || slices.Contains([]syscall.Errno{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTUNREACH, syscall.ENETUNREACH}, e)
	case net.Error:
		if e.Timeout() && !pastDeadline(err) {
			return true
		}
	}
	return IsTransient(errors.Unwrap(err))
}

// pastDeadline reports whether the error is of a context whose time is over. A timeout
// of package net says that it is one too, by its Is, and is not.
func pastDeadline(err error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if err == context.DeadlineExceeded { //nolint:errorlint // see above
			return true
		}
	}
	return false
}

func transientStatus(code int) bool {
	return slices.Contains([]int{
		http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout,
	}, code)
}

// refused is what a mirror says that it will say again.
var refused = regexp.MustCompile(`\b40[0134]\b|certificate`)

// mirrorHiccup reports whether the tool could not reach its mirror.
func mirrorHiccup(e *builder.ToolError) bool {
	return e.Cause() == "mirror unreachable" && !slices.ContainsFunc(e.Tail, refused.MatchString)
}
