package sbom

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"slices"
	"strings"
)

// ReadDpkg reads the packages that dpkg's status file calls installed, sorted by
// name and architecture. What a package needs is the first alternative of each of
// its Depends and Pre-Depends that is installed, or provided by what is installed.
// The licence is not in there. A package without name, version or architecture, or
// one that is there twice, is an error.
func ReadDpkg(r io.Reader) ([]Package, error) {
	stanzas, err := dpkgStanzas(io.LimitReader(r, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read dpkg's status: %w", err)
	}
	var packages []Package
	seen := map[string]bool{}
	needs := map[string]string{}         // ID to the text of what it needs
	providers := map[string][]*Package{} // by name
	for n, s := range stanzas {
		if f := strings.Fields(s["Status"]); len(f) != 3 || f[2] == "not-installed" || f[2] == "config-files" {
			continue
		}
		p := Package{Name: s["Package"], Version: s["Version"], Arch: s["Architecture"], Creator: maintainer(s["Maintainer"])}
		if !word(p.Name) || !word(p.Version) || !word(p.Arch) {
			return nil, fmt.Errorf("cannot read dpkg's status: installed package %d has no name, version or architecture", n+1)
		}
		key := p.Name + ":" + p.Arch
		if seen[key] {
			return nil, fmt.Errorf("cannot read dpkg's status: package %.100q is there twice", key)
		}
		seen[key] = true
		p.Source, p.SourceVersion = source(s["Source"], p)
		needs[p.ID()] = s["Pre-Depends"] + "," + s["Depends"]
		packages = append(packages, p)
	}
	if len(packages) == 0 {
		return nil, errors.New("cannot read dpkg's status: no package is installed")
	}
	slices.SortFunc(packages, func(a, b Package) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Arch, b.Arch))
	})
	for i := range packages {
		providers[packages[i].Name] = append(providers[packages[i].Name], &packages[i])
	}
	for _, s := range stanzas {
		for provided := range strings.SplitSeq(s["Provides"], ",") {
			name := dependencyName(provided)
			for _, p := range providers[s["Package"]] {
				if name != "" && p.Arch == s["Architecture"] && !slices.Contains(providers[name], p) {
					providers[name] = append(providers[name], p)
				}
			}
		}
	}
	for i := range packages {
		packages[i].Needs = resolve(needs[packages[i].ID()], packages[i].Arch, providers)
	}
	return packages, nil
}

// resolve chooses what satisfies each of the dependencies.
func resolve(text, arch string, providers map[string][]*Package) []string {
	var out []string
	for clause := range strings.SplitSeq(text, ",") {
		for alternative := range strings.SplitSeq(clause, "|") {
			found := providers[dependencyName(alternative)]
			if len(found) == 0 {
				continue
			}
			chosen := found[0]
			for _, p := range found {
				if p.Arch == arch {
					chosen = p
					break
				}
			}
			out = append(out, chosen.ID())
			break
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// dependencyName is that of "name:any (>= 1.2) [arch]".
func dependencyName(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), " ")
	s, _, _ = strings.Cut(s, "(")
	s, _, _ = strings.Cut(s, ":")
	return s
}

// source is "name" or "name (version)"; what is not said is as the package's own.
func source(field string, p Package) (name, version string) {
	name, version, _ = strings.Cut(field, " ")
	version = strings.Trim(strings.TrimSpace(version), "()")
	return cmp.Or(name, p.Name), cmp.Or(version, p.Version)
}

func maintainer(field string) Creator {
	a, err := mail.ParseAddress(field)
	if err != nil {
		// A name with a comma and the like, which Debian does not quote.
		name, rest, _ := strings.Cut(field, "<")
		if a, err = mail.ParseAddress(strings.TrimSuffix(rest, ">")); err != nil {
			return Creator{}
		}
		a.Name = strings.TrimSpace(name)
	}
	if again, err := mail.ParseAddress(a.Address); err != nil || again.Address != a.Address {
		return Creator{} // it can only be written in quotes
	}
	return Creator{Name: a.Name, Email: a.Address}
}

// word reports whether s is printable ASCII without spaces, as names and versions are.
func word(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// dpkgFields are those that are kept.
var dpkgFields = []string{"Package", "Status", "Version", "Architecture", "Source", "Maintainer", "Pre-Depends", "Depends", "Provides"}

// dpkgStanzas reads fields in paragraphs. Fields that matter here are of one line.
func dpkgStanzas(r io.Reader) ([]map[string]string, error) {
	var out []map[string]string
	stanza := map[string]string{}
	end := func() {
		if len(stanza) > 0 {
			out, stanza = append(out, stanza), map[string]string{}
		}
	}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	read := 0
	for sc.Scan() {
		line := sc.Text()
		if read += len(line) + 1; read > maxBytes || len(out) > maxComponents {
			return nil, errTooLarge
		}
		if line == "" {
			end()
		} else if name, value, ok := strings.Cut(line, ":"); ok && slices.Contains(dpkgFields, name) {
			stanza[name] = strings.TrimSpace(value)
		}
	}
	end()
	return out, sc.Err()
}
