package advisory

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/pkgversion/versiontest"
)

// verdicts are what follows from the order of the installed and the fixed version.
var verdicts = map[int]Status{-1: Affected, 0: Fixed, 1: Fixed}

// 500 packages, each installed in another version than it is fixed in, are judged as
// dpkg's comparison has it.
func TestCasesAsDpkg(t *testing.T) {
	cases := versiontest.Pairs(500, []string{"1", "2", "10", "007", ".", "+", "~", "-", "a", "rc", "deb12u", "-0"})
	var tracker strings.Builder
	installed := &Installed{Distribution: "debian", Release: "12"}
	for i, c := range cases {
		fmt.Fprintf(&tracker, "%s\"s%d\": {\"CVE-2026-%05d\": {\"releases\": {\"bookworm\": {\"status\": \"resolved\", \"fixed_version\": %q}}}}", comma(i), i, i, c[1])
		installed.Packages = append(installed.Packages, Package{Name: fmt.Sprintf("p%d", i), Version: "1", Arch: "all", Source: fmt.Sprintf("s%d", i), SourceVersion: c[0]})
	}
	db := loadText(t, "{"+tracker.String()+"}")
	seen := map[Status]int{}
	for i, order := range versiontest.Deb(t, cases) {
		id := fmt.Sprintf("CVE-2026-%05d", i)
		want := verdicts[order]
		if cases[i][1] == "0" {
			want = NotAffected // the tracker's word for a version that never was affected
		}
		require.Equal(t, want, db.Judge(id, installed).Status, "%q", cases[i])
		seen[want]++
	}
	require.Greater(t, seen[Affected], 50)
	require.Greater(t, seen[Fixed], 50)
	require.Len(t, db.Open(installed), seen[Affected])
}

// As TestCasesAsDpkg, with OVAL and rpm's comparison.
func TestCasesAsRPM(t *testing.T) {
	cases := versiontest.Pairs(500, []string{"1", "2", "10", "007", ".", "~", "^", "_", "a", "rc", "el"})
	orders := versiontest.RPM(t, cases)
	var definitions, tests, objects, states strings.Builder
	installed := &Installed{Distribution: "redhat", Release: "9.4"}
	for i := range cases {
		fmt.Fprintf(&definitions, `<definition class="patch"><metadata><affected><platform>Red Hat Enterprise Linux 9</platform></affected><reference ref_id="CVE-2026-%05d"/></metadata><criteria operator="AND"><criterion test_ref="t%d"/></criteria></definition>`, i, i)
		fmt.Fprintf(&tests, `<rpminfo_test id="t%d" check="at least one"><object object_ref="o%d"/><state state_ref="s%d"/></rpminfo_test>`, i, i, i)
		fmt.Fprintf(&objects, `<rpminfo_object id="o%d"><name>p%d</name></rpminfo_object>`, i, i)
		fmt.Fprintf(&states, `<rpminfo_state id="s%d"><evr datatype="evr_string" operation="less than">0:1-%s</evr></rpminfo_state>`, i, cases[i][1])
		installed.Packages = append(installed.Packages, Package{Name: fmt.Sprintf("p%d", i), Version: "1-" + cases[i][0], Arch: "x86_64"})
	}
	db := loadText(t, "<oval_definitions><definitions>"+definitions.String()+"</definitions><tests>"+tests.String()+"</tests><objects>"+objects.String()+"</objects><states>"+states.String()+"</states></oval_definitions>")
	seen := map[Status]int{}
	for i, order := range orders {
		want := verdicts[order]
		require.Equal(t, want, db.Judge(fmt.Sprintf("CVE-2026-%05d", i), installed).Status, "%q", cases[i])
		seen[want]++
	}
	require.Greater(t, seen[Affected], 50)
	require.Greater(t, seen[Fixed], 50)
	require.Len(t, db.Open(installed), seen[Affected])
}

func comma(i int) string {
	if i == 0 {
		return ""
	}
	return ","
}

func loadText(t *testing.T, text string) *Database {
	t.Helper()
	file := filepath.Join(t.TempDir(), "advisories")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	db, err := Load(t.Context(), file)
	require.NoError(t, err)
	return db
}
