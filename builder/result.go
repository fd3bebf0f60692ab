package builder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// Bounds of a Result: far above what a real build gives, and low enough that
// nothing that reads it is in danger.
const (
	maxPackages    = 200_000
	maxWord        = 255      // bytes of a package's name, version or architecture
	maxCommand     = 1 << 20  // bytes of Args and Env together
	maxConfigFiles = 20_000   // in ConfigDir
	maxConfigBytes = 64 << 20 // of all files in ConfigDir
)

// Validate reports all that is wrong with what a Builder has returned for
// spec, so that nobody acts on a path or a text that a faulty one made up:
//
//   - the image is a regular file below spec.OutputDir, not empty, and not a
//     symbolic link; it may be a hard link to a file elsewhere, since who takes
//     it over renames and reads it, and holds it to its digest;
//   - ConfigDir is a directory below spec.OutputDir without the image in it; it
//     holds nothing but directories, regular files and links that stay inside,
//     at most 20,000 of them and 64 MiB;
//   - packages are sorted, each once, with name, version and architecture of
//     printable ASCII without spaces;
//   - the tool has a name, and nothing of what was run holds control characters
//     that do not belong there.
//
// A nil Result is an error too. Links on the way to spec.OutputDir itself are
// followed.
func (r *Result) Validate(spec Spec) error {
	if r == nil {
		return errors.New("the builder returned neither a result nor an error")
	}
	var errs []error
	image, err := r.validImage(spec.OutputDir)
	if err != nil {
		errs = append(errs, fmt.Errorf("image: %w", err))
	}
	config, err := below(spec.OutputDir, r.ConfigDir)
	if err == nil {
		err = validConfig(config)
	}
	if err == nil && image != "" && strings.HasPrefix(image, config+string(filepath.Separator)) {
		err = errors.New("the image lies in it")
	}
	if err != nil {
		errs = append(errs, fmt.Errorf("configuration directory: %w", err))
	}
	return errors.Join(append(errs, r.validPackages(), r.validCommand())...)
}

func (r *Result) validImage(dir string) (string, error) {
	path, err := below(dir, r.ImagePath)
	if err != nil {
		return "", err
	}
	st, err := os.Lstat(path)
	switch {
	case err != nil:
		return "", err
	case !st.Mode().IsRegular():
		return "", fmt.Errorf("%q is a %s, not a regular file", r.ImagePath, kind(st.Mode()))
	case st.Size() == 0:
		return "", fmt.Errorf("%q is empty", r.ImagePath)
	}
	return path, nil
}

// below returns where path really lies, which must be below dir. What path
// itself names is not followed if it is a link.
func below(dir, path string) (string, error) {
	if path == "" {
		return "", errors.New("no path")
	}
	root, err := resolve(dir)
	if err != nil {
		return "", fmt.Errorf("cannot resolve the output directory: %w", err)
	}
	path = filepath.Clean(path)
	parent, err := resolve(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	resolved := filepath.Join(parent, filepath.Base(path))
	rel, err := filepath.Rel(root, resolved)
	if err != nil || rel == "." || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("%q is not below the output directory %q", path, dir)
	}
	return resolved, nil
}

func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// validConfig walks the configuration's directory as who archives it does.
func validConfig(dir string) error {
	if st, err := os.Lstat(dir); err != nil || !st.IsDir() {
		if err == nil {
			err = fmt.Errorf("%q is a %s, not a directory", dir, kind(st.Mode()))
		}
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	files, bytes := 0, int64(0)
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if files++; files > maxConfigFiles {
			return fmt.Errorf("more than %d files", maxConfigFiles)
		}
		switch d.Type() {
		case fs.ModeDir:
			return nil
		case fs.ModeSymlink:
			if _, err := root.Stat(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("the link %q leads out of it or in circles", name)
			}
			return nil
		case 0:
			st, err := d.Info()
			if err != nil {
				return err
			}
			if bytes += st.Size(); bytes > maxConfigBytes {
				return fmt.Errorf("more than %d bytes", maxConfigBytes)
			}
			return nil
		}
		return fmt.Errorf("%q is a %s", name, kind(d.Type()))
	})
}

func kind(mode fs.FileMode) string {
	switch mode.Type() {
	case 0:
		return "regular file"
	case fs.ModeDir:
		return "directory"
	case fs.ModeSymlink:
		return "symbolic link"
	case fs.ModeNamedPipe:
		return "named pipe"
	case fs.ModeSocket:
		return "socket"
	}
	return "device"
}

func (r *Result) validPackages() error {
	if len(r.Packages) > maxPackages {
		return fmt.Errorf("packages: %d are more than %d", len(r.Packages), maxPackages)
	}
	for i, p := range r.Packages {
		for _, word := range []string{p.Name, p.Version, p.Arch} {
			if !validWord(word) {
				return fmt.Errorf("packages: number %d, %.300q: want name, version and architecture, each of 1 to %d printable characters without spaces",
					i+1, []string{p.Name, p.Version, p.Arch}, maxWord)
			}
		}
		if i > 0 && r.Packages[i-1].Compare(p) >= 0 {
			return fmt.Errorf("packages: number %d, %s, is there twice or not in its place: want them sorted by name, version and architecture", i+1, p.Name)
		}
	}
	return nil
}

// validWord reports whether s can be one word of a line.
func validWord(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != "" && len(s) <= maxWord
}

func (r *Result) validCommand() error {
	var errs []error
	if !validWord(r.Tool) {
		errs = append(errs, fmt.Errorf("tool: bad name %.300q", r.Tool))
	}
	if len(r.ToolVersion) > maxWord || strings.ContainsFunc(r.ToolVersion, func(c rune) bool { return c < ' ' || c > '~' }) {
		errs = append(errs, fmt.Errorf("tool: bad version %.300q", r.ToolVersion))
	}
	total := 0
	for key, values := range map[string][]string{"args": r.Args, "env": r.Env} {
		for i, v := range values {
			total += len(v) + 1
			if !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
				errs = append(errs, fmt.Errorf("%s: number %d is not text", key, i+1))
				break
			}
			// Its value may be a secret.
			if name, _, ok := strings.Cut(v, "="); key == "env" && (!ok || name == "") {
				errs = append(errs, fmt.Errorf("env: number %d is not NAME=VALUE", i+1))
				break
			}
		}
	}
	if total > maxCommand {
		errs = append(errs, fmt.Errorf("args and env: %d bytes are more than %d", total, maxCommand))
	}
	return errors.Join(errs...)
}
