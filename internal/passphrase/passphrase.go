// Package passphrase asks whoever started a program for the passphrases of keys.
package passphrase

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// An Asker gets passphrases, one after the other. It is not for concurrent use.
type Asker struct {
	// FD is the file descriptor that each is a line of. If negative, each is asked
	// for on the terminal, without echo.
	FD int

	lines *bufio.Reader
}

// Ask returns the passphrase of what is named.
func (a *Asker) Ask(what string) ([]byte, error) {
	if a.FD >= 0 {
		if a.lines == nil {
			f := os.NewFile(uintptr(a.FD), "passphrase")
			if f == nil {
				return nil, fmt.Errorf("file descriptor %d is not open", a.FD)
			}
			a.lines = bufio.NewReader(io.LimitReader(f, 64<<10))
		}
		line, err := a.lines.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return []byte(strings.TrimRight(line, "\r\n")), nil
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, errors.New("there is no terminal to ask on: give -passphrase-fd")
	}
	defer tty.Close()
	if _, err := fmt.Fprintf(tty, "Passphrase of %s: ", what); err != nil {
		return nil, err
	}
	secret, err := term.ReadPassword(int(tty.Fd()))
	_, _ = fmt.Fprintln(tty)
	return secret, err
}
