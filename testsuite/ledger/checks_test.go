package ledger

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

func TestChecks(t *testing.T) {
	judge := func(fact testsuite.Fact) map[string]testsuite.Result {
		profile := testsuite.Profile{Name: "files", Checks: Checks()}
		r, err := (&testsuite.Suite{Profile: profile}).Judge(testsuite.Facts{Facts: map[string]testsuite.Fact{FactName: fact}})
		require.NoError(t, err)
		byID := map[string]testsuite.Result{}
		for _, c := range r.Checks {
			byID[c.ID] = c
		}
		return byID
	}
	for id, c := range judge(Fact(10, nil)) {
		require.Equal(t, testsuite.Pass, c.Status, id)
	}
	for _, empty := range []testsuite.Fact{{}, Fact(0, nil), {Output: "nonsense\n"}, {Output: "files 3\n", Error: "cut"}} {
		for id, c := range judge(empty) {
			require.Equal(t, testsuite.Error, c.Status, id)
		}
	}
	for kind, id := range map[Kind]string{Unexplained: "files.explained", Changed: "files.unmodified", Missing: "files.unmodified",
		Permissions: "files.permissions", Unsigned: "files.signed"} {
		for other, c := range judge(Fact(10, []Finding{{kind, "/etc/a b\n", "why"}})) {
			if other != id {
				require.Equal(t, testsuite.Pass, c.Status, other)
				continue
			}
			require.Equal(t, testsuite.Fail, c.Status)
			require.Contains(t, c.Found, `"/etc/a\x20b\n": why`)
		}
	}
	many := make([]Finding, maxFindings+5)
	for i := range many {
		many[i] = Finding{Unexplained, "/x", ""}
	}
	text := Fact(10, many).Output
	require.Equal(t, 1+maxFindings+1, strings.Count(text, "\n"))
	require.Contains(t, text, "unexplained and 5 more\n")
	require.Contains(t, judge(testsuite.Fact{Output: text})["files.explained"].Found, "more lines")
}
