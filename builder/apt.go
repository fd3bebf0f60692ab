package builder

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// AptMirrors reads where a Debian machine gets its packages from: its
// /etc/os-release, /etc/apt/sources.list and /etc/apt/sources.list.d below
// fsys (os.DirFS("/") for this machine). The result has "debian", the mirror of
// the machine's own release, and "debian-security" where one is configured.
// Both formats of sources.list(5) are read, and lists of mirrors (mirror+file:,
// apt-transport-mirror(1)); options are ignored.
func AptMirrors(fsys fs.FS) (map[string]string, error) {
	release, err := osRelease(fsys)
	if err != nil {
		return nil, fmt.Errorf("cannot take Debian's mirror from this machine: %w", err)
	}
	if release["ID"] != "debian" || release["VERSION_CODENAME"] == "" {
		return nil, fmt.Errorf("cannot take Debian's mirror from this machine: it runs %q; name the mirror's URL", release["ID"])
	}
	suites, err := aptSuites(fsys)
	if err != nil {
		return nil, fmt.Errorf("cannot take Debian's mirror from this machine: %w", err)
	}
	codename := release["VERSION_CODENAME"]
	mirror, ok := suites[codename]
	if !ok {
		return nil, fmt.Errorf("cannot take Debian's mirror from this machine: no apt source has the suite %s; name the mirror's URL", codename)
	}
	mirrors := map[string]string{"debian": mirror}
	if s, ok := suites[codename+"-security"]; ok {
		mirrors["debian-security"] = s
	}
	return mirrors, nil
}

func osRelease(fsys fs.FS) (map[string]string, error) {
	data, err := fs.ReadFile(fsys, "etc/os-release")
	if errors.Is(err, fs.ErrNotExist) {
		data, err = fs.ReadFile(fsys, "usr/lib/os-release")
	}
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			values[k] = strings.Trim(v, `"'`)
		}
	}
	return values, nil
}

// aptSuites maps each suite of the machine's binary package sources to the
// first URL that has it.
func aptSuites(fsys fs.FS) (map[string]string, error) {
	suites := map[string]string{}
	add := func(url, suite string) {
		if list, ok := strings.CutPrefix(url, "mirror+file:"); ok {
			url = firstMirror(fsys, list)
		}
		if _, ok := suites[suite]; !ok && (strings.HasPrefix(url, "http") || strings.HasPrefix(url, "file:")) {
			suites[suite] = strings.TrimRight(url, "/")
		}
	}
	files, err := fs.Glob(fsys, "etc/apt/sources.list.d/*")
	if err != nil {
		return nil, err
	}
	for _, name := range append([]string{"etc/apt/sources.list"}, files...) {
		data, err := fs.ReadFile(fsys, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		switch path.Ext(name) {
		case ".list":
			oneLineSources(string(data), add)
		case ".sources":
			deb822Sources(string(data), add)
		}
	}
	return suites, nil
}

// firstMirror is the first URL in a list of mirrors, or "".
func firstMirror(fsys fs.FS, list string) string {
	data, err := fs.ReadFile(fsys, strings.TrimLeft(list, "/"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 0 && !strings.HasPrefix(f[0], "#") {
			return f[0]
		}
	}
	return ""
}

// oneLineSources reads `deb [options] URL suite component…` lines.
func oneLineSources(text string, add func(url, suite string)) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb")
		if !ok || strings.TrimLeft(rest, " \t[") == rest {
			continue
		}
		if rest = strings.TrimSpace(rest); strings.HasPrefix(rest, "[") {
			_, rest, _ = strings.Cut(rest, "]")
		}
		if f := strings.Fields(rest); len(f) >= 2 {
			add(f[0], f[1])
		}
	}
}

// deb822Sources reads stanzas of Types, URIs and Suites.
func deb822Sources(text string, add func(url, suite string)) {
	fields := map[string][]string{}
	flush := func() {
		enabled := !slices.Equal(fields["enabled"], []string{"no"})
		if enabled && slices.Contains(fields["types"], "deb") {
			for _, u := range fields["uris"] {
				for _, s := range fields["suites"] {
					add(u, s)
				}
			}
		}
		clear(fields)
	}
	key := ""
	for sc := bufio.NewScanner(strings.NewReader(text)); sc.Scan(); {
		line := sc.Text()
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			flush()
		case line[0] == ' ' || line[0] == '\t':
			fields[key] = append(fields[key], strings.Fields(line)...)
		default:
			k, v, _ := strings.Cut(line, ":")
			key = strings.ToLower(k)
			fields[key] = strings.Fields(v)
		}
	}
	flush()
}
