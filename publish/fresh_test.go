package publish

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCheckFresh(t *testing.T) {
	now := time.Date(2026, time.November, 25, 3, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	ago := func(days int, labels ...Label) Entry {
		return Entry{ID: "x", Image: "Image", Build: NewBuildID(now.Add(-time.Duration(days) * day)), Digest: "d", Labels: labels}
	}
	broken, withdrawn := ago(0, Latest), ago(0, Latest)
	broken.Problem, withdrawn.Withdrawn = "it is empty", "it does not boot"
	foreign := Entry{ID: "f", Image: "Image", Foreign: true, Problem: "somebody else's"}
	for name, test := range map[string]struct {
		have []Entry
		want string // "" is that it is fresh
	}{
		"fresh":                       {[]Entry{ago(3, Latest), ago(9, Prev)}, ""},
		"to the second":               {[]Entry{ago(7, Latest)}, ""},
		"old":                         {[]Entry{ago(8, Latest)}, "is latest, which began 8 days ago; the limit is 7"},
		"new, but without the label":  {[]Entry{ago(0), ago(40, Latest)}, "40 days ago"},
		"of two the newer counts":     {[]Entry{ago(40, Latest), ago(0, Latest)}, ""},
		"nothing":                     {nil, "nothing that can be used is latest"},
		"no label":                    {[]Entry{ago(0)}, "nothing that can be used is latest"},
		"prev alone":                  {[]Entry{ago(0, Prev)}, "nothing that can be used is latest"},
		"latest is broken":            {[]Entry{broken, ago(1, Prev)}, "nothing that can be used is latest"},
		"latest is withdrawn":         {[]Entry{withdrawn}, "nothing that can be used is latest"},
		"of the future":               {[]Entry{ago(-400, Latest), ago(40, Prev)}, "nothing that can be used is latest"},
		"somebody else's is not ours": {[]Entry{foreign}, "nothing that can be used is latest"},
	} {
		t.Run(name, func(t *testing.T) {
			err := CheckFresh(test.have, 7*day, now)
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, ErrTooOld)
			require.ErrorContains(t, err, test.want)
		})
	}
}
