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

// judgeBuilt holds what the builder has installed to the definition. Where the
// builder does not tell, judgeGuest has to.
func (j *job) judgeBuilt() error {
	list, err := os.ReadFile(j.file(".packages"))
	if err != nil || len(list) == 0 {
		return err
	}
	packages, err := parsePackageList(list)
	if err != nil {
		return err
	}
	return j.pass(j.def.packageFindings(packages))
}

// judgeGuest holds what the booted machine has installed to the definition. What the
// builder's list has shown already is not found again.
func (j *job) judgeGuest(facts testsuite.Facts) error {
	packages, err := installedIn(facts)
	if err != nil {
		return err
	}
	if t := j.def.Test; len(packages) == 0 && len(t.RequiredPackages)+len(t.ForbiddenPackages) > 0 {
		return &testsuite.FactError{Fact: "packages", Reason: "it does not tell what is installed"}
	}
	findings := j.def.packageFindings(packages)
	known := func(f Finding) bool {
		return slices.ContainsFunc(j.report.Findings, func(k Finding) bool { return k.ID == f.ID && k.Text == f.Text })
	}
	return j.pass(slices.DeleteFunc(findings, known))
}

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

// parsePackageList reads the lines of a release's .packages.
func parsePackageList(list []byte) ([]builder.Package, error) {
	var packages []builder.Package
	for line := range strings.Lines(string(list)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, errors.New("a line of the packages is not \"name version arch\"")
		}
		packages = append(packages, builder.Package{Name: f[0], Version: f[1], Arch: f[2]})
	}
	return packages, nil
}

// guestPackages are the installed packages of a machine, in the order that a
// builder's have. There are none where the machine does not tell.
func guestPackages(facts testsuite.Facts) ([]builder.Package, error) {
	installed, err := installedIn(facts)
	var packages []builder.Package
	for _, p := range installed {
		if p.Arch != "" && p.Arch != "(none)" { // rpm has its keys among them
			packages = append(packages, p)
		}
	}
	slices.SortFunc(packages, builder.Package.Compare)
	return slices.Compact(packages), err
}

// installedIn are the installed packages of a machine, as it tells them. Facts of
// before had no architecture.
func installedIn(facts testsuite.Facts) ([]builder.Package, error) {
	text, _ := facts.Text("packages") // a fact that is missing is no text
	if strings.ContainsFunc(text, func(c rune) bool { return c != '\n' && (c < ' ' || c > '~') }) {
		return nil, errors.New("the machine's list of packages has characters that no package's name has")
	}
	var packages []builder.Package
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 3 || len(f) > 4 || !strings.HasSuffix(f[0], "i") {
			continue
		}
		packages = append(packages, builder.Package{Name: f[1], Version: f[2], Arch: strings.Join(f[3:], "")})
	}
	return packages, nil
}
