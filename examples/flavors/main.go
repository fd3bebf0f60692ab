// Command flavors prints what an image can do, the properties that say so, and
// the flavors that accept it, and why the others do not.
//
// It exits with 0; with 1 if a flavor that -flavor names does not accept the
// image, or properties of the image exclude or contradict each other; and with 2
// for an unknown name, a file that cannot be read, or wrong usage. What is not
// known of an image's properties or a flavor's extra specs is printed as a
// finding and changes neither the answers nor the exit code.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/capabilities"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
)

const usage = `usage: flavors -mask MASK | -image NAME | -props FILE [-flavor NAME] [-extra-specs FILE] [-format text|json]

  -mask MASK         capabilities: 0x… or decimal, or names joined by "|"
  -image NAME        an image of the catalog, with or without _latest, _prev or a date; with -flavor, as it is
                     to be registered for that flavor
  -props FILE        a registered image's properties, as JSON: an image of Glance or IMS, the metadata of a
                     server, a volume, a list of these (each is answered), or a plain object; - for standard input
  -flavor NAME       only this flavor: s2.large.4, physical.h2.large, or a family such as s2
  -extra-specs FILE  flavors from this file instead of those on record: a flavor of the compute API, a list of
                     them, or the extra specs alone, of the flavor that -flavor names; - for standard input
  -format F          text (default) or json: an object, or for a list of images a list of objects
`

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	o, err := parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = fmt.Fprint(stdout, usage)
		return 0
	case err != nil:
		_, _ = fmt.Fprintf(stderr, "flavors: %v\n%s", err, usage)
		return 2
	}
	descriptions, isList, err := o.describe(stdin)
	if err == nil {
		err = o.write(stdout, descriptions, isList)
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "flavors:", err)
		return 2
	}
	for _, d := range descriptions {
		if len(d.Conflicts) > 0 || (o.flavor != "" && !d.Good()) {
			return 1
		}
	}
	return 0
}

// options are the command line.
type options struct {
	mask, image, props string // one of them is not empty
	flavor, specs      string // empty for all flavors, and for those on record
	format             string
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("flavors", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.mask, "mask", "", "")
	flags.StringVar(&o.image, "image", "", "")
	flags.StringVar(&o.props, "props", "", "")
	flags.StringVar(&o.flavor, "flavor", "", "")
	flags.StringVar(&o.specs, "extra-specs", "", "")
	flags.StringVar(&o.format, "format", "text", "")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var given []string
	var err error
	flags.Visit(func(f *flag.Flag) {
		if f.Value.String() == "" {
			err = errors.Join(err, fmt.Errorf("-%s has an empty value", f.Name))
		}
		if slices.Contains([]string{"mask", "image", "props"}, f.Name) {
			given = append(given, "-"+f.Name)
		}
	})
	switch {
	case err != nil:
		return o, err
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case len(given) != 1:
		return o, fmt.Errorf("want one of -mask, -image and -props, got %d", len(given))
	case o.format != "text" && o.format != "json":
		return o, fmt.Errorf("unknown format %q", o.format)
	case o.props == "-" && o.specs == "-":
		return o, errors.New("only one of -props and -extra-specs can be standard input")
	}
	return o, nil
}

// describe describes what the one source that is given names. isList is whether
// it is a file with a list of images.
func (o options) describe(stdin io.Reader) (list []capabilities.Description, isList bool, err error) {
	table, findings, names, err := o.flavors(stdin)
	if err != nil {
		return nil, false, err
	}
	switch {
	case o.props != "":
		var images []capabilities.Image
		images, isList, err = readFile(o.props, stdin, capabilities.ReadImages)
		for _, image := range images {
			d, err := table.DescribeImage(image, names...)
			if err != nil {
				return nil, false, err
			}
			list = append(list, d)
		}
	case o.image != "":
		list = make([]capabilities.Description, 1)
		list[0], err = describeEntry(o.image, table, names)
	default:
		var set capabilities.Set
		if set, err = capabilities.Parse(o.mask); err == nil {
			list = make([]capabilities.Description, 1)
			list[0], err = table.Describe(set, names...)
		}
	}
	for i := range list {
		list[i].Findings = append(list[i].Findings, findings...)
	}
	return list, isList, err
}

// describeEntry describes an image of the catalog as it is registered. The
// flavors that take it with other properties are findings; where one of them is
// asked for, it is described with those.
func describeEntry(name string, table capabilities.Table, names []string) (capabilities.Description, error) {
	entry, err := imagefactory.LookupImage(name)
	if err != nil {
		return capabilities.Description{}, err
	}
	d, err := table.Describe(entry.Capabilities, names...)
	if err != nil {
		return d, err
	}
	for _, set := range entry.Alternatives {
		other, err := table.Describe(set, names...)
		if err != nil {
			return other, err
		}
		if len(names) > 0 && !d.Good() && other.Good() {
			d = other
		}
		var more []string
		for i, v := range other.Flavors {
			if v.Accepted && !d.Flavors[i].Accepted {
				more = append(more, v.Name)
			}
		}
		if len(more) > 0 {
			d.Findings = append(d.Findings, fmt.Sprintf("registered as %s instead, it runs on %s", set, strings.Join(more, ", ")))
		}
	}
	d.Image = entry.Name.String()
	return d, nil
}

// flavors returns the table of flavors, what is not known of it, and which of
// them are asked for.
func (o options) flavors(stdin io.Reader) (table capabilities.Table, findings, names []string, err error) {
	if o.flavor != "" {
		names = []string{o.flavor}
	}
	if o.specs == "" {
		return capabilities.Families(), nil, names, nil
	}
	table, findings, err = readFile(o.specs, stdin, func(r io.Reader) (capabilities.Table, []string, error) {
		return capabilities.ReadFlavors(r, o.flavor)
	})
	return table, findings, names, err
}

// readFile reads a file, or standard input for "-".
func readFile[T, U any](name string, stdin io.Reader, read func(io.Reader) (T, U, error)) (t T, u U, err error) {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return t, u, err
		}
		defer f.Close()
		in = f
	}
	t, u, err = read(in)
	if err != nil {
		return t, u, fmt.Errorf("%s: %w", name, err)
	}
	return t, u, nil
}

func (o options) write(w io.Writer, list []capabilities.Description, isList bool) error {
	if o.format == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		if isList {
			return enc.Encode(list)
		}
		return enc.Encode(list[0])
	}
	for i, d := range list {
		if i > 0 {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		if err := d.WriteText(w); err != nil {
			return err
		}
	}
	return nil
}
