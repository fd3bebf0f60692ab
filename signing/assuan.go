package signing

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// assuan is a connection that speaks the Assuan protocol of GnuPG: lines of at
// most 1000 bytes, a command at a time.
type assuan struct {
	conn net.Conn
	in   *bufio.Reader
	ctx  func() error // what cancelled it
	stop func() bool
}

const (
	maxAssuanLine = 1002 // with CR LF
	maxAssuanData = 1 << 20
)

func dialAssuan(ctx context.Context, socket string) (*assuan, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("cannot reach gpg-agent (is it running?): %w", err)
	}
	a := &assuan{conn: conn, in: bufio.NewReaderSize(conn, maxAssuanLine), ctx: ctx.Err}
	a.stop = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	if _, err := a.answer(); err != nil {
		a.close()
		return nil, fmt.Errorf("gpg-agent does not greet: %w", err)
	}
	return a, nil
}

func (a *assuan) close() {
	a.stop()
	_ = a.conn.Close() // nothing is pending
}

// assuanAnswer is all that came up to OK.
type assuanAnswer struct {
	data   []byte
	status []string
}

func (a *assuan) command(line string) (assuanAnswer, error) {
	if strings.ContainsAny(line, "\r\n") || len(line) > 1000 {
		return assuanAnswer{}, errors.New("the command does not fit on a line")
	}
	if err := a.send(line); err != nil {
		return assuanAnswer{}, err
	}
	return a.answer()
}

func (a *assuan) send(line string) error {
	_, err := a.conn.Write([]byte(line + "\n"))
	return a.cause(err)
}

func (a *assuan) cause(err error) error {
	if err != nil && a.ctx() != nil {
		return a.ctx()
	}
	return err
}

func (a *assuan) answer() (assuanAnswer, error) {
	var got assuanAnswer
	for size := 0; size < maxAssuanData; {
		raw, err := a.in.ReadSlice('\n')
		if err != nil {
			return got, a.cause(err)
		}
		size += len(raw)
		line := strings.TrimRight(string(raw), "\r\n")
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "OK":
			return got, nil
		case "ERR":
			return got, fmt.Errorf("error %s", rest)
		case "D":
			data, err := url.PathUnescape(rest) // percent escapes, and + is itself
			if err != nil {
				return got, fmt.Errorf("the data line is malformed: %w", err)
			}
			got.data = append(got.data, data...)
		case "S":
			got.status = append(got.status, rest)
		case "INQUIRE": // that a PIN entry was started, mostly: there is nothing to tell
			if err := a.send("END"); err != nil {
				return got, err
			}
		}
	}
	return got, errors.New("the answer is too long")
}

// sexp is a canonical S-expression: an atom or a list.
type sexp struct {
	atom []byte
	list []sexp
}

const maxSexpDepth = 16

func parseSexp(data []byte) (sexp, error) {
	expr, rest, err := parseSexpAt(bytes.TrimRight(data, "\x00"), 0)
	if err == nil && len(rest) > 0 {
		err = errors.New("something follows the S-expression")
	}
	if err != nil {
		return sexp{}, fmt.Errorf("gpg-agent's answer is malformed: %w", err)
	}
	return expr, nil
}

func parseSexpAt(data []byte, depth int) (sexp, []byte, error) {
	if depth > maxSexpDepth {
		return sexp{}, nil, errors.New("the S-expression is too deep")
	}
	if rest, ok := bytes.CutPrefix(data, []byte("(")); ok {
		var expr sexp
		for {
			if after, ok := bytes.CutPrefix(rest, []byte(")")); ok {
				return expr, after, nil
			}
			var item sexp
			var err error
			if item, rest, err = parseSexpAt(rest, depth+1); err != nil {
				return sexp{}, nil, err
			}
			expr.list = append(expr.list, item)
		}
	}
	colon := bytes.IndexByte(data, ':')
	if colon < 0 {
		return sexp{}, nil, errors.New("the S-expression is cut short")
	}
	n, err := strconv.ParseUint(string(data[:colon]), 10, 31)
	rest := data[colon+1:]
	if err != nil || n > uint64(len(rest)) {
		return sexp{}, nil, errors.New("the S-expression has an atom of a wrong length")
	}
	return sexp{atom: rest[:n]}, rest[n:], nil
}

// value finds the list (name value) anywhere in it.
func (s sexp) value(name string) []byte {
	if len(s.list) == 2 && string(s.list[0].atom) == name && s.list[1].atom != nil {
		return s.list[1].atom
	}
	for _, item := range s.list {
		if v := item.value(name); v != nil {
			return v
		}
	}
	return nil
}
