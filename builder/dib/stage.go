package dib

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/opentelekomcloud/go-imagefactory/builder"
)

// hookElement is the driver's own element; see element/.
const hookElement = "imagefactory"

//go:embed element shims
var embedded embed.FS

// maxKeyFile bounds the size of a file of trusted keys.
const maxKeyFile = 4 << 20

// stage puts together what the tool is given, locally in r.config, and uploads
// it to the host's work directory.
func (r *run) stage(ctx context.Context) error {
	var mapper strings.Builder
	err := r.host.Run(ctx, builder.Command{Args: []string{"dmsetup", "version"}, Stdout: &mapper})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.mapper = err == nil

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
		if err := copyTree(filepath.Join(r.config, "elements", strconv.Itoa(i)), dir); err != nil {
			return fmt.Errorf("cannot read the elements in %s: %w", dir, err)
		}
	}
	if err := r.writeKeyring(); err != nil {
		return err
	}
	if err := r.writeRepositories(); err != nil {
		return err
	}
	if err := r.host.Upload(ctx, r.spec.WorkDir, os.DirFS(r.config)); err != nil {
		return fmt.Errorf("cannot prepare the work directory: %w", err)
	}
	element, _ := fs.Sub(embedded, "element")
	shims, _ := fs.Sub(embedded, "shims")
	err = errors.Join(
		r.host.Upload(ctx, path.Join(r.at("driver"), hookElement), element),
		r.host.Upload(ctx, r.at("shims"), shims))
	if err != nil {
		return fmt.Errorf("cannot prepare the work directory: %w", err)
	}
	// embed keeps no modes; all of these are programs.
	commands := [][]string{
		{"chmod", "-R", "u=rwX,go=rX,a+x", r.at("driver"), r.at("shims")},
		{"mkdir", "-p", r.at("tmp"), r.at("home"), r.at("repositories")},
	}
	for _, args := range commands {
		if err := r.host.Run(ctx, builder.Command{Args: args}); err != nil {
			return fmt.Errorf("cannot prepare the work directory: %w", err)
		}
	}
	return nil
}

// copyTree copies a directory of elements: regular files with their modes.
// os.DirFS would follow links out of it, os.Root does not.
func copyTree(dst, src string) error {
	root, err := os.OpenRoot(src)
	if err != nil {
		return err
	}
	defer root.Close()
	return builder.Local{}.Upload(context.Background(), dst, root.FS())
}

// writeKeyring writes the trusted keys, and only them, as one binary keyring.
func (r *run) writeKeyring() error {
	var out bytes.Buffer
	for _, k := range r.spec.TrustedKeys {
		name := k.File
		if !filepath.IsAbs(name) {
			name = filepath.Join(r.spec.Dir, name)
		}
		entities, err := readKeys(name)
		if err != nil {
			return fmt.Errorf("cannot read the trusted keys in %s: %w", k.File, err)
		}
		wanted := map[string]bool{}
		for _, f := range k.Fingerprints {
			wanted[f] = true
		}
		for _, e := range entities {
			f := fmt.Sprintf("%X", e.PrimaryKey.Fingerprint)
			if len(k.Fingerprints) > 0 && !wanted[f] {
				continue
			}
			delete(wanted, f)
			if err := e.Serialize(&out); err != nil {
				return fmt.Errorf("cannot write the trusted key %s: %w", f, err)
			}
		}
		if len(wanted) > 0 {
			return fmt.Errorf("%s has no key %s", k.File, strings.Join(slices.Sorted(maps.Keys(wanted)), ", "))
		}
	}
	return os.WriteFile(filepath.Join(r.config, "keyring.gpg"), out.Bytes(), 0o644)
}

func readKeys(name string) (openpgp.EntityList, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("more than %d bytes", maxKeyFile)
	}
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN")) {
		return openpgp.ReadArmoredKeyRing(bytes.NewReader(data))
	}
	return openpgp.ReadKeyRing(bytes.NewReader(data))
}

// writeRepositories writes the image's own repositories in the format of
// sources.list(5), signed by Debian's archive keyring as it is in the image.
func (r *run) writeRepositories() error {
	dir := filepath.Join(r.config, "repositories")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, repo := range r.spec.Repositories {
		components := repo.Components
		if len(components) == 0 {
			components = []string{"main"}
		}
		text := fmt.Sprintf("Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n",
			repo.URL, strings.Join(repo.Suites, " "), strings.Join(components, " "))
		if err := os.WriteFile(filepath.Join(dir, repo.Name+".sources"), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
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
