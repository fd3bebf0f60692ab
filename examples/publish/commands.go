package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

func (c *command) dry(t place) publish.Target {
	if c.dryRun {
		return publish.DryRun(t.Target)
	}
	return t.Target
}

func (c *command) push(ctx context.Context, t place) error {
	keyring, err := signing.LoadKeyring(c.keyring)
	if err != nil {
		return err
	}
	if _, err := os.Stat(c.args[0]); err != nil {
		return err // rather than that it is not named like a build
	}
	r, err := publish.Open(ctx, c.args[0], keyring)
	if err != nil {
		var unreadable *fs.PathError
		if errors.As(err, &unreadable) || ctx.Err() != nil {
			return err
		}
		return exitCode{err}
	}
	p, err := publish.Publish(ctx, c.dry(t), r)
	report(p)
	if refused(err) {
		return exitCode{err}
	}
	return err
}

// report prints the steps, and what should be looked at.
func report(p *publish.Publication) {
	for _, s := range p.Steps {
		fmt.Println(s)
	}
	for _, e := range p.Problems {
		fmt.Fprintf(os.Stderr, "publish: %s was passed over: %s\n", e.ID, e.Problem)
	}
}

func (c *command) rollback(ctx context.Context, t place) error {
	return c.takeBack(ctx, t, publish.Rollback)
}

func (c *command) withdraw(ctx context.Context, t place) error {
	return c.takeBack(ctx, t, publish.Withdraw)
}

func (c *command) takeBack(ctx context.Context, t place, do func(context.Context, publish.Target, string, publish.BuildID, string) (*publish.Publication, error)) error {
	build, err := publish.ParseBuildID(c.args[1])
	if err != nil {
		return err
	}
	p, err := do(ctx, t.Target, c.args[0], build, c.reason)
	report(p)
	return err
}

func (c *command) retain(ctx context.Context, t place) error {
	if _, err := known(ctx, t, c.args[0]); err != nil {
		return err
	}
	steps, err := publish.Retire(ctx, c.dry(t), c.args[0], time.Now())
	for _, s := range steps {
		fmt.Println(s)
	}
	return err
}

// known lists an image, which must be there: a name with a slip in it is no
// reason for silence.
func known(ctx context.Context, t place, image string) ([]publish.Entry, error) {
	have, err := t.List(ctx, image)
	if err == nil && len(have) == 0 {
		err = fmt.Errorf("there are no releases of %s in %s", image, t.name)
	}
	return have, err
}

func (c *command) list(ctx context.Context, t place) error {
	have, err := known(ctx, t, c.args[0])
	if err != nil {
		return err
	}
	show := printText
	if c.json {
		show = printJSON
	}
	return worst([]error{show(have), c.fresh(t, have)})
}

// fresh exits with 1 if what is latest is older than -max-age.
func (c *command) fresh(t place, have []publish.Entry) error {
	if c.maxAge == 0 {
		return nil
	}
	if err := publish.CheckFresh(have, c.age(), time.Now()); err != nil {
		return exitCode{fmt.Errorf("%s: %s: %w", t.name, c.args[0], err)}
	}
	return nil
}

// age is -max-age.
func (c *command) age() time.Duration { return time.Duration(c.maxAge) * 24 * time.Hour }

func printText(have []publish.Entry) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, e := range have {
		fmt.Fprintf(w, "%s\t%s\t%s\n", e.ID, e.State(), strings.ReplaceAll(e.Problem+e.Withdrawn, "\n", "; "))
	}
	return w.Flush()
}

func printJSON(have []publish.Entry) error {
	type row struct {
		Name   string `json:"name"`
		ID     string `json:"id"`
		State  string `json:"state"`
		Build  string `json:"build"`
		SHA256 string `json:"sha256"` // of SHA256SUMS, which stands for the release
		Reason string `json:"reason,omitempty"`
		Hidden bool   `json:"hidden"`

		Created *time.Time `json:"created,omitempty"` // where the target knows
	}
	rows := []row{}
	for _, e := range have {
		r := row{Name: e.Image, ID: e.ID, State: e.State(), Build: e.Build.String(), SHA256: e.Digest, Reason: e.Problem + e.Withdrawn, Hidden: e.Hidden}
		if !e.Created.IsZero() {
			r.Created = &e.Created
		}
		rows = append(rows, r)
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(rows)
}

func (c *command) verify(ctx context.Context, t place) error {
	keyring, err := signing.LoadKeyring(c.keyring)
	if err != nil {
		return err
	}
	have, err := known(ctx, t, c.args[0])
	if err != nil {
		return err
	}
	err = problems(have)
	if v, ok := t.Target.(verifier); ok {
		err = v.Verify(ctx, c.args[0], keyring)
	}
	if err != nil && ctx.Err() == nil {
		err = exitCode{fmt.Errorf("%s: %w", t.name, err)}
	}
	return worst([]error{err, c.fresh(t, have)})
}

// problems are what a target that is not read itself says of its entries.
func problems(have []publish.Entry) error {
	var errs []error
	for _, e := range have {
		if e.Problem != "" {
			errs = append(errs, fmt.Errorf("%s: %s", e.ID, e.Problem))
		}
	}
	return errors.Join(errs...)
}

func (c *command) fetch(ctx context.Context) error {
	keyring, err := signing.LoadKeyring(c.keyring)
	if err != nil {
		return err
	}
	if c.rebuilders != "" {
		if c.rebuilds.Keyring, err = signing.LoadKeyring(c.rebuilders); err != nil {
			return err
		}
	}
	f := &publish.Fetcher{
		Source: c.source, Keyring: keyring, Dir: c.args[1],
		Suffixes: c.only, MaxAge: c.age(), Rebuilds: c.rebuilds,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	r, err := f.Fetch(ctx, c.args[0])
	if refused(err) {
		return exitCode{err}
	}
	if err != nil {
		return err
	}
	fmt.Println(r.Dir)
	return nil
}
