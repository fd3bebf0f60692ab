// Publish verifies a release directory and publishes it in a download
// directory, or removes releases whose time is over.
//
//	publish [-n] -keyring FILE IMAGE/BUILD DIR
//	publish [-n] -retire IMAGE DIR
//
// It prints the steps that it did; with -n, those that it would do.
//
// It exits with 0 if the release is published or was before, 1 if it is not
// good or may not be published, and 2 for wrong usage and what cannot be read
// or written.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

const usage = `usage: publish [-n] -keyring FILE IMAGE/BUILD DIR
       publish [-n] -retire IMAGE DIR
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx)
	stop()
	os.Exit(code)
}

func run(ctx context.Context) int {
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	dryRun := flag.Bool("n", false, "say what would be done and do nothing")
	keyring := flag.String("keyring", "", "`file` of the OpenPGP keys that may sign releases")
	retire := flag.String("retire", "", "remove the releases of the `image` whose time is over")
	flag.Parse()

	var steps []publish.Step
	var err error
	code := 2
	switch {
	case *keyring != "" && *retire == "" && flag.NArg() == 2:
		steps, code, err = publishRelease(ctx, *keyring, flag.Arg(0), target(flag.Arg(1), *dryRun))
	case *keyring == "" && *retire != "" && flag.NArg() == 1:
		steps, err = publish.Retire(ctx, target(flag.Arg(0), *dryRun), *retire, time.Now())
	default:
		flag.Usage()
		return 2
	}
	for _, s := range steps {
		fmt.Println(s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "publish:", strings.ReplaceAll(err.Error(), "\n", "; "))
		return code
	}
	return 0
}

func target(dir string, dryRun bool) publish.Target {
	t := &directory.Target{Dir: dir}
	if dryRun {
		return publish.DryRun(t)
	}
	return t
}

// publishRelease returns also the exit code for its error.
func publishRelease(ctx context.Context, keyringFile, dir string, t publish.Target) ([]publish.Step, int, error) {
	keyring, err := signing.LoadKeyring(keyringFile)
	if err != nil {
		return nil, 2, err
	}
	r, err := publish.Open(ctx, dir, keyring)
	if err != nil {
		var unreadable *fs.PathError
		if errors.As(err, &unreadable) || ctx.Err() != nil {
			return nil, 2, err
		}
		return nil, 1, err
	}
	p, err := publish.Publish(ctx, t, r)
	if errors.Is(err, publish.ErrConflict) || errors.Is(err, publish.ErrOlder) {
		return p.Steps, 1, err
	}
	return p.Steps, 2, err
}
