package imagefactory

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/capabilities"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
	"github.com/opentelekomcloud/go-imagefactory/publish/website"
)

// A run writes the website, with the run's own page; what does not verify makes the
// run no good one.
func TestWebsiteAfterRun(t *testing.T) {
	f, d := embedded(t)
	f.Website = &website.Site{Out: filepath.Join(t.TempDir(), "site"), List: (&directory.Target{Dir: f.Dir}).List}
	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	require.True(t, report.OK(), report.SiteError)
	index, err := os.ReadFile(filepath.Join(f.Website.Out, "index.html"))
	require.NoError(t, err)
	assert.Contains(t, string(index), d.Name)
	night, err := os.ReadFile(filepath.Join(f.Website.Out, "night.html"))
	require.NoError(t, err)
	assert.Contains(t, string(night), "published")
	require.FileExists(t, filepath.Join(f.Website.Out, "streams/v1/index.sjson"))

	release := filepath.Join(f.Dir, report.Images[0].Release)
	require.NoError(t, os.WriteFile(filepath.Join(release, publish.IndexName), []byte("{}"), 0o644))
	report, err = f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	assert.False(t, report.OK())
	assert.Contains(t, report.SiteError, "does not verify")
}

// How long the image took to boot is in its report, and on its page.
func TestBootTime(t *testing.T) {
	f, d := embedded(t)
	var seconds atomic.Int64
	f.Now = func() time.Time {
		return time.Date(2026, 11, 22, 3, 15, 7, 0, time.UTC).Add(time.Duration(seconds.Add(1)) * time.Second)
	}
	f.Website = &website.Site{Out: filepath.Join(t.TempDir(), "site"), List: (&directory.Target{Dir: f.Dir}).List}
	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	require.True(t, report.OK(), report.SiteError)
	tests, err := os.ReadFile(filepath.Join(f.Dir, report.Images[0].Release, d.Name+"-"+report.Images[0].Build+".test.json"))
	require.NoError(t, err)
	var took struct {
		BootMS int64 `json:"boot_ms"`
	}
	require.NoError(t, json.Unmarshal(tests, &took))
	assert.GreaterOrEqual(t, took.BootMS, int64(1000))
	page, err := os.ReadFile(filepath.Join(f.Website.Out, "images", d.Name, "index.html"))
	require.NoError(t, err)
	seen := (time.Duration(took.BootMS) * time.Millisecond).String()
	assert.Contains(t, string(page), `<td class="num">`+seen+`</td>`)
}

// Each family has one group, and the groups stand together.
func TestFlavorGroups(t *testing.T) {
	var site website.Site
	FillSite(&site, Catalog(), nil)
	require.Len(t, site.Flavors, len(capabilities.Families()))
	require.Len(t, site.Images, len(Catalog()))
	var groups []string
	found := map[string]string{}
	for _, f := range site.Flavors {
		groups, found[f.Name] = append(groups, f.Group), f.Group
	}
	groups = slices.Compact(groups)
	assert.Equal(t, []string{groupXen, groupKVM, groupHPC, groupDisk, groupHANA, groupGPU, groupFPGA, groupBareMetal}, groups)
	for name, want := range map[string]string{"s1": groupXen, "m4": groupKVM, "hl1": groupHPC, "i3m": groupDisk, "d1": groupDisk, "e3": groupHANA, "pi2": groupGPU, "fp1c": groupFPGA, "physical.p1": groupBareMetal, "c7t": groupBareMetal} {
		assert.Equal(t, want, found[name], name)
	}
}

// A release whose capabilities are not on record has unknown answers, not none.
func TestRowOfUnknownCapabilities(t *testing.T) {
	var site website.Site
	FillSite(&site, nil, nil)
	for mask, want := range map[string]string{"0x4": "yes", "nonsense": "unknown", "": "unknown"} {
		row, err := site.Row(&publish.Index{Image: "Standard_Debian_12", Capabilities: mask})
		require.NoError(t, err)
		require.Len(t, row.Answers, len(site.Flavors))
		i := slices.IndexFunc(site.Flavors, func(f website.Flavor) bool { return f.Name == "s2" })
		assert.Equal(t, want, row.Answers[i].Answer, mask)
	}
}
