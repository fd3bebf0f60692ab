// Publish publishes release directories and looks after what is published.
//
//	publish push     [-n] -to TARGET -keyring FILE RELEASE   make a release latest
//	publish plan          -to TARGET -keyring FILE RELEASE   say what push would do
//	publish rollback      -to TARGET -reason TEXT IMAGE BUILD  make an older build latest, withdraw newer ones
//	publish withdraw      -to TARGET -reason TEXT IMAGE BUILD  take a build back
//	publish retain   [-n] -to TARGET IMAGE                   remove what is out of date for two years
//	publish list  [-json] [-max-age DAYS] -to TARGET IMAGE   say what is published
//	publish verify [-max-age DAYS] -to TARGET -keyring FILE IMAGE  find what is wrong with it
//	publish fetch         -from SOURCE -keyring FILE [-max-age DAYS] [-only SUFFIX] [-rebuilt-by N …] IMAGE[/latest|/prev|/BUILD] DIR
//	                                                         bring a release to DIR/IMAGE/BUILD, verified
//
// RELEASE is a directory IMAGE/BUILD. TARGET is directory:DIR, obs:BUCKET[/PREFIX],
// glance:CLOUD with the name of a cloud of clouds.yaml, or ims:CLOUD/BUCKET[/PREFIX] with
// where the service finds what it imports; -to may be repeated, and one target's failure
// stops no other. Steps are printed as they were done; with -n, as they
// would be. SOURCE is directory:DIR, obs:BUCKET[/PREFIX] or the URL of a web server that
// serves one. Fetch prints the release's directory; it continues what it could not end
// before, and with -only, which may be repeated, it fetches only files that end so, such
// as .qcow2. With -rebuilt-by N -rebuilders KEYRING -rebuilds DIR it demands that N of the
// keys in KEYRING have signed a statement, DIR/*.json, that they have built the release
// again and found the same; -rebuilt-as says how much: files, content (the default) or
// bytes.
//
// With -journal FILE each call of a cloud or an object store is appended to the file, as a
// line of JSON without secrets. On a terminal, uploads show how far they are, how fast, and
// how long they take yet.
//
// An object store is reached with these variables of the environment; "yes" is the only
// word that allows something:
//
//	AWS_ENDPOINT_URL, AWS_REGION               the service; Open Telekom Cloud's eu-de if not set
//	AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
//	AWS_SHARED_CREDENTIALS_FILE, AWS_PROFILE   instead of these
//	OS_CLOUD                                   instead of these: the cloud's keys of clouds.yaml
//	AWS_CA_BUNDLE                              certificates to trust besides the system's
//	OBS_PATH_STYLE=yes                         buckets are no hosts of their own
//	OBS_PUBLIC=yes, OBS_ACL                    what is published is for all; the canned ACL
//	OBS_ALLOW_HTTP=yes                         send over connections that anybody can read
//	OBS_SKIP_TLS_VERIFICATION=yes              believe whoever poses as the service
//	IMS_ALLOW_HTTP=yes                         let ims's tokens go over such connections
//	GLANCE_ALLOW_HTTP=yes                      let glance's
//	GLANCE_VISIBILITY                          what latest and prev have, such as public; private if not set
//	GLANCE_WEB_DOWNLOAD=URL                    where releases are published: clouds fetch images from there
//
// With -max-age, list and verify exit with 1 and name each target on which what is latest
// is older than so many days, or nothing is.
//
// It exits with 0 if all is done or good, 1 if a release is not good or may not be
// published, and 2 for wrong usage, an unknown image or build, and what cannot be
// read or written.
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
	"strings"
	"syscall"

	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

const usage = `usage: publish push     [-n] -to TARGET -keyring FILE RELEASE
       publish plan          -to TARGET -keyring FILE RELEASE
       publish rollback      -to TARGET -reason TEXT IMAGE BUILD
       publish withdraw      -to TARGET -reason TEXT IMAGE BUILD
       publish retain   [-n] -to TARGET IMAGE
       publish list  [-json] [-max-age DAYS] -to TARGET IMAGE
       publish verify [-max-age DAYS] -to TARGET -keyring FILE IMAGE
       publish fetch         -from SOURCE -keyring FILE [-max-age DAYS] [-only SUFFIX]
                             [-rebuilt-by N -rebuilders KEYRING -rebuilds DIR [-rebuilt-as files|content|bytes]] IMAGE[/latest|/prev|/BUILD] DIR
TARGET is directory:DIR, obs:BUCKET[/PREFIX], glance:CLOUD or ims:CLOUD/BUCKET[/PREFIX]
SOURCE is directory:DIR, obs:BUCKET[/PREFIX] or an http or https URL
-journal FILE, with each command, appends the calls of clouds and object stores to the file
`

// maxDays bounds -max-age, so that it fits a time.Duration.
const maxDays = 100 * 366

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	err := run(ctx, os.Args[1:])
	stop()
	var code exitCode
	switch {
	case err == nil:
		os.Exit(0)
	case errors.As(err, &code):
		fmt.Fprintln(os.Stderr, "publish:", code.err)
		os.Exit(1)
	case !errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(os.Stderr, "publish:", err)
	}
	os.Exit(2)
}

// exitCode wraps what exits with 1.
type exitCode struct{ err error }

func (e exitCode) Error() string { return e.err.Error() }

// command is one run of a subcommand.
type command struct {
	targets []place
	source  publish.Source
	maxAge  int // days
	only    []string
	keyring string
	reason  string
	dryRun  bool
	json    bool
	journal string
	from    string // -from

	rebuilds   publish.Rebuilds
	rebuilders string // the file of their keys
	args       []string
}

func run(ctx context.Context, args []string) error {
	commands := map[string]struct {
		run   func(*command, context.Context, place) error
		args  int
		flags string // that it takes, and -to unless it takes -from
	}{
		"push":     {(*command).push, 1, "n keyring"},
		"plan":     {(*command).push, 1, "keyring"},
		"rollback": {(*command).rollback, 2, "reason"},
		"withdraw": {(*command).withdraw, 2, "reason"},
		"retain":   {(*command).retain, 1, "n"},
		"list":     {(*command).list, 1, "json max-age"},
		"verify":   {(*command).verify, 1, "keyring max-age"},
		"fetch":    {nil, 2, "from keyring max-age only rebuilt-by rebuilt-as rebuilders rebuilds"},
	}
	name := ""
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	spec, known := commands[name]
	c := &command{dryRun: name == "plan"}
	flags := flag.NewFlagSet("publish "+name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	needs := func(flag string) bool { return slices.Contains(strings.Fields(spec.flags), flag) }
	var to []string
	if !needs("from") {
		flags.Func("to", "`target` directory:DIR, obs:BUCKET[/PREFIX], glance:CLOUD or ims:CLOUD/BUCKET; may be repeated", func(s string) error {
			to = append(to, s)
			return nil
		})
	}
	flags.StringVar(&c.journal, "journal", "", "append each call of a cloud or an object store to the `file`")
	for _, f := range strings.Fields(spec.flags) {
		c.define(flags, f)
	}
	err := flags.Parse(args)
	if slices.Contains([]string{"-h", "-help", "--help"}, name) || errors.Is(err, flag.ErrHelp) {
		_, err := fmt.Print(usage)
		return err
	}
	c.args = flags.Args()
	if err == nil && known {
		var closeJournal func()
		closeJournal, err = c.open(to, c.from)
		defer closeJournal()
	}
	wrong := !known || err != nil || len(c.args) != spec.args || c.maxAge < 0 || c.maxAge > maxDays ||
		c.rebuilds.By < 0 || (c.rebuilds.By > 0) != (c.rebuilders != "") || (c.rebuilds.By > 0) != (c.rebuilds.Dir != "") ||
		c.rebuilds.Same != "" && (c.rebuilds.Same == signing.Differs || !c.rebuilds.Same.Reaches(signing.Differs)) ||
		needs("from") && c.source == nil || !needs("from") && len(c.targets) == 0 ||
		needs("keyring") && c.keyring == "" || needs("reason") && c.reason == ""
	if wrong {
		if err != nil {
			fmt.Fprintln(os.Stderr, "publish:", err)
		}
		fmt.Fprint(os.Stderr, usage)
		return flag.ErrHelp
	}
	if needs("from") {
		return c.fetch(ctx)
	}
	var errs []error
	for _, t := range c.targets {
		errs = append(errs, spec.run(c, ctx, t)) // one target's failure is none of another's
	}
	return worst(errs)
}

// define defines the flag f, for c.
func (c *command) define(flags *flag.FlagSet, f string) {
	switch f {
	case "n":
		flags.BoolVar(&c.dryRun, f, false, "say what would be done and do nothing")
	case "json":
		flags.BoolVar(&c.json, f, false, "print JSON")
	case "keyring":
		flags.StringVar(&c.keyring, f, "", "`file` of the OpenPGP keys that may sign releases")
	case "reason":
		flags.StringVar(&c.reason, f, "", "`text` that says why")
	case "from":
		flags.StringVar(&c.from, f, "", "`source` directory:DIR, obs:BUCKET[/PREFIX] or a URL")
	case "max-age":
		flags.IntVar(&c.maxAge, f, 0, "refuse builds that began more than so many `days` ago")
	case "rebuilt-by":
		flags.IntVar(&c.rebuilds.By, f, 0, "demand that so many rebuilders confirm the release")
	case "rebuilt-as":
		flags.StringVar((*string)(&c.rebuilds.Same), f, string(signing.SameContent), "what must be the `same`: files, content or bytes")
	case "rebuilders":
		flags.StringVar(&c.rebuilders, f, "", "`file` of the rebuilders' keys")
	case "rebuilds":
		flags.StringVar(&c.rebuilds.Dir, f, "", "`directory` of the rebuilders' statements")
	case "only":
		flags.Func(f, "fetch only files whose names end in the `suffix`; may be repeated", func(s string) error {
			c.only = append(c.only, s)
			return nil
		})
	}
}

// worst joins the errors; one that exits with 2 counts more than one with 1.
func worst(errs []error) error {
	var hard, soft []error
	for _, err := range errs {
		var code exitCode
		switch {
		case errors.As(err, &code):
			soft = append(soft, code.err)
		case err != nil:
			hard = append(hard, err)
		}
	}
	if len(hard) == 0 && len(soft) > 0 {
		return exitCode{errors.Join(soft...)}
	}
	return errors.Join(append(hard, soft...)...)
}

// refused reports errors that say that the release may not be published or
// fetched, or is not what was signed.
func refused(err error) bool {
	for _, e := range []error{
		publish.ErrConflict, publish.ErrOlder, publish.ErrWithdrawn, publish.ErrFuture,
		publish.ErrRollback, publish.ErrTooOld, publish.ErrNotAsSigned, publish.ErrNotRebuilt,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	var bad *signing.Error
	var other *publish.WrongReleaseError
	return errors.As(err, &bad) || errors.As(err, &other)
}
