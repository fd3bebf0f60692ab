package testsuite_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/boots"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/ledger"
)

// CHECKS.md is the list of checks for people: those of the profile, and those of
// the disk that the factory adds to it.
func TestChecksPage(t *testing.T) {
	p := testsuite.OTC()
	checks := slices.Concat(p.Checks, ledger.Checks(), ledger.BootChecks(), ledger.LiveChecks(), boots.Checks())
	var b bytes.Buffer
	fmt.Fprintf(&b, "# The %d checks of profile %s\n\nWritten by `go test ./testsuite -run TestChecksPage -update`.\n", len(checks), p.Name)
	group := ""
	for _, c := range checks {
		if c.Group != group {
			group = c.Group
			fmt.Fprintf(&b, "\n## %s\n\n| check | severity | holds when | why | facts |\n| --- | --- | --- | --- | --- |\n", group)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", c.ID, c.Severity, c.Title, c.Why, strings.Join(c.Needs, ", "))
	}
	if flag.Lookup("update").Value.String() == "true" {
		require.NoError(t, os.WriteFile("CHECKS.md", b.Bytes(), 0o644))
	}
	want, err := os.ReadFile("CHECKS.md")
	require.NoError(t, err)
	assert.Equal(t, string(want), b.String())
}
