// Package buildlog passes the output of a build tool on: to a log as it is and
// line by line to slog, and keeps its last lines for an error.
package buildlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
)

const (
	maxLine    = 4 << 10  // of the log, longer ones are cut for slog and the tail
	maxTail    = 40       // lines kept for an error
	maxLimited = 16 << 20 // bytes of a Limited
)

// Writer is the tool's standard output and error.
type Writer struct {
	// Phase is the last phase that began, Tail the last lines.
	Phase string
	Tail  []string

	ctx   context.Context //nolint:containedctx // lives for one build
	raw   io.Writer
	log   *slog.Logger
	parse func(line string) (text, phase string)
	line  []byte
	err   error
}

// New returns a Writer to raw, which may be nil, and log. parse takes what a tool
// puts before the text from a line, and tells which phase it begins, or "".
func New(ctx context.Context, raw io.Writer, log *slog.Logger, parse func(line string) (text, phase string)) *Writer {
	if raw == nil {
		raw = io.Discard
	}
	return &Writer{ctx: ctx, raw: raw, log: log, parse: parse}
}

// Write never fails, or the tool would be ended by a full disk of the log;
// Close tells.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err == nil {
		_, w.err = w.raw.Write(p)
	}
	for rest := p; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			w.line = append(w.line, rest[:min(len(rest), maxLine-len(w.line))]...)
			break
		}
		w.line = append(w.line, rest[:min(i, maxLine-len(w.line))]...)
		w.endLine()
		rest = rest[i+1:]
	}
	return len(p), nil
}

func (w *Writer) endLine() {
	text, phase := w.parse(strings.TrimRight(string(w.line), "\r\n\t "))
	w.line = w.line[:0]
	if text == "" {
		return
	}
	if phase != "" {
		w.Phase = phase
		w.log.InfoContext(w.ctx, "build phase", "phase", phase)
	}
	w.log.DebugContext(w.ctx, text)
	if len(w.Tail) == maxTail {
		w.Tail = slices.Delete(w.Tail, 0, 1)
	}
	w.Tail = append(w.Tail, text)
}

// Close ends the last line and reports a log that could not be written.
func (w *Writer) Close() error {
	w.endLine()
	if w.err != nil {
		return fmt.Errorf("cannot write the build log: %w", w.err)
	}
	return nil
}

// Limited is a buffer that refuses to grow beyond 16 MiB.
type Limited struct{ Data []byte }

func (l *Limited) Write(p []byte) (int, error) {
	if len(l.Data)+len(p) > maxLimited {
		return 0, errors.New("larger than expected")
	}
	l.Data = append(l.Data, p...)
	return len(p), nil
}
