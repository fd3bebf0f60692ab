package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory/metrics"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory/notify"
)

// afterFlags are whom a night is told to when it has ended.
type afterFlags struct{ junit, metrics, webhook, secret, hook *string }

func newAfterFlags(fs *flag.FlagSet) afterFlags {
	return afterFlags{
		junit:   fs.String("junit", "", "`file` to write the report to as JUnit"),
		metrics: fs.String("metrics", "", "`file` to write metrics to, as Prometheus' textfile collector reads them"),
		webhook: fs.String("webhook", "", "`URL` to post the report to, signed as Standard Webhooks has it; needs -webhook-secret"),
		secret:  fs.String("webhook-secret", "", "`file` of the webhook's secret, whsec_…"),
		hook:    fs.String("hook", "", "`program` that is given the report as JSON on its standard input"),
	}
}

// check reports what a night would end with otherwise.
func (a afterFlags) check() error {
	if *a.webhook == "" {
		return nil
	}
	w, err := a.hookOf()
	if err != nil {
		return err
	}
	return w.Validate()
}

func (a afterFlags) hookOf() (*notify.Webhook, error) {
	secret, err := os.ReadFile(*a.secret)
	if err != nil {
		return nil, fmt.Errorf("cannot read -webhook-secret: %w", err)
	}
	return &notify.Webhook{URL: *a.webhook, Secrets: strings.Fields(string(secret))}, nil
}

// tell tells everybody, also where one of them cannot be told.
func (a afterFlags) tell(ctx context.Context, report *imagefactory.Report) error {
	var errs []error
	if *a.junit != "" {
		errs = append(errs, writeJUnit(*a.junit, report))
	}
	if *a.metrics != "" {
		m := metrics.New()
		m.Night(report)
		errs = append(errs, m.WriteTextfile(*a.metrics))
	}
	message, err := notify.Finished(report, time.Now())
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	ctx = context.WithoutCancel(ctx) // an interrupted night is told too; each has its limit
	if *a.webhook != "" {
		w, err := a.hookOf()
		if err == nil {
			err = w.Send(ctx, message)
		}
		errs = append(errs, err)
	}
	if *a.hook != "" {
		errs = append(errs, (&notify.Command{Args: []string{*a.hook}}).Run(ctx, message))
	}
	return errors.Join(errs...)
}

func writeJUnit(name string, report *imagefactory.Report) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(report.WriteJUnit(f), f.Close())
}
