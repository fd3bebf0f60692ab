package dib

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/internal/filetree"
	"github.com/opentelekomcloud/go-imagefactory/internal/pkgkeys"
)

// hookElement is the driver's own element; see element/.
const hookElement = "imagefactory"

//go:embed element shims create_appliance.sh
var embedded embed.FS

// stage uploads what the tool is given to the host's work directory.
func (r *run) stage(ctx context.Context) error {
	var mapper strings.Builder
	err := r.host.Run(ctx, builder.Command{Args: []string{"dmsetup", "version"}, Stdout: &mapper})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.mapper = err == nil

	if err := r.write(ctx); err != nil {
		return err
	}
	err = errors.Join(
		r.host.Upload(ctx, r.spec.WorkDir, os.DirFS(r.config)),
		r.host.Run(ctx, builder.Command{Args: []string{"mkdir", "-p", r.at("tmp"), r.at("home"), r.at("repositories")}}))
	if err != nil {
		return fmt.Errorf("cannot prepare the work directory: %w", err)
	}
	return nil
}

// write puts together what the tool is given, in r.config.
func (r *run) write(ctx context.Context) error {
	if err := os.RemoveAll(r.config); err != nil {
		return err
	}
	if err := os.Mkdir(r.config, 0o755); err != nil {
		return err
	}
	for i, dir := range r.ElementPaths {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(r.spec.Dir, dir)
		}
		if err := filetree.Copy(ctx, filepath.Join(r.config, "elements", strconv.Itoa(i)), dir); err != nil {
			return fmt.Errorf("cannot read the elements in %s: %w", dir, err)
		}
	}
	if err := errors.Join(r.writeOwn("element", "driver/"+hookElement), r.writeOwn("shims", "shims")); err != nil {
		return err
	}
	trusted, err := pkgkeys.Trusted(r.spec)
	if err != nil {
		return err
	}
	return errors.Join(pkgkeys.Write(filepath.Join(r.config, "keyring.gpg"), trusted...), r.writeRepositories(trusted), r.writeAppliance())
}

// writeOwn writes programs of the driver, which embed keeps without their modes.
func (r *run) writeOwn(from, to string) error {
	return fs.WalkDir(embedded, from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		dst := filepath.Join(r.config, to, strings.TrimPrefix(name, from))
		if d.IsDir() {
			return os.MkdirAll(dst, 0o755)
		}
		data, err := embedded.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(dst, data, 0o755)
	})
}

func (r *run) writeRepositories(trusted openpgp.EntityList) error {
	return pkgkeys.WriteApt(filepath.Join(r.config, "repositories"), r.spec.Repositories, trusted)
}

// portable is the configuration with the paths that it has in r.config.
func (r *run) portable() Config {
	c := r.Config
	c.ElementPaths = nil
	for i := range r.ElementPaths {
		c.ElementPaths = append(c.ElementPaths, "elements/"+strconv.Itoa(i))
	}
	return c
}
