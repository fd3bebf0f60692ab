package ledger

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/opentelekomcloud/go-imagefactory/internal/debs"
)

// A Package is one version of a package.
type Package struct {
	Name, Version, Arch string
}

func (p Package) String() string { return p.Name + " " + p.Version + " " + p.Arch }

// A Manifest is what a package consists of.
type Manifest struct {
	Files []File // sorted; HardLink is resolved
	// Control are the digests of the files that the package manager keeps
	// beside its database, by the last part of their name ("postinst").
	Control map[string]string
	// Scripts are the texts that run when the package is installed or removed.
	Scripts string
}

// DebianArchive reads packages of Debian's archive: apt-get fetches them,
// verified by the archive's signatures, and dpkg-deb unpacks them. Nothing of
// the machine's own package database is used or changed, but its apt's
// configuration counts, for proxies. Its methods may not be called concurrently.
type DebianArchive struct {
	Sources []DebianSource
	Keyring string // a file of the OpenPGP keys that may sign the indexes, for apt
	Arch    string // "amd64"
	// Dir keeps indexes and what was read of packages. It belongs to one
	// DebianArchive at a time.
	Dir string
}

// DebianSource is one source of packages, as in sources.list(5).
type DebianSource struct {
	URL        string
	Suite      string
	Components []string
}

// indexed is a package in a verified index.
type indexed struct {
	Package
	sha256 string
}

// Manifests returns the manifests of the packages that are in a signed index of
// the sources; the others are missing from the result. It reads the indexes
// anew, and only those packages that were not read before.
func (a *DebianArchive) Manifests(ctx context.Context, packages []Package) (map[Package]*Manifest, error) {
	m, err := a.manifests(ctx, packages)
	if err != nil {
		return nil, fmt.Errorf("cannot read the packages' contents: %w", err)
	}
	return m, nil
}

func (a *DebianArchive) manifests(ctx context.Context, packages []Package) (map[Package]*Manifest, error) {
	dir, err := filepath.Abs(a.Dir)
	if err != nil {
		return nil, err
	}
	apt, err := a.update(ctx, dir)
	if err != nil {
		return nil, err
	}
	index, err := readIndexes(ctx, apt, packages)
	if err != nil {
		return nil, err
	}
	var missing []indexed
	for _, p := range index {
		if _, err := os.Stat(manifestFile(dir, p)); err != nil {
			missing = append(missing, p)
		}
	}
	if err := fetchManifests(ctx, apt, dir, missing); err != nil {
		return nil, err
	}
	found := map[Package]*Manifest{}
	for _, p := range index {
		data, err := os.ReadFile(manifestFile(dir, p))
		if err != nil {
			return nil, err
		}
		m := new(Manifest)
		if err := json.Unmarshal(data, m); err != nil {
			return nil, fmt.Errorf("%s: %w", manifestFile(dir, p), err)
		}
		found[p.Package] = m
	}
	return found, nil
}

// AptOptions reads the indexes anew and returns the options with which apt uses
// them, and nothing else.
func (a *DebianArchive) AptOptions(ctx context.Context) ([]string, error) {
	dir, err := filepath.Abs(a.Dir)
	if err != nil {
		return nil, err
	}
	apt, err := a.update(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the archive's indexes: %w", err)
	}
	return apt, nil
}

func (a *DebianArchive) update(ctx context.Context, dir string) (debs.Apt, error) {
	apt, err := a.apt(dir)
	if err != nil {
		return nil, err
	}
	return apt, apt.Update(ctx)
}

// apt is a configuration that knows only the archive's own sources.
func (a *DebianArchive) apt(dir string) (debs.Apt, error) {
	for _, d := range []string{"state/lists/partial", "cache/archives/partial", "debs", "manifests"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	keyring, err := filepath.Abs(a.Keyring)
	if err != nil {
		return nil, err
	}
	var list strings.Builder
	for _, s := range a.Sources {
		line := fmt.Sprintf("deb [arch=%s signed-by=%s] %s %s %s", a.Arch, keyring, s.URL, s.Suite, strings.Join(s.Components, " "))
		if strings.ContainsAny(line, "\r\n") {
			return nil, errors.New("a source of packages has a line break")
		}
		list.WriteString(line + "\n")
	}
	sources := filepath.Join(dir, "sources.list")
	if err := os.WriteFile(sources, []byte(list.String()), 0o644); err != nil {
		return nil, err
	}
	apt := debs.Apt{}
	for _, option := range []string{
		"APT::Architecture=" + a.Arch, "APT::Architectures=" + a.Arch, "APT::Sandbox::User=root",
		"Dir::State=" + filepath.Join(dir, "state"), "Dir::State::status=/dev/null", "Dir::Cache=" + filepath.Join(dir, "cache"),
		"Dir::Etc::sourcelist=" + sources, "Dir::Etc::sourceparts=/dev/null", "Dir::Etc::preferences=/dev/null", "Dir::Etc::preferencesparts=/dev/null",
		"Acquire::GzipIndexes=false", "Acquire::Languages=none", "Acquire::Retries=3",
		"APT::Get::AllowUnauthenticated=false", "Acquire::AllowInsecureRepositories=false",
	} {
		apt = append(apt, "-o", option)
	}
	return apt, nil
}

// readIndexes looks packages up in the verified indexes.
func readIndexes(ctx context.Context, apt debs.Apt, packages []Package) ([]indexed, error) {
	files, err := apt.Indexes(ctx)
	if err != nil {
		return nil, err
	}
	wanted := map[Package]bool{}
	for _, p := range packages {
		wanted[p] = true
	}
	var found []indexed
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		err = readStanzas(f, func(s map[string]string) error {
			p := Package{s["Package"], s["Version"], s["Architecture"]}
			if wanted[p] && len(s["SHA256"]) == 64 {
				delete(wanted, p)
				found = append(found, indexed{p, s["SHA256"]})
			}
			return nil
		})
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(name), err)
		}
	}
	return found, nil
}

// readStanzas reads the format of Packages and of dpkg's status: fields in
// paragraphs. Continuation lines are kept with their line breaks.
func readStanzas(r io.Reader, each func(map[string]string) error) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 4<<20)
	stanza, key := map[string]string{}, ""
	for sc.Scan() {
		line := sc.Text()
		switch {
		case line == "":
			if len(stanza) > 0 {
				if err := each(stanza); err != nil {
					return err
				}
			}
			stanza, key = map[string]string{}, ""
		case line[0] == ' ' || line[0] == '\t':
			stanza[key] += "\n" + line
		default:
			var value string
			key, value, _ = strings.Cut(line, ":")
			stanza[key] = strings.TrimSpace(value)
		}
	}
	if err := sc.Err(); err != nil {
		return err
	}
	if len(stanza) > 0 {
		return each(stanza)
	}
	return nil
}

// manifestFile is where the manifest of a package is kept: by its digest, so
// that it can be of no other.
func manifestFile(dir string, p indexed) string {
	return filepath.Join(dir, "manifests", p.sha256+".json")
}

// fetchBatch is how many packages are downloaded at once, so that a first run
// needs little space.
const fetchBatch = 64

func fetchManifests(ctx context.Context, apt debs.Apt, dir string, packages []indexed) error {
	for batch := range slices.Chunk(packages, fetchBatch) {
		tmp, err := os.MkdirTemp(filepath.Join(dir, "debs"), "")
		if err != nil {
			return err
		}
		if err := errors.Join(fetchBatchOf(ctx, apt, dir, tmp, batch), os.RemoveAll(tmp)); err != nil {
			return err
		}
	}
	return nil
}

func fetchBatchOf(ctx context.Context, apt debs.Apt, dir, tmp string, packages []indexed) error {
	var specs []string
	for _, p := range packages {
		specs = append(specs, p.Name+":"+p.Arch+"="+p.Version)
	}
	if err := apt.Download(ctx, tmp, specs...); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil {
		return err
	}
	wanted := map[string]indexed{}
	for _, p := range packages {
		wanted[p.sha256] = p
	}
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	for _, name := range files {
		group.Go(func() error {
			sum, err := fileSHA256(name)
			if err != nil {
				return err
			}
			mu.Lock()
			p, ok := wanted[sum]
			delete(wanted, sum)
			mu.Unlock()
			if !ok {
				return fmt.Errorf("%s is not what the signed index says", filepath.Base(name))
			}
			m, err := ReadDeb(ctx, name)
			if err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
			data, err := json.Marshal(m)
			if err != nil {
				return err
			}
			tmp := name + ".json"
			if err := os.WriteFile(tmp, data, 0o644); err != nil {
				return err
			}
			return os.Rename(tmp, manifestFile(dir, p))
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, p := range wanted {
		return fmt.Errorf("%s was not downloaded", p)
	}
	return nil
}

func fileSHA256(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

const maxControl = 16 << 20

// ReadDeb reads the manifest of a package that is trusted, with dpkg-deb.
func ReadDeb(ctx context.Context, file string) (*Manifest, error) {
	m := &Manifest{Control: map[string]string{}}
	err := debs.Tar(ctx, file, "--ctrl-tarfile", m.readControl)
	if err == nil {
		err = debs.Tar(ctx, file, "--fsys-tarfile", m.readFiles)
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(m.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return m, nil
}

func (m *Manifest) readControl(r io.Reader) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(io.LimitReader(t, maxControl+1))
		if err != nil {
			return err
		}
		if len(data) > maxControl {
			return fmt.Errorf("a control file of more than %d bytes", maxControl)
		}
		name := path.Base(h.Name)
		sum := sha256.Sum256(data)
		m.Control[name] = hex.EncodeToString(sum[:])
		if slices.Contains([]string{"preinst", "postinst", "prerm", "postrm", "triggers"}, name) {
			m.Scripts += string(data) + "\n"
		}
	}
}

func (m *Manifest) readFiles(r io.Reader) error {
	t := tar.NewReader(r)
	seen := map[string]int{}
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		f := File{Path: path.Join("/", h.Name), Mode: uint32(h.Mode) & 0o7777, UID: h.Uid, GID: h.Gid} //nolint:gosec // nothing is written there
		switch h.Typeflag {
		case tar.TypeReg:
			sum := sha256.New()
			if f.Size, err = io.Copy(sum, t); err != nil { //nolint:gosec // of a trusted package
				return err
			}
			f.Type, f.SHA256 = Regular, hex.EncodeToString(sum.Sum(nil))
		case tar.TypeDir:
			f.Type = Directory
		case tar.TypeSymlink:
			f.Type, f.Target = Symlink, h.Linkname
		case tar.TypeLink:
			first, ok := seen[path.Join("/", h.Linkname)] //nolint:gosec // nothing is written there
			if !ok {
				return errors.New("a hard link to nothing")
			}
			name := f.Path
			f = m.Files[first]
			f.Path, f.HardLink = name, f.Path
		default:
			return fmt.Errorf("an entry of type %s", strconv.QuoteRune(rune(h.Typeflag)))
		}
		seen[f.Path] = len(m.Files)
		m.Files = append(m.Files, f)
	}
}

// dpkgDir is where dpkg keeps its database.
const dpkgDir = "/var/lib/dpkg"

// debianPackages reads the packages that dpkg's status calls installed.
func debianPackages(status []byte) ([]Package, error) {
	var packages []Package
	err := readStanzas(strings.NewReader(string(status)), func(s map[string]string) error {
		if f := strings.Fields(s["Status"]); len(f) == 3 && f[2] != "not-installed" && f[2] != "config-files" {
			packages = append(packages, Package{s["Package"], s["Version"], s["Architecture"]})
		}
		return nil
	})
	if err == nil && len(packages) == 0 {
		err = errors.New("no package is installed")
	}
	return packages, err
}
