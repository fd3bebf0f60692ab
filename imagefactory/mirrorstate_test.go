package imagefactory

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// stater is a builder that knows what its mirrors have.
type stater struct {
	builderFunc
	state func() (*builder.State, error)
}

func (s stater) State(context.Context, builder.Host, builder.Spec) (*builder.State, error) {
	return s.state()
}

// dripping is a builder whose mirrors drip.
type dripping struct{ builderFunc }

func (dripping) State(ctx context.Context, _ builder.Host, _ builder.Spec) (*builder.State, error) {
	<-ctx.Done()
	return nil, fmt.Errorf("cannot read the index: %w", ctx.Err())
}

// A mirror that takes for ever is as one that is not reached: the night goes on.
func TestMirrorThatDrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &product{def: &Definition{}, builder: dripping{}, log: slog.New(slog.DiscardHandler)}
		begun := time.Now()
		s, err := p.readState(t.Context())
		require.NoError(t, err)
		require.Nil(t, s)
		require.Equal(t, 15*time.Minute, time.Since(begun))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = p.readState(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

// TestMirrorState runs nights over mirrors that change, or are at fault.
func TestMirrorState(t *testing.T) {
	f, d := embedded(t)
	now := time.Date(2026, 9, 1, 3, 15, 7, 0, time.UTC)
	f.Now = func() time.Time { return now }
	built := 0
	digest, day, fault := "a", 20, error(nil)
	during := func() {} // a build
	version := "1"
	state := func() (*builder.State, error) {
		return &builder.State{Tool: "own 1", Indexes: []builder.Index{{
			Mirror: "debian", Path: "dists/x/InRelease", SHA256: strings.Repeat(digest, 64), Date: time.Date(2026, 11, day, 0, 0, 0, 0, time.UTC), Signer: "AB",
		}}}, fault
	}
	f.Builders = []BuilderDriver{builderDriver{"good", func(decode func(any) error) (builder.Builder, error) {
		return stater{func(ctx context.Context, s builder.Spec) (*builder.Result, error) {
			built++
			during()
			r, err := goodBuild(ctx, s)
			if err == nil {
				r.Packages[0].Version = version
			}
			return r, err
		}, state}, decode(&struct{}{})
	}}}
	night := func() ImageReport {
		now, built = now.Add(24*time.Hour), 0
		report, err := f.Run(t.Context(), []Definition{d})
		require.NoError(t, err)
		return report.Images[0]
	}

	first := night()
	require.Equal(t, Published, first.Result, first.Error)
	keyring, err := signing.PinKeys(testKey)
	require.NoError(t, err)
	release, err := publish.Open(t.Context(), filepath.Join(f.Dir, first.Release), keyring)
	require.NoError(t, err)
	recorded, err := releasedState(release)
	require.NoError(t, err)
	want, _ := state()
	require.True(t, want.Equal(recorded))
	materials := provenanceMaterials(t, filepath.Join(release.Dir, d.Name+"-"+first.Build+".provenance.json"))
	require.Contains(t, materials, `"name":"debian/dists/x/InRelease"`)
	require.Contains(t, materials, strings.Repeat("a", 64))
	require.Contains(t, materials, `"date":"2026-11-20T00:00:00Z"`)

	got := night()
	require.Equal(t, Unchanged, got.Result, got.Error)
	require.Equal(t, 0, built, "nothing is built")
	left, err := filepath.Glob(filepath.Join(f.Dir, ".work", d.Name, "*"))
	require.NoError(t, err)
	require.Empty(t, left)

	digest, day = "b", 21
	got = night()
	require.Equal(t, Unchanged, got.Result, got.Error)
	require.Equal(t, 1, built, "a new index may have new packages")

	version = "2"
	got = night()
	require.Equal(t, Published, got.Result, got.Error)

	digest, day = "a", 20
	got = night()
	require.Equal(t, Failed, got.Result)
	require.Equal(t, 0, built)
	require.Contains(t, got.Error, "mirror gone back in time: debian: dists/x/InRelease: it is of 2026-11-20")
	f.Force = true
	got = night()
	require.Equal(t, Published, got.Result, got.Error)
	f.Force = false

	got = night()
	require.Equal(t, 0, built)
	require.Equal(t, Unchanged, got.Result, got.Error)
	now = now.Add(8 * 24 * time.Hour)
	got = night()
	require.Equal(t, 1, built, "it is older than the limit")
	require.Equal(t, Unchanged, got.Result, got.Error)

	d.NTPServers = []string{"ntp.example.org"}
	_ = night()
	require.Equal(t, 1, built, "another definition is built")
	d.NTPServers = nil

	for name, err := range map[string]error{
		"index expired":                     &builder.MirrorError{Index: "http://mirror.example.org/x", Fault: builder.Expired},
		"not signed by a trusted key":       &builder.MirrorError{Index: "http://mirror.example.org/x", Fault: builder.Unsigned},
		"mirror in the middle of an update": &builder.MirrorError{Index: "http://mirror.example.org/x", Fault: builder.MidSync},
	} {
		fault = err
		got = night()
		require.Equal(t, Failed, got.Result)
		require.Equal(t, 0, built)
		require.Contains(t, got.Error, name)
	}
	fault = &builder.MirrorError{Index: "http://mirror.example.org/x", Fault: builder.Unreachable}
	_ = night()
	require.Equal(t, 1, built, "the builder may reach what this machine does not")
	fault = nil

	// Who knows from which of both the packages are?
	during = func() { digest, day = "c", 25 }
	version = "3"
	got = night()
	require.Equal(t, Published, got.Result, got.Error)
	release, err = publish.Open(t.Context(), filepath.Join(f.Dir, got.Release), keyring)
	require.NoError(t, err)
	recorded, err = releasedState(release)
	require.NoError(t, err)
	require.Nil(t, recorded)
	require.Equal(t, 1, func() int { _ = night(); return built }())
}

// provenanceMaterials is the payload of an envelope.
func provenanceMaterials(t *testing.T, name string) string {
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	var envelope struct {
		Payload []byte `json:"payload"`
	}
	require.NoError(t, json.Unmarshal(data, &envelope))
	return string(envelope.Payload)
}

func TestBadState(t *testing.T) {
	f, d := embedded(t)
	for want, state := range map[string]func() (*builder.State, error){
		"gave a state that cannot be used": func() (*builder.State, error) { return &builder.State{Tool: "x"}, nil },
		"State panicked: on fire":          func() (*builder.State, error) { panic("on fire") },
	} {
		f.Builders = []BuilderDriver{builderDriver{"good", func(decode func(any) error) (builder.Builder, error) {
			return stater{goodBuild, state}, decode(&struct{}{})
		}}}
		report, err := f.Run(t.Context(), []Definition{d})
		require.NoError(t, err)
		require.Equal(t, Failed, report.Images[0].Result)
		require.Contains(t, report.Images[0].Error, want)
	}
}
