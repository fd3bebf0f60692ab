package spoil_test

import (
	"flag"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder/dib"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/internal/spoil"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/boots"
)

// one picks rows of the table by their names, while they are being written:
//
//	IMAGEFACTORY_TEST_IMAGE=FILE go test ./internal/spoil -v -run TestLive -spoil 'a service user'
//
// Each row that matches is then tried alone. Without it all rows are tried, in
// batches, or those of one file of the table:
//
//	… -v -run TestLive -table sshd
var (
	one   = flag.String("spoil", "", "try only rows whose names match this regular expression, each alone")
	files = flag.String("table", "", "try only rows of the files of the table whose names match this regular expression: sshd")
)

// minRows is the least number of rows that the table must have.
const minRows = 400

func TestTable(t *testing.T) {
	rows := table(t)
	require.GreaterOrEqual(t, len(rows), minRows)
	checks := map[string]bool{}
	for _, c := range suite(t).Profile.Checks {
		// One machine does not show what several do: package boots has spoils of its own.
		if !slices.Contains(c.Needs, boots.FactName) {
			checks[c.ID] = true
		}
	}
	spoiled := map[string]bool{}
	for _, s := range rows {
		for id := range s.Fails {
			require.True(t, checks[id], "%q names check %s, which there is not", s.Name, id)
			spoiled[id] = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(checks)) {
		assert.True(t, spoiled[id] != (spoil.Unspoiled[id] != ""), "check %s: want a row that breaks it, or a reason in Unspoiled why there is none", id)
	}
	for id := range spoil.Accompanying {
		require.True(t, checks[id], "Accompanying names check %s, which there is not", id)
	}
	for id := range spoil.Unspoiled {
		require.True(t, checks[id], "Unspoiled names check %s, which there is not", id)
	}
}

func TestTableMistakes(t *testing.T) {
	rows, err := spoil.Table()
	require.NoError(t, err)
	finding := func(check, text string) spoil.Finding { return spoil.Finding{Check: check, Text: text} }
	row := spoil.Spoil{Name: "x", Fails: map[string]string{"a.b": "one\ntwo\n"}}
	require.NoError(t, spoil.Compare([]spoil.Spoil{row}, []spoil.Finding{finding("a.b", "two, one")}))
	for want, found := range map[string][]spoil.Finding{
		`"x": a.b passes`:                     nil,
		`"x": a.b says nothing of "two"`:      {finding("a.b", "one")},
		`a.c fails, which no row says: three`: {finding("a.b", "one two"), finding("a.c", "three")},
	} {
		require.ErrorContains(t, spoil.Compare([]spoil.Spoil{row}, found), want)
	}
	whole := []spoil.Finding{finding("a.b", "one two"), finding("files.access", "a file")}
	require.NoError(t, spoil.Compare([]spoil.Spoil{row}, whole), "it accompanies")
	require.Equal(t, []string{"files.access"}, spoil.Accompanied([]spoil.Spoil{row}, whole))
	require.ErrorContains(t, spoil.Compare(nil, whole[1:]), "files.access fails, which no row says: a file")
	for _, batch := range spoil.Batches(rows) {
		words := map[string]bool{}
		require.LessOrEqual(t, len(batch), 60)
		for _, s := range batch {
			require.Equal(t, batch[0].File, s.File)
			require.False(t, s.Alone != "" && (words[s.Alone] || s.Alone == "true" && len(batch) > 1), s.Name)
			words[s.Alone] = true
		}
	}
}

func table(t testing.TB) []spoil.Spoil {
	t.Helper()
	rows, err := spoil.Table()
	require.NoError(t, err)
	return rows
}

// pick are the rows of a moment that the flags want, in the batches that can
// share a machine.
func pick(t testing.TB, when string) [][]spoil.Spoil {
	t.Helper()
	wanted, err := regexp.Compile(*one)
	require.NoError(t, err)
	file, err := regexp.Compile("^(" + *files + ")")
	require.NoError(t, err)
	rows := slices.DeleteFunc(table(t), func(s spoil.Spoil) bool {
		return s.When != when || !wanted.MatchString(s.Name) || !file.MatchString(s.File)
	})
	if *one == "" {
		return spoil.Batches(rows)
	}
	var batches [][]spoil.Spoil
	for _, s := range rows {
		batches = append(batches, []spoil.Spoil{s})
	}
	return batches
}

// suite is what the image of examples/nightly is held to, with something to
// look for where its definition has nothing.
func suite(t testing.TB) *testsuite.Suite {
	t.Helper()
	definitions, err := imagefactory.LoadFile("../../examples/nightly/nightly.yaml")
	require.NoError(t, err)
	s, err := (&imagefactory.Factory{Builders: []imagefactory.BuilderDriver{dib.Driver{}}}).Suite(definitions[0])
	require.NoError(t, err)
	s.Params.UVPMonitor.State = testsuite.UVPForbidden
	s.Params.MirrorHosts = []string{"mirror.example"}
	return s
}

// findings are the checks that did not pass.
func findings(r *testsuite.Report) []spoil.Finding {
	var out []spoil.Finding
	for _, c := range r.Bad() {
		out = append(out, spoil.Finding{Check: c.ID, Text: strings.TrimSpace(c.Found + " " + c.Reason)})
	}
	return out
}
