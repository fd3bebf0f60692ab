// Package passphrase asks whoever started a program for the passphrase of a key.
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

// Read reads a line from the file descriptor fd, or if that is negative asks for
// it on the terminal, without echo. What names the key.
func Read(fd int, what string) ([]byte, error) {
	if fd >= 0 {
		f := os.NewFile(uintptr(fd), "passphrase")
		if f == nil {
			return nil, fmt.Errorf("file descriptor %d is not open", fd)
		}
		defer f.Close()
		line, err := bufio.NewReader(io.LimitReader(f, 4096)).ReadString('\n')
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
