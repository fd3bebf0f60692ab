package imagefactory

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/internal/configtar"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// stateTimeout is how long a builder may take to tell what it would build from.
const stateTimeout = 15 * time.Minute

// readState asks the builder what it would build from now. It is nil where nobody can
// tell, also if a mirror is not reached, or drips: a builder on another host may reach
// it. A mirror with another fault is the error.
func (p *product) readState(ctx context.Context) (*builder.State, error) {
	b, ok := p.builder.(builder.Stater)
	if !ok {
		return nil, nil //nolint:nilnil // as documented
	}
	who := "builder " + p.def.Builder.Driver
	limited, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
	var state *builder.State
	err := contain(p.log, who, "State", func() (err error) {
		state, err = b.State(limited, p.host, p.spec())
		return err
	})
	var fault *builder.MirrorError
	switch {
	case ctx.Err() != nil:
		return nil, errors.Join(err, ctx.Err())
	case err != nil && limited.Err() != nil, errors.As(err, &fault) && fault.Fault == builder.Unreachable:
		p.log.WarnContext(ctx, "it is not known what the mirrors have", "error", err)
		return nil, nil //nolint:nilnil // as documented
	case err != nil:
		return nil, err
	}
	if err := state.Validate(); err != nil {
		return nil, fmt.Errorf("%s gave a state that cannot be used: %w", who, err)
	}
	return state, nil
}

// sameState reports whether a build would be of what the latest release was built from:
// the definition, what it refers to, the tool and the mirrors' indexes. It is recorded
// then. A mirror that has gone back in time since is an error.
func (j *job) sameState(ctx context.Context, r *record) (bool, error) {
	var err error
	if j.state, err = j.readState(ctx); j.state == nil || err != nil {
		return false, err
	}
	previous, err := j.predecessor(ctx)
	if previous == nil || err != nil {
		return false, err
	}
	earlier, err := releasedState(previous)
	if err != nil {
		j.log.WarnContext(ctx, "it is not known what the latest release was built from", "error", err)
		return false, nil
	}
	if j.factory.Force {
		return false, nil
	}
	if err := j.state.After(earlier); err != nil {
		return false, fmt.Errorf("%w; force the run to build from it nevertheless", err)
	}
	age := j.factory.now().Sub(previous.Index.Build.Time())
	if !j.state.Equal(earlier) || previous.Index.DefinitionSHA256 != j.digest || age > cmp.Or(j.factory.RebuildAfter, defaultRebuildAfter) || j.judgedAnew(ctx, previous) {
		return false, nil
	}
	j.log.InfoContext(ctx, "nothing to build", "release", previous.Index.Build)
	r.Result, r.Previous = resultUnchanged, previous.Index.Build.String()
	return true, nil
}

const defaultRebuildAfter = 7 * 24 * time.Hour

// confirmState forgets the state that was read before a build if the mirrors have
// another by its end: then nobody knows from which of both the packages are.
func (j *job) confirmState(ctx context.Context) error {
	if j.state == nil {
		return nil
	}
	now, err := j.readState(ctx)
	if err == nil && !j.state.Equal(now) || err != nil && ctx.Err() == nil {
		j.log.WarnContext(ctx, "the mirrors have changed while the image was built: what they had is not recorded", "error", err)
		j.state, err = nil, nil
	}
	return err
}

// stateText is the state as the archive of configuration has it, or nil.
func (j *job) stateText() ([]byte, error) {
	if j.state == nil {
		return nil, nil
	}
	text, err := json.MarshalIndent(j.state, "", "  ")
	return append(text, '\n'), err
}

// releasedState is the state that a verified release has recorded, or nil.
func releasedState(r *publish.Release) (*builder.State, error) {
	data, err := readRelease(r, r.Index.Image+"-"+r.Index.Build.String()+".config.tar.gz")
	if err != nil {
		return nil, err
	}
	return parseState(data)
}

func parseState(archive []byte) (*builder.State, error) {
	text, err := configtar.File(bytes.NewReader(archive), configtar.Mirrors)
	if text == nil || err != nil {
		return nil, err
	}
	var s builder.State
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", configtar.Mirrors, err)
	}
	return &s, s.Validate()
}

// sameConfig compares the archive of configuration with the previous release's, but for
// what the mirrors had.
func (j *job) sameConfig(previous *publish.Release) (bool, error) {
	data, err := readRelease(previous, j.name+"-"+previous.Index.Build.String()+".config.tar.gz")
	if err != nil {
		return false, err
	}
	had, err := configtar.Digest(bytes.NewReader(data))
	if err != nil {
		return false, nil // what cannot be read is another
	}
	f, err := os.Open(j.file(".config.tar.gz"))
	if err != nil {
		return false, err
	}
	defer f.Close()
	have, err := configtar.Digest(f)
	return had == have, err
}

// indexMaterials are the mirrors' indexes, for the provenance.
func (j *job) indexMaterials() ([]signing.Resource, error) {
	data, err := os.ReadFile(j.file(".config.tar.gz"))
	if err != nil {
		return nil, err
	}
	state, err := parseState(data)
	if state == nil || err != nil {
		return nil, err
	}
	var materials []signing.Resource
	for _, x := range state.Indexes {
		m := signing.Resource{Name: x.Mirror + "/" + x.Path, Digest: map[string]string{"sha256": x.SHA256}}
		if url := j.mirrors[x.Mirror]; url != "" {
			m.URI = strings.TrimRight(url, "/") + "/" + x.Path
		}
		m.Annotations = map[string]any{}
		if !x.Date.IsZero() {
			m.Annotations["date"] = x.Date.UTC().Format(time.RFC3339)
		}
		if x.Signer != "" {
			m.Annotations["signed_by"] = x.Signer
		}
		materials = append(materials, m)
	}
	return materials, nil
}
