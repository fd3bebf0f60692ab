package imagefactory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/internal/configtar"
	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// archiveSuffix is that of a release's archive of configuration.
const archiveSuffix = ".config.tar.gz"

// Build builds the image of a definition and does nothing else: no test, no release. It
// makes the directory out, which must not exist, with NAME-BUILD.qcow2, .packages,
// .config.tar.gz, .build.log and .buildhost, as rebuild.Compare and rebuild.CompareBuilds
// take them.
// The work directory is out/.work/NAME/build; it is left where the builder could not free
// it (builder.Cleanup).
// Of the factory it needs Builders, and Host and Hosts where the definition is built
// elsewhere. A build that fails leaves its log.
func (f *Factory) Build(ctx context.Context, d Definition, out string) error {
	return f.buildInto(ctx, d, publish.NewBuildID(f.now()), out)
}

// Rebuild is [Factory.Build] of what an archive of configuration holds, which the
// caller has verified: a release's NAME-BUILD.config.tar.gz. mirrors replace those that
// it names; nil keeps them. The new image has the build ID of the archive's name, if
// there is one, since tools write it into images.
func (f *Factory) Rebuild(ctx context.Context, archive string, mirrors map[string]string, out string) error {
	dir, err := os.MkdirTemp("", "rebuild-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d, err := openArchive(archive, dir)
	if err != nil {
		return fmt.Errorf("cannot build from %s: %w", archive, err)
	}
	if mirrors != nil {
		d.Mirrors = maps.Clone(mirrors)
	}
	id := publish.NewBuildID(f.now())
	name := strings.TrimSuffix(filepath.Base(archive), archiveSuffix)
	if given, err := publish.ParseBuildID(strings.TrimPrefix(name, d.Name+"-")); err == nil {
		id = given
	}
	return f.buildInto(ctx, d, id, out)
}

// openArchive extracts an archive into dir and returns the definition that it is of.
func openArchive(archive, dir string) (Definition, error) {
	file, err := openRegular(archive)
	if err != nil {
		return Definition{}, err
	}
	defer file.Close()
	if err := configtar.Extract(file, dir); err != nil {
		return Definition{}, err
	}
	definitions, err := LoadFile(filepath.Join(dir, "nightly.yaml"))
	if err != nil {
		return Definition{}, err
	}
	if len(definitions) != 1 {
		return Definition{}, fmt.Errorf("its nightly.yaml is of %d images", len(definitions))
	}
	return definitions[0], nil
}

func (f *Factory) buildInto(ctx context.Context, d Definition, id publish.BuildID, out string) error {
	own := *f
	own.AnyClass = true
	var err error
	if own.Dir, err = filepath.Abs(out); err != nil {
		return err
	}
	parts, err := own.parts()
	if err != nil {
		return err
	}
	p, err := own.newProduct(parts, &d)
	if err != nil {
		return err
	}
	if p.fault != nil {
		return p.fault
	}
	p.dir = own.Dir
	if err := os.Mkdir(p.dir, 0o755); err != nil {
		return fmt.Errorf("cannot make the directory of the build: %w", err)
	}
	j := &job{product: p, build: id, runDir: p.dir, journal: &journal{}, known: map[string]knownFile{}, report: p.newReport()}
	err = j.runBuild(ctx, j.journal.begin(StageBuild, f.now(), nil))
	// A work directory that its builder could not free is left for builder.Cleanup: no
	// more than empty directories go.
	_, _ = os.Remove(p.workDir()), os.Remove(filepath.Join(p.dir, workName))
	return errors.Join(err, os.RemoveAll(filepath.Join(p.dir, outName)))
}
