// Command flavors prints what an image can do, the properties that say so, and
// the flavors that accept it, and why the others do not.
//
// It exits with 0; with 1 if the flavor that -flavor names refuses the image or
// its capabilities exclude each other; and with 2 for an unknown name, a file
// that cannot be read, or wrong usage.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/opentelekomcloud/go-imagefactory/capabilities"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
)

const usage = `usage: flavors -mask MASK | -image NAME | -props FILE [-flavor NAME] [-format text|json]

  -mask MASK     capabilities: 0x… or decimal, or names joined by "|"
  -image NAME    an image of the catalog, with or without _latest, _prev or a date; with
                 -flavor, as it is to be registered for that flavor
  -props FILE    a registered image's properties: a JSON object of strings; - for standard input
  -flavor NAME   only this flavor: s2.large.4, physical.h2.large, or a family such as s2
  -format F      text (default) or json
`

// maxProps bounds the file of -props.
const maxProps = 1 << 20

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("flavors", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	mask := flags.String("mask", "", "")
	image := flags.String("image", "", "")
	props := flags.String("props", "", "")
	flavor := flags.String("flavor", "", "")
	format := flags.String("format", "text", "")
	fail := func(err error) int {
		_, _ = fmt.Fprintln(stderr, "flavors:", err)
		return 2
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		_, _ = fmt.Fprint(stdout, usage)
		return 0
	case err != nil:
		return fail(fmt.Errorf("%w\n%s", err, usage))
	}
	given := 0
	for _, source := range []string{*mask, *image, *props} {
		if source != "" {
			given++
		}
	}
	if given != 1 || flags.NArg() > 0 || (*format != "text" && *format != "json") {
		_, _ = fmt.Fprint(stderr, usage)
		return 2
	}

	description, err := describe(*mask, *image, *props, *flavor, stdin)
	if err != nil {
		return fail(err)
	}
	write := description.WriteText
	if *format == "json" {
		write = func(w io.Writer) error {
			enc := json.NewEncoder(w)
			enc.SetIndent("", "  ")
			return enc.Encode(description)
		}
	}
	if err := write(stdout); err != nil {
		return fail(err)
	}
	if len(description.Conflicts) > 0 || (*flavor != "" && !description.Good()) {
		return 1
	}
	return 0
}

// describe takes the one source that is given.
func describe(mask, image, props, flavor string, stdin io.Reader) (capabilities.Description, error) {
	var set capabilities.Set
	var contradictions []capabilities.Conflict
	var err error
	switch {
	case mask != "":
		set, err = capabilities.Parse(mask)
	case image != "":
		var entry imagefactory.CatalogEntry
		entry, err = imagefactory.LookupImage(image)
		set = entry.Capabilities
		// Some flavors take the image with other properties than its own.
		if other, err := entry.For(flavor); flavor != "" && err == nil {
			set = other
		}
	default:
		set, contradictions, err = readProps(props, stdin)
	}
	if err != nil {
		return capabilities.Description{}, err
	}
	var only []string
	if flavor != "" {
		only = []string{flavor}
	}
	d, err := capabilities.Describe(set, only...)
	for _, c := range contradictions {
		d.Conflicts = append(d.Conflicts, [2]string{c.A, c.B})
	}
	return d, err
}

// readProps reads a registered image's properties. Properties that contradict
// each other are a finding about the image, not an error.
func readProps(name string, stdin io.Reader) (capabilities.Set, []capabilities.Conflict, error) {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return 0, nil, err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxProps+1))
	if err != nil {
		return 0, nil, err
	}
	if len(data) > maxProps {
		return 0, nil, fmt.Errorf("cannot read %s: more than %d bytes", name, maxProps)
	}
	var properties capabilities.Flags
	if err := json.Unmarshal(data, &properties); err != nil {
		return 0, nil, fmt.Errorf("cannot read %s: want a JSON object of strings: %w", name, err)
	}
	if properties == nil {
		return 0, nil, fmt.Errorf("cannot read %s: want a JSON object of strings, not null", name)
	}
	set, err := capabilities.FromFlags(properties)
	var conflict *capabilities.ConflictError
	var value *capabilities.ValueError
	switch {
	case err == nil:
		return set, nil, nil
	case errors.As(err, &conflict) && !errors.As(err, &value):
		return set, conflict.Conflicts, nil
	}
	return 0, nil, err
}
