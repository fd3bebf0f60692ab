package sbom_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory/sbom"
)

const dep5 = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: x\n"

func TestReadCopyright(t *testing.T) {
	files := func(licences ...string) string {
		text := dep5
		for _, l := range licences {
			text += "\nFiles: *\nCopyright: 2026 x\nLicense: " + l + "\n This is\n .\n its text.\n"
		}
		return text + "\nLicense: GPL-3+\n the text of what others name\n"
	}
	for text, want := range map[string]string{
		"": "", "This is free software.\nLicense: GPL-2": "",
		dep5:                                              "",
		files("GPL-2+"):                                   "GPL-2.0-or-later",
		files("GPL-2.0+", "LGPL-2.1"):                     "GPL-2.0-or-later AND LGPL-2.1-only",
		files("Expat", "expat", "MIT"):                    "MIT",
		files("GPL-1+ or Artistic"):                       "GPL-1.0-or-later OR Artistic-1.0-Perl",
		files("ISC", "GPL-1+ or BSD-3-clause"):            "(GPL-1.0-or-later OR BSD-3-Clause) AND ISC",
		files("REGCOMP, and GPL-1+ or Artistic"):          "LicenseRef-Debian-REGCOMP AND (GPL-1.0-or-later OR Artistic-1.0-Perl)",
		files("GPL-2 and ISC or Expat"):                   "(GPL-2.0-only AND ISC) OR MIT",
		files("GPL-3+ with Bison exception"):              "LicenseRef-Debian-GPL-3-or-later-with-Bison-exception",
		files("GFDL-NIV-1.3+", "public-domain", "GPL-9+"): "GFDL-1.3-no-invariants-or-later AND LicenseRef-Debian-GPL-9-or-later AND LicenseRef-Debian-public-domain",
		files("+++"):                                      "LicenseRef-Debian-or-later-or-later-or-later", files("§"): "",
		"Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nLicense: Apache-2.0\n": "Apache-2.0",
	} {
		require.Equal(t, want, sbom.ReadCopyright(text), "%s", text)
	}
}

// One package cannot fill a list with licences.
func TestReadCopyrightOfEndlessLicences(t *testing.T) {
	text := strings.Builder{}
	text.WriteString(dep5)
	for i := 0; text.Len() < 1<<20; i++ {
		fmt.Fprintf(&text, "\nFiles: *\nLicense: l%d\n", i)
	}
	require.Empty(t, sbom.ReadCopyright(text.String()))
	require.Empty(t, sbom.ReadCopyright(dep5+"\nFiles: *\nLicense: "+strings.Repeat("a and ", 10_000)+"a\n"))
}

// What this machine's packages say is read, and is an expression in the list.
func TestReadCopyrightOfThisMachine(t *testing.T) {
	all, err := filepath.Glob("/usr/share/doc/*/copyright")
	require.NoError(t, err)
	if len(all) == 0 {
		t.Skip("this machine has no copyright files of Debian's packages")
	}
	known, readable := 0, 0
	for _, name := range all {
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		if !strings.Contains(string(data), "copyright-format/1.0") {
			continue
		}
		readable++
		image := example()
		if image.Packages[0].Licence = sbom.ReadCopyright(string(data)); image.Packages[0].Licence == "" {
			continue
		}
		known++
		require.Regexp(t, expression, image.Packages[0].Licence, name)
		require.Contains(t, string(written(t, image)), `"expression"`, name)
	}
	require.GreaterOrEqual(t, known, readable*9/10)
}

var expression = regexp.MustCompile(`^\(*[A-Za-z0-9.-]+\)*( (AND|OR) \(*[A-Za-z0-9.-]+\)*)*$`)

func FuzzReadCopyright(f *testing.F) {
	f.Add(dep5 + "\nFiles: *\nLicense: GPL-2+ or (MIT, and ISC)\n")
	f.Add(dep5 + "License: a or and b, , c\n")
	f.Fuzz(func(t *testing.T, text string) {
		image := example()
		image.Packages[0].Licence = sbom.ReadCopyright(text)
		read, err := sbom.Read(bytes.NewReader(written(t, image)))
		require.NoError(t, err)
		require.Equal(t, image, read)
	})
}
