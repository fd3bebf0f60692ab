package imagefactory

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/capabilities"
)

// table2019 is testdata/flavors-2019.yaml.
type table2019 struct {
	Columns []struct {
		ID      string   `yaml:"id"`
		Flavors []string `yaml:"flavors"`
	} `yaml:"columns"`
	Cells map[string]string `yaml:"cells"`
	Rows  []struct {
		System string            `yaml:"system"`
		Images []string          `yaml:"images"`
		Cells  map[string]string `yaml:"cells"`
	} `yaml:"rows"`
	Differences []struct {
		System  string `yaml:"system"`
		Column  string `yaml:"column"`
		Table   string `yaml:"table"` // the cell as written
		Catalog string `yaml:"catalog"`
	} `yaml:"differences"`
}

func readTable2019(t *testing.T) table2019 {
	t.Helper()
	data, err := os.ReadFile("testdata/flavors-2019.yaml")
	require.NoError(t, err)
	var table table2019
	require.NoError(t, yaml.UnmarshalWithOptions(data, &table, yaml.Strict()))
	require.Len(t, table.Columns, 19)
	require.Len(t, table.Rows, 23)
	return table
}

// deviation is how the catalog says why it differs from the table.
var deviation = regexp.MustCompile(`(?m)^ *# deviates at ([a-z0-9.]+): \S`)

// deviations are the columns that the catalog explains for a system: in the
// comments from that system's heading on.
func deviations(t *testing.T, image string) []string {
	t.Helper()
	for _, block := range regexp.MustCompile(`(?m)^  # -{8,} .*$|^$`).Split(string(catalogYAML), -1) {
		if !regexp.MustCompile(`(?m)- name: ` + image + `$`).MatchString(block) {
			continue
		}
		var columns []string
		for _, m := range deviation.FindAllStringSubmatch(block, -1) {
			columns = append(columns, m[1])
		}
		return columns
	}
	require.Fail(t, "no block of the catalog has "+image)
	return nil
}

// A row of the table is an operating system: it is held against what that
// system's images can be registered for. Each difference must be listed, with
// its reason in the catalog, and each listed one must be there.
func TestCatalogAgainstTheTableOf2019(t *testing.T) {
	table := readTable2019(t)
	type place struct{ system, column string }
	explained := make(map[place]string)
	for _, d := range table.Differences {
		explained[place{d.System, d.Column}] = fmt.Sprintf("table %q, catalog %s", d.Table, d.Catalog)
	}
	agreed, differ, compared := 0, 0, make(map[string]bool)
	for _, row := range table.Rows {
		require.NotEmpty(t, row.Images, row.System)
		for _, name := range row.Images {
			require.False(t, compared[name], "%s is in two rows", name)
			compared[name] = true
		}
		var reasons []string
		for _, column := range table.Columns {
			cell := row.Cells[column.ID]
			want := "no"
			if cell != "" {
				want = table.Cells[cell]
				require.Contains(t, []string{"yes", "no"}, want, "cell %q", cell)
			}
			got := union(t, row.Images, column.Flavors)
			p := place{row.System, column.ID}
			if want == got {
				agreed++
				continue
			}
			differ++
			assert.Equal(t, explained[p], fmt.Sprintf("table %q, catalog %s", cell, got), "%s on %v: unexplained", row.System, column.Flavors)
			delete(explained, p)
			reasons = append(reasons, column.ID)
		}
		assert.ElementsMatch(t, reasons, deviations(t, row.Images[0]), "the catalog's reasons for %s", row.System)
	}
	assert.Empty(t, explained, "these are explained and do not differ")
	t.Logf("%d cells agree, %d differ with a reason", agreed, differ)

	// What the table has no row for.
	var rest []string
	for _, e := range Catalog() {
		if !compared[e.Name.String()] {
			rest = append(rest, e.Name.String())
		}
	}
	assert.Equal(t, []string{"Beta_openSUSE_15", "Enterprise_SLES15_SP0", "Enterprise_SLES15_SP0_BMS", "Standard_openSUSE_15"}, rest)
}

// union says whether the images together run on every one of the flavors.
func union(t *testing.T, images, flavors []string) string {
	t.Helper()
	for _, flavor := range flavors {
		if !slices.ContainsFunc(images, func(name string) bool {
			e, err := LookupImage(name)
			require.NoError(t, err)
			_, err = e.For(flavor)
			return err == nil
		}) {
			return "no"
		}
	}
	return "yes"
}

// The introduction names hl1, which the table has no column for, together with
// h2.
func TestImagesOfInfiniBandRunOnBothFlavors(t *testing.T) {
	var images []string
	for _, e := range Catalog() {
		h2, err := e.For("h2.3xlarge.10")
		hl1, err2 := e.For("hl1.8xlarge.8")
		assert.Equal(t, err == nil, err2 == nil, e.Name)
		assert.Equal(t, h2, hl1, e.Name)
		if err == nil {
			images = append(images, e.Name.String())
			assert.Empty(t, h2.Conflicts(), e.Name)
		}
	}
	assert.Equal(t, []string{
		"Enterprise_SLES11_SP4", "Enterprise_SLES12_SP1", "Enterprise_SLES12_SP2", "Enterprise_SLES12_SP3", "Standard_CentOS_7",
	}, images)
}

func TestForAFlavor(t *testing.T) {
	e, err := LookupImage("Standard_CentOS_7")
	require.NoError(t, err)
	general, err := e.For("s2.large.4")
	require.NoError(t, err)
	assert.Equal(t, e.Capabilities, general)
	p1, err := e.For("p1")
	require.NoError(t, err)
	assert.True(t, p1.Has(capabilities.P100))
	assert.Zero(t, p1&(capabilities.KVMVirtio|capabilities.XenPVOps), "IMS does not allow these beside it")
	_, err = e.For("e2")
	assert.ErrorContains(t, err, "cannot register Standard_CentOS_7 for e2: it needs [hana-xen xen-scsi]")
	_, err = e.For("x9")
	var unknown *capabilities.UnknownNameError
	assert.ErrorAs(t, err, &unknown)
	_, err = CatalogEntry{}.For("s2")
	assert.Error(t, err)
}
