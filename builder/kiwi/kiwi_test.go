package kiwi

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/internal/pkgkeys"
)

func TestNewRefuses(t *testing.T) {
	for name, c := range map[string]Config{
		"no description":  {},
		"profile, option": {Description: "x", Profiles: []string{"--help"}},
		"script's name":   {Description: "x", Scripts: []string{"a b"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(c)
			require.Error(t, err)
		})
	}
	_, err := Driver{}.New(func(any) error { return errors.New("unknown key") })
	require.ErrorContains(t, err, "unknown key")
}

func TestValidate(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*builder.Spec)
		want   string
	}{
		"disk":  {func(s *builder.Spec) { s.DiskBytes++ }, "not a multiple of 1 MiB"},
		"arch":  {func(s *builder.Spec) { s.Arch = "riscv64" }, "only amd64 and arm64"},
		"build": {func(s *builder.Spec) { s.Build = "20261122" }, "want the form"},
		"keys":  {func(s *builder.Spec) { s.TrustedKeys = nil }, "trusted_keys: none"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := debianSpec(t)
			require.NoError(t, (&run{spec: spec}).validate())
			test.change(&spec)
			require.ErrorContains(t, (&run{spec: spec}).validate(), test.want)
		})
	}
}

func TestVersion(t *testing.T) {
	require.Equal(t, "20261122.031507.0", version("20261122-031507"))
	require.Equal(t, "0.0.0", version(""))
	for text, want := range map[string]string{
		"KIWI (next generation) version 9.24.56": "9.24.56",
		"KIWI (next generation) version 10.2.3":  "10.2.3",
		"KIWI (next generation) version 8.1":     "",
		"kiwi v7.04.50":                          "",
		"":                                       "",
	} {
		got, err := parseVersion(text)
		require.Equal(t, want, got)
		require.Equal(t, want == "", err != nil)
	}
}

// keyFile makes a file of one new key.
func keyFile(t *testing.T) (file, fingerprint string) {
	t.Helper()
	e, err := openpgp.NewEntity("test", "", "test@example.org", nil)
	require.NoError(t, err)
	var key bytes.Buffer
	require.NoError(t, e.Serialize(&key))
	file = filepath.Join(t.TempDir(), "keys.gpg")
	require.NoError(t, os.WriteFile(file, key.Bytes(), 0o644))
	return file, pkgkeys.Fingerprint(e)
}

// staged is what the tool would be given for the example's Debian 12.
func staged(t *testing.T) *run {
	t.Helper()
	spec := debianSpec(t)
	file, _ := keyFile(t)
	spec.TrustedKeys = []builder.TrustedKey{{File: file}}
	r := &run{Config: debian12, spec: spec, config: filepath.Join(spec.OutputDir, "config")}
	require.NoError(t, r.write(t.Context()))
	return r
}

func TestArgs(t *testing.T) {
	r := staged(t)
	r.Profiles = []string{"Disk"}
	fingerprint := func() string {
		trusted, err := pkgkeys.Trusted(r.spec)
		require.NoError(t, err)
		return pkgkeys.Fingerprint(trusted[0])
	}()
	args, err := r.buildArgs()
	require.NoError(t, err)
	const w = "/var/tmp/kiwi-test/"
	require.Equal(t, []string{
		"kiwi-ng", "--config", w + "kiwi.yml", "--temp-dir", w + "tmp", "--debug", "--profile", "Disk", "--shared-cache-dir", w + "cache",
		"system", "build", "--description", w + "appliance", "--target-dir", w + "result", "--signing-key", w + "keys/" + fingerprint + ".asc",
	}, args)
	require.Equal(t, []string{
		"kiwi-ng", "--config", w + "kiwi.yml", "--temp-dir", w + "tmp", "--debug", "--profile", "Disk", "image", "info", "--description", w + "appliance",
	}, r.infoArgs())
	require.Equal(t, "PATH="+w+"shims:"+builder.DefaultPath, r.env()[2])
}

func TestWrite(t *testing.T) {
	r := staged(t)
	read := func(name string) string {
		data, err := os.ReadFile(r.given(filepath.FromSlash(name)))
		require.NoError(t, err)
		return string(data)
	}
	config := read("appliance/config.xml")
	require.Contains(t, config, `<version>{version}</version><rpm-check-signatures>true</rpm-check-signatures>`)
	require.Contains(t, config, `<source path="{debian-security}">`)
	require.NotContains(t, config, "mirror.example.org")
	require.Equal(t, 3, strings.Count(config, `repository_gpgcheck="true" package_gpgcheck="true"`))
	require.Contains(t, config, `<size unit="M">4096</size>`)
	require.Contains(t, config, `name="Standard_Debian_12"`)
	require.Equal(t, "export IMAGEFACTORY_USER=linux\nexport IMAGEFACTORY_NTP_SERVERS=\"ntp01.example.org ntp02.example.org\"\n", read("appliance/root/image/imagefactory/env"))
	require.Contains(t, read("appliance/root/image/imagefactory/repositories/debian.sources"), "URIs: http://debmirror.example.org/debian\n")
	require.Contains(t, read("appliance/root/etc/ssh/sshd_config.d/60-otc.conf"), "PermitRootLogin no")
	require.Equal(t, afterPackages, read("appliance/config.sh"))
	require.Contains(t, read("appliance/root/image/imagefactory/scripts/config.sh"), "Debian's own")

	t.Run("a configuration's archive gives the same again", func(t *testing.T) {
		first, err := tool{r.Config}.InputsDigest(r.spec)
		require.NoError(t, err)
		again := r.spec
		again.Dir, again.Build = r.config, ""
		second, err := tool{r.portable()}.InputsDigest(again)
		require.NoError(t, err)
		require.Equal(t, first, second)
		require.NoError(t, os.Chmod(r.given("description", "config.sh"), 0o644))
		third, err := tool{r.portable()}.InputsDigest(again)
		require.NoError(t, err)
		require.NotEqual(t, first, third)
	})
	t.Run("scripts of the driver", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "d")
		require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join(nightly, "kiwi/debian-12"))))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "images.sh"), nil, 0o755))
		bad := &run{Config: Config{Description: dir}, spec: r.spec, config: filepath.Join(t.TempDir(), "config")}
		require.ErrorContains(t, bad.write(t.Context()), "images.sh is the driver's own")
	})
	t.Run("a repository's key that is not trusted", func(t *testing.T) {
		bad := *r
		bad.config = filepath.Join(t.TempDir(), "config")
		bad.spec.Repositories = []builder.Repository{{Name: "x", URL: "http://x.example.org/", Suites: []string{"x"}, Key: strings.Repeat("A", 40)}}
		require.ErrorContains(t, bad.write(t.Context()), "none of the trusted keys")
	})
}

// TestCreateAppliance runs the archive's script with a kiwi-ng that only shows
// what it is given.
func TestCreateAppliance(t *testing.T) {
	needs.Tools(t, "bash", "sed", "env")
	r := staged(t)
	script := r.given("create_appliance.sh")
	// The script gives kiwi a PATH of its own, in which shims come first.
	fake := "#!/bin/bash\nwhile [ \"$1\" != --description ]; do shift; done\ngrep -c example.org/d \"$2/config.xml\"\ngrep '<version>' \"$2/config.xml\"\ntouch \"$4/x.qcow2\"\nprintf '%s\\n' \"$@\"\n"
	require.NoError(t, os.WriteFile(r.given("shims", "kiwi-ng"), []byte(fake), 0o755))
	out := filepath.Join(t.TempDir(), "out")
	text, err := exec.Command(script, "-o", out, "-v", "1.2.3", "debian=http://m.example.org/d", "debian-security=http://m.example.org/ds/").CombinedOutput()
	require.NoError(t, err, string(text))
	require.True(t, strings.HasPrefix(string(text), "3\n"), string(text))
	require.Contains(t, string(text), "<version>1.2.3</version>")
	require.Contains(t, string(text), "--signing-key\n"+out+"/keys/")

	for name, args := range map[string][]string{
		"no directory": {"debian=http://m.example.org/d"},
		"exists":       {"-o", out, "debian=http://m.example.org/d"},
		"no mirror":    {"-o", filepath.Join(t.TempDir(), "o")},
		"bad mirror":   {"-o", filepath.Join(t.TempDir(), "o"), "debian=ssh://x"},
		"bad version":  {"-o", filepath.Join(t.TempDir(), "o"), "-v", "1|2"},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := exec.Command(script, args...).CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit, string(text))
			require.Equal(t, 2, exit.ExitCode(), string(text))
		})
	}
}
