package kiwi

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// testValues are values for a description that names the mirror "debian".
func testValues() values {
	return values{name: "Test", version: "1.2.3", diskBytes: 4 << 30, mirror: func(name string) (string, error) {
		if name != "debian" {
			return "", errors.New("no mirror of that name")
		}
		return "http://mirror.example.org/debian/", nil
	}}
}

const smallDescription = `<?xml version="1.0"?>
<image schemaversion="7.5" name="small">
  <profiles><profile name="Disk" description="d"/></profiles>
  <preferences>
    <version>0.0.0</version>
    <packagemanager>apt</packagemanager>
    <rpm-check-signatures>false</rpm-check-signatures>
    <type image="oem" format="qcow2"><size unit="G">1</size></type>
  </preferences>
  <users><user name="root" password="!"/></users>
  <repository type="apt-deb" repository_gpgcheck="false" package_gpgcheck="false"><source path="{debian}/more"/></repository>
  <packages type="image"><package name="a"/></packages>
</image>
`

func TestRender(t *testing.T) {
	v := testValues()
	v.profiles = []string{"Disk"}
	out, sum, err := render([]byte(smallDescription), v)
	require.NoError(t, err)
	require.Equal(t, summary{manager: "apt", repositories: []repository{{mirror: "debian", path: "more", kind: "apt-deb"}}}, sum)
	for _, want := range []string{
		`<image schemaversion="7.5" name="Test">`,
		"<version>1.2.3</version><rpm-check-signatures>true</rpm-check-signatures>",
		`<type image="oem" format="qcow2"><size unit="M">4096</size></type>`,
		`<repository type="apt-deb" repository_gpgcheck="true" package_gpgcheck="true"><source path="http://mirror.example.org/debian/more"></source>`,
	} {
		require.Contains(t, string(out), want)
	}
	require.NotContains(t, string(out), "false")
}

func TestRenderRefuses(t *testing.T) {
	for name, test := range map[string]struct{ old, new, want string }{
		"foreign repository":   {`{debian}/more`, `http://other.example.org/`, "line 11: <source>: a foreign repository"},
		"build service":        {`{debian}/more`, `obs://x/y`, "a foreign repository"},
		"other repositories":   {`{debian}/more`, `obsrepositories:/`, "a foreign repository"},
		"directory":            {`{debian}/more`, `dir:///srv`, "a foreign repository"},
		"out of the mirror":    {`{debian}/more`, `{debian}/../x`, "a foreign repository"},
		"unknown mirror":       {`{debian}/more`, `{other}/more`, "no mirror of that name"},
		"key of its own":       {`<source path="{debian}/more"/>`, `<source path="{debian}"><signing key="file:///x"/></source>`, "<signing> is not allowed"},
		"password in it":       {`repository_gpgcheck="false"`, `username="u" password="p"`, "password= of <repository> is not allowed"},
		"customized":           {`repository_gpgcheck="false"`, `customize="x"`, "customize= of <repository>"},
		"stays registered":     {`repository_gpgcheck="false"`, `imageinclude="true"`, "imageinclude= of <repository>"},
		"only registered":      {`repository_gpgcheck="false"`, `imageonly="true"`, "imageonly= of <repository>"},
		"not a disk":           {`image="oem"`, `image="iso"`, `want image="oem"`},
		"another format":       {`format="qcow2"`, `format="vmdk"`, `format="qcow2"`},
		"from an image":        {`format="qcow2"`, `format="qcow2" derived_from="file:///x"`, "derived_from="},
		"an installer":         {`format="qcow2"`, `format="qcow2" installiso="true"`, "installiso="},
		"root's tarball":       {`type="image"`, `type="bootstrap" bootstrap_package="x"`, "bootstrap_package="},
		"archive elsewhere":    {`<package name="a"/>`, `<archive name="../../etc/shadow"/>`, "<archive>: want the name of a file"},
		"archive from the net": {`<package name="a"/>`, `<archive name="http://x/y.tar"/>`, "<archive>"},
		"a file elsewhere":     {`<package name="a"/>`, `<file name="/etc/shadow"/>`, "<file>"},
		"a container":          {`<packages`, `<containers backend="docker"/><packages`, "<containers> is not allowed"},
		"another file":         {`<packages`, `<include from="file:///etc/x"/><packages`, "<include> is not allowed"},
		"a user's password":    {`password="!"`, `password="$6$abc"`, "a password does not belong"},
		"document type":        {`<image`, `<!DOCTYPE image [<!ENTITY x SYSTEM "file:///etc/shadow">]><image`, "document type"},
		"an entity":            {`name="a"`, `name="&x;"`, "not well-formed XML: line 12"},
		"a namespace":          {`<repository`, `<x:repository`, "namespaces are not allowed"},
		"another namespace":    {`<packages`, `<packages xmlns="urn:x"`, "namespaces are not allowed"},
		"no end":               {`</image>`, ``, "not well-formed XML"},
		"package manager":      {`>apt<`, `>pacman<`, "<packagemanager>: want one of"},
		"no version":           {`<version>0.0.0</version>`, ``, "no <version>"},
		"two versions":         {`<version>`, `<version>1</version><version>`, "more than one <version>"},
		"no repository":        {`<source path="{debian}/more"/>`, ``, "no <source>"},
		"no such profile":      {`<profile name="Disk"`, `<profile name="Other"`, `no profile "Disk"`},
		"deep":                 {`<packages`, strings.Repeat("<a>", 40) + `<packages`, "nested deeper"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, smallDescription, test.old)
			v := testValues()
			v.profiles = []string{"Disk"}
			_, _, err := render([]byte(strings.Replace(smallDescription, test.old, test.new, 1)), v)
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "$6$abc")
		})
	}
	_, _, err := render(make([]byte, maxDescription+1), testValues())
	require.ErrorContains(t, err, "more than")
}

// FuzzRender holds what is accepted to the promise that only the mirrors are
// built from, with signatures checked.
func FuzzRender(f *testing.F) {
	f.Add([]byte(smallDescription))
	files, _ := filepath.Glob(nightly + "/kiwi/*/config.xml")
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v := testValues()
		v.mirror = func(name string) (string, error) { return "{" + name + "}", nil }
		out, _, err := render(data, v)
		if err != nil {
			return
		}
		again, _, err := render(out, v)
		if err != nil {
			t.Fatalf("what was written is refused: %v", err)
		}
		if strings.Contains(string(again), `gpgcheck="false"`) {
			t.Fatal("signatures are not checked")
		}
	})
}
