package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/builder/dib"
	"github.com/opentelekomcloud/go-imagefactory/builder/kiwi"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/internal/passphrase"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/boots"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/ledger"
)

type options struct {
	host, user, key, hostKey, knownHosts string
	passphrases                          passphrase.Asker

	image, factsIn string

	config, name, waivers, profile string

	boots boots.Set

	format, factsOut         string
	compare                  []string
	wireOnly, readOnly, list bool
	rerun                    bool
}

const usage = "want one of -host, -image and -facts-in, or -list; -h tells all flags"

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("hardening", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.host, "host", "", "`HOST[:PORT]` of a machine that runs")
	f.StringVar(&o.user, "user", "", "login `user`; default: the definition's, or linux")
	f.StringVar(&o.key, "key", "", "`file` of the private key that logs the user in")
	f.StringVar(&o.hostKey, "hostkey", "", "`file` of the host's public keys, as OpenSSH keeps or ssh-keyscan prints them")
	f.StringVar(&o.knownHosts, "known-hosts", "", "`file` of OpenSSH's known hosts")
	f.IntVar(&o.passphrases.FD, "passphrase-fd", -1, "file descriptor `number` to read the passphrase of -key from")
	f.StringVar(&o.image, "image", "", "qcow2 `file` to boot in QEMU")
	f.Func("boots", "`default` or all: make other machines from -image too, and hold them beside the first", func(s string) error {
		return o.boots.UnmarshalText([]byte(s))
	})
	f.StringVar(&o.factsIn, "facts-in", "", "`file` that -facts-out wrote")
	f.StringVar(&o.config, "config", "", "`file` of definitions (YAML)")
	f.StringVar(&o.name, "name", "", "`name` of the definition in -config, or of the catalog's image")
	f.StringVar(&o.profile, "profile", "", "`otc` or strict; default: the definition's, or otc")
	f.StringVar(&o.waivers, "waivers", "", "`file` of more waivers (YAML)")
	f.StringVar(&o.format, "format", "text", "`form` of the report: text, json, junit, tap or html")
	f.Func("compare", "write what has changed since the `report` (JSON); of several, the oldest first, the last one counts", func(name string) error {
		o.compare = append(o.compare, name)
		return nil
	})
	f.StringVar(&o.factsOut, "facts-out", "", "`file` to keep what was seen in")
	f.BoolVar(&o.wireOnly, "wire-only", false, "only checks of what is seen on the wire, without a login")
	f.BoolVar(&o.readOnly, "read-only", false, "write nothing on the machine")
	f.BoolVar(&o.rerun, "rerun", false, "try once more what fails or cannot be decided")
	f.BoolVar(&o.list, "list", false, "list the checks")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, err
		}
		return nil, errors.New(usage) // flag has said what is wrong
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("%q is no flag; %s", f.Arg(0), usage)
	}
	return o, o.check()
}

// check reports flags that do not go together.
func (o *options) check() error {
	sources := 0
	for _, s := range []string{o.host, o.image, o.factsIn} {
		if s != "" {
			sources++
		}
	}
	formats := []string{"text", "json", "html", "junit", "tap"}
	switch {
	case o.list:
		formats = formats[:2]
	case len(o.compare) > 0:
		formats = formats[:3]
	}
	switch {
	case !slices.Contains([]string{"", "otc", "strict"}, o.profile):
		return fmt.Errorf("-profile: %.20q is none of otc, strict", o.profile)
	case o.list && len(o.compare) > 0:
		return errors.New("-compare is for a report, and -list makes none")
	case o.list && sources > 0 || !o.list && sources != 1:
		return errors.New(usage)
	case !slices.Contains(formats, o.format):
		return fmt.Errorf("-format: %.20q is none of %s", o.format, strings.Join(formats, ", "))
	case o.boots != "" && o.image == "":
		return errors.New("-boots is for -image")
	case o.rerun && o.factsIn != "":
		return errors.New("-rerun is for -host and -image")
	case o.host == "" && (o.key != "" || o.hostKey != "" || o.knownHosts != ""):
		return errors.New("-key, -hostkey and -known-hosts are for -host")
	case o.host != "" && (o.hostKey == "") == (o.knownHosts == ""):
		return errors.New("-host wants one of -hostkey and -known-hosts: the host key is always checked")
	case o.host != "" && o.key == "" && !o.wireOnly:
		return errors.New("-host wants -key, or -wire-only")
	}
	return nil
}

// suite is what the machine is held to.
func (o *options) suite() (*testsuite.Suite, error) {
	suite := &testsuite.Suite{Profile: testsuite.OTC()}
	suite.Profile.Checks = append(suite.Profile.Checks, ledger.LiveChecks()...)
	d, err := o.definition()
	if err != nil {
		return nil, err
	}
	if d != nil {
		if suite, err = o.factory().Suite(*d); err != nil {
			return nil, err
		}
	}
	switch o.profile {
	case "":
	case "otc":
		suite.Profile = testsuite.OTC()
	case "strict":
		suite.Profile = testsuite.Strict()
	}
	if o.boots != "" && !slices.ContainsFunc(suite.Profile.Checks, func(c testsuite.Check) bool { return slices.Contains(c.Needs, boots.FactName) }) {
		suite.Profile.Checks = append(suite.Profile.Checks, boots.Checks()...)
	}
	suite.Params.User = cmp.Or(o.user, suite.Params.User, "linux")
	suite.ReadOnly = o.readOnly
	if o.waivers != "" {
		waivers, err := imagefactory.LoadWaivers(o.waivers)
		if err != nil {
			return nil, err
		}
		suite.Waivers = append(suite.Waivers, waivers...)
	}
	if err := suite.Validate(); err != nil {
		return nil, err
	}
	if o.wireOnly {
		keepWire(suite)
	}
	return suite, nil
}

// factory knows what diskimage-builder's elements bring into an image of -config;
// the catalog's images name none.
func (o *options) factory() *imagefactory.Factory {
	if o.config == "" {
		return new(imagefactory.Factory)
	}
	return &imagefactory.Factory{Builders: []imagefactory.BuilderDriver{dib.Driver{}, kiwi.Driver{}}}
}

// definition is the one that is meant, or nil.
func (o *options) definition() (*imagefactory.Definition, error) {
	if o.config == "" {
		if o.name == "" {
			return nil, nil
		}
		entry, err := imagefactory.LookupImage(o.name)
		if err != nil {
			return nil, err
		}
		d := entry.Definition()
		return &d, nil
	}
	definitions, err := imagefactory.LoadFile(o.config)
	if err != nil {
		return nil, err
	}
	var names []string
	for i, d := range definitions {
		if d.Name == o.name || o.name == "" && len(definitions) == 1 {
			return &definitions[i], nil
		}
		names = append(names, d.Name)
	}
	if o.name == "" {
		return nil, fmt.Errorf("%s defines several images: say which with -name: %s", o.config, strings.Join(names, ", "))
	}
	return nil, fmt.Errorf("%s defines no image %.80q; it has %s", o.config, o.name, strings.Join(names, ", "))
}

// keepWire leaves the checks whose facts come from the wire and nowhere else.
func keepWire(suite *testsuite.Suite) {
	kept := map[string]bool{}
	var checks []testsuite.Check
	for _, c := range suite.Profile.Checks {
		if !slices.ContainsFunc(c.Needs, func(fact string) bool { return !strings.HasPrefix(fact, "wire-") }) {
			kept[c.ID] = true
			checks = append(checks, c)
		}
	}
	suite.Profile.Checks = checks
	suite.Waivers = slices.DeleteFunc(suite.Waivers, func(w testsuite.Waiver) bool { return !kept[w.Check] })
}

func (o *options) writeList(w io.Writer, profile testsuite.Profile) error {
	if o.format == "text" {
		return profile.WriteText(w)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(profile.Checks)
}
