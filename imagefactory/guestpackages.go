package imagefactory

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// packageList is the text of the release's .packages: what the builder lists, or
// else what the machine had installed that was booted from the image.
func (j *job) packageList() ([]byte, error) {
	list, err := os.ReadFile(j.file(".packages"))
	if err != nil || len(list) > 0 {
		return list, err
	}
	f, err := os.Open(j.file(factsSuffix))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	facts, err := testsuite.LoadFacts(z)
	if err != nil {
		return nil, err
	}
	packages, err := guestPackages(facts)
	var text bytes.Buffer
	for _, p := range packages {
		fmt.Fprintln(&text, p.Name, p.Version, p.Arch)
	}
	return text.Bytes(), err
}

// guestPackages are the installed packages of a machine, in the order that a
// builder's have. There are none where the machine does not tell.
func guestPackages(facts testsuite.Facts) ([]builder.Package, error) {
	text, _ := facts.Text("packages") // a fact that is missing is no text
	if strings.ContainsFunc(text, func(c rune) bool { return c != '\n' && (c < ' ' || c > '~') }) {
		return nil, errors.New("the machine's list of packages has characters that no package's name has")
	}
	var packages []builder.Package
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 4 && strings.HasSuffix(f[0], "i") && f[3] != "(none)" { // rpm has its keys among them
			packages = append(packages, builder.Package{Name: f[1], Version: f[2], Arch: f[3]})
		}
	}
	slices.SortFunc(packages, builder.Package.Compare)
	return slices.Compact(packages), nil
}
