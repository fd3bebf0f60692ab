// Hardening holds a machine to the profile otc or strict: one that runs already, one that is
// booted from an image, or what was seen of one before.
//
//	hardening -host HOST[:PORT] [-user USER] -key FILE (-hostkey FILE | -known-hosts FILE) [flags]
//	hardening -image FILE [-user USER] [flags]
//	hardening -facts-in FILE [-user USER] [flags]
//	hardening -list [-wire-only] [-format text|json]
//
// What the checks expect (time servers, repositories, packages, uvp-monitor, disk,
// user) and which failures are accepted comes from a definition: one in the file
// -config, named with -name where there are several, or with -name alone one of the
// catalog's images. Without a definition, checks that need one are errors. More
// waivers are read from a file with -waivers: a map with the key "waivers", a list
// as in a definition.
//
//	-profile otc|strict      what it is held to; default: the definition's, or otc
//	-format text|json|junit|tap|html
//	                         of the report; default text
//	-compare REPORT          write, as text, JSON or HTML, what has changed since a report in JSON instead of
//	                         the report. Given several times, the oldest first, it tells which checks flap
//	-boots default|all       make other machines from -image too: a second one, or those of other flavors
//	-facts-out FILE          keep what was seen, for -facts-in
//	-wire-only               only what is seen on the wire; nobody logs in, and no -key is needed
//	-read-only               write nothing on the machine
//	-rerun                   try once more what fails or cannot be decided; what then passes is flaky, and good
//	                         only if it could first not be decided
//	-passphrase-fd N         read the passphrase of the key from there, not from the terminal
//
// -facts-in also takes the file NAME-BUILD.facts.json.gz of a release: so today's checks
// judge the image of another day.
//
// HOST is a name or an address; that of IPv6 stands in brackets before a port. The
// file of -hostkey has the machine's public keys as OpenSSH keeps or ssh-keyscan
// prints them. A machine that shows another key is left at once. The console of a
// machine that runs already is not seen: checks of it are skipped.
//
// It exits with 0 when nothing failed, 1 when a check failed or could not be
// decided, and 2 for wrong usage, what cannot be read or written, an image that does
// not boot, and a machine that cannot be reached, shows another host key or does not
// let the user in.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/opentelekomcloud/go-imagefactory/qcow2"
	"github.com/opentelekomcloud/go-imagefactory/qcow2/guestdisk"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/boots"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr, sandbox.QEMU{})
	stop()
	os.Exit(code)
}

// run returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, box sandbox.Sandbox) int {
	good, err := judge(ctx, args, stdout, stderr, box)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintln(stderr, "hardening:", strings.TrimSuffix(line, "\n"))
		}
		return 2
	case !good:
		return 1
	}
	return 0
}

// judge reports whether the machine is good.
func judge(ctx context.Context, args []string, stdout, stderr io.Writer, box sandbox.Sandbox) (bool, error) {
	o, err := parse(args, stderr)
	if err != nil {
		return false, err
	}
	suite, err := o.suite()
	if err != nil {
		return false, err
	}
	if o.list {
		return true, o.writeList(stdout, suite.Profile)
	}
	old, err := o.oldReports()
	if err != nil {
		return false, err
	}
	facts, report, err := o.look(ctx, suite, stderr, box)
	if err != nil {
		return false, err
	}
	if o.factsOut != "" {
		if err := saveFacts(o.factsOut, facts); err != nil {
			return false, err
		}
	}
	write := map[string]func(io.Writer) error{
		"text": report.WriteText, "json": report.WriteJSON, "junit": report.WriteJUnit, "tap": report.WriteTAP, "html": report.WriteHTML,
	}
	if n := len(old); n > 0 {
		c := testsuite.Compare(old[n-1], report, old[:n-1]...)
		write = map[string]func(io.Writer) error{"text": c.WriteText, "json": c.WriteJSON, "html": c.WriteHTML}
	}
	return report.OK(), write[o.format](stdout)
}

// oldReports are those of -compare.
func (o *options) oldReports() ([]*testsuite.Report, error) {
	var reports []*testsuite.Report
	for _, name := range o.compare {
		f, err := os.Open(name) //nolint:gosec // the path is the caller's
		if err != nil {
			return nil, err
		}
		r, err := testsuite.LoadReport(f)
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		reports = append(reports, r)
	}
	return reports, nil
}

// look reads facts from the file, the machine that runs, or one that is booted, and
// judges them; what such a machine was given is put into suite's parameters.
func (o *options) look(ctx context.Context, suite *testsuite.Suite, stderr io.Writer, box sandbox.Sandbox) (testsuite.Facts, *testsuite.Report, error) {
	switch {
	case o.factsIn != "":
		f, err := os.Open(o.factsIn) //nolint:gosec // the path is the caller's
		if err != nil {
			return testsuite.Facts{}, nil, err
		}
		defer f.Close()
		facts, err := testsuite.LoadFacts(f)
		if err != nil {
			return testsuite.Facts{}, nil, err
		}
		facts.Given.SetParams(&suite.Params)
		report, err := o.hold(ctx, suite, nil, facts)
		return facts, report, err
	case o.host != "":
		target, err := o.connect(ctx, suite.Params.User, stderr)
		if err != nil {
			return testsuite.Facts{}, nil, err
		}
		if target.Client != nil {
			defer target.Client.Close()
		}
		facts, err := suite.Gather(ctx, target)
		if err != nil {
			return testsuite.Facts{}, nil, err
		}
		report, err := o.hold(ctx, suite, &target, facts)
		return facts, report, err
	}
	return o.boot(ctx, suite, stderr, box)
}

// hold judges facts, and once more what is bad on the machine that they are of, which
// is nil if it is no more.
func (o *options) hold(ctx context.Context, suite *testsuite.Suite, target *testsuite.Target, facts testsuite.Facts) (*testsuite.Report, error) {
	if _, ok := facts.Facts[boots.FactName]; !ok {
		seen := facts.Facts // is kept as it is
		facts.Facts = map[string]testsuite.Fact{boots.FactName: {Omitted: "no other machine was made from the image: -boots makes some"}}
		maps.Copy(facts.Facts, seen)
	}
	report, err := suite.Judge(facts)
	if err == nil && o.rerun && target != nil {
		report, err = suite.Again(ctx, *target, facts, report)
	}
	return report, err
}

// boot looks at a machine of the image, and at others beside it.
func (o *options) boot(ctx context.Context, suite *testsuite.Suite, stderr io.Writer, box sandbox.Sandbox) (facts testsuite.Facts, report *testsuite.Report, err error) {
	image := sandbox.Image{
		Path: o.image, User: suite.Params.User, TimeServers: suite.Params.NTPServers, Logger: slog.New(slog.NewTextHandler(stderr, nil)),
	}
	var others *boots.Machines
	if o.boots != "" {
		disk, err := inspect(o.image)
		if err != nil {
			return facts, nil, err
		}
		others = boots.Start(ctx, boots.Config{Sandbox: box, Image: image, Set: o.boots, UEFI: disk.BootUEFI, Suite: suite})
		defer func() { err = errors.Join(err, others.Close()) }()
		image.Variant = others.First
	}
	machine, err := box.Boot(ctx, image)
	if err != nil {
		return facts, nil, err
	}
	suite.Params.Hostname, suite.Params.OverlayBytes = machine.Hostname, machine.DiskBytes
	if suite.Params.DiskBytes == 0 {
		suite.Params.DiskBytes = machine.ImageBytes
	}
	defer func() { err = errors.Join(err, machine.Close()) }()
	if facts, err = suite.Gather(ctx, machine.Target); err != nil {
		return facts, nil, err
	}
	facts.Given = testsuite.Given{Hostname: suite.Params.Hostname, DiskBytes: suite.Params.DiskBytes, OverlayBytes: suite.Params.OverlayBytes}
	if others != nil {
		if facts.Facts[boots.FactName], err = others.Fact(ctx, machine, facts); err != nil {
			return facts, nil, err
		}
	}
	report, err = o.hold(ctx, suite, &machine.Target, facts)
	return facts, report, err
}

// inspect tells what the image's disk holds.
func inspect(name string) (*guestdisk.Disk, error) {
	image, err := qcow2.OpenFile(name, qcow2.OpenOptions{})
	if err != nil {
		return nil, err
	}
	defer image.Close()
	return guestdisk.Inspect(image, image.Size())
}

func saveFacts(name string, facts testsuite.Facts) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(facts.Save(f), f.Close())
}
