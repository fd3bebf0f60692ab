//go:build !(darwin || freebsd || linux || netbsd || openbsd)

package directory

import (
	"errors"
	"os"
)

func tryLock(*os.File) (bool, error) {
	return false, errors.ErrUnsupported
}
