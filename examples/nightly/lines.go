package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/internal/visible"
)

// lines shows on a terminal what runs: an image a line, with its stage, how long that
// has taken and the last line of its log, and below them how far the night is. It is
// drawn anew each second, and is never larger than the screen.
type lines struct {
	w    io.Writer
	size func() (width, height int)
	now  func() time.Time

	mu      sync.Mutex
	total   int
	begun   map[string]bool
	failed  map[string]bool
	running []*line // in the order in which they began
	drawn   int     // lines on the screen that are to be drawn over
}

type line struct {
	image string
	stage imagefactory.Stage
	since time.Time
	last  string
}

func newLines(w io.Writer, total int, size func() (width, height int)) *lines {
	return &lines{w: w, size: size, now: time.Now, total: total, begun: map[string]bool{}, failed: map[string]bool{}}
}

// onTerminal shows a factory's night on a terminal until stop.
func onTerminal(f *os.File, factory *imagefactory.Factory, total int) (stop func()) {
	l := newLines(f, total, func() (width, height int) {
		width, height, err := term.GetSize(int(f.Fd()))
		if err != nil {
			return 80, 24
		}
		return width, height
	})
	factory.Progress = l.show
	factory.Logger = slog.New(handler{Handler: factory.Logger.Handler(), lines: l})
	return l.start()
}

// start draws each second until stop.
func (l *lines) start() (stop func()) {
	ticker, done := time.NewTicker(time.Second), make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		for {
			select {
			case <-ticker.C:
				l.draw()
			case <-done:
				return
			}
		}
	})
	return func() {
		ticker.Stop()
		close(done)
		ended.Wait()
		l.draw()
	}
}

// show is for Factory.Progress.
func (l *lines) show(e imagefactory.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = slices.DeleteFunc(l.running, func(r *line) bool { return r.image == e.Image })
	l.begun[e.Image] = true
	if !e.Done {
		l.running = append(l.running, &line{image: e.Image, stage: e.Stage, since: l.now()})
	}
	if e.Err != nil {
		l.failed[e.Image] = true
	}
}

// logged notes the last line of an image's log.
func (l *lines) logged(image, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.running {
		if r.image == image {
			r.last = text
		}
	}
}

func (l *lines) draw() {
	l.mu.Lock()
	defer l.mu.Unlock()
	width, height := l.size()
	var out strings.Builder
	if l.drawn > 0 {
		fmt.Fprintf(&out, "\x1b[%dA", l.drawn)
	}
	shown := l.running[:min(len(l.running), max(height-2, 0))]
	for _, r := range shown {
		text := fmt.Sprintf("%-32s %-8s%8s  %s", r.image, r.stage, l.now().Sub(r.since).Round(time.Second), visible.Line(r.last))
		fmt.Fprintf(&out, "\r\x1b[K%s\n", cut(text, width-1))
	}
	text := fmt.Sprintf("%d running, %d of %d begun, %d failed", len(l.running), len(l.begun), l.total, len(l.failed))
	fmt.Fprintf(&out, "\r\x1b[K%s\n\x1b[J", cut(text, width-1))
	l.drawn = len(shown) + 1
	_, _ = io.WriteString(l.w, out.String()) // the night goes on without a screen
}

// cut shortens a text to so many characters, so that it takes one line.
func cut(text string, most int) string {
	if r := []rune(text); len(r) > max(most, 1) {
		return string(r[:max(most-1, 0)]) + "…"
	}
	return text
}

// handler shows the last line of each image's log, and hands on what else is logged.
type handler struct {
	slog.Handler
	lines *lines
	image string
}

// Enabled has all lines come by.
func (h handler) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if h.image != "" {
		h.lines.logged(h.image, r.Message)
	}
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if a.Key == "image" {
			h.image = a.Value.String()
		}
	}
	h.Handler = h.Handler.WithAttrs(attrs)
	return h
}

// WithGroup implements slog.Handler.
func (h handler) WithGroup(name string) slog.Handler {
	h.Handler = h.Handler.WithGroup(name)
	return h
}
