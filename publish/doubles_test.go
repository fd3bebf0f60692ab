package publish_test

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// model is a target in memory, of which only what exists already is changed.
type model struct {
	publish.Target
	have []publish.Entry
}

func (m *model) List(context.Context, string) ([]publish.Entry, error) {
	return slices.Clone(m.have), nil
}

func (m *model) Apply(_ context.Context, s publish.Step) error {
	m.have = apply(m.have, s)
	return nil
}

// What is withdrawn does not come back as its double.
func TestWithdrawOfADouble(t *testing.T) {
	entry := func(id, day1 string, labels ...publish.Label) publish.Entry {
		return publish.Entry{ID: id, Image: "I", Build: day(t, day1), Digest: "of " + day1, Labels: labels}
	}
	m := &model{have: []publish.Entry{entry("a", "2"), entry("b", "2", publish.Latest), entry("c", "1", publish.Prev)}}
	_, err := publish.Withdraw(t.Context(), m, "I", day(t, "2"), "it does not boot")
	require.NoError(t, err)
	var got []string
	for _, e := range m.have {
		got = append(got, e.ID+" "+e.State())
	}
	require.Equal(t, []string{"b withdrawn", "c latest"}, got)
}
