package kiwi

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/internal/filetree"
	"github.com/opentelekomcloud/go-imagefactory/internal/pkgkeys"
)

//go:embed shims create_appliance.sh kiwi.yml
var embedded embed.FS

// What the configuration's directory holds: description, overlays and scripts as
// they were given, and what is made of them.
const (
	descriptionDir = "description"
	overlaysDir    = "overlays"
	scriptsDir     = "scripts"
	keysDir        = "keys"
	shimsDir       = "shims"
	applianceDir   = "appliance" // the whole description, with {name} for mirrors and {version}
	ownDir         = "root/image/imagefactory"
)

// driversOwn are the scripts of a description that the driver writes.
var driversOwn = []string{"post_bootstrap.sh", "images.sh"}

// write puts together what the tool is given, in r.config. It depends on nothing
// but the spec and the files that the configuration names.
func (r *run) write(ctx context.Context) error {
	if err := os.RemoveAll(r.config); err != nil {
		return err
	}
	if err := os.Mkdir(r.config, 0o755); err != nil {
		return err
	}
	given := filepath.Join(r.config, descriptionDir)
	if err := filetree.Copy(ctx, given, r.local(r.Description)); err != nil {
		return fmt.Errorf("description: cannot read it: %w", err)
	}
	for i, dir := range r.Overlays {
		if err := filetree.Copy(ctx, filepath.Join(r.config, overlaysDir, fmt.Sprint(i)), r.local(dir)); err != nil {
			return fmt.Errorf("overlays: cannot read %s: %w", dir, err)
		}
	}
	for i, file := range r.Scripts {
		if err := copyScript(r.given(scriptsDir, scriptName(i, file)), r.local(file)); err != nil {
			return fmt.Errorf("scripts: cannot read %s: %w", file, err)
		}
	}
	for _, dir := range []string{shimsDir, "."} {
		if err := r.writeOwn(dir); err != nil {
			return err
		}
	}
	trusted, err := pkgkeys.Trusted(r.spec)
	if err != nil {
		return err
	}
	return errors.Join(r.writeKeys(trusted), r.writeAppliance(ctx, trusted),
		os.WriteFile(r.given("profiles"), []byte(strings.Join(append(r.Profiles, ""), "\n")), 0o644))
}

// local is a file that the configuration names.
func (r *run) local(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(r.spec.Dir, name)
}

// given is a path in the configuration's directory.
func (r *run) given(elem ...string) string {
	return filepath.Join(append([]string{r.config}, elem...)...)
}

// numbered is what scriptName has put before a name already, in an archive.
var numbered = regexp.MustCompile(`^\d\d-`)

func scriptName(i int, file string) string {
	return fmt.Sprintf("%02d-%s", i, numbered.ReplaceAllString(filepath.Base(file), ""))
}

func copyScript(dst, src string) error {
	data, err := readBounded(src, maxDescription)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	return os.WriteFile(dst, data, 0o755)
}

// writeOwn writes the driver's files of a directory, which embed keeps without
// their modes.
func (r *run) writeOwn(dir string) error {
	entries, err := embedded.ReadDir(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(r.given(dir), 0o755); err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		data, err := embedded.ReadFile(path.Join(dir, e.Name()))
		if err == nil {
			err = os.WriteFile(r.given(dir, e.Name()), data, 0o755)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writeKeys writes each trusted key to a file, as --signing-key takes it.
func (r *run) writeKeys(trusted openpgp.EntityList) error {
	if err := os.MkdirAll(r.given(keysDir), 0o755); err != nil {
		return err
	}
	for _, e := range trusted {
		if err := pkgkeys.WriteArmored(r.given(keysDir, pkgkeys.Fingerprint(e)+".asc"), e); err != nil {
			return err
		}
	}
	return nil
}

// writeAppliance writes the description that kiwi gets, but for the URLs of the
// mirrors and the version.
func (r *run) writeAppliance(ctx context.Context, trusted openpgp.EntityList) error {
	dir := r.given(applianceDir)
	if err := filetree.Copy(ctx, dir, r.given(descriptionDir)); err != nil {
		return err
	}
	for i := range r.Overlays {
		if err := filetree.Copy(ctx, filepath.Join(dir, "root"), r.given(overlaysDir, fmt.Sprint(i))); err != nil {
			return fmt.Errorf("overlays: %w", err)
		}
	}
	config, sum, err := r.render("{version}", func(name string) (string, error) {
		_, err := r.mirror(name)
		return "{" + name + "}", err
	})
	if err != nil {
		return err
	}
	for _, name := range driversOwn {
		if _, err := os.Lstat(r.given(descriptionDir, name)); err == nil {
			return fmt.Errorf("description: %s is the driver's own: use config.sh", name)
		}
	}
	own := filepath.Join(dir, filepath.FromSlash(ownDir))
	if _, err := os.Lstat(own); err == nil {
		return fmt.Errorf("description: %s is the driver's own", ownDir)
	}
	scripts := filepath.Join(own, "scripts")
	if err := os.MkdirAll(scripts, 0o755); err != nil {
		return err
	}
	for i, file := range r.Scripts {
		if err := copyScript(filepath.Join(scripts, scriptName(i, file)), r.local(file)); err != nil {
			return err
		}
	}
	if err := os.Rename(filepath.Join(dir, "config.sh"), filepath.Join(scripts, "config.sh")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	family := "rpm"
	repositories := filepath.Join(own, "repositories")
	if sum.manager == "apt" {
		family = "apt"
		err = errors.Join(pkgkeys.WriteApt(repositories, r.spec.Repositories, trusted),
			os.WriteFile(filepath.Join(dir, "post_bootstrap.sh"), []byte(afterBootstrap), 0o755))
	} else {
		err = pkgkeys.WriteRPM(repositories, rpmKeys, r.spec.Repositories, trusted)
	}
	return errors.Join(err,
		os.WriteFile(filepath.Join(dir, "config.xml"), config, 0o644),
		os.WriteFile(filepath.Join(dir, "config.sh"), []byte(afterPackages), 0o755),
		os.WriteFile(filepath.Join(dir, "images.sh"), []byte(beforeImage[family]), 0o755),
		os.WriteFile(filepath.Join(dir, "root", "image", "exclude_files.yaml"), []byte(notes), 0o644),
		os.WriteFile(filepath.Join(own, "env"), []byte(r.inputs()), 0o644))
}

// inputs are variables for the scripts; the spec's characters need no quotes
// but those for lists.
func (r *run) inputs() string {
	return fmt.Sprintf("export IMAGEFACTORY_USER=%s\nexport IMAGEFACTORY_NTP_SERVERS=%q\n", r.spec.User, strings.Join(r.spec.NTPServers, " "))
}

// render is the description's config.xml with values in place.
func (r *run) render(version string, mirror func(string) (string, error)) ([]byte, summary, error) {
	return r.renderFrom(r.given(descriptionDir), version, mirror)
}

func (r *run) renderFrom(dir, version string, mirror func(string) (string, error)) ([]byte, summary, error) {
	src, err := readBounded(filepath.Join(dir, "config.xml"), maxDescription)
	if err != nil {
		return nil, summary{}, fmt.Errorf("description: %w", err)
	}
	config, sum, err := render(src, values{
		name: r.spec.Name, version: version, diskBytes: r.spec.DiskBytes, profiles: r.Profiles, mirror: mirror,
	})
	if err != nil {
		return nil, summary{}, fmt.Errorf("description: config.xml: %w", err)
	}
	return config, sum, nil
}

// mirror is the base URL of one of the spec's mirrors. Debian's security updates
// are by default beside Debian.
func (r *run) mirror(name string) (string, error) {
	if url := r.spec.Mirrors[name]; url != "" {
		return url, nil
	}
	if url := r.spec.Mirrors["debian"]; url != "" && name == "debian-security" {
		return strings.TrimRight(url, "/") + "-security", nil
	}
	return "", fmt.Errorf("the definition has no mirror called %q", name)
}

// stage uploads what the tool is given to the host's work directory.
func (r *run) stage(ctx context.Context) error {
	if err := r.write(ctx); err != nil {
		return err
	}
	config, _, err := r.render(version(r.spec.Build), r.mirror)
	if err != nil {
		return err
	}
	final, err := os.MkdirTemp("", "kiwi-description-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(final)
	if err := os.WriteFile(filepath.Join(final, "config.xml"), config, 0o644); err != nil {
		return err
	}
	err = errors.Join(
		r.host.Run(ctx, builder.Command{Args: []string{"mkdir", "-p", r.at("tmp"), r.at("home/.gnupg"), r.at("cache"), r.at("result")}}),
		r.host.Upload(ctx, r.spec.WorkDir, os.DirFS(r.config)),
		r.host.Upload(ctx, r.at(applianceDir), os.DirFS(final)))
	if err != nil {
		return fmt.Errorf("cannot prepare the work directory: %w", err)
	}
	return nil
}
