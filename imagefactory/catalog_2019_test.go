package imagefactory

import (
	"fmt"
	"os"
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
		System  string            `yaml:"system"`
		Images  []string          `yaml:"images"`
		LeftOut string            `yaml:"left_out"`
		Cells   map[string]string `yaml:"cells"`
	} `yaml:"rows"`
	Differences []struct {
		Systems []string `yaml:"systems"`
		Column  string   `yaml:"column"`
		Table   string   `yaml:"table"` // the cell as written
		Catalog string   `yaml:"catalog"`
		Reason  string   `yaml:"reason"`
	} `yaml:"differences"`
}

// A row of the table is an operating system: it is held against the union of
// that system's images. Each difference must be listed with its reason, and
// each listed one must be there.
func TestCatalogAgainstTheTableOf2019(t *testing.T) {
	data, err := os.ReadFile("testdata/flavors-2019.yaml")
	require.NoError(t, err)
	var table table2019
	require.NoError(t, yaml.UnmarshalWithOptions(data, &table, yaml.Strict()))
	require.Len(t, table.Columns, 19)
	require.Len(t, table.Rows, 23)

	type place struct{ system, column string }
	explained := make(map[place]string)
	for _, d := range table.Differences {
		require.NotEmpty(t, d.Reason)
		for _, system := range d.Systems {
			p := place{system, d.Column}
			require.NotContains(t, explained, p, "explained twice")
			explained[p] = fmt.Sprintf("table %q, catalog %s", d.Table, d.Catalog)
		}
	}
	agreed, compared := 0, make(map[string]bool)
	for _, row := range table.Rows {
		if row.LeftOut != "" {
			continue
		}
		for _, name := range row.Images {
			require.False(t, compared[name], "%s is in two rows", name)
			compared[name] = true
		}
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
			assert.Equal(t, explained[p], fmt.Sprintf("table %q, catalog %s", cell, got), "%s on %v: unexplained", row.System, column.Flavors)
			delete(explained, p)
		}
	}
	assert.Empty(t, explained, "these are explained and do not differ")
	t.Logf("%d cells agree, %d differ with a reason", agreed, 19*19-agreed)

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
			v, err := capabilities.Explain(e.Capabilities, flavor)
			require.NoError(t, err)
			return v.Accepted
		}) {
			return "no"
		}
	}
	return "yes"
}
