package imagefactory

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/opentelekomcloud/go-imagefactory/builder"
)

// builtFiles are what a build hands on.
var builtFiles = []string{".qcow2", ".packages", ".config.tar.gz", ".build.log"}

// outName is the directory in the run's that the builder writes into. Nothing
// of the factory's is there, and what a builder returns must be.
const outName = "out"

// runBuild begins with an empty directory: what an earlier try left is of no use.
func (j *job) runBuild(ctx context.Context, r *record) (err error) {
	if err := errors.Join(os.RemoveAll(j.runDir), os.Mkdir(j.runDir, 0o755)); err != nil {
		return fmt.Errorf("cannot make the run's directory: %w", err)
	}
	log, err := createNew(j.file(".build.log"))
	if err != nil {
		return fmt.Errorf("cannot write the build log: %w", err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	out := filepath.Join(j.runDir, outName)
	if err := os.Mkdir(out, 0o755); err != nil {
		return fmt.Errorf("cannot make the builder's output directory: %w", err)
	}
	if same, err := j.sameState(ctx, r); same || err != nil {
		return err
	}
	spec := j.spec()
	spec.Build = j.build.String()
	spec.WorkDir = j.buildDir()
	spec.OutputDir = out
	spec.Log, spec.Logger = log, j.log
	result, err := j.callBuilder(ctx, spec)
	if err != nil {
		return err
	}
	if err := j.confirmState(ctx); err != nil {
		return err
	}
	r.Built = &built{At: j.factory.now(), Tool: result.Tool, ToolVersion: result.ToolVersion, Args: result.Args, Env: result.Env}
	if err := j.takeBuilt(out, result); err != nil {
		return err
	}
	for _, suffix := range builtFiles { // the journal tells of what is there after a power cut too
		if err := syncDir(j.file(suffix)); err != nil {
			return fmt.Errorf("cannot write the build's files: %w", err)
		}
	}
	return errors.Join(syncDir(j.runDir), j.wrote(ctx, r, builtFiles...))
}

// callBuilder has the image built and sees that the result is one.
func (j *job) callBuilder(ctx context.Context, spec builder.Spec) (*builder.Result, error) {
	who := "builder " + j.def.Builder.Driver
	var result *builder.Result
	err := contain(j.log, who, "Build", func() (err error) {
		result, err = j.builder.Build(ctx, j.host, spec)
		return err
	})
	if err != nil {
		return nil, err
	}
	if result != nil { // what it keeps a hold of is not what is used
		r := *result
		r.Packages, r.Args, r.Env = slices.Clone(r.Packages), slices.Clone(r.Args), slices.Clone(r.Env)
		result = &r
	}
	if err := result.Validate(spec); err != nil {
		return nil, fmt.Errorf("%s gave a result that cannot be used: %w", who, err)
	}
	return result, nil
}

// takeBuilt takes over what the builder has left in its output directory, which
// goes. What it named is reached through the run's directory only, so that a link
// that leads out is not followed, also if it was put there meanwhile.
func (j *job) takeBuilt(out string, result *builder.Result) error {
	image, err := within(out, result.ImagePath)
	if err != nil {
		return err
	}
	config, err := within(out, result.ConfigDir)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(j.runDir)
	if err != nil {
		return err
	}
	defer root.Close()
	name := filepath.Base(j.file(".qcow2"))
	if err := root.Rename(filepath.Join(outName, image), name); err != nil {
		return fmt.Errorf("cannot take over the image: %w", err)
	}
	if st, err := root.Lstat(name); err != nil || !st.Mode().IsRegular() {
		return errors.Join(err, errors.New("cannot take over the image: it is not a regular file any more"))
	}
	if err := j.writePackages(result.Packages); err != nil {
		return fmt.Errorf("cannot write the package list: %w", err)
	}
	dir, err := root.OpenRoot(filepath.Join(outName, config))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := j.writeConfig(dir, result.Config); err != nil {
		return fmt.Errorf("cannot write the configuration's archive: %w", err)
	}
	return root.RemoveAll(outName)
}

// within is the path in dir of what builder.Result.Validate has found below it.
func within(dir, path string) (string, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", err
	}
	path = filepath.Clean(path)
	parent, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	return filepath.Rel(dir, filepath.Join(parent, filepath.Base(path)))
}

// createNew makes a file that is not there yet: what is in its place, such as a
// link, is not followed.
func createNew(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
}

func (j *job) writePackages(packages []builder.Package) error {
	f, err := createNew(j.file(".packages"))
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	for _, p := range packages {
		fmt.Fprintln(w, p.Name, p.Version, p.Arch)
	}
	return errors.Join(w.Flush(), f.Close())
}
