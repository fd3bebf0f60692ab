package imagefactory

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/capabilities"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/website"
)

// FillSite sets the table of a website: its Flavors are the families of the Open
// Telekom Cloud, its Images are the definitions' and those of the entries that no
// definition has, and its Row makes those of other releases from their
// capabilities. The definitions are complete.
func FillSite(site *website.Site, entries []CatalogEntry, definitions []Definition) {
	families := capabilities.Families()
	slices.SortStableFunc(families, func(a, b capabilities.Flavor) int {
		return slices.Index(flavorGroups, flavorGroup(a)) - slices.Index(flavorGroups, flavorGroup(b))
	})
	site.Flavors, site.Images = nil, nil
	for _, f := range families {
		site.Flavors = append(site.Flavors, website.Flavor{
			Name: f.Name, Group: flavorGroup(f), Hypervisor: f.Hypervisor, Hardware: f.Hardware, Withdrawn: f.Withdrawn,
		})
	}
	site.Row = func(x *publish.Index) (website.Image, error) {
		i := website.Image{Name: x.Image, MinDiskGiB: x.MinDiskGiB, Properties: x.Properties}
		if name, err := ParseName(x.Image); err == nil {
			i.Class = string(name.Class)
		}
		set, err := capabilities.Parse(x.Capabilities)
		if x.Capabilities == "" { // nothing is claimed
			set, err = capabilities.FromFlags(x.Properties)
		}
		// What is signed and makes no sense here leaves the flavors unknown.
		addAnswers(&i, families, set, nil)
		if err != nil || set == 0 {
			i.Answers = make([]website.Answer, len(families))
			for n := range i.Answers {
				i.Answers[n] = website.Answer{Answer: "unknown", Missing: []string{"capabilities that are on record"}}
			}
		}
		return i, nil
	}
	defined := map[string]bool{}
	for _, d := range definitions {
		defined[d.Name] = true
		site.Images = append(site.Images, d.siteImage(families, nil))
	}
	for _, e := range entries {
		if defined[e.Name.String()] {
			continue
		}
		d := e.Definition()
		if e.Distribution != windows {
			d.setDefaults()
		}
		site.Images = append(site.Images, d.siteImage(families, e.Alternatives))
	}
}

// siteImage is the definition's row.
func (d *Definition) siteImage(families capabilities.Table, alternatives []capabilities.Set) website.Image {
	i := website.Image{
		Name: d.Name, Distribution: d.OS.Distribution, Version: d.OS.Version, Arch: d.OS.Arch, User: d.User,
		DiskBytes: int64(d.DiskBytes), MinDiskGiB: d.MinDiskBytes.CeilGiB(), Notes: d.Notes,
	}
	if name, err := ParseName(d.Name); err == nil {
		i.Class = string(name.Class)
	}
	i.Properties, _ = d.properties() // which a complete definition has
	for _, w := range d.Test.Waivers {
		i.Waivers = append(i.Waivers, website.Waiver{Check: w.Check, Reason: w.Reason, Expires: w.Expires.Format("2006-01-02")})
	}
	addAnswers(&i, families, d.Capabilities, alternatives)
	return i
}

// addAnswers adds the capabilities and what the families say to them.
func addAnswers(i *website.Image, families capabilities.Table, set capabilities.Set, alternatives []capabilities.Set) {
	i.Mask = set.Hex()
	for _, b := range set.Bits() {
		i.Capabilities = append(i.Capabilities, b.String())
	}
	for _, f := range families {
		v := f.Explain(set)
		a := website.Answer{Answer: v.Answer, LiveMigration: v.Accepted && v.LiveMigration}
		for _, need := range v.Missing {
			text := need.String()
			if need == (capabilities.Need{}) {
				text = "something that is not on record"
			}
			a.Missing = append(a.Missing, text)
		}
		for _, other := range alternatives {
			if !v.Accepted && a.Instead == "" && f.Explain(other).Accepted {
				a.Instead = other.String()
			}
		}
		i.Answers = append(i.Answers, a)
	}
}

// The column groups, in the order of the table.
const (
	groupXen       = "Normal (Xen)"
	groupKVM       = "KVM"
	groupHPC       = "HPC, SR-IOV"
	groupDisk      = "Disk-intensive"
	groupHANA      = "HANA"
	groupGPU       = "GPU"
	groupFPGA      = "FPGA"
	groupAscend    = "Ascend"
	groupBareMetal = "Bare metal"
)

var flavorGroups = []string{groupXen, groupKVM, groupHPC, groupDisk, groupHANA, groupGPU, groupFPGA, groupAscend, groupBareMetal}

// flavorGroup is the column group of a family: by what its name begins with, as
// the cloud names its families.
func flavorGroup(f capabilities.Flavor) string {
	begins := func(prefixes ...string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(f.Family, p) })
	}
	switch {
	case f.Hypervisor == capabilities.BareMetal:
		return groupBareMetal
	case begins("fp"):
		return groupFPGA
	case begins("ai", "kai"):
		return groupAscend
	case begins("h"):
		return groupHPC
	case begins("d", "i"):
		return groupDisk
	case begins("e"):
		return groupHANA
	case begins("g", "p"):
		return groupGPU
	case f.Hypervisor == capabilities.Xen:
		return groupXen
	}
	return groupKVM
}

// writeSite writes the website of a run, and its failure into the report.
func (f *Factory) writeSite(ctx context.Context, report *Report, products []*product) {
	if f.Website == nil || ctx.Err() != nil {
		return
	}
	err := contain(f.logger(), "the website", "", func() error {
		site := *f.Website
		var data bytes.Buffer
		if err := report.WriteJSON(&data); err != nil {
			return err
		}
		if site.Dir == "" {
			site.Dir = f.Dir
		}
		site.Report = data.Bytes()
		if site.Keyring == nil {
			site.Keyring = products[0].keyring
		}
		if site.Signer == nil {
			site.Signer = products[0].signer
		}
		if site.Flavors == nil {
			var definitions []Definition
			for _, p := range products {
				definitions = append(definitions, *p.def)
			}
			FillSite(&site, nil, definitions)
		}
		return site.Write(ctx)
	})
	if err != nil {
		report.SiteError = fmt.Sprintf("cannot write the website: %v", err)
		f.logger().ErrorContext(ctx, "cannot write the website", "error", err)
	}
}
