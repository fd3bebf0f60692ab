package imagefactory

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandboxtest"
)

func TestPackageRelationsOfADefinition(t *testing.T) {
	for text, want := range map[string]string{
		`required_packages: ["openssh-server >= 1:9.2p1-2+deb12u3", sudo, "a<<2", 0ad]`: "",
		`forbidden_packages: ["*uvp*", "openssl << 3.0.15-1~deb12u1", 'kmod-[^l]*']`:    "",
		`required_packages: ["openssl >= 3"], forbidden_packages: ["openssl << 3.1"]`:   "",

		`required_packages: [sudo, "a < 2"]`:                               `f.yaml:6:38: bad relation "<" in "a < 2": want <<, <=, =, >= or >>`,
		`required_packages: ["a > 2"]`:                                     `f.yaml:6:32: bad relation ">"`,
		`required_packages: ["a == 2"]`:                                    `f.yaml:6:32: bad relation "=="`,
		`required_packages: ["a >=< 2"]`:                                   `f.yaml:6:32: bad relation ">=<"`,
		`required_packages: ["a >="]`:                                      `f.yaml:6:32: bad package "a >=": want a name, or name, relation and version`,
		`required_packages: [">= 2"]`:                                      `f.yaml:6:32: bad package ">= 2"`,
		`required_packages: ["a 2"]`:                                       `f.yaml:6:32: bad package "a 2"`,
		`required_packages: ["a (>= 2)"]`:                                  `f.yaml:6:32: bad package "a (>= 2)"`,
		`required_packages: ["a >= 2, b"]`:                                 `f.yaml:6:32: bad package`,
		`required_packages: ["a | b"]`:                                     `f.yaml:6:32: bad package`,
		`required_packages: ["libc6:i386"]`:                                `f.yaml:6:32: bad package`,
		`required_packages: [" "]`:                                         `f.yaml:6:32: bad package`,
		`required_packages: [""]`:                                          `f.yaml:6:32: bad pattern ""`,
		`required_packages: [~]`:                                           `f.yaml:6:32: `,
		`required_packages: [{a: 1}]`:                                      `f.yaml:6:32: `,
		`required_packages: ["a >= 2_1"]`:                                  `f.yaml:6:32: test: required_packages: a >= 2_1: bad version "2_1" for debian`,
		`required_packages: [b, "a >= x:1"]`:                               `f.yaml:6:35: test: required_packages: a >= x:1: bad version`,
		`required_packages: [b, "uvp-*"]`:                                  `f.yaml:6:35: test: required_packages: uvp-*: a pattern cannot be required`,
		`forbidden_packages: [b, "a = 1-"]`:                                `f.yaml:6:36: test: forbidden_packages: a = 1-: bad version "1-" for debian`,
		`forbidden_packages: ["[a"]`:                                       `f.yaml:6:33: bad pattern "[a"`,
		`required_packages: [a], forbidden_packages: ["?"]`:                `test: forbidden_packages: a is required`,
		`required_packages: ["a >= 1", "b >= 2"], forbidden_packages: [b]`: `test: forbidden_packages: b is required`,
	} {
		_, err := parse("f.yaml", "/", []byte(minimal+"    test: {"+text+"}\n"))
		if want == "" {
			assert.NoError(t, err, text)
		} else {
			assert.ErrorContains(t, err, want, text)
		}
	}
	_, err := parse("f.yaml", "/", []byte(strings.Replace(minimal, "debian", "plan9", 1)+"    trusted_keys: [{file: k}]\n    test: {required_packages: [b, \"a >= 1\"]}\n"))
	require.ErrorContains(t, err, "f.yaml:7:35: test: required_packages: a >= 1: it is not known how plan9 orders versions: name the package alone")
	_, err = parse("f.yaml", "/", []byte("images:\n  - from: Standard_Debian_9\n    test: {required_packages+: [b, \"a >= 1_\"]}\n"))
	require.ErrorContains(t, err, "f.yaml:3:36: test: required_packages: a >= 1_: bad version")
}

func TestPackagesThatADefinitionDemands(t *testing.T) {
	deb := []builder.Package{
		{Name: "openssh-server", Version: "1:9.2p1-2+deb12u2", Arch: "amd64"}, {Name: "openssl", Version: "3.0.15-1~deb12u1", Arch: "amd64"},
		{Name: "linux-image", Version: "6.1.9-1", Arch: "amd64"}, {Name: "linux-image", Version: "6.1.10-1", Arch: "amd64"},
	}
	rpm := []builder.Package{{Name: "openssl-libs", Version: "1:1.1.1k-9.el8_9", Arch: "x86_64"}, {Name: "ixgbevf216-kmp-default", Version: "2.16.4_k4.4.76_1-1.1", Arch: "x86_64"}}
	for _, test := range []struct {
		name                string
		distribution        string
		installed           []builder.Package
		required, forbidden []PackageRelation
		want                []string
	}{
		{"nothing demanded", "debian", deb, nil, nil, nil},
		{"by name", "debian", deb, []PackageRelation{"openssl"}, []PackageRelation{"telnetd"}, nil},
		{"new enough", "debian", deb, []PackageRelation{"openssh-server >= 1:9.2p1-2+deb12u2", "openssl >> 3.0.14", "openssl = 3.0.15-1~deb12u1", "openssl <= 3.0.15-1", "openssl << 3.0.15-1"}, nil, nil},
		{"one of two", "debian", deb, []PackageRelation{"linux-image >= 6.1.10"}, nil, nil},
		{"missing, too old, too new, another", "debian", deb,
			[]PackageRelation{"sudo", "openssh-server >= 1:9.2p1-2+deb12u10", "openssl << 3.0.15-1~deb12u1", "openssl = 3.0.15-1", "linux-image >> 6.1.10-1"}, nil,
			[]string{"required-packages: sudo is required and not installed",
				"required-packages: openssh-server >= 1:9.2p1-2+deb12u10 is required, 1:9.2p1-2+deb12u2 is installed",
				"required-packages: openssl << 3.0.15-1~deb12u1 is required, 3.0.15-1~deb12u1 is installed",
				"required-packages: openssl = 3.0.15-1 is required, 3.0.15-1~deb12u1 is installed",
				"required-packages: linux-image >> 6.1.10-1 is required, 6.1.9-1 and 6.1.10-1 is installed"}},
		{"an epoch", "debian", deb, []PackageRelation{"openssh-server >= 9.3"}, []PackageRelation{"openssh-server << 9.3"}, nil},
		{"forbidden", "debian", deb, nil, []PackageRelation{"openssl << 3.1", "linux-* << 6.1.10", "o*"},
			[]string{"forbidden-packages: openssl << 3.1 is forbidden, openssl 3.0.15-1~deb12u1 is installed",
				"forbidden-packages: linux-* << 6.1.10 is forbidden, linux-image 6.1.9-1 is installed",
				"forbidden-packages: o* is forbidden, openssh-server 1:9.2p1-2+deb12u2 is installed",
				"forbidden-packages: o* is forbidden, openssl 3.0.15-1~deb12u1 is installed"}},
		{"part of a name", "debian", deb, []PackageRelation{"ssl"}, []PackageRelation{"ssl"}, []string{"required-packages: ssl is required and not installed"}},
		{"rpm", "sles", rpm, []PackageRelation{"openssl-libs = 1:1.1.1k", "openssl-libs >= 1:1.1.1k-9.el8", "ixgbevf216-kmp-default >= 2.16.4"}, nil, nil},
		{"rpm, too old", "redhat", rpm, []PackageRelation{"openssl-libs >= 1:1.1.1k-12.el8_9", "ixgbevf216-kmp-default >= 2.16.5"}, []PackageRelation{"openssl-libs >= 3"},
			[]string{"required-packages: openssl-libs >= 1:1.1.1k-12.el8_9 is required, 1:1.1.1k-9.el8_9 is installed",
				"required-packages: ixgbevf216-kmp-default >= 2.16.5 is required, 2.16.4_k4.4.76_1-1.1 is installed",
				"forbidden-packages: openssl-libs >= 3 is forbidden, openssl-libs 1:1.1.1k-9.el8_9 is installed"}}, // by its epoch
	} {
		t.Run(test.name, func(t *testing.T) {
			d := Definition{OS: OS{Distribution: test.distribution}, Test: Test{RequiredPackages: test.required, ForbiddenPackages: test.forbidden}}
			require.NoError(t, checkPackages(test.distribution, test.required, nil))
			var got []string
			for _, f := range d.packageFindings(test.installed) {
				got = append(got, strings.TrimPrefix(f.ID, "inspection.")+": "+f.Text)
			}
			require.Equal(t, test.want, got)
		})
	}
}

// noBoot fails the test if an image is booted.
type noBoot struct{ t *testing.T }

func (n noBoot) Boot(context.Context, sandbox.Image) (*sandbox.Machine, error) {
	n.t.Error("the image was booted")
	return nil, errors.New("booted")
}

// debianOf is a factory whose builder installs packages.
func debianOf(t *testing.T, packages ...builder.Package) (*Factory, Definition) {
	f, d := embedded(t)
	d.OS = OS{Distribution: "debian", Version: "12"}
	d.TrustedKeys = []TrustedKey{{File: filepath.Join(t.TempDir(), "keys")}}
	require.NoError(t, os.WriteFile(d.TrustedKeys[0].File, []byte("keys"), 0o644))
	d.Mirrors = map[string]string{"debian": "http://mirror.example/debian"}
	d.Repositories = nil // the default
	f.Builders = []BuilderDriver{builds("good", func(ctx context.Context, s builder.Spec) (*builder.Result, error) {
		r, err := goodBuild(ctx, s)
		r.Packages = packages
		return r, err
	})}
	return f, d
}

func TestMissingPackagesStopABuildBeforeItsBoot(t *testing.T) {
	f, d := debianOf(t, builder.Package{Name: "openssh-server", Version: "1:9.2p1-2+deb12u2", Arch: "amd64"}, builder.Package{Name: "telnetd", Version: "0.17-44", Arch: "amd64"})
	f.Sandbox = noBoot{t}
	d.Test.RequiredPackages = []PackageRelation{"openssh-server >= 1:9.2p1-2+deb12u3", "sudo"}
	d.Test.ForbiddenPackages = []PackageRelation{"telnet*"}
	got := night(t, f, d)
	var blocked *GateError
	require.ErrorAs(t, got.Err, &blocked)
	require.Equal(t, StageInspect, got.Stage)
	for _, want := range []string{
		"3 findings block", "openssh-server >= 1:9.2p1-2+deb12u3 is required, 1:9.2p1-2+deb12u2 is installed",
		"sudo is required and not installed", "telnet* is forbidden, telnetd 0.17-44 is installed",
	} {
		require.Contains(t, got.Error, want)
	}
	require.Len(t, got.Findings, 3)
}

// What a builder does not list, or not truly, the booted machine shows.
func TestMissingPackagesAreFoundInTheMachine(t *testing.T) {
	ssh := builder.Package{Name: "openssh-server", Version: "1:99", Arch: "amd64"}
	for name, test := range map[string]struct {
		packages  []builder.Package
		forbidden PackageRelation
		want      string
	}{
		"no list":       {nil, "none", "openssh-server >= 1:99 is required, 1:9.2p1"},
		"a false list":  {[]builder.Package{ssh}, "none", "openssh-server >= 1:99 is required, 1:9.2p1"},
		"not on a list": {[]builder.Package{ssh}, "chrony", "chrony is forbidden, chrony 4.3"},
	} {
		t.Run(name, func(t *testing.T) {
			f, d := debianOf(t, test.packages...)
			d.Test.RequiredPackages, d.Test.ForbiddenPackages = []PackageRelation{"openssh-server >= 1:99"}, []PackageRelation{test.forbidden}
			got := night(t, f, d)
			require.Equal(t, StageTest, got.Stage, got.Error)
			require.Contains(t, got.Error, test.want)

			d.Gate.Inspection.Allow = []string{"*-packages"}
			got = night(t, f, d)
			require.Equal(t, Published, got.Result, got.Error)
			var reasons []string
			for _, finding := range got.Findings {
				reasons = append(reasons, finding.Reason)
			}
			require.Contains(t, reasons, "the gate allows it")
		})
	}
	f, d := debianOf(t)
	d.Test.ForbiddenPackages = []PackageRelation{"telnetd"}
	facts := sandboxtest.Good()
	facts["packages"] = testsuite.Fact{Output: "\n"}
	f.Sandbox = sandboxtest.Sandbox{Facts: facts}
	require.ErrorContains(t, night(t, f, d).Err, "it does not tell what is installed")
}

// A requirement that is new keeps an image from being unchanged.
func TestNewRequirementIsJudgedAtOnce(t *testing.T) {
	f, d := debianOf(t, builder.Package{Name: "sudo", Version: "1.9.13p3-1+deb12u1", Arch: "amd64"})
	require.Equal(t, Published, night(t, f, d).Result)
	require.Equal(t, Unchanged, night(t, f, d).Result)
	d.Test.RequiredPackages = []PackageRelation{"sudo >= 1.9.13p3-1+deb12u2"}
	f.Now = func() time.Time { return time.Date(2026, 11, 23, 3, 15, 7, 0, time.UTC) }
	got := night(t, f, d)
	require.Equal(t, StageInspect, got.Stage, got.Error)
	require.Contains(t, got.Error, "sudo >= 1.9.13p3-1+deb12u2 is required, 1.9.13p3-1+deb12u1 is installed")
	_, err := os.Stat(filepath.Join(f.Dir, d.Name, "latest"))
	require.NotErrorIs(t, err, fs.ErrNotExist)
}

func FuzzPackageRelation(f *testing.F) {
	for _, text := range []string{"sudo", "openssh-server >= 1:9.2p1-2+deb12u3", "a<<2", "*uvp*", "kmod-[^l]*", "a >= ", "[", "a\\"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var r PackageRelation
		if r.UnmarshalText([]byte(text)) != nil {
			return
		}
		require.Equal(t, text, string(r), "kept as written")
		name, operator, version := r.split()
		require.NotEmpty(t, name)
		require.Equal(t, operator == "", version == "")
		for _, distribution := range []string{"debian", "sles"} {
			if r.checkVersion(distribution) == nil {
				d := Definition{OS: OS{Distribution: distribution}, Test: Test{ForbiddenPackages: []PackageRelation{r}}}
				d.packageFindings([]builder.Package{{Name: "a", Version: "1"}})
			}
		}
	})
}
