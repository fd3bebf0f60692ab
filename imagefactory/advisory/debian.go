package advisory

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/internal/pkgversion"
)

// debianReleases are the tracker's names of releases.
var debianReleases = map[string]string{
	"wheezy": "7", "jessie": "8", "stretch": "9", "buster": "10", "bullseye": "11", "bookworm": "12", "trixie": "13", "forky": "14", "duke": "15", "sid": "sid",
}

// tracker reads what Debian's security tracker says of a source package.
func (d *Database) tracker(name string, data json.RawMessage) error {
	d.current().tracker(data)
	if !d.mayHave(data) && d.coversAll(data) {
		return nil
	}
	var issues map[string]struct {
		Releases map[string]struct {
			Status       string `json:"status"` // "open", "resolved", "undetermined"
			FixedVersion string `json:"fixed_version"`
			Urgency      string `json:"urgency"`
			// Repositories have the newest version that is in each: "bookworm-security".
			Repositories map[string]string `json:"repositories"`
		} `json:"releases"`
	}
	if err := json.Unmarshal(data, &issues); err != nil {
		return decodeError(err)
	}
	for id, issue := range issues {
		for codename, r := range issue.Releases {
			release, known := debianReleases[codename]
			if !known {
				continue
			}
			e := &entry{release: "debian " + release, name: name, severity: r.Urgency}
			switch {
			case r.Status == "resolved" && r.FixedVersion == "0": // no version ever was
			case r.Status == "resolved" && r.FixedVersion != "":
				e.ranges = []versions{{fixed: r.FixedVersion}}
				for _, repository := range slices.Sorted(maps.Keys(r.Repositories)) {
					if pkgversion.Deb(r.Repositories[repository], r.FixedVersion) >= 0 {
						e.repositories = append(e.repositories, repository)
					}
				}
			default: // open, or not known: no all-clear
				e.ranges = []versions{{}}
			}
			if err := d.add(id, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// coversAll reports whether the releases that a package's text may be about are known
// to be covered.
func (d *Database) coversAll(data []byte) bool {
	for codename, release := range debianReleases {
		if !d.covers["debian "+release] && bytes.Contains(data, []byte(`"`+codename+`"`)) {
			return false
		}
	}
	return true
}

// osv is what is read of an advisory (ossf.github.io/osv-schema).
type osv struct {
	ID        string        `json:"id"`
	Modified  string        `json:"modified"`
	Withdrawn string        `json:"withdrawn"`
	Aliases   []string      `json:"aliases"`
	Upstream  []string      `json:"upstream"`
	Severity  []osvSeverity `json:"severity"`
	Affected  []struct {
		Package struct {
			Ecosystem string `json:"ecosystem"` // "Debian:12"
			Name      string `json:"name"`
		} `json:"package"`
		Severity []osvSeverity `json:"severity"`
		Ranges   []struct {
			Type   string `json:"type"`
			Events []struct {
				Introduced   string `json:"introduced"`
				Fixed        string `json:"fixed"`
				LastAffected string `json:"last_affected"`
			} `json:"events"`
		} `json:"ranges"`
		Versions []string `json:"versions"`
		Specific struct {
			Urgency string `json:"urgency"`
		} `json:"ecosystem_specific"`
	} `json:"affected"`
}

type osvSeverity struct {
	Score string `json:"score"`
}

var (
	ecosystem = regexp.MustCompile(`^(Debian|Ubuntu)(?::Pro)?:([0-9.]+)(?::LTS)?$`)
	cve       = regexp.MustCompile(`^CVE-[0-9]{4}-[0-9]{4,}$`)
)

func (d *Database) osv(v *osv) error {
	if v.ID == "" {
		return errFormat
	}
	d.current().at(v.Modified)
	if v.Withdrawn != "" {
		return nil
	}
	ids := v.ids()
	for i := range v.Affected {
		a := &v.Affected[i]
		m := ecosystem.FindStringSubmatch(a.Package.Ecosystem)
		if m == nil || a.Package.Name == "" {
			continue
		}
		e := &entry{release: releaseKey(strings.ToLower(m[1]), m[2]), name: a.Package.Name, severity: a.Specific.Urgency}
		for _, s := range append(a.Severity, v.Severity...) {
			e.severity = cmp.Or(e.severity, s.Score)
		}
		for _, r := range a.Ranges {
			if r.Type != "ECOSYSTEM" {
				continue
			}
			// Each introduction opens a range that the next event of the others closes.
			for _, event := range r.Events {
				switch last := len(e.ranges) - 1; {
				case event.Introduced != "":
					e.ranges = append(e.ranges, versions{introduced: event.Introduced})
				case last < 0:
					return errFormat
				case event.Fixed != "":
					e.ranges[last].fixed = event.Fixed
				case event.LastAffected != "":
					e.ranges[last].last = event.LastAffected
				}
			}
		}
		if len(e.ranges) == 0 {
			for _, version := range a.Versions {
				e.ranges = append(e.ranges, versions{introduced: version, last: version})
			}
		}
		for _, id := range ids {
			if err := d.add(id, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// ids are the advisory's own and those of the vulnerabilities that it is about.
func (v *osv) ids() []string {
	out := []string{v.ID}
	seen := map[string]bool{v.ID: true}
	add := func(id string) {
		if !seen[id] {
			out, seen[id] = append(out, id), true
		}
	}
	if _, id, ok := strings.Cut(v.ID, "-"); ok && cve.MatchString(id) { // DEBIAN-CVE-…, UBUNTU-CVE-…
		add(id)
	}
	for _, list := range [][]string{v.Aliases, v.Upstream} {
		for _, id := range list {
			if cve.MatchString(id) {
				add(id)
			}
		}
	}
	return out
}

// origin is a source package that an installed package was made of.
type origin struct{ name, version string }

// origins are the package's source and, where that only signs what another source
// made, that one too: advisories name it, with its own version.
func (p Package) origins() []origin {
	name, version := cmp.Or(p.Source, p.Name), cmp.Or(p.SourceVersion, p.Version)
	out := []origin{{name, version}}
	switch {
	case strings.HasPrefix(name, "linux-signed-"): // 6.1.115+1 is linux 6.1.115-1
		out = append(out, origin{"linux", strings.Replace(version, "+", "-", 1)})
	case name == "linux-signed": // Ubuntu's, which has linux' version
		out = append(out, origin{"linux", version})
	case strings.HasPrefix(name, "grub-efi-") && strings.HasSuffix(name, "-signed"): // 1+2.06+13 is grub2 2.06-13
		_, version, _ = strings.Cut(version, "+")
		out = append(out, origin{"grub2", strings.Replace(version, "+", "-", 1)})
	case name == "shim-signed": // 1.44+15.8-1 is shim 15.8-1
		out = append(out, origin{"shim", version[strings.LastIndexByte(version, '+')+1:]})
	}
	return out
}
