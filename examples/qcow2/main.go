// Command qcow2 examines and rewrites qcow2 images with the qcow2 package.
//
//	qcow2 info    [-json] [-disk] [-backing-chain] [-policy public|private] [-min-disk GIB] FILE
//	qcow2 check   [-json] FILE
//	qcow2 map     [-json] [-f FORMAT] FILE
//	qcow2 convert [-f FORMAT] [-workers N] IN OUT      writes a raw image
//	qcow2 compact [-f FORMAT] [-compression zlib|zstd] [-workers N] IN OUT
//	qcow2 compare [-f FORMAT] [-F FORMAT] [-workers N] A B
//	qcow2 digest  [-f FORMAT] [-workers N] [-cross-check] FILE        SHA-256 of the guest's disk
//
// FORMAT is that of FILE, IN or A, and with -F of B: qcow2, or raw where that
// is said. It is never guessed, since what a guest writes to a raw disk can
// look like any image.
//
// An image that needs a backing file or an external data file is refused,
// unless -files DIR names the directory that they lie in; at most -depth N of
// them may follow each other. All but check read an internal snapshot with
// -snapshot ID. A file that QEMU has open for writing is refused as input
// without -force, and as output always.
//
// OUT may be a new or old file, a link to one, or a block device; for convert
// also a pipe, or - for the standard output. The package diskfile says what
// becomes of a file that is there. What is interrupted leaves nothing. With
// -sync=false it is left to the system when OUT comes to the disk.
//
// Exit codes: 0 clean; 1 findings (unsafe, corrupt, leaks, different); 2 the
// image cannot be read, or bad usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/opentelekomcloud/go-imagefactory/qcow2"
)

// errFindings says that the command ran and the image is not good.
var errFindings = errors.New("findings")

// errUsage says that the flag package has printed what is wrong.
var errUsage = errors.New("usage")

func main() {
	signal.Ignore(syscall.SIGXFSZ) // a file that would be too large is an error
	ctx, stop := signal.NotifyContext(context.Background(), endings()...)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil:
	case errors.Is(err, errFindings):
		os.Exit(1)
	default:
		if !errors.Is(err, errUsage) {
			fmt.Fprintln(os.Stderr, "qcow2:", err)
		}
		os.Exit(2)
	}
}

// endings returns the signals that end the program, without those that whoever
// started it has it ignore, as nohup does.
func endings() []os.Signal {
	return slices.DeleteFunc([]os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}, signal.Ignored)
}

// command is what the command line asks for.
type command struct {
	json, disk  bool
	policy      string
	minDiskGiB  int64
	workers     int
	files       string
	depth       int
	snapshot    string
	force       bool
	chain       bool
	crossCheck  bool
	sync        bool
	format      string // of the first file
	second      string // of the second file
	compression string
	args        []string
	out         io.Writer
	progress    func(done, total int64)
}

type subcommand struct {
	args  string // for the usage line
	count int
	run   func(context.Context, *command) error
	flags func(*flag.FlagSet, *command)
}

var subcommands = map[string]subcommand{
	"info":    {"FILE", 1, info, infoFlags},
	"check":   {"FILE", 1, check, checkFlags},
	"map":     {"FILE", 1, mapExtents, mapFlags},
	"convert": {"IN OUT", 2, convert, convertFlags},
	"compact": {"IN OUT", 2, compact, compactFlags},
	"compare": {"A B", 2, compare, compareFlags},
	"digest":  {"FILE", 1, digest, digestFlags},
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	sub, ok := subcommands[name]
	if !ok {
		fmt.Fprintln(stderr, "usage: qcow2 info|check|map|convert|compact|compare|digest [flags] FILE [OUT|FILE]")
		if name == "-h" || name == "-help" || name == "--help" {
			return nil
		}
		return errUsage
	}
	flags := flag.NewFlagSet("qcow2 "+name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintf(stderr, "usage: qcow2 %s [flags] %s\n", name, sub.args)
		flags.PrintDefaults()
	}
	c := command{out: stdout, progress: bar(stderr)}
	sub.flags(flags, &c)
	switch err := flags.Parse(args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return errUsage
	case flags.NArg() != sub.count:
		flags.Usage()
		return errUsage
	}
	c.args = flags.Args()
	return sub.run(ctx, &c)
}

func jsonFlag(f *flag.FlagSet, c *command) {
	f.BoolVar(&c.json, "json", false, "write JSON")
}

func infoFlags(f *flag.FlagSet, c *command) {
	jsonFlag(f, c)
	filesFlag(f, c)
	f.BoolVar(&c.chain, "backing-chain", false, "tell about the backing files too")
	f.BoolVar(&c.disk, "disk", false, "tell what the guest's disk holds")
	f.StringVar(&c.policy, "policy", "", "judge the image's safety: `public` or private")
	f.Int64Var(&c.minDiskGiB, "min-disk", 0, "with -policy: the disk the image must fit on, in `GiB`")
}

func filesFlag(f *flag.FlagSet, c *command) {
	f.StringVar(&c.files, "files", "", "`directory` in which backing files and external data files may lie")
	f.IntVar(&c.depth, "depth", 0, "greatest `number` of backing files (default 16)")
	f.StringVar(&c.snapshot, "snapshot", "", "`ID` or name of the internal snapshot to read")
	forceFlag(f, c)
}

func forceFlag(f *flag.FlagSet, c *command) {
	f.BoolVar(&c.force, "force", false, "read a file that another process, such as QEMU, writes to")
}

func checkFlags(f *flag.FlagSet, c *command) {
	jsonFlag(f, c)
	forceFlag(f, c)
}

func digestFlags(f *flag.FlagSet, c *command) {
	workFlags(f, c)
	f.BoolVar(&c.crossCheck, "cross-check", false, "read with go-qcow2reader too, and fail where the two differ")
}

func formatFlag(f *flag.FlagSet, c *command) {
	f.StringVar(&c.format, "f", "qcow2", "`format` of the first file: qcow2 or raw")
}

func mapFlags(f *flag.FlagSet, c *command) {
	jsonFlag(f, c)
	filesFlag(f, c)
	formatFlag(f, c)
}

func compareFlags(f *flag.FlagSet, c *command) {
	workFlags(f, c)
	f.StringVar(&c.second, "F", "qcow2", "`format` of the second file: qcow2 or raw")
}

func workFlags(f *flag.FlagSet, c *command) {
	filesFlag(f, c)
	formatFlag(f, c)
	f.IntVar(&c.workers, "workers", 0, "`number` of goroutines (default one for each processor)")
}

func convertFlags(f *flag.FlagSet, c *command) {
	workFlags(f, c)
	f.BoolVar(&c.sync, "sync", true, "wait until OUT is on the disk")
}

func compactFlags(f *flag.FlagSet, c *command) {
	convertFlags(f, c)
	f.StringVar(&c.compression, "compression", "zlib", "zlib or `zstd`")
}

func (c *command) options() qcow2.Options {
	return qcow2.Options{Workers: c.workers, Progress: c.progress}
}

// bar returns a progress function, or nil if w is not a terminal.
func bar(w io.Writer) func(done, total int64) {
	f, ok := w.(*os.File)
	if !ok {
		return nil
	}
	if stat, err := f.Stat(); err != nil || stat.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	last := int64(-1)
	return func(done, total int64) {
		percent := int64(100 * (float64(done) / float64(max(total, 1)))) // 100 times done may be too large
		if percent == last {
			return
		}
		last = percent
		const width = 40
		n := int(percent * width / 100)
		fmt.Fprintf(w, "\r[%-*s] %3d%%", width, "========================================"[:n], percent)
		if done >= total {
			fmt.Fprint(w, "\r\033[K")
		}
	}
}
