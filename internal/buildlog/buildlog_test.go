package buildlog

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func parse(line string) (text, phase string) {
	text = strings.TrimPrefix(line, "12:00 ")
	if rest, ok := strings.CutPrefix(text, "begin "); ok {
		phase = rest
	}
	return text, phase
}

func TestLogWriter(t *testing.T) {
	var raw bytes.Buffer
	w := New(t.Context(), &raw, slog.New(slog.DiscardHandler), parse)
	_, _ = io.WriteString(w, "12:00 begin root\n\npart")
	_, _ = io.WriteString(w, "ial\n"+strings.Repeat("x", 3*maxLine)+"\n")
	for range 2 * maxTail {
		_, _ = io.WriteString(w, "line\n")
	}
	_, _ = io.WriteString(w, "the end")
	require.NoError(t, w.Close())
	require.Equal(t, "root", w.Phase)
	require.Len(t, w.Tail, maxTail)
	require.Equal(t, "the end", w.Tail[maxTail-1])
	require.LessOrEqual(t, cap(w.line), 2*maxLine)
	require.Contains(t, raw.String(), "12:00 begin")
}

func TestLogWriterReportsAFullDisk(t *testing.T) {
	w := New(t.Context(), failingWriter{}, slog.New(slog.DiscardHandler), parse)
	n, err := w.Write([]byte("x\n"))
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.ErrorIs(t, w.Close(), syscall.ENOSPC)
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, syscall.ENOSPC }
