package imagefactory

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
)

// Tasks go through JSON to a process that knows nothing but the definitions, and
// are done one by one.
func TestTasksOneByOne(t *testing.T) {
	f, d := embedded(t)
	planned, err := f.Tasks([]Definition{d})
	require.NoError(t, err)
	require.Empty(t, journalsOf(t, f), "planning writes nothing")
	data, err := json.Marshal(planned)
	require.NoError(t, err)
	var tasks []Task
	require.NoError(t, json.Unmarshal(data, &tasks))
	require.Len(t, tasks, 5)
	require.Equal(t, "Standard_Good_1/20261122-031507/build", tasks[0].String())
	require.Equal(t, StageBuild, tasks[1].After)

	_, err = f.Do(t.Context(), tasks[0])
	require.ErrorContains(t, err, "no definition has that name")
	other := *f
	other.Definitions = []Definition{d}
	for i, task := range tasks {
		if i < 4 {
			_, err := other.Do(t.Context(), tasks[i+1])
			require.ErrorIs(t, err, ErrWaits)
		}
		report, err := other.Do(t.Context(), task)
		require.NoError(t, err)
		require.Equal(t, i == 4, report.Result == Published, report.Result)
		require.Equal(t, i < 4, report.Result == Waiting, report.Result)
		require.Contains(t, report.DurationMS, task.Stage)
		report, err = other.Do(t.Context(), task)
		require.ErrorIs(t, err, ErrNothingToDo)
		require.Empty(t, report.DurationMS)
		require.Empty(t, report.Error)
	}
	for _, task := range tasks {
		report, err := other.Do(t.Context(), task)
		require.ErrorIs(t, err, ErrNothingToDo)
		require.Equal(t, Published, report.Result)
		require.Equal(t, "Standard_Good_1/20261122-031507", report.Release)
	}
	left, err := filepath.Glob(filepath.Join(f.Dir, ".work", d.Name, "*"))
	require.NoError(t, err)
	require.Empty(t, left)

	// The next night's image is the same: it is neither tested nor sealed.
	tasks, err = other.Tasks([]Definition{d})
	require.NoError(t, err)
	var done []Stage
	for _, task := range tasks {
		_, err := other.Do(t.Context(), task)
		if !errors.Is(err, ErrNothingToDo) {
			require.NoError(t, err)
			done = append(done, task.Stage)
		}
	}
	require.Equal(t, []Stage{StageBuild, StageInspect, StagePublish}, done)
}

func journalsOf(t *testing.T, f *Factory) []string {
	found, err := filepath.Glob(filepath.Join(f.Dir, ".work", ".journal", "*", "*"))
	require.NoError(t, err)
	return found
}

// Of two plans of one night only one comes about.
func TestTwoPlans(t *testing.T) {
	for name, goesOn := range map[string]bool{"while it goes on": true, "when it has ended": false} {
		t.Run(name, func(t *testing.T) {
			f, d := embedded(t)
			first, err := f.Tasks([]Definition{d})
			require.NoError(t, err)
			later := *f
			later.Now = func() time.Time { return f.Now().Add(time.Second) }
			second, err := later.Tasks([]Definition{d})
			require.NoError(t, err)
			require.NotEqual(t, first[0].Build, second[0].Build)
			minute := *f
			minute.Now = func() time.Time { return f.Now().Add(time.Minute) }
			for _, task := range first {
				_, err := minute.Do(t.Context(), task)
				require.NoError(t, err)
				if goesOn {
					break
				}
			}
			_, err = minute.Do(t.Context(), second[0])
			require.ErrorIs(t, err, ErrNothingToDo)
			_, err = minute.Do(t.Context(), second[1])
			require.ErrorIs(t, err, ErrWaits)
		})
	}
}

// A failed run stays failed, until somebody says from where on it is to be done again.
func TestUntilFromFresh(t *testing.T) {
	f, d := embedded(t)
	run := func(stages ...Stage) ImageReport {
		t.Helper()
		var begun []Stage
		f.Progress = func(e Event) {
			if !e.Done {
				begun = append(begun, e.Stage)
			}
		}
		report, err := f.Run(t.Context(), []Definition{d})
		require.NoError(t, err)
		require.Equal(t, stages, begun, report.Images[0].Error)
		return report.Images[0]
	}
	f.Until = StageInspect
	first := run(StageBuild, StageInspect)
	require.Equal(t, Waiting, first.Result)
	require.Equal(t, Waiting, run().Result, "it has come so far")

	box := f.Sandbox
	f.Until, f.Sandbox = "", boxFunc(func(context.Context, sandbox.Image) (*sandbox.Machine, error) { return nil, io.ErrNoProgress })
	got := run(StageTest)
	require.ErrorIs(t, got.Err, io.ErrNoProgress)
	require.Equal(t, first.Build, got.Build)
	f.Definitions = []Definition{d}
	j := journalOf(t, f, d.Name, got.Build)
	_, err := f.Do(t.Context(), Task{Image: d.Name, Build: j.Build, Stage: StageTest})
	require.ErrorContains(t, err, "the run has failed in test: "+io.ErrNoProgress.Error())

	f.From, f.Sandbox = StageTest, box
	f.Until = StageSeal
	got = run(StageTest, StageSeal)
	require.Equal(t, Waiting, got.Result)
	require.Equal(t, first.Build, got.Build)

	f.From, f.Until, f.Fresh = "", StageBuild, true
	fresh := run(StageBuild)
	require.NotEqual(t, first.Build, fresh.Build)
	require.NoDirExists(t, filepath.Join(f.Dir, ".work", ".release", d.Name, first.Build), "nobody wants it now")

	f.Until, f.Fresh = "", false
	got = run(StageInspect, StageTest, StageSeal, StagePublish)
	require.Equal(t, Published, got.Result)
	require.Equal(t, fresh.Build, got.Build)

	f.From = StageTest
	report, err := f.Run(t.Context(), []Definition{d})
	require.NoError(t, err)
	require.ErrorContains(t, report.Images[0].Err, "no run of this definition has come so far as test")
}

func journalOf(t *testing.T, f *Factory, name, build string) *journal {
	t.Helper()
	data, err := os.Open(filepath.Join(f.Dir, ".work", ".journal", name, build+".json"))
	require.NoError(t, err)
	defer data.Close()
	j, err := readJournal(data)
	require.NoError(t, err)
	return j
}

// What a definition asks for changes while a run goes on: the run is not gone on with.
func TestTaskOfAnotherDefinition(t *testing.T) {
	f, d := embedded(t)
	tasks, err := f.Tasks([]Definition{d})
	require.NoError(t, err)
	_, err = f.Do(t.Context(), tasks[0])
	require.NoError(t, err)
	d.NTPServers = []string{"other"}
	f.Definitions = []Definition{d}
	task := tasks[1]
	task.def = nil
	_, err = f.Do(t.Context(), task)
	require.ErrorContains(t, err, "another definition")
}

// A run lost what it had sealed: it is sealed again, not built.
func TestSealedReleaseThatIsSpoilt(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"gone":    os.RemoveAll,
		"changed": func(dir string) error { return os.WriteFile(filepath.Join(dir, "release.json"), []byte("{}"), 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			f, d := newFactory(t)
			_, dir := sealed(t, f, d)
			require.NoError(t, spoil(dir))
			report, err := f.Run(t.Context(), []Definition{d})
			require.NoError(t, err)
			got := report.Images[0]
			require.Equal(t, Published, got.Result, got.Error)
			require.Equal(t, "20261122-031507", got.Build)
			require.Contains(t, got.DurationMS, StageSeal)
			require.NotContains(t, got.DurationMS, StageTest)
		})
	}
}

// A task that comes again when its journal is lost does not release again.
func TestTaskOfALostJournal(t *testing.T) {
	f, d := embedded(t)
	tasks, err := f.Tasks([]Definition{d})
	require.NoError(t, err)
	for _, task := range tasks {
		_, err := f.Do(t.Context(), task)
		require.NoError(t, err)
	}
	require.NoError(t, os.RemoveAll(filepath.Join(f.Dir, ".work", ".journal")))
	_, err = f.Do(t.Context(), tasks[0])
	require.ErrorIs(t, err, ErrNothingToDo)
}

// Journals do not grow with the nights, and what a killed write leaves goes.
func TestJournalsAreBounded(t *testing.T) {
	f, d := embedded(t)
	f.Builders = []BuilderDriver{builds("good", func(context.Context, builder.Spec) (*builder.Result, error) { return nil, io.ErrNoProgress })}
	for i := range 40 {
		f.Now = func() time.Time { return time.Date(2026, 11, 22+i, 3, 0, 0, 0, time.UTC) }
		report, err := f.Run(t.Context(), []Definition{d})
		require.NoError(t, err)
		require.ErrorIs(t, report.Images[0].Err, io.ErrNoProgress)
		require.NoError(t, os.WriteFile(filepath.Join(f.Dir, ".work", ".journal", d.Name, ".cut.json-XYZ"), nil, 0o644))
	}
	require.Len(t, journalsOf(t, f), 32, "thirty, the last, and what was cut now")
}

func FuzzReadJournal(f *testing.F) {
	good := `{"version":1,"image":"Standard_Good_1","build":"20261122-031507","definition_sha256":"","stages":[` +
		`{"stage":"build","tries":1,"begun":"2026-11-22T03:15:07Z","ended":"2026-11-22T03:15:08Z","duration_ms":1,"inputs":{"definition":"x"},` +
		`"outputs":{".qcow2":"` + strings.Repeat("a", 64) + `"},"result":"done","built":{"at":"2026-11-22T03:15:08Z","tool":"t","tool_version":"1","args":null,"env":null}},` +
		`{"stage":"inspect","tries":1,"begun":"2026-11-22T03:15:07Z","ended":"0001-01-01T00:00:00Z","duration_ms":0,"inputs":{},"outputs":{},"result":""}],"result":"","ended":"0001-01-01T00:00:00Z"}`
	_, err := readJournal(strings.NewReader(good))
	require.NoError(f, err)
	f.Add([]byte(good))
	for _, bad := range [][2]string{
		{`"version":1`, `"version":2`}, {`"tries":1`, `"tries":0`}, {`.qcow2`, `../../etc/passwd`}, {`.qcow2`, `/etc/passwd`}, {`.qcow2`, `..`},
		{`aaaa`, `zzzz`}, {`"stage":"inspect"`, `"stage":"build"`}, {`"result":"done"`, `"result":"ok"`}, {`Standard_Good_1`, `../x`},
		{`"image"`, `"imago"`}, {`{"version"`, `{}{"version"`}, {`,"built":{"at"`, `,"bull":{"at"`}, {`20261122-031507`, ``},
	} {
		text := strings.Replace(good, bad[0], bad[1], 1)
		_, err := readJournal(strings.NewReader(text))
		require.ErrorIs(f, err, errNoJournal, bad)
		f.Add([]byte(text))
	}
	_, err = readJournal(io.LimitReader(endless{}, 1<<40))
	require.ErrorIs(f, err, errNoJournal)
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := readJournal(bytes.NewReader(data))
		if err != nil {
			require.ErrorIs(t, err, errNoJournal)
			return
		}
		for _, r := range j.Stages {
			for suffix := range r.Outputs {
				require.True(t, filepath.IsLocal(suffix) && !slices.Contains([]string{".", ".."}, suffix), suffix)
			}
		}
		again, err := json.Marshal(j)
		require.NoError(t, err)
		_, err = readJournal(bytes.NewReader(again))
		require.NoError(t, err)
	})
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return copy(p, bytes.Repeat([]byte(" "), len(p))), nil }

// The directory of what was not tested is nobody else's, whoever makes it.
func TestWorkIsTheOwners(t *testing.T) {
	f, d, _, _ := changing(t)
	f.Dir = filepath.Join(f.Dir, "new")
	_, err := f.Promote(t.Context(), d, publish.BuildID{})
	require.ErrorIs(t, err, publish.ErrUnknownBuild)
	st, err := os.Stat(filepath.Join(f.Dir, workName))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), st.Mode().Perm())
}

// A run that has ended well is not done again: its files are gone, and its journal says
// what came of it.
func TestNoStageOfAReleaseIsDoneAgain(t *testing.T) {
	f, d, now, _ := changing(t)
	got := night(t, f, d)
	build, err := publish.ParseBuildID(got.Build)
	require.NoError(t, err)
	f.Definitions = []Definition{d}
	for _, s := range Stages() {
		_, err = f.Do(t.Context(), Task{Image: d.Name, Build: build, Stage: s, Again: true})
		require.ErrorIs(t, err, ErrNothingToDo, s)
	}
	*now = now.Add(time.Hour)
	got = night(t, f, d)
	require.Equal(t, Published, got.Result, got.Error)
}

// What is sealed is released as what it is: another release in its place, though it is
// signed as well, is none of this run's.
func TestSealedIsOfThisRun(t *testing.T) {
	f, d, now, _ := changing(t)
	first := night(t, f, d)
	*now = now.Add(time.Hour)
	f.Until = StageSeal
	got := night(t, f, d)
	place := filepath.Join(f.Dir, workName, releaseName, d.Name, got.Build)
	require.NoError(t, os.RemoveAll(place))
	require.NoError(t, os.CopyFS(place, os.DirFS(filepath.Join(f.Dir, first.Release))))
	f.Until = ""
	got = night(t, f, d)
	require.Equal(t, Published, got.Result, got.Error)
	require.Equal(t, "20260101-040000", got.Build)
	require.Equal(t, d.Name+"/20260101-040000", got.Release)
}

// What a sealed release has is not written over when its run is sealed again.
func TestSealedStaysAsItIs(t *testing.T) {
	f, d, now, _ := changing(t)
	require.Equal(t, Published, night(t, f, d).Result)
	*now = now.Add(time.Hour)
	f.Until = StageSeal
	got := night(t, f, d)
	changes := filepath.Join(f.Dir, workName, releaseName, d.Name, got.Build, d.Name+"-"+got.Build+".changes")
	held := filepath.Join(t.TempDir(), "x")
	require.NoError(t, os.Link(changes, held))
	before, err := os.Stat(held)
	require.NoError(t, err)
	f.From = StageSeal
	*now = now.Add(time.Hour)
	require.Equal(t, Waiting, night(t, f, d).Result)
	after, err := os.Stat(held)
	require.NoError(t, err)
	require.Equal(t, before.ModTime(), after.ModTime())
}

// A journal that calls a stage done which has left nothing cannot be used.
func TestJournalOfNothing(t *testing.T) {
	const at = `"tries":1,"begun":"2026-01-01T03:00:00Z","ended":"2026-01-01T03:00:00Z","duration_ms":1,"inputs":{},"outputs":{}`
	const built = `"built":{"at":"2026-01-01T03:00:00Z","tool":"x","tool_version":"1","args":[],"env":[]}`
	for stage, more := range map[string]string{
		`{"stage":"build",` + at + `,"result":"done",` + built + `}`: "",
		`{"stage":"inspect",` + at + `,"result":"done"}`:             "",
		`{"stage":"test",` + at + `,"result":"done"}`:                "",
		`{"stage":"seal",` + at + `,"result":"done"}`:                "",
		`{"stage":"test",` + at + `,"result":"unchanged"}`:           "",
	} {
		text := `{"version":1,"image":"Standard_Good_1","build":"20260101-030000","definition_sha256":"","stages":[` + stage + more + `],"result":"","ended":"0001-01-01T00:00:00Z"}`
		_, err := readJournal(strings.NewReader(text))
		require.ErrorIs(t, err, errNoJournal, stage)
		require.NotContains(t, err.Error(), "no JSON", stage)
	}
}
