package imagefactory

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory/sbom"
	"github.com/opentelekomcloud/go-imagefactory/qcow2/guestdisk"
	"github.com/opentelekomcloud/go-imagefactory/signing"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/ledger"
)

const (
	sbomSuffix = ".cdx.json" // the release's bill of materials
	// sourcesSuffix is that of the installed packages with the source packages that
	// they were made of. It is what the bill of materials says of them at a
	// twentieth of the size, for who reads those of many releases
	// (advisory.ParseSources).
	sourcesSuffix = ".sources"
	// inventorySuffix is a file of the run: what the disk says of its packages. It
	// is not released.
	inventorySuffix = ".inventory.json"
)

// inventory is what the disk says of what is installed on it.
type inventory struct {
	Packages []sbom.Package `json:"packages"`
	Files    []sbom.File    `json:"files"`
	// Indexes are the archive's, by whose signatures the packages' contents were
	// verified.
	Indexes []signing.Resource `json:"indexes,omitempty"`
}

// writeInventory takes from a Debian's disk what its bill of materials says: the
// packages by dpkg's own word, the kernels and the initial RAM disks.
func (j *job) writeInventory(l *ledger.Listing, indexes []signing.Resource) error {
	packages, err := sbom.ReadDpkg(bytes.NewReader(l.Contents["/var/lib/dpkg/status"]))
	if err != nil {
		return err
	}
	for i := range packages {
		packages[i].Licence = sbom.ReadCopyright(string(copyright(l, packages[i].Name)))
	}
	v := inventory{Packages: packages, Indexes: indexes}
	for _, f := range l.Files {
		kernel, isKernel := strings.CutPrefix(f.Path, "/boot/vmlinuz-")
		initrd, isInitrd := strings.CutPrefix(f.Path, "/boot/initrd.img-")
		if f.Type != ledger.Regular || f.SHA256 == "" || !isKernel && !isInitrd {
			continue
		}
		file := sbom.File{Path: f.Path, Version: kernel, SHA256: f.SHA256, Executable: isKernel, Archive: isInitrd}
		if isInitrd {
			file.Version = initrd
		}
		v.Files = append(v.Files, file)
	}
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(j.file(inventorySuffix), data, 0o644)
}

// docDir has a directory for each package, with its licences.
const docDir = "/usr/share/doc/"

// keepContents selects what is needed of the disk: of its files' account and of its
// bill of materials.
func keepContents(name string) bool {
	if ledger.KeepDebian(name) {
		return true
	}
	_, name, _ = strings.Cut(name[1:], "/") // behind the volume's name
	ok, _ := path.Match(docDir[1:]+"*/copyright", name)
	return ok
}

// copyright is the text of a package, which may be that of another one, by a link of
// one or both of their directories and files.
func copyright(l *ledger.Listing, name string) []byte {
	const most = 8
	file := docDir + name + "/copyright"
	for range most {
		if data, ok := l.Contents[file]; ok {
			return data
		}
		target := linkAt(l, path.Dir(file))
		if target != "" {
			file = path.Join(path.Dir(path.Dir(file)), target, path.Base(file))
		} else if target = linkAt(l, file); target != "" {
			file = path.Join(path.Dir(file), target)
		} else {
			return nil
		}
		if path.IsAbs(target) {
			return nil // Debian's are not
		}
	}
	return nil
}

// linkAt returns the target of a symbolic link, or "".
func linkAt(l *ledger.Listing, name string) string {
	i, found := slices.BinarySearchFunc(l.Files, name, func(f ledger.File, name string) int { return strings.Compare(f.Path, name) })
	if !found || l.Files[i].Type != ledger.Symlink {
		return ""
	}
	return l.Files[i].Target
}

// readInventory reads what writeInventory wrote. Where the disk was not read, all
// that is known of a package is what packageList says.
func (j *job) readInventory() (*inventory, error) {
	var v inventory
	data, err := os.ReadFile(j.file(inventorySuffix))
	if err == nil {
		return &v, json.Unmarshal(data, &v)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if data, err = j.packageList(); err != nil {
		return nil, err
	}
	packages, err := parsePackageList(data)
	for _, p := range packages {
		v.Packages = append(v.Packages, sbom.Package{Name: p.Name, Version: p.Version, Arch: p.Arch})
	}
	return &v, err
}

// writeSBOM writes the bill of materials and, where they are known, the packages'
// sources into dir, and returns their suffixes. Of an image whose packages nobody
// knows there is none.
func (j *job) writeSBOM(ctx context.Context, dir string) ([]string, error) {
	v, err := j.readInventory()
	if err != nil {
		return nil, err
	}
	if len(v.Packages) == 0 {
		j.log.WarnContext(ctx, "no bill of materials: the packages are not known")
		return nil, nil
	}
	disk, err := j.disk()
	if err != nil {
		return nil, err
	}
	h := sha512.New()
	image, err := digestFile(ctx, j.file(".qcow2"), h)
	if err != nil {
		return nil, err
	}
	bill := &sbom.Image{
		Name: j.name, Build: j.build.String(), Created: j.build.Time(), Creator: j.maker(),
		Filename: image.Name, SHA256: image.SHA256, SHA512: hex.EncodeToString(h.Sum(nil)),
		Distribution: j.def.OS.Distribution, Release: j.def.OS.Version, Arch: j.def.OS.Arch,
		Packages: v.Packages, Files: v.Files, FileSystems: fileSystems(disk),
	}
	err = j.create(dir, sbomSuffix, func(w *bufio.Writer) error { return sbom.Write(w, bill) })
	if err != nil || v.Packages[0].Source == "" {
		return []string{sbomSuffix}, err
	}
	return []string{sbomSuffix, sourcesSuffix}, j.create(dir, sourcesSuffix, func(w *bufio.Writer) error {
		fmt.Fprintln(w, bill.Distribution, bill.Release, bill.Arch)
		for _, p := range v.Packages {
			fmt.Fprintln(w, p.Name, p.Version, p.Arch, p.Source, p.SourceVersion)
		}
		return nil
	})
}

// maker is who made the image: whom its provenance names. Where that is no address
// on the web, this SDK's has to do.
func (p *product) maker() sbom.Creator {
	id := p.builderID()
	if u, err := url.Parse(id); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return sbom.Creator{Name: id, URL: DefaultBuilderID}
	}
	return sbom.Creator{Name: id, URL: id}
}

// create writes a file of the release into dir.
func (j *job) create(dir, suffix string, write func(*bufio.Writer) error) error {
	f, err := createNew(filepath.Join(dir, filepath.Base(j.file(suffix))))
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	return errors.Join(write(w), w.Flush(), f.Close())
}

// fileSystems describes what the disk is divided into, a line each.
func fileSystems(d *guestdisk.Disk) []string {
	var out []string
	add := func(name string, c *guestdisk.Content) {
		if c == nil {
			return
		}
		line := name + " " + c.Type
		if c.Label != "" {
			line += " " + c.Label
		}
		out = append(out, line)
		for _, v := range c.Volumes {
			if v.Content != nil {
				out = append(out, c.VolumeGroup+"-"+v.Name+" "+v.Content.Type)
			}
		}
	}
	if d == nil {
		return nil
	}
	add("disk", d.Content)
	for _, p := range d.Partitions {
		add(fmt.Sprintf("p%d", p.Number), p.Content)
	}
	return out
}
