package dib

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/builder"
)

const (
	maxLine     = 4 << 10  // of the log, longer ones are cut for slog and the tail
	maxTail     = 40       // lines kept for an error
	maxManifest = 16 << 20 // bytes of the package list
)

// logWriter passes the tool's output on, to the log as it is and line by line
// to slog, and keeps its last lines.
type logWriter struct {
	ctx   context.Context //nolint:containedctx // lives for one build
	raw   io.Writer
	log   *slog.Logger
	line  []byte
	tail  []string
	phase string
	err   error
}

func newLogWriter(ctx context.Context, raw io.Writer, log *slog.Logger) *logWriter {
	if raw == nil {
		raw = io.Discard
	}
	return &logWriter{ctx: ctx, raw: raw, log: log}
}

// Write never fails, or the tool would be ended by a full disk of the log;
// Close tells.
func (w *logWriter) Write(p []byte) (int, error) {
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

// A line of disk-image-create: a time, " | ", text.
var (
	timestamp = regexp.MustCompile(`^\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}\.\d{3} \| `)
	phaseLine = regexp.MustCompile(`dib-run-parts Running .*/([a-z-]+\.d/\S+)$`)
)

func (w *logWriter) endLine() {
	text := strings.TrimRight(string(w.line), "\r\n\t ")
	w.line = w.line[:0]
	text = timestamp.ReplaceAllString(text, "")
	if text == "" {
		return
	}
	if m := phaseLine.FindStringSubmatch(text); m != nil {
		w.phase = m[1]
		w.log.InfoContext(w.ctx, "build phase", "phase", w.phase)
	}
	w.log.DebugContext(w.ctx, text)
	if len(w.tail) == maxTail {
		w.tail = slices.Delete(w.tail, 0, 1)
	}
	w.tail = append(w.tail, text)
}

// Close ends the last line and reports a log that could not be written.
func (w *logWriter) Close() error {
	w.endLine()
	if w.err != nil {
		return fmt.Errorf("cannot write the build log: %w", w.err)
	}
	return nil
}

// limited is a buffer that refuses to grow beyond maxManifest.
type limited struct{ data []byte }

func (l *limited) Write(p []byte) (int, error) {
	if len(l.data)+len(p) > maxManifest {
		return 0, errors.New("larger than expected")
	}
	l.data = append(l.data, p...)
	return len(p), nil
}

// parseManifest reads dib's list of installed Debian packages.
func parseManifest(data []byte) ([]builder.Package, error) {
	var manifest struct {
		Packages []struct{ Package, Arch, Version, Status string }
	}
	if err := json.Unmarshal(data, &manifest); err != nil {
		return nil, fmt.Errorf("cannot read dib's package list: %w", err)
	}
	var packages []builder.Package
	for _, p := range manifest.Packages {
		if !strings.HasPrefix(p.Status, "ii") && !strings.HasPrefix(p.Status, "hi") {
			continue // removed, configuration left
		}
		name, _, _ := strings.Cut(p.Package, ":")
		if name == "" || p.Version == "" || strings.ContainsAny(name+p.Version+p.Arch, " \t\r\n") {
			return nil, fmt.Errorf("cannot read dib's package list: bad entry %q", p)
		}
		packages = append(packages, builder.Package{Name: name, Version: p.Version, Arch: p.Arch})
	}
	if len(packages) == 0 {
		return nil, errors.New("cannot read dib's package list: no package in it")
	}
	slices.SortFunc(packages, builder.Package.Compare)
	return packages, nil
}
