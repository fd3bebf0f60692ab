package imagefactory

import (
	"bufio"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory/advisory"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory/vex"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// vexSuffix is that of what the maker says of vulnerabilities that it has accepted.
const vexSuffix = ".vex.json"

// writeVEX writes what the definition's gate accepts for now, of the advisories that
// its waivers name: the image is affected where [Factory.Updates] says so, and under
// investigation where nobody knows. It returns the suffix, or none where nothing is
// accepted. A waiver that has expired accepts nothing.
func (j *job) writeVEX(ctx context.Context, dir string, image signing.FileDigest) ([]string, error) {
	now := j.factory.now()
	known, err := j.lacking(ctx)
	if err != nil {
		return nil, err
	}
	var statements []vex.Statement
	for _, w := range j.def.Gate.Waivers {
		id, ok := strings.CutPrefix(w.Check, areaVersions+".")
		if !ok || !now.Before(w.until()) {
			continue
		}
		accepted := fmt.Sprintf("accepted until %s: %s", w.Expires.Format(time.DateOnly), w.Reason)
		product := vex.Product{ID: "pkg:generic/" + j.name + "@" + j.build.String(), SHA256: image.SHA256}
		s := vex.Statement{Vulnerability: id, Status: vex.UnderInvestigation, Notes: accepted}
		for _, u := range known {
			if u.ID == id {
				s.Status, s.Notes, s.Action = vex.Affected, "", accepted
				product.Subcomponents = append(product.Subcomponents, j.sourceURL(u))
			}
		}
		s.Products = []vex.Product{product}
		statements = append(statements, s)
	}
	if len(statements) == 0 {
		return nil, nil
	}
	slices.SortFunc(statements, func(a, b vex.Statement) int { return strings.Compare(a.Vulnerability, b.Vulnerability) })
	maker := j.maker()
	document := &vex.Document{
		ID: maker.URL + "/vex/" + j.name + "/" + j.build.String(), Author: maker.Name, Created: j.build.Time(), Statements: statements,
	}
	return []string{vexSuffix}, j.create(dir, vexSuffix, func(w *bufio.Writer) error { return vex.Write(w, document) })
}

// lacking are the security updates that the image lacks, as far as anybody knows.
func (j *job) lacking(ctx context.Context) ([]Update, error) {
	if j.factory.Updates == nil || len(j.def.Gate.Waivers) == 0 {
		return nil, nil
	}
	v, err := j.readInventory()
	if err != nil {
		return nil, err
	}
	installed := &advisory.Installed{Distribution: j.def.OS.Distribution, Release: j.def.OS.Version}
	for _, p := range v.Packages {
		installed.Packages = append(installed.Packages, advisory.Package{Name: p.Name, Version: p.Version, Arch: p.Arch, Source: p.Source, SourceVersion: p.SourceVersion})
	}
	var updates []Update
	err = contain(j.log, "Updates", "", func() (err error) {
		updates, err = j.factory.Updates(ctx, j.def, installed)
		return err
	})
	if err != nil { // the gate says so where it matters
		j.log.WarnContext(ctx, "which security updates the image lacks is not known", "error", err)
		return nil, ctx.Err()
	}
	return updates, nil
}

// sourceURL is the package URL of the source package that an update is of.
func (j *job) sourceURL(u Update) string {
	kind := "rpm"
	if d := j.def.OS.Distribution; d == "debian" || d == "ubuntu" {
		kind = "deb"
	}
	return "pkg:" + kind + "/" + j.def.OS.Distribution + "/" + url.PathEscape(u.Package) + "@" + url.PathEscape(u.Version) + "?arch=source"
}
