package testsuite_test

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/spoil"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/boots"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/ledger"
)

// CHECKS.md is the list of checks for people: those of the profile, and those of
// the disk that the factory adds to it.
func TestChecksPage(t *testing.T) {
	p := testsuite.OTC()
	checks := slices.Concat(p.Checks, ledger.Checks(), ledger.BootChecks(), ledger.LiveChecks(), boots.Checks())
	rows, err := spoil.Table()
	require.NoError(t, err)
	spoils := map[string]int{}
	for _, row := range rows {
		for id := range row.Fails {
			spoils[id]++
		}
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# The %d checks of profile %s\n\nWritten by `go test ./testsuite -run TestChecksPage -update`. \"Spoils\" is how many of the %d rows of\n"+
		"internal/spoil/table break the check, as `make spoil` and the test of examples/nightly show on real machines.\n", len(checks), p.Name, len(rows))
	group := ""
	for _, c := range checks {
		if c.Group != group {
			group = c.Group
			fmt.Fprintf(&b, "\n## %s\n\n| check | severity | holds when | why | facts | spoils |\n| --- | --- | --- | --- | --- | --- |\n", group)
		}
		broken := cmp.Or(spoil.Unspoiled[c.ID], strconv.Itoa(spoils[c.ID]))
		if slices.Contains(c.Needs, boots.FactName) {
			broken = "in the tests of testsuite/boots"
		}
		require.NotEqual(t, "0", broken, "%s has no spoil", c.ID)
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", c.ID, c.Severity, c.Title, c.Why, strings.Join(c.Needs, ", "), broken)
	}
	if flag.Lookup("update").Value.String() == "true" {
		require.NoError(t, os.WriteFile("CHECKS.md", b.Bytes(), 0o644))
	}
	want, err := os.ReadFile("CHECKS.md")
	require.NoError(t, err)
	assert.Equal(t, string(want), b.String())
}
