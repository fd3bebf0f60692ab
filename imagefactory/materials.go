package imagefactory

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/internal/configtar"
	"github.com/opentelekomcloud/go-imagefactory/signing"
)

// buildHostSuffix is that of the packages that were installed where the image was
// built, "name version arch", sorted, one a line; empty where the machine's package
// manager is neither dpkg nor rpm.
const buildHostSuffix = ".buildhost"

// writeBuildHost asks the machine that has built the image for its packages. An image
// is none the worse for a machine that does not say.
func (j *job) writeBuildHost(ctx context.Context) error {
	var list []byte
	for _, args := range [][]string{
		{"dpkg-query", "--show", "--showformat=${db:Status-Abbrev} ${Package} ${Version} ${Architecture}\n"},
		{"rpm", "--query", "--all", "--queryformat", "ii %{NAME} %{VERSION}-%{RELEASE} %{ARCH}\n"},
	} {
		out := &boundedBuffer{left: 16 << 20}
		err := contain(j.log, "build host", "", func() error {
			return j.host.Run(ctx, builder.Command{Args: args, Env: []string{"PATH=" + builder.DefaultPath, "LC_ALL=C"}, Stdout: out})
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if list = installedLines(out.Bytes()); err == nil && len(list) > 0 {
			break
		}
		list = nil
	}
	if list == nil {
		j.log.WarnContext(ctx, "the packages of the build host are not known")
	}
	f, err := createNew(j.file(buildHostSuffix))
	if err != nil {
		return err
	}
	return errors.Join(write(list)(f), f.Close())
}

// installedLines are the lines "ii NAME VERSION ARCH" without their first word, sorted.
func installedLines(data []byte) []byte {
	var lines []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 4 && f[0] == "ii" {
			lines = append(lines, strings.Join(f[1:], " ")+"\n")
		}
	}
	slices.Sort(lines)
	return []byte(strings.Join(lines, ""))
}

// boundedBuffer keeps what comes until it is too much, which is an error.
type boundedBuffer struct {
	bytes.Buffer
	left int
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errors.New("there is more output than is read")
	}
	return b.Buffer.Write(p)
}

// materials are what the image was built of: each file that the builder was given
// (description or elements, keys), the signed indexes that its packages were verified
// with, the mirrors, and the packages of the machine that built it.
func (j *job) materials(digests map[string]signing.FileDigest) ([]signing.Resource, error) {
	resource := func(suffix string) signing.Resource {
		d := digests[suffix]
		return signing.Resource{Name: d.Name, Digest: map[string]string{"sha256": d.SHA256}}
	}
	out := []signing.Resource{resource(".config.tar.gz"), resource(".packages"), resource(buildHostSuffix)}
	given, err := archived(j.file(".config.tar.gz"))
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration's archive: %w", err)
	}
	out = append(out, given...)
	v, err := j.readInventory()
	if err != nil {
		return nil, err
	}
	out = append(out, v.Indexes...)
	for _, name := range slices.Sorted(maps.Keys(j.mirrors)) {
		out = append(out, signing.Resource{Name: name, URI: j.mirrors[name]})
	}
	return out, nil
}

// archived are the files in a configuration's archive, as "config/NAME".
func archived(name string) ([]signing.Resource, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []signing.Resource
	err = configtar.Walk(f, func(h *tar.Header, r io.Reader) error {
		if h.Typeflag != tar.TypeReg {
			return nil
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, r); err != nil {
			return err
		}
		out = append(out, signing.Resource{Name: "config/" + h.Name, Digest: map[string]string{"sha256": hex.EncodeToString(sum.Sum(nil))}})
		return nil
	})
	return out, err
}

// signedIndexes are those that apt has verified and keeps below dir.
func signedIndexes(ctx context.Context, dir string) ([]signing.Resource, error) {
	names, err := filepath.Glob(filepath.Join(dir, "state", "lists", "*Release"))
	if err != nil {
		return nil, err
	}
	var out []signing.Resource
	for _, name := range names {
		d, err := digestFile(ctx, name)
		if err != nil {
			return nil, err
		}
		out = append(out, signing.Resource{Name: "index/" + d.Name, Digest: map[string]string{"sha256": d.SHA256}})
	}
	return out, nil
}

// assurance is what the provenance says of its own worth, in terms of SLSA's build
// track (v1.0). It is level 2: the factory, not who asks for an image, makes and signs
// it. Level 3 demands that what runs in a build cannot reach the key: an agent holds
// it, and the build runs on another machine than the factory, for it runs as root.
func (j *job) assurance(built *built) map[string]any {
	level, key := 2, "in the factory's process"
	if j.factory.Signer != nil {
		key = "with an agent outside the factory's process"
		if built.Elsewhere {
			level = 3
		}
	}
	where := "as root on the factory's machine"
	if built.Elsewhere {
		where = "on another machine than the factory"
	}
	return map[string]any{"slsa_build_level": level, "key": key, "build": where}
}
