package queue

import (
	"testing"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
)

func TestDaily(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	at := func(text string) time.Time {
		parsed, err := time.Parse(time.RFC3339, text)
		require.NoError(t, err)
		return parsed
	}
	d := Daily{At: 3*time.Hour + 15*time.Minute}
	for _, test := range []struct {
		d          Daily
		after, has string
	}{
		{d, "2026-11-25T03:14:59Z", "2026-11-25T03:15:00Z"},
		{d, "2026-11-25T03:15:00Z", "2026-11-26T03:15:00Z"},
		{d, "2026-12-31T23:00:00Z", "2027-01-01T03:15:00Z"},
		{Daily{}, "2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z"},
		{Daily{At: d.At, Location: berlin}, "2026-11-25T02:14:00Z", "2026-11-25T02:15:00Z"},
		{Daily{At: d.At, Location: berlin}, "2026-03-29T01:14:00Z", "2026-03-29T01:15:00Z"}, // the clock was set forward
		{Daily{At: d.At, Location: berlin}, "2026-10-24T12:00:00Z", "2026-10-25T02:15:00Z"}, // and back
	} {
		require.True(t, at(test.has).Equal(test.d.Next(at(test.after))), "%v: %v", test, test.d.Next(at(test.after)))
	}
}

// never and always are schedules as somebody may write them.
type never struct{}

func (never) Next(time.Time) time.Time { return time.Time{} }

type always struct{}

func (always) Next(t time.Time) time.Time { return t }

func TestDue(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	last, found := due(Daily{At: 3 * time.Hour}, now)
	require.True(t, found)
	require.Equal(t, now.Add(-9*time.Hour), last)
	_, found = due(Daily{At: 23 * time.Hour}, now)
	require.False(t, found, "it is thirteen hours ago")
	_, found = due(never{}, now)
	require.False(t, found)
	_, found = due(always{}, now)
	require.True(t, found, "and it ends")
}

// A night that was due is planned once, though there are two workers and one is started anew.
func TestSchedule(t *testing.T) {
	each(t, func(t *testing.T, s site) {
		f, err := s.factory(buildFunc{"good", good})
		require.NoError(t, err)
		f.Definitions = []imagefactory.Definition{define("Standard_Good_1", "good"), define("Standard_Good_2", "good")}
		q := s.open(t)
		now := time.Now().UTC()
		if h := now.Hour(); h == 23 && now.Minute() == 59 {
			now = now.Add(-time.Hour) // or the night is tomorrow's
		}
		w := Worker{Factory: f, Schedule: Daily{At: time.Duration(now.Hour())*time.Hour + time.Duration(now.Minute())*time.Minute}}
		stop := work(t, s.open(t), w)
		published := func() bool {
			return s.begun("Standard_Good_1", imagefactory.StagePublish)+s.begun("Standard_Good_2", imagefactory.StagePublish) == 2
		}
		require.Eventually(t, published, time.Minute, 50*time.Millisecond)
		stop()
		planned := func() []*rivertype.JobRow {
			found, err := q.client.JobList(t.Context(), river.NewJobListParams().Kinds(nightJob{}.Kind()))
			require.NoError(t, err)
			return found.Jobs
		}
		require.Len(t, planned(), 1)
		work(t, s.open(t), w)
		work(t, s.open(t), w)
		for range 10 {
			time.Sleep(200 * time.Millisecond)
			require.Len(t, planned(), 1)
		}
		require.Equal(t, 1, s.begun("Standard_Good_1", imagefactory.StageBuild))
	})
}
