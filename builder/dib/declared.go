package dib

import (
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/internal/pkgkeys"
)

// declaredFile is what an element's own list of files is called: what its
// scripts write, in the format of ledger.ParseRules.
const declaredFile = "image-files"

// ownFiles is what diskimage-builder's elements and the driver write.
//
//go:embed image-files
var ownFiles string

// DeclaredFiles implements [builder.Declarer]: what diskimage-builder's own
// elements are known to write, the repositories of the spec, and for each element of
// ElementPaths that the configuration uses its list "image-files" and the tree
// below static/, which the element install-static copies.
func (t tool) DeclaredFiles(spec builder.Spec) (string, error) {
	dir, err := os.MkdirTemp("", "dib-files-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	r := &run{Config: t.config, spec: spec, config: filepath.Join(dir, "config")}
	if err := os.Mkdir(r.config, 0o755); err != nil {
		return "", err
	}
	trusted, err := pkgkeys.Trusted(r.spec)
	if err != nil {
		return "", err
	}
	if err := r.writeRepositories(trusted); err != nil {
		return "", err
	}
	var list strings.Builder
	list.WriteString(ownFiles)
	list.WriteString("\n# The definition's repositories, and the keys that sign them.\n")
	err = declareTree(&list, os.DirFS(filepath.Join(r.config, "repositories")), func(name string) string {
		if path.Ext(name) == ".gpg" {
			return path.Join("/usr/share/keyrings", name)
		}
		return path.Join("/etc/apt/sources.list.d", name)
	})
	if err != nil {
		return "", err
	}
	if err := r.declareElements(&list); err != nil {
		return "", err
	}
	return list.String(), nil
}

// declareElements walks the used elements of ElementPaths.
func (r *run) declareElements(list *strings.Builder) error {
	queue, seen := r.Elements, map[string]bool{}
	for len(queue) > 0 {
		name := queue[0]
		queue = queue[1:]
		if seen[name] || !elementName.MatchString(name) {
			continue
		}
		seen[name] = true
		for _, dir := range r.ElementPaths {
			if !filepath.IsAbs(dir) {
				dir = filepath.Join(r.spec.Dir, dir)
			}
			root, err := os.OpenRoot(filepath.Join(dir, name))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			deps, err := declareElement(list, root.FS(), name)
			if err := errors.Join(err, root.Close()); err != nil {
				return fmt.Errorf("cannot read the files of element %s: %w", name, err)
			}
			queue = append(queue, deps...)
			break
		}
	}
	return nil
}

func declareElement(list *strings.Builder, element fs.FS, name string) (deps []string, err error) {
	own, err := fs.ReadFile(element, declaredFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	fmt.Fprintf(list, "\n%s\n# The static files of the element %s.\n", own, name)
	if static, err := fs.Sub(element, "static"); err == nil {
		if err := declareTree(list, static, func(name string) string { return "/" + name }); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	text, err := fs.ReadFile(element, "element-deps")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return strings.Fields(string(text)), nil
}

// declareTree lists the files of a tree, which are copied to where place says.
func declareTree(list *strings.Builder, tree fs.FS, place func(name string) string) error {
	return fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if strings.ContainsAny(name, " \t\r\n*?[\\") {
			return fmt.Errorf("cannot declare the file %q: use plain characters", name)
		}
		if d.Type() == fs.ModeSymlink {
			target, err := fs.ReadLink(tree, name)
			if err == nil && strings.ContainsAny(target, " \t\r\n*") {
				err = fmt.Errorf("cannot declare the link %q: use plain characters", name)
			}
			fmt.Fprintf(list, "l * root:root %s target=%s\n", place(name), target)
			return err
		}
		data, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		mode := "0644"
		if st.Mode()&0o100 != 0 {
			mode = "0755"
		}
		fmt.Fprintf(list, "f %s root:root %s content=%x\n", mode, place(name), sha256.Sum256(data))
		return nil
	})
}
