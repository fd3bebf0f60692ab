package advisory_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory/advisory"
)

const datedOVAL = `<oval_definitions><generator><timestamp>2026-11-20T10:00:00</timestamp></generator><definitions>
<definition class="patch"><metadata><affected><platform>Red Hat Enterprise Linux 9</platform></affected><reference ref_id="CVE-2026-0001"/></metadata><criteria operator="AND"/></definition>
</definitions></oval_definitions>`

// An old file that somebody puts back is refused, whatever the format.
func TestRemember(t *testing.T) {
	for name, c := range map[string]struct{ before, newer, says string }{
		"OSV":     {osv, strings.Replace(osv, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00.5Z", 1), "is of 2026-01-01T00:00:00Z, and was of 2026-01-02"},
		"OVAL":    {datedOVAL, strings.Replace(datedOVAL, "2026-11-20", "2026-11-21", 1), "is of 2026-11-20T10:00:00Z"},
		"tracker": {tracker, strings.Replace(tracker, `{"openssl": {`, `{"openssl": {"CVE-2026-0099": {"releases": {"bookworm": {"status": "open"}}},`, 1), "names 5 advisories, and had 6"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, state := t.TempDir(), filepath.Join(t.TempDir(), "seen.json")
			remember := func(text string) error {
				require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), []byte(text), 0o644))
				db, err := advisory.Load(t.Context(), dir)
				require.NoError(t, err)
				return db.Remember(state)
			}
			require.NoError(t, remember(c.before))
			require.NoError(t, remember(c.before))
			require.NoError(t, remember(c.newer))
			err := remember(c.before)
			require.ErrorIs(t, err, advisory.ErrOlder)
			require.ErrorContains(t, err, c.says)
			require.ErrorIs(t, remember(c.before), advisory.ErrOlder, "also when it is asked again")
			require.NoError(t, remember(c.newer))

			// Nor does it help to call it otherwise.
			require.NoError(t, os.Remove(filepath.Join(dir, "file")))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "other"), []byte(c.before), 0o644))
			db, err := advisory.Load(t.Context(), dir)
			require.NoError(t, err)
			require.ErrorContains(t, db.Remember(state), `"file" is gone`)
			require.NoError(t, os.WriteFile(state, []byte("x"), 0o644))
			require.ErrorContains(t, db.Remember(state), "damaged")
		})
	}
}

// What is read of some advisories only is the same as of all.
func TestLoadOnly(t *testing.T) {
	files := map[string]string{"tracker.json": tracker, "osv.json": osv, "oval.xml": datedOVAL,
		"escaped.json": strings.NewReplacer("CVE-2026-0001", `\u0043VE-2026-0001`, "openssl", "other").Replace(tracker)}
	all, err := load(t, files)
	require.NoError(t, err)
	dir := t.TempDir()
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	for _, id := range append(all.IDs(), "CVE-2026-9999") {
		some, err := advisory.Load(t.Context(), dir, id)
		require.NoError(t, err)
		for _, installed := range []*advisory.Installed{
			debian(source("openssl", "3.0.14-1"), source("curl", "7.88.1-1"), source("linux", "6.1.1-1")), debian(source("other", "3.0.14-1")), debian(),
			{Distribution: "debian", Release: "13", Packages: []advisory.Package{source("openssl", "3.5")}},
			{Distribution: "debian", Release: "11"}, {Distribution: "redhat", Release: "9.4"}, {Distribution: "sles", Release: "15"},
		} {
			require.Equal(t, all.Judge(id, installed), some.Judge(id, installed), "%s %v", id, installed)
			require.Equal(t, all.Covers(installed.Distribution, installed.Release), some.Covers(installed.Distribution, installed.Release))
		}
	}
}
