package tracing_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory/tracing"
)

// recorder is a provider that keeps what it is told.
type recorder struct {
	embedded.TracerProvider
	mu    sync.Mutex
	spans []*span
}

func (r *recorder) Tracer(string, ...trace.TracerOption) trace.Tracer { return tracer{r: r} }

type tracer struct {
	embedded.Tracer
	r *recorder
}

func (t tracer) Start(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	c := trace.NewSpanStartConfig(options...)
	s := &span{r: t.r, name: name, begun: c.Timestamp(), attributes: c.Attributes()}
	if parent, ok := trace.SpanFromContext(ctx).(*span); ok {
		s.parent = parent.name
	}
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	t.r.spans = append(t.r.spans, s)
	return trace.ContextWithSpan(ctx, s), s
}

type span struct {
	noop.Span
	r            *recorder
	name, parent string
	begun, ended time.Time
	ends, errs   int
	status       codes.Code
	text         string
	attributes   []attribute.KeyValue
}

func (s *span) End(options ...trace.SpanEndOption) {
	s.ends++
	c := trace.NewSpanEndConfig(options...)
	s.ended = c.Timestamp()
}
func (s *span) RecordError(error, ...trace.EventOption) { s.errs++ }
func (s *span) SetStatus(c codes.Code, text string)     { s.status, s.text = c, text }
func (s *span) SetAttributes(more ...attribute.KeyValue) {
	s.attributes = append(s.attributes, more...)
}

func (s *span) String() string {
	var attributes []string
	for _, a := range s.attributes {
		attributes = append(attributes, fmt.Sprintf("%s=%s", strings.TrimPrefix(string(a.Key), "imagefactory."), a.Value.String()))
	}
	took := "?"
	if !s.begun.IsZero() {
		took = s.ended.Sub(s.begun).String()
	}
	return fmt.Sprintf("%s < %s %s %v %d [%s] ends %d", s.name, s.parent, took, s.status, s.errs, strings.Join(attributes, " "), s.ends)
}

func TestSpans(t *testing.T) {
	r := &recorder{}
	ctx, _ := r.Tracer("").Start(t.Context(), "caller")
	night := tracing.Start(ctx, r)
	require.Equal(t, "night", trace.SpanFromContext(night.Context()).(*span).name)
	at := time.Date(2026, 1, 1, 3, 0, 0, 0, time.UTC)
	event := func(image string, stage imagefactory.Stage, minute int, done bool, err error) {
		night.Event(imagefactory.Event{Time: at.Add(time.Duration(minute) * time.Minute), Image: image, Build: "20260101-030000", Stage: stage, Done: done, Err: err})
	}
	wrong := errors.New(strings.Repeat("x", 10_000))
	event("A", imagefactory.StageBuild, 0, false, nil)
	event("B", imagefactory.StageBuild, 1, false, nil)
	event("A", imagefactory.StageBuild, 5, true, nil)
	event("A", imagefactory.StageTest, 5, false, nil)
	event("A", imagefactory.StageTest, 7, true, wrong)
	event("C", imagefactory.StageBuild, 8, false, nil) // which is cut
	event("B", imagefactory.StageBuild, 9, true, nil)
	night.End(&imagefactory.Report{Images: []imagefactory.ImageReport{
		{Name: "A", Build: "20260101-030000", Result: imagefactory.Failed, Err: wrong}, {Name: "B", Build: "20260101-030000", Result: imagefactory.Published}, {Name: "D"},
	}})
	var got []string
	for _, s := range r.spans[1:] {
		got = append(got, s.String())
		require.LessOrEqual(t, len(s.text), 510)
	}
	require.Equal(t, []string{
		"night < caller ? Error 0 [images=3] ends 1",
		"A < night 7m0s Error 1 [image=A build=20260101-030000 result=failed] ends 1",
		"build < A 5m0s Unset 0 [image=A build=20260101-030000 stage=build] ends 1",
		"B < night 8m0s Unset 0 [image=B build=20260101-030000 result=published] ends 1",
		"build < B 8m0s Unset 0 [image=B build=20260101-030000 stage=build] ends 1",
		"test < A 2m0s Error 1 [image=A build=20260101-030000 stage=test] ends 1",
		"C < night 0s Unset 0 [image=C] ends 1",
		"build < C 0s Unset 0 [image=C build=20260101-030000 stage=build] ends 1",
	}, got)
}

func TestWithoutProvider(t *testing.T) {
	night := tracing.Start(t.Context(), nil)
	night.Event(imagefactory.Event{Image: "A"})
	night.End(nil)
	require.False(t, trace.SpanFromContext(night.Context()).IsRecording())
}

func ExampleStart() {
	night := tracing.Start(context.Background(), nil) // or the caller's provider
	factory := &imagefactory.Factory{Progress: night.Event}
	_, err := factory.Run(night.Context(), nil)
	night.End(nil)
	fmt.Println(err)
	// Output: cannot run a factory without Dir and Key
}
