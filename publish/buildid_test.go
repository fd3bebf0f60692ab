package publish_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

func ExampleBuildID() {
	cet := time.FixedZone("CET", 3600)
	id := publish.NewBuildID(time.Date(2026, 11, 22, 4, 15, 7, 999, cet))
	fmt.Println(id, id.Time())
	_, err := publish.ParseBuildID("2026-11-22")
	fmt.Println(err)
	// Output:
	// 20261122-031507 2026-11-22 03:15:07 +0000 UTC
	// cannot parse build ID "2026-11-22": want UTC as YYYYMMDD-HHMMSS
}

// build parses an ID that the test writes.
func build(t testing.TB, s string) publish.BuildID {
	t.Helper()
	id, err := publish.ParseBuildID(s)
	require.NoError(t, err)
	return id
}

func TestParseBuildIDRefuses(t *testing.T) {
	for _, s := range []string{
		"", " ", "latest", "20261122", "20261122-0315", "20261122-031507.5", "20261122-031507,5", "20261122-031507Z",
		" 20261122-031507", "20261122-031507\n", "20261322-031507", "20261132-031507", "20260230-000000",
		"20261122-241507", "20261122-036007", "20261122-031560", "20261122_031507", "-0261122-031507",
		"../20261122-031507", "２0261122-031507",
	} {
		id, err := publish.ParseBuildID(s)
		assert.Error(t, err, "%q", s)
		assert.True(t, id.IsZero(), "%q", s)
	}
}

func TestBuildIDOrder(t *testing.T) {
	a, b := build(t, "20251231-235959"), build(t, "20260101-000000")
	assert.Equal(t, -1, a.Compare(b))
	assert.Equal(t, 1, b.Compare(a))
	assert.Equal(t, 0, a.Compare(publish.NewBuildID(a.Time())))
	assert.Equal(t, -1, publish.BuildID{}.Compare(a))
	assert.True(t, publish.BuildID{}.Time().IsZero())
	assert.True(t, a == build(t, a.String()), "comparable")
}

func FuzzParseBuildID(f *testing.F) {
	f.Add("20261122-031507")
	f.Add("20261122-031507.000")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := publish.ParseBuildID(s)
		if err != nil {
			return
		}
		if id.String() != s || publish.NewBuildID(id.Time()) != id {
			t.Fatalf("%q became %s, %s", s, id, publish.NewBuildID(id.Time()))
		}
		text, err := json.Marshal(id)
		require.NoError(t, err)
		var again publish.BuildID
		require.NoError(t, json.Unmarshal(text, &again))
		require.Equal(t, id, again)
	})
}
