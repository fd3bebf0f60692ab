package dib

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
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
		if err := copyTree(ctx, filepath.Join(r.config, "elements", strconv.Itoa(i)), dir); err != nil {
			return fmt.Errorf("cannot read the elements in %s: %w", dir, err)
		}
	}
	if err := errors.Join(r.writeOwn("element", "driver/"+hookElement), r.writeOwn("shims", "shims")); err != nil {
		return err
	}
	trusted, err := r.trustedKeys()
	if err != nil {
		return err
	}
	return errors.Join(writeKeyring(filepath.Join(r.config, "keyring.gpg"), trusted), r.writeRepositories(trusted))
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

// copyTree copies a directory of elements: regular files with their modes and
// links. os.DirFS would follow links out of it, os.Root does not.
func copyTree(ctx context.Context, dst, src string) error {
	root, err := os.OpenRoot(src)
	if err != nil {
		return err
	}
	defer root.Close()
	return builder.Local{}.Upload(ctx, dst, root.FS())
}

// treeDigest stands for the names, modes and contents of a tree.
func treeDigest(dir string) (string, error) {
	h := sha256.New()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		var data []byte
		if d.Type() == fs.ModeSymlink {
			var target string
			target, err = root.Readlink(name)
			data = []byte(target)
		} else {
			data, err = root.ReadFile(name)
		}
		fmt.Fprintf(h, "%q %v %x\n", name, st.Mode(), sha256.Sum256(data))
		return err
	})
	return hex.EncodeToString(h.Sum(nil)), err
}

// trustedKeys reads the keys that the spec trusts, and only them.
func (r *run) trustedKeys() (openpgp.EntityList, error) {
	var trusted openpgp.EntityList
	for _, k := range r.spec.TrustedKeys {
		name := k.File
		if !filepath.IsAbs(name) {
			name = filepath.Join(r.spec.Dir, name)
		}
		entities, err := readKeys(name)
		if err != nil {
			return nil, fmt.Errorf("cannot read the trusted keys in %s: %w", k.File, err)
		}
		wanted := map[string]bool{}
		for _, f := range k.Fingerprints {
			wanted[f] = true
		}
		for _, e := range entities {
			f := primary(e)
			if len(k.Fingerprints) > 0 && !wanted[f] {
				continue
			}
			delete(wanted, f)
			trusted = append(trusted, e)
		}
		if len(wanted) > 0 {
			return nil, fmt.Errorf("%s has no key %s", k.File, strings.Join(slices.Sorted(maps.Keys(wanted)), ", "))
		}
	}
	return trusted, nil
}

func primary(e *openpgp.Entity) string { return fmt.Sprintf("%X", e.PrimaryKey.Fingerprint) }

// writeKeyring writes keys as a binary keyring.
func writeKeyring(name string, keys openpgp.EntityList) error {
	var out bytes.Buffer
	for _, e := range keys {
		if err := e.Serialize(&out); err != nil {
			return fmt.Errorf("cannot write the trusted key %s: %w", primary(e), err)
		}
	}
	return os.WriteFile(name, out.Bytes(), 0o644)
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
// sources.list(5), signed by Debian's archive keyring as it is in the image, or
// by one of the trusted keys, which then comes with it.
func (r *run) writeRepositories(trusted openpgp.EntityList) error {
	dir := filepath.Join(r.config, "repositories")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, repo := range r.spec.Repositories {
		keyring := "debian-archive-keyring.gpg"
		if repo.Key != "" {
			i := slices.IndexFunc(trusted, func(e *openpgp.Entity) bool { return primary(e) == repo.Key })
			if i < 0 {
				return fmt.Errorf("repositories: %s is signed by %s, which is none of the trusted keys", repo.Name, repo.Key)
			}
			keyring = "imagefactory-" + repo.Name + ".gpg"
			if err := writeKeyring(filepath.Join(dir, keyring), trusted[i:i+1]); err != nil {
				return err
			}
		}
		components := repo.Components
		if len(components) == 0 {
			components = []string{"main"}
		}
		text := fmt.Sprintf("Types: deb\nURIs: %s\nSuites: %s\n", repo.URL, strings.Join(repo.Suites, " "))
		if !slices.ContainsFunc(repo.Suites, func(s string) bool { return strings.HasSuffix(s, "/") }) { // a flat repository has none
			text += fmt.Sprintf("Components: %s\n", strings.Join(components, " "))
		}
		text += fmt.Sprintf("Signed-By: /usr/share/keyrings/%s\n", keyring)
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
