package main

import (
	"fmt"
	"io"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
)

// lines shows one line for each image on a terminal and keeps it current.
type lines struct {
	w     io.Writer
	names []string
	text  map[string]string
	drawn bool
}

func newLines(w io.Writer, definitions []imagefactory.Definition) *lines {
	l := &lines{w: w, text: map[string]string{}}
	for _, d := range definitions {
		l.names = append(l.names, d.Name)
		l.text[d.Name] = "waiting"
	}
	return l
}

func (l *lines) show(e imagefactory.Event) {
	switch {
	case !e.Done:
		l.text[e.Image] = fmt.Sprintf("%s  %s …", e.Build, e.Stage)
	case e.Err != nil:
		l.text[e.Image] = fmt.Sprintf("%s  %s failed", e.Build, e.Stage)
	default:
		l.text[e.Image] = fmt.Sprintf("%s  %s done in %v", e.Build, e.Stage, e.Duration.Round(time.Second))
	}
	if l.drawn {
		fmt.Fprintf(l.w, "\x1b[%dA", len(l.names))
	}
	l.drawn = true
	for _, name := range l.names {
		fmt.Fprintf(l.w, "\r\x1b[K%-32s %s\n", name, l.text[name])
	}
}
