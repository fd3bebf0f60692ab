package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
)

// All images that run are shown, with their stage, time and last line, and no more than
// the screen has room for.
func TestLines(t *testing.T) {
	var screen, log bytes.Buffer
	width, height := 70, 5
	l := newLines(&screen, 60, func() (int, int) { return width, height })
	now := time.Date(2026, 1, 1, 3, 0, 0, 0, time.UTC)
	l.now = func() time.Time { return now }
	logger := slog.New(handler{Handler: slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}), lines: l})
	for n := range 3 {
		l.show(imagefactory.Event{Image: fmt.Sprintf("Standard_A_%d", n), Stage: imagefactory.StageBuild})
	}
	now = now.Add(90 * time.Second)
	logger.With("image", "Standard_A_1").With("x", 1).Debug("unpacking \x1b[31m" + strings.Repeat("x", 100))
	logger.With("image", "Standard_A_9").Warn("nobody runs that")
	logger.Debug("nobody's")
	l.show(imagefactory.Event{Image: "Standard_A_2", Stage: imagefactory.StageBuild, Done: true, Err: errors.New("no")})
	l.draw()
	require.Equal(t, "\r\x1b[KStandard_A_0                     build      1m30s  \n"+
		"\r\x1b[KStandard_A_1                     build      1m30s  unpacking \\x1b[31…\n"+
		"\r\x1b[K2 running, 3 of 60 begun, 1 failed\n\x1b[J", screen.String())
	require.Contains(t, log.String(), "nobody runs that")
	require.NotContains(t, log.String(), "unpacking")

	screen.Reset()
	for n := range 30 {
		l.show(imagefactory.Event{Image: fmt.Sprintf("Standard_B_%d", n), Stage: imagefactory.StageTest})
	}
	l.draw()
	require.True(t, strings.HasPrefix(screen.String(), "\x1b[3A\r"), "over what was drawn")
	require.Equal(t, height-1, strings.Count(screen.String(), "\n"))
	require.Contains(t, screen.String(), "32 running, 33 of 60 begun, 1 failed")
	width, height = 0, 0
	l.draw()
	l.w = io.Discard
	stop := l.start()
	stop()
}
