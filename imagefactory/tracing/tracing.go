// Package tracing makes OpenTelemetry spans of an image factory's nights, with
// OpenTelemetry's API alone: what is done with the spans, and where they go, is the
// caller's TracerProvider's matter, and without one nothing is made.
//
//	night := tracing.Start(ctx, provider)
//	factory.Progress = night.Event
//	report, err := factory.Run(night.Context(), definitions)
//	night.End(report)
//
// A night is a span "night", below ctx's where that has one. In it is a span for each
// image, named after it, from its first stage to the night's end or the image's, and in
// that one for each stage. Their times are the factory's clock. A span that failed has
// the status Error and the error as an event, up to 500 characters. The attributes are imagefactory.image,
// imagefactory.build, imagefactory.stage, imagefactory.result and, of the night,
// imagefactory.images.
package tracing

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
)

// A Night makes the spans of one run. Its methods may be called concurrently.
type Night struct {
	ctx    context.Context //nolint:containedctx // of the span, which is what a Night is
	tracer trace.Tracer
	span   trace.Span

	mu     sync.Mutex
	images map[string]*image
}

type image struct {
	ctx         context.Context //nolint:containedctx // of the span
	span, stage trace.Span      // stage is nil between two
	last        time.Time
}

const (
	name = "github.com/opentelekomcloud/go-imagefactory/imagefactory/tracing"

	keyImage  = attribute.Key("imagefactory.image")
	keyBuild  = attribute.Key("imagefactory.build")
	keyStage  = attribute.Key("imagefactory.stage")
	keyResult = attribute.Key("imagefactory.result")
	keyImages = attribute.Key("imagefactory.images")
)

// Start begins a night's span. If the provider is nil, no spans are made.
func Start(ctx context.Context, provider trace.TracerProvider) *Night {
	if provider == nil {
		provider = noop.NewTracerProvider()
	}
	n := &Night{tracer: provider.Tracer(name), images: map[string]*image{}}
	n.ctx, n.span = n.tracer.Start(ctx, "night")
	return n
}

// Context has the night's span, for what is called in the night.
func (n *Night) Context() context.Context { return n.ctx }

// Event takes what Factory.Progress is told.
func (n *Night) Event(e imagefactory.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := n.images[e.Image]
	if i == nil {
		i = &image{}
		i.ctx, i.span = n.tracer.Start(n.ctx, e.Image, trace.WithTimestamp(e.Time), trace.WithAttributes(keyImage.String(e.Image)))
		n.images[e.Image] = i
	}
	i.last = e.Time
	if !e.Done {
		i.endStage(e.Time, nil) // which was not told that it ended
		_, i.stage = n.tracer.Start(i.ctx, string(e.Stage), trace.WithTimestamp(e.Time),
			trace.WithAttributes(keyImage.String(e.Image), keyBuild.String(e.Build), keyStage.String(string(e.Stage))))
		return
	}
	i.endStage(e.Time, e.Err)
}

func (i *image) endStage(at time.Time, err error) {
	if i.stage == nil {
		return
	}
	fail(i.stage, at, err)
	i.stage.End(trace.WithTimestamp(at))
	i.stage = nil
}

func fail(span trace.Span, at time.Time, err error) {
	if err != nil {
		text := bounded(err.Error())
		span.RecordError(errors.New(text), trace.WithTimestamp(at))
		span.SetStatus(codes.Error, text)
	}
}

// bounded cuts a text: a status is one line for people.
func bounded(s string) string {
	const most = 500
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// End ends the spans. The report may be nil, where there is none.
func (n *Night) End(report *imagefactory.Report) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if report != nil {
		for _, r := range report.Images {
			if i := n.images[r.Name]; i != nil {
				i.span.SetAttributes(keyBuild.String(r.Build), keyResult.String(string(r.Result)))
				fail(i.span, i.last, r.Err)
			}
		}
		n.span.SetAttributes(keyImages.Int(len(report.Images)))
		if !report.OK() {
			n.span.SetStatus(codes.Error, "somebody has to look at the night")
		}
	}
	for _, i := range n.images {
		i.endStage(i.last, nil)
		i.span.End(trace.WithTimestamp(i.last))
	}
	clear(n.images)
	n.span.End()
}
