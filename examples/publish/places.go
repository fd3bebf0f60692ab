package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/glance"
	"github.com/opentelekomcloud/go-imagefactory/publish/ims"
	"github.com/opentelekomcloud/go-imagefactory/publish/obs"
	"github.com/opentelekomcloud/go-imagefactory/publish/web"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// place is a target with what users call it.
type place struct {
	publish.Target
	name string
}

type verifier interface {
	Verify(ctx context.Context, image string, keyring *signing.Keyring) error
}

// open opens the targets and the source, if there is one, and the journal.
func (c *command) open(to []string, from string) (closeJournal func(), err error) {
	closeJournal = func() {}
	var journal func(publish.Call)
	if c.journal != "" {
		f, err := os.OpenFile(c.journal, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			return closeJournal, err
		}
		closeJournal = func() { _ = f.Close() }
		journal = journalTo(f)
	}
	for _, s := range to {
		t, err := openTarget(s, journal)
		if err != nil {
			return closeJournal, err
		}
		c.targets = append(c.targets, place{t, s})
	}
	if from != "" {
		c.source, err = openSource(from, journal)
	}
	return closeJournal, err
}

func openTarget(s string, journal func(publish.Call)) (publish.Target, error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	kind, rest, _ := strings.Cut(s, ":")
	switch {
	case rest == "":
	case kind == "directory":
		return &directory.Target{Dir: rest, Logger: log}, nil
	case kind == "obs":
		t, err := openBucket(rest, obs.Driver{Logger: log, Journal: journal})
		if err != nil {
			return nil, err
		}
		t.Progress = onTerminal()
		return t, nil
	case kind == "glance":
		c, err := glanceConfig(rest)
		if err != nil {
			return nil, err
		}
		t, err := glance.New(c, log)
		if err != nil {
			return nil, err
		}
		t.Journal, t.Progress = journal, onTerminal()
		return t, nil
	case kind == "ims":
		cloud, bucket, _ := strings.Cut(rest, "/")
		c, err := bucketConfig(bucket)
		if err != nil {
			return nil, err
		}
		t, err := ims.New(ims.Config{Cloud: cloud, Bucket: c, AllowHTTP: os.Getenv("IMS_ALLOW_HTTP") == "yes"}, log)
		if err != nil {
			return nil, err
		}
		t.Journal, t.Progress = journal, onTerminal()
		return t, nil
	}
	return nil, fmt.Errorf("%q is not directory:DIR, obs:BUCKET[/PREFIX], glance:CLOUD or ims:CLOUD/BUCKET[/PREFIX]", s)
}

func openSource(s string, journal func(publish.Call)) (publish.Source, error) {
	kind, rest, _ := strings.Cut(s, ":")
	switch {
	case kind == "directory" && rest != "":
		return &directory.Target{Dir: rest}, nil
	case kind == "obs" && rest != "":
		t, err := openBucket(rest, obs.Driver{Journal: journal})
		if err == nil && os.Getenv("AWS_ACCESS_KEY_ID")+os.Getenv("AWS_SHARED_CREDENTIALS_FILE")+os.Getenv("OS_CLOUD") == "" {
			t.Credentials = nil // a public bucket
		}
		return t, err
	case kind == "http" || kind == "https":
		return &web.Source{URL: s}, nil
	}
	return nil, fmt.Errorf("%q is neither directory:DIR, obs:BUCKET[/PREFIX] nor a URL", s)
}

// glanceConfig takes from the environment what a cloud's name does not say.
func glanceConfig(cloud string) (glance.Config, error) {
	c := glance.Config{Cloud: cloud, Visibility: os.Getenv("GLANCE_VISIBILITY"), WebDownload: os.Getenv("GLANCE_WEB_DOWNLOAD")}
	switch os.Getenv("GLANCE_ALLOW_HTTP") {
	case "yes":
		c.AllowHTTP = true
	case "":
	default:
		return c, errors.New("GLANCE_ALLOW_HTTP is neither yes nor empty")
	}
	return c, nil
}

// bucketConfig takes from the environment what the name does not say.
func bucketConfig(name string) (obs.Config, error) {
	var errs []error
	yes := func(name string) bool {
		switch os.Getenv(name) {
		case "yes":
			return true
		case "":
		default:
			errs = append(errs, fmt.Errorf("%s is neither yes nor empty", name))
		}
		return false
	}
	bucket, prefix, _ := strings.Cut(name, "/")
	c := obs.Config{
		Bucket: bucket, Prefix: prefix, Endpoint: os.Getenv("AWS_ENDPOINT_URL"), Region: os.Getenv("AWS_REGION"),
		PathStyle: yes("OBS_PATH_STYLE"), Public: yes("OBS_PUBLIC"), ACL: os.Getenv("OBS_ACL"), CAFile: os.Getenv("AWS_CA_BUNDLE"),
		AllowHTTP: yes("OBS_ALLOW_HTTP"), SkipTLSVerification: yes("OBS_SKIP_TLS_VERIFICATION"),
	}
	if os.Getenv("AWS_ACCESS_KEY_ID") == "" {
		c.File = os.Getenv("AWS_SHARED_CREDENTIALS_FILE")
		if c.File != "" {
			c.Profile = os.Getenv("AWS_PROFILE")
		} else {
			c.Cloud = os.Getenv("OS_CLOUD")
		}
	}
	return c, errors.Join(errs...)
}

func openBucket(name string, d obs.Driver) (*obs.Target, error) {
	c, err := bucketConfig(name)
	if err != nil {
		return nil, err
	}
	t, err := d.New(func(config any) error {
		*config.(*obs.Config) = c
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("obs:%.300s: %w", name, err)
	}
	return t.(*obs.Target), nil
}

// journalTo writes each call as a line of JSON.
func journalTo(w io.Writer) func(publish.Call) {
	var mu sync.Mutex
	enc := json.NewEncoder(w)
	return func(c publish.Call) {
		mu.Lock()
		defer mu.Unlock()
		_ = enc.Encode(c) // a full disk ends no publication
	}
}

// onTerminal is a progress that is shown where standard error is a terminal.
func onTerminal() func(r *publish.Release, done, total int64) {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return nil
	}
	return progress(os.Stderr)
}

// progress shows on one line how far a release is, how fast, and how long it takes yet.
func progress(w io.Writer) func(r *publish.Release, done, total int64) {
	var begun, shown time.Time
	var before int64
	return func(r *publish.Release, done, total int64) {
		now := time.Now()
		if begun.IsZero() || done < before { // or it begins anew
			begun = now
		}
		before = done
		if now.Sub(shown) < 200*time.Millisecond && done < total {
			return
		}
		shown = now
		const mb = 1e6
		rate := float64(done) / max(now.Sub(begun).Seconds(), 0.001)
		left := time.Duration(float64(total-done) / max(rate, 1) * float64(time.Second)).Round(time.Second)
		fmt.Fprintf(w, "\r%s %3d%% %.0f of %.0f MB, %.1f MB/s, %s left \x1b[K", r.Index.Build, 100*done/max(total, 1), float64(done)/mb, float64(total)/mb, rate/mb, cmp.Or(left, 0))
		if done == total {
			fmt.Fprintln(w)
		}
	}
}
