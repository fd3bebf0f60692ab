package imagefactory

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory/advisory"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory/vex"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// What a waiver accepts is said beside the bill of materials, and no more than is known.
func TestAcceptedIsSaid(t *testing.T) {
	day := func(s string) Date {
		d, err := time.Parse(time.DateOnly, s)
		require.NoError(t, err)
		return Date{d}
	}
	waivers := []Waiver{
		{Check: "versions.CVE-2026-2", Reason: "no fix works", Expires: day("2026-12-31")},
		{Check: "versions.CVE-2026-1", Reason: "not reachable", Expires: day("2026-11-22")},
		{Check: "versions.CVE-2026-3", Reason: "long ago", Expires: day("2026-11-21")},
		{Check: "signing.key-in-process", Reason: "no agent", Expires: day("2026-12-31")},
	}
	updates := func(_ context.Context, _ *Definition, installed *advisory.Installed) ([]Update, error) {
		require.NotEmpty(t, installed.Packages)
		return []Update{{ID: "CVE-2026-1", Package: "a+b", Version: "1:2", FixedIn: "1:3"}}, nil
	}
	for name, c := range map[string]struct {
		waivers []Waiver
		updates func(context.Context, *Definition, *advisory.Installed) ([]Update, error)
		want    map[string]vex.Status
	}{
		"nothing":           {waivers[2:], updates, nil},
		"known and unknown": {waivers, updates, map[string]vex.Status{"CVE-2026-1": vex.Affected, "CVE-2026-2": vex.UnderInvestigation}},
		"nobody tells":      {waivers, nil, map[string]vex.Status{"CVE-2026-1": vex.UnderInvestigation, "CVE-2026-2": vex.UnderInvestigation}},
		"it cannot be known": {waivers, func(context.Context, *Definition, *advisory.Installed) ([]Update, error) {
			return nil, errors.New("no")
		}, map[string]vex.Status{"CVE-2026-1": vex.UnderInvestigation, "CVE-2026-2": vex.UnderInvestigation}},
	} {
		t.Run(name, func(t *testing.T) {
			f, d := newFactory(t)
			f.Updates, d.Gate.Waivers = c.updates, c.waivers
			j, dir := sealed(t, f, d)
			keyring, err := signing.PinKeys(testKey)
			require.NoError(t, err)
			r, err := publish.Open(t.Context(), dir, keyring)
			require.NoError(t, err)
			file, err := os.Open(filepath.Join(dir, "Standard_Test_1-20261122-031507.vex.json"))
			if c.want == nil {
				require.ErrorIs(t, err, os.ErrNotExist)
				return
			}
			require.NoError(t, err)
			defer file.Close()
			document, err := vex.Read(file)
			require.NoError(t, err)
			got := map[string]vex.Status{}
			for _, s := range document.Statements {
				got[s.Vulnerability] = s.Status
				require.Equal(t, j.journal.output(StageBuild, ".qcow2"), s.Products[0].SHA256)
				if s.Status == vex.Affected {
					require.Equal(t, "accepted until 2026-11-22: not reachable", s.Action)
					require.Equal(t, []string{"pkg:rpm/test/a+b@1:2?arch=source"}, s.Products[0].Subcomponents)
				}
			}
			require.Equal(t, c.want, got)
			listed := false
			for _, f := range r.Index.Files {
				listed = listed || strings.HasSuffix(f.Name, vexSuffix)
			}
			require.True(t, listed)
		})
	}
}
